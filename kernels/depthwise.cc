#include "kernels/depthwise.h"

#include <cstring>
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
  SpanRow span_row = nullptr;
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
    if (RunsOnSpans(range.tile)) return RunSpans(image, range, e, static_cast<uint8_t*>(y));
    uint8_t* rows = reinterpret_cast<uint8_t*>(scratch);
    const int64_t row_bytes = RowBytes();
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
  // What lies between the rows of a tile is worked on too, and thrown away: at most so much.
  static constexpr int64_t kSpanBytes = 160;

  int64_t RowBytes() const { return (positions_ + kernel_.group - 1) / kernel_.group * 4; }

  bool RunsOnSpans(int64_t tile) const {
    const ConvGeometry& g = im2col_.geometry();
    return kernel_.span_row != nullptr && epilogue_.view().output == GemmOutput::kUInt8 &&
           g.stride_x == 1 && g.stride_y == 1 && im2col_.SpanOf(tile).bytes <= kSpanBytes;
  }

  void RunSpans(const uint8_t* image, const Range& range, const EpilogueView& e,
                uint8_t* y) const noexcept {
    const Im2col::Span span = im2col_.SpanOf(range.tile);
    const int64_t plane = im2col_.plane_bytes();
    uint8_t codes[kSpanBytes + 32], row[128];
    for (int64_t c = range.begin; c < range.end; ++c) {
      kernel_.span_row(image + c / multiplier_ * plane + span.first, im2col_.taps(),
                       values_.data() + c * RowBytes(), span.bytes, e, c, codes);
      im2col_.PickColumns(codes, range.tile, row);
      std::memcpy(y + (range.tile * channels_ + c) * 64, row, 64);
    }
  }

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
    if (isa >= Isa::kAvx2) return vector({"depthwise_avx2", DenseRowAvx2, 2, false, SpanRowAvx2});
  }
  return std::make_unique<ReferenceDepthwise>(weights, isa);
}

}  // namespace pared
