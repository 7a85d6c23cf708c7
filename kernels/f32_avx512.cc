// Float kernels for AVX-512: 16 floats a vector, GEMM tile 6 x 64.

#include <immintrin.h>

#include <cstdint>
#include <limits>

#include "kernels/f32.h"

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,fma")

namespace pared {
namespace avx512 {
namespace {

constexpr int kTileColumns = 64;

struct Vec {
  static constexpr int kWidth = 16;
  __m512 x;

  Vec() = default;
  explicit Vec(__m512 v) : x(v) {}
  explicit Vec(float v) : x(_mm512_set1_ps(v)) {}
  static Vec Load(const float* p) { return Vec(_mm512_loadu_ps(p)); }
  static __mmask16 First(int64_t n) { return static_cast<__mmask16>((1U << n) - 1U); }
  static Vec LoadFirst(const float* p, int64_t n) {
    return Vec(_mm512_maskz_loadu_ps(First(n), p));
  }
  void Store(float* p) const { _mm512_storeu_ps(p, x); }
  void StoreFirst(float* p, int64_t n) const { _mm512_mask_storeu_ps(p, First(n), x); }
};

inline Vec operator+(Vec a, Vec b) { return Vec(_mm512_add_ps(a.x, b.x)); }
inline Vec operator-(Vec a, Vec b) { return Vec(_mm512_sub_ps(a.x, b.x)); }
inline Vec operator*(Vec a, Vec b) { return Vec(_mm512_mul_ps(a.x, b.x)); }
inline Vec operator/(Vec a, Vec b) { return Vec(_mm512_div_ps(a.x, b.x)); }
inline Vec Fma(Vec a, Vec b, Vec c) { return Vec(_mm512_fmadd_ps(a.x, b.x, c.x)); }
// The second operand is returned where one is NaN.
inline Vec Min(Vec a, Vec b) { return Vec(_mm512_maskz_min_ps(0xFFFF, a.x, b.x)); }
inline Vec Max(Vec a, Vec b) { return Vec(_mm512_maskz_max_ps(0xFFFF, a.x, b.x)); }
inline Vec MaxOrNan(Vec value, Vec acc) {
  const __mmask16 keep = _mm512_cmp_ps_mask(acc.x, acc.x, _CMP_UNORD_Q);
  return Vec(_mm512_mask_mov_ps(Max(acc, value).x, keep, acc.x));
}
inline Vec Round(Vec a) {
  return Vec(_mm512_maskz_roundscale_ps(0xFFFF, a.x, _MM_FROUND_TO_NEAREST_INT));
}
inline Vec Abs(Vec a) { return Vec(_mm512_abs_ps(a.x)); }
inline Vec CopySign(Vec magnitude, Vec sign) {
  return Vec(_mm512_or_ps(magnitude.x, _mm512_and_ps(sign.x, _mm512_set1_ps(-0.0F))));
}
inline Vec SelectLess(Vec a, Vec b, Vec yes, Vec no) {
  return Vec(_mm512_mask_blend_ps(_mm512_cmp_ps_mask(a.x, b.x, _CMP_LT_OQ), no.x, yes.x));
}
inline Vec TimesPowerOfTwo(Vec a, Vec n) { return Vec(_mm512_maskz_scalef_ps(0xFFFF, a.x, n.x)); }

// Elements 0, 2, ... 14 of both.
inline Vec Even(Vec a, Vec b) {
  const __m512i index =
      _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
  return Vec(_mm512_permutex2var_ps(a.x, index, b.x));
}

inline __m512 JoinLow(__m512 a, __m512 b) {
  return _mm512_castpd_ps(_mm512_maskz_unpacklo_pd(0xFF, _mm512_castps_pd(a), _mm512_castps_pd(b)));
}
inline __m512 JoinHigh(__m512 a, __m512 b) {
  return _mm512_castpd_ps(_mm512_maskz_unpackhi_pd(0xFF, _mm512_castps_pd(a), _mm512_castps_pd(b)));
}

// Transposes the four elements of each 128-bit lane of four vectors.
inline void TransposeInLanes(__m512 (&rows)[4]) {
  const __m512 low01 = _mm512_maskz_unpacklo_ps(0xFFFF, rows[0], rows[1]);
  const __m512 high01 = _mm512_maskz_unpackhi_ps(0xFFFF, rows[0], rows[1]);
  const __m512 low23 = _mm512_maskz_unpacklo_ps(0xFFFF, rows[2], rows[3]);
  const __m512 high23 = _mm512_maskz_unpackhi_ps(0xFFFF, rows[2], rows[3]);
  rows[0] = JoinLow(low01, low23);
  rows[1] = JoinHigh(low01, low23);
  rows[2] = JoinLow(high01, high23);
  rows[3] = JoinHigh(high01, high23);
}

// Lane i of vector j becomes lane j of vector i, in lanes of 128 bits.
inline void TransposeLanes(__m512 (&rows)[4]) {
  const __m512 even_top = _mm512_maskz_shuffle_f32x4(0xFFFF, rows[0], rows[1], 0x88);
  const __m512 even_end = _mm512_maskz_shuffle_f32x4(0xFFFF, rows[2], rows[3], 0x88);
  const __m512 odd_top = _mm512_maskz_shuffle_f32x4(0xFFFF, rows[0], rows[1], 0xDD);
  const __m512 odd_end = _mm512_maskz_shuffle_f32x4(0xFFFF, rows[2], rows[3], 0xDD);
  rows[0] = _mm512_maskz_shuffle_f32x4(0xFFFF, even_top, even_end, 0x88);
  rows[1] = _mm512_maskz_shuffle_f32x4(0xFFFF, odd_top, odd_end, 0x88);
  rows[2] = _mm512_maskz_shuffle_f32x4(0xFFFF, even_top, even_end, 0xDD);
  rows[3] = _mm512_maskz_shuffle_f32x4(0xFFFF, odd_top, odd_end, 0xDD);
}

// Lane i of vector j becomes lane j of vector i.
inline void Transpose(Vec (&rows)[16]) {
  __m512 fours[4][4];  // [j][g]: in 128-bit lane l, column 4 l + j of rows 4 g to 4 g + 3
#pragma GCC unroll 4
  for (int g = 0; g < 4; ++g) {
    __m512 group[4] = {rows[4 * g].x, rows[4 * g + 1].x, rows[4 * g + 2].x, rows[4 * g + 3].x};
    TransposeInLanes(group);
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) fours[j][g] = group[j];
  }
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    TransposeLanes(fours[j]);
#pragma GCC unroll 4
    for (int l = 0; l < 4; ++l) rows[4 * l + j].x = fours[j][l];
  }
}

// Lane i of vector j becomes element 4 i + j of the four vectors, and back.
inline void Interleave(Vec (&rows)[4]) {
  __m512 fours[4] = {rows[0].x, rows[1].x, rows[2].x, rows[3].x};
  TransposeInLanes(fours);
  TransposeLanes(fours);
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) rows[j].x = fours[j];
}
inline void Deinterleave(Vec (&rows)[4]) {
  __m512 fours[4] = {rows[0].x, rows[1].x, rows[2].x, rows[3].x};
  TransposeLanes(fours);
  TransposeInLanes(fours);
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) rows[j].x = fours[j];
}

#include "kernels/f32_body.h"

}  // namespace
}  // namespace avx512

extern const F32Kernels kF32Avx512 = avx512::kTable;

}  // namespace pared

#pragma GCC pop_options
