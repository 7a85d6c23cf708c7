// The dot product of the 256-bit VNNI kernels; see kernels/gemm_256.h.

#pragma once

#include "kernels/gemm_256.h"

namespace pared {
namespace {

struct Vnni256 {
  static constexpr int64_t kGroup = 4;
  static constexpr const char* kDenseName = "dense_avxvnni";
  static constexpr const char* kSparse1Name = "sparse_1x1_avxvnni";
  static constexpr const char* kSparse2Name = "sparse_2x1_avxvnni";

  [[gnu::always_inline]] static __m256i Dot(__m256i sum, __m256i x, __m256i w) {
    return _mm256_dpbusd_epi32(sum, x, w);
  }

  [[gnu::always_inline]] static Quad256 Interleave(__m256i r0, __m256i r1, __m256i r2, __m256i r3) {
    const __m256i low01 = _mm256_unpacklo_epi8(r0, r1), high01 = _mm256_unpackhi_epi8(r0, r1);
    const __m256i low23 = _mm256_unpacklo_epi8(r2, r3), high23 = _mm256_unpackhi_epi8(r2, r3);
    return {_mm256_unpacklo_epi16(low01, low23), _mm256_unpackhi_epi16(low01, low23),
            _mm256_unpacklo_epi16(high01, high23), _mm256_unpackhi_epi16(high01, high23)};
  }
  [[gnu::always_inline]] static Quad256 Interleave(const uint8_t* x, const RowOffsets& o) {
    return Interleave(Load256(x), Load256(x + o.r1), Load256(x + o.r2), Load256(x + o.r3));
  }
  [[gnu::always_inline]] static Quad256 Gather(const uint8_t* x, const uint8_t* entry) {
    return Interleave(Load256(x + Offset(entry, 0)), Load256(x + Offset(entry, 1)),
                      Load256(x + Offset(entry, 2)), Load256(x + Offset(entry, 3)));
  }
};

}  // namespace
}  // namespace pared
