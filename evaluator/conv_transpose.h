// ConvTranspose as a GEMM whose columns are added into the output (col2im).

#pragma once

#include "evaluator/ops.h"
#include "evaluator/window.h"

namespace pared {

Op PrepareConvTranspose(const Node& node, const OpContext& context);

// Adds columns[tap][position], the inputs' contributions, into one channel of the output.
// `window.in` counts the positions, `window.out` the channel's extent.
template <class T>
void AddColumns(const Window& window, const T* columns, T* y) {
  for (int64_t tap = 0; tap < window.taps(); ++tap) {
    const Axes3 k = {tap / window.kernel[2] / window.kernel[1],
                     tap / window.kernel[2] % window.kernel[1], tap % window.kernel[2]};
    Axes3 shift;
    for (size_t d = 0; d < 3; ++d) shift[d] = k[d] * window.dilation[d] - window.pad_begin[d];
    const T* from = columns + tap * window.in_count();
    for (int64_t row = 0; row < window.in[0] * window.in[1]; ++row, from += window.in[2]) {
      const int64_t oz = row / window.in[1] * window.stride[0] + shift[0];
      const int64_t oy = row % window.in[1] * window.stride[1] + shift[1];
      if (oz < 0 || oz >= window.out[0] || oy < 0 || oy >= window.out[1]) continue;
      T* to = y + (oz * window.out[1] + oy) * window.out[2];
      for (int64_t x = 0; x < window.in[2]; ++x) {
        const int64_t ox = x * window.stride[2] + shift[2];
        if (ox >= 0 && ox < window.out[2]) to[ox] += from[x];
      }
    }
  }
}

}  // namespace pared
