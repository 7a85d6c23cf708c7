// Four rows of weights at a time against one row of x, 16 k a step: both are widened to int16,
// which vpmaddwd multiplies exactly. Rows of weights are padded with zeros to whole steps.

#include <immintrin.h>

#include <algorithm>
#include <cstdint>
#include <utility>

#include "kernels/aligned.h"
#include "kernels/gemv.h"
#include "kernels/kernels.h"
#include "kernels/reference.h"

#pragma GCC push_options
#pragma GCC target("avx2")

namespace pared {
namespace {

constexpr int64_t kRows = 4, kStep = 16;

[[gnu::always_inline]] inline __m128i Load128(const void* from) {
  return _mm_loadu_si128(static_cast<const __m128i*>(from));
}

class GemvAvx2 final : public PackedGemv {
 public:
  explicit GemvAvx2(const GemmWeights& weights)
      : m_(weights.m),
        k_(weights.k),
        stride_((weights.k + kStep - 1) / kStep * kStep),
        values_(static_cast<size_t>(row_blocks() * kRows * stride_)),
        epilogue_(weights.epilogue) {
    for (int64_t row = 0; row < m_; ++row) {
      std::copy_n(weights.values.data() + row * k_, k_, values_.data() + row * stride_);
    }
  }

  void RunRows(const uint8_t* x, int64_t n, Blocks blocks, void* y) const noexcept override {
    for (int64_t block = blocks.begin; block < blocks.end; ++block) {
      const int64_t row = block * kRows, rows = std::min(kRows, m_ - row);
      for (int64_t column = 0; column < n; ++column) {
        int32_t sums[kRows];
        Sum(x + column * k_, values_.data() + row * stride_, sums);
        for (int64_t r = 0; r < rows; ++r) {
          const uint32_t bias = static_cast<uint32_t>(epilogue_.bias[static_cast<size_t>(row + r)]);
          const int32_t sum = static_cast<int32_t>(static_cast<uint32_t>(sums[r]) + bias);
          StoreOne(sum, row + r, epilogue_, y, column * m_ + row + r);
        }
      }
    }
  }
  int64_t row_blocks() const override { return (m_ + kRows - 1) / kRows; }
  size_t weight_bytes() const override { return values_.size_bytes(); }
  const char* kernel_name() const override { return "gemv_avx2"; }

 private:
  void Sum(const uint8_t* x, const int8_t* w, int32_t* sums) const noexcept {
    __m256i s0 = _mm256_setzero_si256(), s1 = s0, s2 = s0, s3 = s0;
    const auto step = [&](const uint8_t* from, const int8_t* weights)
        __attribute__((always_inline)) {
      const __m256i words = _mm256_cvtepu8_epi16(Load128(from));
      const auto product = [&](int64_t r) __attribute__((always_inline)) {
        return _mm256_madd_epi16(words, _mm256_cvtepi8_epi16(Load128(weights + r * stride_)));
      };
      s0 = _mm256_add_epi32(s0, product(0));
      s1 = _mm256_add_epi32(s1, product(1));
      s2 = _mm256_add_epi32(s2, product(2));
      s3 = _mm256_add_epi32(s3, product(3));
    };
    int64_t k = 0;
    for (; k + kStep <= k_; k += kStep) step(x + k, w + k);
    if (k < k_) {
      alignas(16) uint8_t tail[kStep] = {};
      std::copy_n(x + k, k_ - k, tail);
      step(tail, w + k);
    }
    // Lanes of all four come together: (s0 s1 s2 s3) of the lower half, and of the upper one.
    const __m256i sum = _mm256_hadd_epi32(_mm256_hadd_epi32(s0, s1), _mm256_hadd_epi32(s2, s3));
    const __m128i total =
        _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(sums), total);
  }

  int64_t m_, k_, stride_;
  AlignedBuffer<int8_t> values_;  // [rows, whole blocks][stride], zeroed
  GemmEpilogue epilogue_;
};

}  // namespace

std::unique_ptr<PackedGemv> PackGemvAvx2(const GemmWeights& weights) {
  return std::make_unique<GemvAvx2>(weights);
}

}  // namespace pared

#pragma GCC pop_options
