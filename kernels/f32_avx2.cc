// Float kernels for AVX2 and FMA: 8 floats a vector, GEMM tile 6 x 16.

#include <immintrin.h>

#include <cstdint>
#include <limits>

#include "kernels/f32.h"

#pragma GCC push_options
#pragma GCC target("avx2,fma")

namespace pared {
namespace avx2 {
namespace {

constexpr int kTileColumns = 16;

struct Vec {
  static constexpr int kWidth = 8;
  __m256 x;

  Vec() = default;
  explicit Vec(__m256 v) : x(v) {}
  explicit Vec(float v) : x(_mm256_set1_ps(v)) {}
  static Vec Load(const float* p) { return Vec(_mm256_loadu_ps(p)); }
  static __m256i First(int64_t n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)),
                              _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  }
  static Vec LoadFirst(const float* p, int64_t n) { return Vec(_mm256_maskload_ps(p, First(n))); }
  void Store(float* p) const { _mm256_storeu_ps(p, x); }
  // A masked store takes 16 cycles on Zen 3, these parts 8.
  void StoreFirst(float* p, int64_t n) const {
    __m128 left = _mm256_castps256_ps128(x);
    if ((n & 8) != 0) return Store(p);
    if ((n & 4) != 0) {
      _mm_storeu_ps(p, left);
      left = _mm256_extractf128_ps(x, 1);
      p += 4;
    }
    if ((n & 2) != 0) {
      _mm_storel_pi(reinterpret_cast<__m64*>(p), left);
      left = _mm_movehl_ps(left, left);
      p += 2;
    }
    if ((n & 1) != 0) _mm_store_ss(p, left);
  }
};

inline Vec operator+(Vec a, Vec b) { return Vec(_mm256_add_ps(a.x, b.x)); }
inline Vec operator-(Vec a, Vec b) { return Vec(_mm256_sub_ps(a.x, b.x)); }
inline Vec operator*(Vec a, Vec b) { return Vec(_mm256_mul_ps(a.x, b.x)); }
inline Vec operator/(Vec a, Vec b) { return Vec(_mm256_div_ps(a.x, b.x)); }
inline Vec Fma(Vec a, Vec b, Vec c) { return Vec(_mm256_fmadd_ps(a.x, b.x, c.x)); }
// The second operand is returned where one is NaN.
inline Vec Min(Vec a, Vec b) { return Vec(_mm256_min_ps(a.x, b.x)); }
inline Vec Max(Vec a, Vec b) { return Vec(_mm256_max_ps(a.x, b.x)); }
inline Vec MaxOrNan(Vec value, Vec acc) {
  const __m256 keep = _mm256_cmp_ps(acc.x, acc.x, _CMP_UNORD_Q);
  return Vec(_mm256_blendv_ps(Max(acc, value).x, acc.x, keep));
}
inline Vec Round(Vec a) {
  return Vec(_mm256_round_ps(a.x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
inline Vec Abs(Vec a) { return Vec(_mm256_andnot_ps(_mm256_set1_ps(-0.0F), a.x)); }
inline Vec CopySign(Vec magnitude, Vec sign) {
  return Vec(_mm256_or_ps(magnitude.x, _mm256_and_ps(sign.x, _mm256_set1_ps(-0.0F))));
}
inline Vec SelectLess(Vec a, Vec b, Vec yes, Vec no) {
  return Vec(_mm256_blendv_ps(no.x, yes.x, _mm256_cmp_ps(a.x, b.x, _CMP_LT_OQ)));
}
// Adds n to the exponent: a is near 1, and neither it nor the result is below the normal numbers.
inline Vec TimesPowerOfTwo(Vec a, Vec n) {
  const __m256i exponent = _mm256_slli_epi32(_mm256_cvtps_epi32(n.x), 23);
  return Vec(_mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(a.x), exponent)));
}

// Elements 0, 2, 4 and 6 of both.
inline Vec Even(Vec a, Vec b) {
  const __m256 pairs = _mm256_shuffle_ps(a.x, b.x, 0x88);
  return Vec(_mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(pairs), 0xD8)));
}

// Transposes the four elements of each 128-bit lane of four vectors.
inline void TransposeInLanes(__m256 (&rows)[4]) {
  const __m256 low01 = _mm256_unpacklo_ps(rows[0], rows[1]);
  const __m256 high01 = _mm256_unpackhi_ps(rows[0], rows[1]);
  const __m256 low23 = _mm256_unpacklo_ps(rows[2], rows[3]);
  const __m256 high23 = _mm256_unpackhi_ps(rows[2], rows[3]);
  rows[0] = _mm256_shuffle_ps(low01, low23, 0x44);
  rows[1] = _mm256_shuffle_ps(low01, low23, 0xEE);
  rows[2] = _mm256_shuffle_ps(high01, high23, 0x44);
  rows[3] = _mm256_shuffle_ps(high01, high23, 0xEE);
}

inline __m256 JoinLow(__m256 a, __m256 b) { return _mm256_permute2f128_ps(a, b, 0x20); }
inline __m256 JoinHigh(__m256 a, __m256 b) { return _mm256_permute2f128_ps(a, b, 0x31); }

// Lane i of vector j becomes lane j of vector i.
inline void Transpose(Vec (&rows)[8]) {
  __m256 top[4] = {rows[0].x, rows[1].x, rows[2].x, rows[3].x};
  __m256 end[4] = {rows[4].x, rows[5].x, rows[6].x, rows[7].x};
  TransposeInLanes(top);
  TransposeInLanes(end);
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    rows[j].x = JoinLow(top[j], end[j]);
    rows[4 + j].x = JoinHigh(top[j], end[j]);
  }
}

// Lane i of vector j becomes element 4 i + j of the four vectors, and back.
inline void Interleave(Vec (&rows)[4]) {
  __m256 fours[4] = {rows[0].x, rows[1].x, rows[2].x, rows[3].x};
  TransposeInLanes(fours);
  rows[0].x = JoinLow(fours[0], fours[1]);
  rows[1].x = JoinLow(fours[2], fours[3]);
  rows[2].x = JoinHigh(fours[0], fours[1]);
  rows[3].x = JoinHigh(fours[2], fours[3]);
}
inline void Deinterleave(Vec (&rows)[4]) {
  __m256 fours[4] = {JoinLow(rows[0].x, rows[2].x), JoinHigh(rows[0].x, rows[2].x),
                     JoinLow(rows[1].x, rows[3].x), JoinHigh(rows[1].x, rows[3].x)};
  TransposeInLanes(fours);
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) rows[j].x = fours[j];
}

#include "kernels/f32_body.h"

}  // namespace
}  // namespace avx2

extern const F32Kernels kF32Avx2 = avx2::kTable;

}  // namespace pared

#pragma GCC pop_options
