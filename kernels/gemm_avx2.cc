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
  static constexpr const char* kDenseName = "dense_avx2";
  static constexpr const char* kSparse1Name = "sparse_1x1_avx2";
  static constexpr const char* kSparse2Name = "sparse_2x1_avx2";

  [[gnu::always_inline]] static __m256i Dot(__m256i sum, __m256i x, __m256i w) {
    return _mm256_add_epi32(sum, _mm256_madd_epi16(x, w));
  }

  [[gnu::always_inline]] static Quad256 Interleave(__m256i r0, __m256i r1) {
    const __m256i zero = _mm256_setzero_si256();
    const __m256i low = _mm256_unpacklo_epi8(r0, r1), high = _mm256_unpackhi_epi8(r0, r1);
    return {_mm256_unpacklo_epi8(low, zero), _mm256_unpackhi_epi8(low, zero),
            _mm256_unpacklo_epi8(high, zero), _mm256_unpackhi_epi8(high, zero)};
  }
  [[gnu::always_inline]] static Quad256 Interleave(const uint8_t* x, const RowOffsets& o) {
    return Interleave(Load256(x), Load256(x + o.r1));
  }
  [[gnu::always_inline]] static Quad256 Gather(const uint8_t* x, const uint8_t* entry) {
    return Interleave(Load256(x + Offset(entry, 0)), Load256(x + Offset(entry, 1)));
  }
};

}  // namespace

void DenseRowAvx2(const uint8_t* x, const int8_t* w, int64_t k, const EpilogueView& e, int64_t row,
                  void* y) noexcept {
  std::byte* out = static_cast<std::byte*>(y);
  DensePanel256<Avx2, 1>(x, w, k, e, row, out);
  DensePanel256<Avx2, 1>(x + 32, w, k, e, row, out + 32 * OutputBytes(e.output));
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
