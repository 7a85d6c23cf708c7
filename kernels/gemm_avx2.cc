// Dense and sparse kernels for AVX2.

#include <immintrin.h>

#include <algorithm>
#include <cstdint>

#include "kernels/kernels.h"
#include "kernels/packing.h"
#include "kernels/sparse.h"

#pragma GCC push_options
#pragma GCC target("avx2")

#include "kernels/gemm_256.h"

namespace pared {
namespace {

struct Avx2 {
  static constexpr int64_t kGroup = 2;
  static constexpr int64_t kRowBytes = 64;
  static constexpr const char* kDenseName = "dense_avx2";
  static constexpr const char* kSparse1Name = "sparse_1x1_avx2";
  static constexpr const char* kSparse2Name = "sparse_2x1_avx2";

  [[gnu::always_inline]] static __m256i Dot(__m256i sum, __m256i x, __m256i w) {
    return _mm256_add_epi32(sum, _mm256_madd_epi16(x, w));
  }

  template <int64_t kBytes>
  [[gnu::always_inline]] static RowOffsets Offsets(const uint8_t* entry) {
    return {Offset<kBytes>(entry, 0), Offset<kBytes>(entry, 1), 0, 0};
  }

  template <int N>
  [[gnu::always_inline]] static Vectors256<N> Interleave(const uint8_t* x, const RowOffsets& o) {
    if constexpr (N == 4) {
      const __m256i r0 = Load256(x + o.r0), r1 = Load256(x + o.r1);
      const __m256i zero = _mm256_setzero_si256();
      const __m256i low = _mm256_unpacklo_epi8(r0, r1), high = _mm256_unpackhi_epi8(r0, r1);
      return {_mm256_unpacklo_epi8(low, zero), _mm256_unpackhi_epi8(low, zero),
              _mm256_unpacklo_epi8(high, zero), _mm256_unpackhi_epi8(high, zero)};
    } else {
      const __m128i r0 = _mm_loadu_si128(reinterpret_cast<const __m128i*>(x + o.r0));
      const __m128i r1 = _mm_loadu_si128(reinterpret_cast<const __m128i*>(x + o.r1));
      return {_mm256_cvtepu8_epi16(_mm_unpacklo_epi8(r0, r1)),
              _mm256_cvtepu8_epi16(_mm_unpackhi_epi8(r0, r1))};
    }
  }
};

}  // namespace

void DenseRowAvx2(const uint8_t* x, const int8_t* w, int64_t k, const EpilogueView& e, int64_t row,
                  void* y) noexcept {
  std::byte* out = static_cast<std::byte*>(y);
  DensePanel256<Avx2, 1, 4>(x, w, k, e, row, out);
  DensePanel256<Avx2, 1, 4>(x + 32, w, k, e, row, out + 32 * OutputBytes(e.output));
}

std::unique_ptr<PackedGemm> PackDenseAvx2(const GemmWeights& weights) {
  return std::make_unique<Dense256<Avx2>>(weights);
}
std::unique_ptr<PackedGemm> PackSparse1x1Avx2(const GemmWeights& weights) {
  return std::make_unique<Sparse256<Avx2, 1>>(weights);
}
std::unique_ptr<PackedGemm> PackSparse2x1Avx2(const GemmWeights& weights) {
  return std::make_unique<Sparse256<Avx2, 2>>(weights);
}

}  // namespace pared

#pragma GCC pop_options
