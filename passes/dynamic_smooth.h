// Smoothing (int8_smooth.h) ahead of quantize_dynamic.

#pragma once

#include <unordered_set>

#include "passes/int8_smooth.h"
#include "passes/pass.h"

namespace pared {

// What moves the spread of channels into the weights of the MatMul and Gemm nodes that are not
// excluded: factors from the calibration data, by what they save these products. No values: nothing
// gains.
Smoothing SmoothProducts(const Model& model, const std::unordered_set<const Node*>& excluded,
                         PassContext& context);

}  // namespace pared
