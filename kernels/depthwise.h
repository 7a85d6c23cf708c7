// INT8 depthwise convolution: each output channel reads one input channel.

#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "kernels/gemm.h"
#include "kernels/im2col.h"

namespace pared {

struct DepthwiseWeights {
  // Of the input; output channel c reads input channel c / multiplier.
  ConvGeometry geometry;
  int64_t multiplier = 1;
  std::span<const int8_t> values;  // [channels * multiplier][kernel_height * kernel_width]
  GemmEpilogue epilogue;           // [channels * multiplier], as for a GEMM of k = kernel positions
};

// Immutable; Run may be called by many threads at once.
class PackedDepthwise {
 public:
  virtual ~PackedDepthwise() = default;
  // Of the padded input image: see Im2col, whose Pad* fill it.
  virtual const Im2col& im2col() const = 0;
  // Output channels [begin, end) of output tile `tile`. y: [tiles][m][64] of the output's type,
  // m = channels * multiplier. `scratch` has scratch_bytes(), 64-byte aligned.
  struct Range {
    int64_t tile, begin, end;
  };
  virtual void Run(const uint8_t* image, const Range& range, void* y,
                   std::byte* scratch) const noexcept = 0;
  virtual size_t scratch_bytes() const = 0;
  virtual const char* kernel_name() const = 0;
};

std::unique_ptr<PackedDepthwise> PackDepthwise(const DepthwiseWeights& weights, Isa isa);

}  // namespace pared
