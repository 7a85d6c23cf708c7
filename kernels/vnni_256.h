// The dot product of the 256-bit VNNI kernels; see kernels/gemm_256.h.

#pragma once

#include "kernels/gemm_256.h"

namespace pared {
namespace {

struct Vnni256 {
  static constexpr int64_t kGroup = 4;
  static constexpr int64_t kRowBytes = 64;
  static constexpr const char* kDenseName = "dense_avxvnni";
  static constexpr const char* kSparse1Name = "sparse_1x1_avxvnni";
  static constexpr const char* kSparse2Name = "sparse_2x1_avxvnni";

  [[gnu::always_inline]] static __m256i Dot(__m256i sum, __m256i x, __m256i w) {
    return _mm256_dpbusd_epi32(sum, x, w);
  }

  template <int64_t kBytes>
  [[gnu::always_inline]] static RowOffsets Offsets(const uint8_t* entry) {
    return {Offset<kBytes>(entry, 0), Offset<kBytes>(entry, 1), Offset<kBytes>(entry, 2),
            Offset<kBytes>(entry, 3)};
  }

  template <int N>
  [[gnu::always_inline]] static Vectors256<N> Interleave(const uint8_t* x, const RowOffsets& o) {
    if constexpr (N == 4) {
      const __m256i r0 = Load256(x + o.r0), r1 = Load256(x + o.r1);
      const __m256i r2 = Load256(x + o.r2), r3 = Load256(x + o.r3);
      const __m256i low01 = _mm256_unpacklo_epi8(r0, r1), high01 = _mm256_unpackhi_epi8(r0, r1);
      const __m256i low23 = _mm256_unpacklo_epi8(r2, r3), high23 = _mm256_unpackhi_epi8(r2, r3);
      return {_mm256_unpacklo_epi16(low01, low23), _mm256_unpackhi_epi16(low01, low23),
              _mm256_unpacklo_epi16(high01, high23), _mm256_unpackhi_epi16(high01, high23)};
    } else {
      const __m256i a = LoadTwo(x + o.r0, x + o.r2), b = LoadTwo(x + o.r1, x + o.r3);
      return {MergeLanes(_mm256_unpacklo_epi8(a, b)), MergeLanes(_mm256_unpackhi_epi8(a, b))};
    }
  }

 private:
  [[gnu::always_inline]] static __m256i LoadTwo(const uint8_t* low, const uint8_t* high) {
    return _mm256_loadu2_m128i(reinterpret_cast<const __m128i*>(high),
                               reinterpret_cast<const __m128i*>(low));
  }
  // Words a of one lane and b of the other become a0 b0 a1 b1 ... a7 b7.
  [[gnu::always_inline]] static __m256i MergeLanes(__m256i lanes) {
    const __m256i words = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15));
    return _mm256_shuffle_epi8(_mm256_permute4x64_epi64(lanes, _MM_SHUFFLE(3, 1, 2, 0)), words);
  }
};

}  // namespace
}  // namespace pared
