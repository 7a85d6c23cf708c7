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

// Elements 0, 2, ... 30 at p; reads 32.
inline Vec Even(const float* p) {
  const __m512i index =
      _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
  return Vec(_mm512_permutex2var_ps(_mm512_loadu_ps(p), index, _mm512_loadu_ps(p + 16)));
}

#include "kernels/f32_body.h"

}  // namespace
}  // namespace avx512

extern const F32Kernels kF32Avx512 = avx512::kTable;

}  // namespace pared

#pragma GCC pop_options
