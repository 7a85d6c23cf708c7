// The activations of recurrent layers, as their attributes name them.

#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "kernels/f32.h"
#include "model/graph.h"

namespace pared {

// In place.
using Gate = std::function<void(float* x, int64_t count)>;

// `activations` of the node, or `defaults` for each direction, with the parameters that are given
// in order to those that take them: by direction. Throws kInvalidArgument where they do not fit the
// directions, kUnsupported for a name that ONNX does not have.
std::vector<std::vector<Gate>> ReadGates(const Node& node, const std::vector<std::string>& defaults,
                                         int64_t directions, const F32Kernels& kernels);

}  // namespace pared
