// Folds what follows a convolution and is linear in each channel into its weight and bias.

#pragma once

#include <functional>
#include <string>
#include <vector>

#include "model/graph.h"

namespace pared {

struct FoldNote {
  std::string node, reason;  // reason empty: folded
};

// BatchNormalization after Conv, ConvTranspose or Gemm. `keep` selects nodes to leave alone.
//
// Before:  c = Conv(x, w, b)  y = BatchNormalization(c, s, t, m, v)     After:  y = Conv(x, w', b')
// Declines where c has another reader or is an output, where w, b, s, t, m or v is no constant of
// the same graph, and where the node trains (training_mode, or its other outputs are read).
std::vector<FoldNote> FoldBatchNorm(Model& model, const std::function<bool(const Node&)>& keep);

// Before:  c = Conv(x, w)  y = Add(c, b)     After:  y = Conv(x, w, b)
// where b is a constant that is one number, or one for each channel.
std::vector<FoldNote> FoldBias(Model& model, const std::function<bool(const Node&)>& keep);

// alpha of a Gemm moves into its weight: y = (alpha A) B.
void FoldAlpha(Model& model, const std::function<bool(const Node&)>& keep);

}  // namespace pared
