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

// BatchNormalization after Conv, ConvTranspose or Gemm; after the first two also Add, Sub, Mul and
// Div with a float32 constant of one number, or one for each channel. `keep` selects nodes to leave
// alone. Of what is not folded only BatchNormalization has a note.
//
// Before:  c = Conv(x, w, b)  y = BatchNormalization(c, s, t, m, v)     After:  y = Conv(x, w', b')
// Before:  c = Conv(x, w)  m = Mul(c, s)  y = Add(m, b)                 After:  y = Conv(x, s w, b)
// Declines where c has another reader or is an output, where w, b, s, t, m or v is no constant of
// the same graph, and where the node trains (training_mode, or its other outputs are read).
std::vector<FoldNote> FoldAffine(Model& model, const std::function<bool(const Node&)>& keep);

// alpha of a Gemm moves into its weight: y = (alpha A) B.
void FoldAlpha(Model& model, const std::function<bool(const Node&)>& keep);

}  // namespace pared
