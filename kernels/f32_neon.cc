// Float kernels for NEON, which every aarch64 CPU has: 4 floats a vector, GEMM tile 6 x 16.

#include <arm_neon.h>

#include <cstdint>
#include <cstring>
#include <limits>

#include "kernels/f32.h"

namespace pared {
namespace neon {
namespace {

constexpr int kTileColumns = 16;

struct Vec {
  static constexpr int kWidth = 4;
  float32x4_t x;

  Vec() = default;
  explicit Vec(float32x4_t v) : x(v) {}
  explicit Vec(float v) : x(vdupq_n_f32(v)) {}
  static Vec Load(const float* p) { return Vec(vld1q_f32(p)); }
  static Vec LoadFirst(const float* p, int64_t n) {
    float lanes[kWidth] = {};
    std::memcpy(lanes, p, static_cast<size_t>(n) * sizeof(float));
    return Load(lanes);
  }
  void Store(float* p) const { vst1q_f32(p, x); }
  void StoreFirst(float* p, int64_t n) const {
    float lanes[kWidth];
    Store(lanes);
    std::memcpy(p, lanes, static_cast<size_t>(n) * sizeof(float));
  }
};

inline Vec operator+(Vec a, Vec b) { return Vec(vaddq_f32(a.x, b.x)); }
inline Vec operator-(Vec a, Vec b) { return Vec(vsubq_f32(a.x, b.x)); }
inline Vec operator*(Vec a, Vec b) { return Vec(vmulq_f32(a.x, b.x)); }
inline Vec operator/(Vec a, Vec b) { return Vec(vdivq_f32(a.x, b.x)); }
inline Vec Fma(Vec a, Vec b, Vec c) { return Vec(vfmaq_f32(c.x, a.x, b.x)); }
inline Vec SelectLess(Vec a, Vec b, Vec yes, Vec no) {
  return Vec(vbslq_f32(vcltq_f32(a.x, b.x), yes.x, no.x));
}
// The second operand is returned where one is NaN.
inline Vec Min(Vec a, Vec b) { return SelectLess(a, b, a, b); }
inline Vec Max(Vec a, Vec b) { return SelectLess(b, a, a, b); }
inline Vec MaxOrNan(Vec value, Vec acc) {
  return Vec(vbslq_f32(vceqq_f32(acc.x, acc.x), Max(acc, value).x, acc.x));
}
inline Vec Round(Vec a) { return Vec(vrndnq_f32(a.x)); }
inline Vec Abs(Vec a) { return Vec(vabsq_f32(a.x)); }
inline Vec CopySign(Vec magnitude, Vec sign) {
  return Vec(vbslq_f32(vdupq_n_u32(0x80000000U), sign.x, magnitude.x));
}
// In two steps: 2^128 alone is no float.
inline Vec TimesPowerOfTwo(Vec a, Vec n) {
  const int32x4_t whole = vcvtnq_s32_f32(n.x);
  const int32x4_t half = vshrq_n_s32(whole, 1);
  const auto power = [](int32x4_t e) {
    return vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(e, vdupq_n_s32(127)), 23));
  };
  return Vec(vmulq_f32(vmulq_f32(a.x, power(half)), power(vsubq_s32(whole, half))));
}

// Elements 0 and 2 of both.
inline Vec Even(Vec a, Vec b) { return Vec(vuzp1q_f32(a.x, b.x)); }

// Lane i of vector j becomes lane j of vector i.
inline void Transpose(Vec (&rows)[4]) {
  const float64x2_t low01 = vreinterpretq_f64_f32(vzip1q_f32(rows[0].x, rows[1].x));
  const float64x2_t high01 = vreinterpretq_f64_f32(vzip2q_f32(rows[0].x, rows[1].x));
  const float64x2_t low23 = vreinterpretq_f64_f32(vzip1q_f32(rows[2].x, rows[3].x));
  const float64x2_t high23 = vreinterpretq_f64_f32(vzip2q_f32(rows[2].x, rows[3].x));
  rows[0].x = vreinterpretq_f32_f64(vzip1q_f64(low01, low23));
  rows[1].x = vreinterpretq_f32_f64(vzip2q_f64(low01, low23));
  rows[2].x = vreinterpretq_f32_f64(vzip1q_f64(high01, high23));
  rows[3].x = vreinterpretq_f32_f64(vzip2q_f64(high01, high23));
}

// The lanes of four vectors in turn, and back.
inline void Interleave(Vec (&rows)[4]) { Transpose(rows); }
inline void Deinterleave(Vec (&rows)[4]) { Transpose(rows); }

#include "kernels/f32_body.h"

}  // namespace
}  // namespace neon

extern const F32Kernels kF32Neon = neon::kTable;

}  // namespace pared
