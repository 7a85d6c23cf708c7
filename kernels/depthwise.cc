#include "kernels/depthwise.h"

#include <vector>

#include "base/check.h"
#include "kernels/depthwise_avx512.h"
#include "kernels/kernels.h"
#include "kernels/reference.h"

namespace pared {
namespace {

class ReferenceDepthwise final : public PackedDepthwise {
 public:
  ReferenceDepthwise(const DepthwiseWeights& weights, Isa isa)
      : im2col_(weights.geometry, isa),
        multiplier_(weights.multiplier),
        channels_(weights.geometry.channels * weights.multiplier),
        positions_(weights.geometry.kernel_height * weights.geometry.kernel_width),
        values_(weights.values.begin(), weights.values.end()),
        epilogue_(weights.epilogue) {
    PARED_CHECK(static_cast<int64_t>(values_.size()) == channels_ * positions_);
  }

  const Im2col& im2col() const override { return im2col_; }

  void Run(const uint8_t* image, const Range& range, void* y,
           std::byte* scratch) const noexcept override {
    uint8_t* rows = reinterpret_cast<uint8_t*>(scratch);
    for (int64_t c = range.begin; c < range.end; ++c) {
      const int64_t source = c / multiplier_;
      im2col_.GatherChannels(image, range.tile, source, source + 1, rows);
      for (int64_t n = 0; n < 64; ++n) {
        int32_t acc = epilogue_.bias[static_cast<size_t>(c)];
        for (int64_t p = 0; p < positions_; ++p) {
          acc += values_[static_cast<size_t>(c * positions_ + p)] * rows[p * 64 + n];
        }
        StoreOne(acc, c, epilogue_, y, (range.tile * channels_ + c) * 64 + n);
      }
    }
  }
  size_t scratch_bytes() const override { return static_cast<size_t>(positions_) * 64 + 64; }
  const char* kernel_name() const override { return "depthwise_reference"; }

 private:
  Im2col im2col_;
  int64_t multiplier_, channels_, positions_;
  std::vector<int8_t> values_;
  GemmEpilogue epilogue_;
};

// Each channel is a GEMM of one row over its gathered kernel positions.
struct DepthwiseKernel {
  const char* name;
  DenseRow row;
  int64_t group;
  bool signed_input = false;  // multiplies x - 128
};

class VectorDepthwise final : public PackedDepthwise {
 public:
  VectorDepthwise(const DepthwiseWeights& weights, const DepthwiseKernel& kernel, Isa isa)
      : im2col_(weights.geometry, isa),
        multiplier_(weights.multiplier),
        channels_(weights.geometry.channels * weights.multiplier),
        positions_(weights.geometry.kernel_height * weights.geometry.kernel_width),
        kernel_(kernel),
        values_(PackDensePanels(MatrixOf(weights), kernel.group, {1})),
        epilogue_(kernel.signed_input ? SignedInputEpilogue(MatrixOf(weights)) : weights.epilogue,
                  channels_) {
    PARED_CHECK(static_cast<int64_t>(weights.values.size()) == channels_ * positions_);
  }

  const Im2col& im2col() const override { return im2col_; }

  void Run(const uint8_t* image, const Range& range, void* y,
           std::byte* scratch) const noexcept override {
    const EpilogueView e = epilogue_.view();
    uint8_t* rows = reinterpret_cast<uint8_t*>(scratch);
    const int64_t row_bytes = (positions_ + kernel_.group - 1) / kernel_.group * 4;
    std::byte* tile =
        static_cast<std::byte*>(y) + range.tile * channels_ * 64 * OutputBytes(e.output);
    for (int64_t c = range.begin; c < range.end; ++c) {
      // Channels that share an input channel share its rows.
      const int64_t source = c / multiplier_;
      if (c == range.begin || c % multiplier_ == 0) {
        im2col_.GatherChannels(image, range.tile, source, source + 1, rows);
      }
      kernel_.row(rows, values_.data() + c * row_bytes, positions_, e, c, tile);
    }
  }
  size_t scratch_bytes() const override { return static_cast<size_t>(positions_) * 64 + 64; }
  const char* kernel_name() const override { return kernel_.name; }

 private:
  // A row for each output channel.
  static GemmWeights MatrixOf(const DepthwiseWeights& weights) {
    return {.m = weights.geometry.channels * weights.multiplier,
            .k = weights.geometry.kernel_height * weights.geometry.kernel_width,
            .values = weights.values,
            .epilogue = weights.epilogue};
  }

  Im2col im2col_;
  int64_t multiplier_, channels_, positions_;
  DepthwiseKernel kernel_;
  AlignedBuffer<int8_t> values_;
  PackedEpilogue epilogue_;
};

}  // namespace

std::unique_ptr<PackedDepthwise> PackDepthwise(const DepthwiseWeights& weights, Isa isa) {
  const auto vector = [&](const DepthwiseKernel& kernel) {
    return std::make_unique<VectorDepthwise>(weights, kernel, isa);
  };
  if constexpr (kOnAarch64) {
    if (isa == Isa::kNeonI8mm) return vector({"depthwise_neon_i8mm", DenseRowNeonI8mm, 4});
    if (isa == Isa::kNeonDot) return vector({"depthwise_neon_dot", DenseRowNeonDot, 4, true});
  }
  if constexpr (kOnX86) {
    if (isa >= Isa::kAvx512Vnni) {
      if (HasAvx512Vbmi()) {
        std::unique_ptr<PackedDepthwise> direct = PackDirectDepthwise(weights, isa);
        if (direct != nullptr) return direct;
      }
      return vector({"depthwise_avx512vnni", DenseRowAvx512Vnni, 4});
    }
    if (isa >= Isa::kAvx2) return vector({"depthwise_avx2", DenseRowAvx2, 2});
  }
  return std::make_unique<ReferenceDepthwise>(weights, isa);
}

}  // namespace pared
