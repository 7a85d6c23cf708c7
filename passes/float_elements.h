// The elements of a float tensor, to be read once.

#pragma once

#include <span>
#include <vector>

#include "model/tensor.h"
#include "passes/weights.h"

namespace pared {

// As float, as long as this and the tensor live: where they lie, or a copy where they are of
// another type or lie unaligned in a mapped file. Tensor::data() would keep such a copy for as long
// as the model.
class FloatElements {
 public:
  explicit FloatElements(const Tensor& tensor) {
    const std::span<const std::byte> bytes = tensor.bytes();
    const bool is_aligned = reinterpret_cast<uintptr_t>(bytes.data()) % alignof(float) == 0;
    if (tensor.dtype() == DType::kFloat32 && is_aligned) {
      values_ = tensor.data<float>();
    } else {
      copy_ = ToFloat(tensor);
      values_ = copy_;
    }
  }
  FloatElements(FloatElements&&) = default;

  std::span<const float> get() const { return values_; }

 private:
  std::vector<float> copy_;
  std::span<const float> values_;
};

}  // namespace pared
