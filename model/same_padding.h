// How TensorFlow pads where it is told SAME.

#pragma once

#include <algorithm>
#include <cstdint>

namespace pared {

// Elements before and after together, so that there are ceil(size / stride) outputs.
// Source: the documentation of tf.nn.convolution.
inline int64_t SamePadding(int64_t size, int64_t kernel, int64_t stride, int64_t dilation) {
  const int64_t covered = (kernel - 1) * dilation + 1;
  const int64_t outputs = (size + stride - 1) / stride;
  return std::max<int64_t>((outputs - 1) * stride + covered - size, 0);
}

}  // namespace pared
