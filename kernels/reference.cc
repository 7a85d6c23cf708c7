// The oracle: plain loops that say what every other kernel must compute, bit for bit. Never made
// faster.

#include "kernels/reference.h"

#include <cmath>
#include <utility>

namespace pared {

uint8_t RequantizeOne(int32_t acc, float scale, const GemmEpilogue& epilogue) {
  // Clamped before the conversion, which is undefined outside of int32; the bounds are integers,
  // so that it is the same as clamping after.
  const float low = static_cast<float>(epilogue.low - epilogue.zero_point);
  const float high = static_cast<float>(epilogue.high - epilogue.zero_point);
  float v = static_cast<float>(acc) * scale;
  v = v < high ? v : high;
  v = v > low ? v : low;
  return static_cast<uint8_t>(static_cast<int32_t>(std::nearbyint(v)) + epilogue.zero_point);
}

void StoreOne(int32_t acc, int64_t row, const GemmEpilogue& epilogue, void* y, int64_t at) {
  const size_t m = static_cast<size_t>(row);
  switch (epilogue.output) {
    case GemmOutput::kUInt8:
      static_cast<uint8_t*>(y)[at] = RequantizeOne(acc, epilogue.scale[m], epilogue);
      return;
    case GemmOutput::kFloat32:
      static_cast<float*>(y)[at] = static_cast<float>(acc) * epilogue.scale[m];
      return;
    case GemmOutput::kInt32:
      static_cast<int32_t*>(y)[at] = acc;
      return;
  }
}

namespace {

class ReferenceGemm final : public PackedGemm {
 public:
  explicit ReferenceGemm(const GemmWeights& weights)
      : m_(weights.m),
        k_(weights.k),
        values_(weights.values.begin(), weights.values.end()),
        epilogue_(weights.epilogue) {}

  void RunColumns(const uint8_t* x, int64_t columns, void* y,
                  std::byte* /*scratch*/) const noexcept override {
    for (int64_t n = 0; n < columns; ++n) {
      const int64_t tile = n / kTileColumns, column = n % kTileColumns;
      for (int64_t m = 0; m < m_; ++m) {
        int32_t acc = epilogue_.bias[static_cast<size_t>(m)];
        for (int64_t k = 0; k < k_; ++k) {
          acc +=
              values_[static_cast<size_t>(m * k_ + k)] * x[(tile * k_ + k) * kTileColumns + column];
        }
        StoreOne(acc, m, epilogue_, y, (tile * m_ + m) * kTileColumns + column);
      }
    }
  }
  size_t scratch_bytes() const override { return 0; }
  size_t weight_bytes() const override { return values_.size(); }
  const char* kernel_name() const override { return "reference"; }

 private:
  int64_t m_, k_;
  std::vector<int8_t> values_;
  GemmEpilogue epilogue_;
};

class ReferenceGemv final : public PackedGemv {
 public:
  explicit ReferenceGemv(const GemmWeights& weights)
      : m_(weights.m),
        k_(weights.k),
        values_(weights.values.begin(), weights.values.end()),
        epilogue_(weights.epilogue) {}

  void RunRows(const uint8_t* x, int64_t n, Blocks blocks, void* y) const noexcept override {
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t m = blocks.begin; m < blocks.end; ++m) {
        int32_t acc = epilogue_.bias[static_cast<size_t>(m)];
        for (int64_t k = 0; k < k_; ++k) {
          acc += values_[static_cast<size_t>(m * k_ + k)] * x[i * k_ + k];
        }
        StoreOne(acc, m, epilogue_, y, i * m_ + m);
      }
    }
  }
  int64_t row_blocks() const override { return m_; }
  size_t weight_bytes() const override { return values_.size(); }
  const char* kernel_name() const override { return "gemv_reference"; }

 private:
  int64_t m_, k_;
  std::vector<int8_t> values_;
  GemmEpilogue epilogue_;
};

}  // namespace

std::unique_ptr<PackedGemm> PackReferenceGemm(const GemmWeights& weights) {
  return std::make_unique<ReferenceGemm>(weights);
}

std::unique_ptr<PackedGemv> PackReferenceGemv(const GemmWeights& weights) {
  return std::make_unique<ReferenceGemv>(weights);
}

}  // namespace pared
