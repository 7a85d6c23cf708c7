// AVX2 version of the table look-up of elementwise.cc.

#include "kernels/elementwise_avx2.h"

#include <immintrin.h>

#pragma GCC push_options
#pragma GCC target("avx2")

namespace pared {
namespace {

[[gnu::always_inline]] inline __m256i Rows(const ByteTable& table, int row) {
  return _mm256_broadcastsi128_si256(
      _mm_loadu_si128(reinterpret_cast<const __m128i*>(table.data() + 16 * row)));
}

// Of rows [row, row + 2^kBits): the low four bits of x pick within a row, the bits above them in
// turn between two halves of the rows. `top` has bit 3 + kBits of x as the sign.
template <int kBits>
[[gnu::always_inline]] inline __m256i Pick(const ByteTable& table, int row, __m256i low,
                                           const __m256i* top) {
  if constexpr (kBits == 0) {
    return _mm256_shuffle_epi8(Rows(table, row), low);
  } else {
    const __m256i lower = Pick<kBits - 1>(table, row, low, top);
    const __m256i upper = Pick<kBits - 1>(table, row + (1 << (kBits - 1)), low, top);
    return _mm256_blendv_epi8(lower, upper, top[kBits - 1]);
  }
}

}  // namespace

void LookUpAvx2(std::span<const uint8_t> x, const ByteTable& table, uint8_t* y) noexcept {
  size_t i = 0;
  for (; i + 32 <= x.size(); i += 32) {
    const __m256i codes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x.data() + i));
    const __m256i low = _mm256_and_si256(codes, _mm256_set1_epi8(15));
    const __m256i top[] = {_mm256_slli_epi16(codes, 3), _mm256_slli_epi16(codes, 2),
                           _mm256_slli_epi16(codes, 1), codes};
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(y + i), Pick<4>(table, 0, low, top));
  }
  for (; i < x.size(); ++i) y[i] = table[x[i]];
}

}  // namespace pared

#pragma GCC pop_options
