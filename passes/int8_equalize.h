// Scales the channels between two convolutions so that they use the range of INT8 alike.
//
// Before:  y = Conv(Relu(Conv(x, w1, b1)), w2, b2)
// After:   y = Conv(Relu(Conv(x, w1 / s, b1 / s)), w2 s, b2)        s > 0 by channel between
//
// The result is the same in float wherever what stands between commutes with s: Relu, LeakyRelu,
// pools, Identity. A Clip with a bound, as ReLU6, does not: it would need a bound by channel.

#pragma once

#include <vector>

#include "passes/int8_choice.h"

namespace pared {

struct Equalization {
  Model model;
  std::vector<std::string> pairs;    // the nodes whose outputs were scaled, in graph order
  std::vector<SkippedNode> skipped;  // convolutions before another one, and what forbids it
};

// By the largest weights on both sides (Nagel et al., Data-free quantization through weight
// equalization and bias correction, 2019): s = sqrt(r1 / r2), over all pairs until little changes.
Equalization EqualizeInt8(const Int8ChoiceContext& context, const Int8Choice& choice);

}  // namespace pared
