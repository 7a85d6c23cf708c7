// One-dimensional convolutions that TensorFlow's exporters spell with two dimensions.

#pragma once

#include <functional>
#include <string>
#include <vector>

#include "model/graph.h"

namespace pared {

// Before:  u = Unsqueeze(x, [2])  c = Conv(u, w)  y = Squeeze(c, [2])       w [m, c, 1, k]
// After:   y = Conv(x, w')                                                  w' [m, c, k]
//
// What follows, a bias or an activation, then follows the convolution itself. Declines where c has
// another reader or is an output, where w is no float32 constant whose length along that axis is 1,
// and where that axis is padded. `keep` selects convolutions to leave alone. Opset 13 or later.
// Returns the convolutions that were rewritten.
std::vector<std::string> DropUnitAxes(Model& model, const std::function<bool(const Node&)>& keep);

}  // namespace pared
