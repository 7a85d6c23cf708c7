// Float tensors and their elements.

#pragma once

#include <span>
#include <utility>
#include <vector>

#include "model/tensor.h"

namespace pared {

inline Tensor Floats(Shape shape, std::vector<float> values) {
  return Tensor::Make<float>(std::move(shape), std::move(values));
}

inline std::vector<float> ValuesOf(const Tensor& tensor) {
  const std::span<const float> data = tensor.data<float>();
  return {data.begin(), data.end()};
}

}  // namespace pared
