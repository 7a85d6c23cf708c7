// A constant with its axes in another order.

#pragma once

#include <cstdint>
#include <vector>

#include "model/tensor.h"

namespace pared {

// Axis i of the result is axis order[i] of the tensor, whose elements have 8 bits or more.
Tensor Permuted(const Tensor& tensor, const std::vector<int64_t>& order);

}  // namespace pared
