// Float kernels without any vector instruction: the oracle of the others' tests.

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include "kernels/f32.h"

namespace pared {
namespace reference_f32 {
namespace {

constexpr int kTileColumns = 4;

struct Vec {
  static constexpr int kWidth = 1;
  float x;

  Vec() = default;
  explicit Vec(float v) : x(v) {}
  static Vec Load(const float* p) { return Vec(*p); }
  static Vec LoadFirst(const float* p, int64_t /*n*/) { return Vec(*p); }
  void Store(float* p) const { *p = x; }
  void StoreFirst(float* p, int64_t /*n*/) const { *p = x; }
};

inline Vec operator+(Vec a, Vec b) { return Vec(a.x + b.x); }
inline Vec operator-(Vec a, Vec b) { return Vec(a.x - b.x); }
inline Vec operator*(Vec a, Vec b) { return Vec(a.x * b.x); }
inline Vec operator/(Vec a, Vec b) { return Vec(a.x / b.x); }
inline Vec Fma(Vec a, Vec b, Vec c) { return Vec(a.x * b.x + c.x); }
// The second operand is returned where one is NaN.
inline Vec Min(Vec a, Vec b) { return Vec(a.x < b.x ? a.x : b.x); }
inline Vec Max(Vec a, Vec b) { return Vec(a.x > b.x ? a.x : b.x); }
inline Vec MaxOrNan(Vec value, Vec acc) { return std::isnan(acc.x) ? acc : Max(acc, value); }
inline Vec Round(Vec a) { return Vec(std::nearbyintf(a.x)); }
inline Vec Abs(Vec a) { return Vec(std::fabs(a.x)); }
inline Vec CopySign(Vec magnitude, Vec sign) { return Vec(std::copysign(magnitude.x, sign.x)); }
inline Vec SelectLess(Vec a, Vec b, Vec yes, Vec no) { return a.x < b.x ? yes : no; }
inline Vec TimesPowerOfTwo(Vec a, Vec n) {
  return Vec(std::isnan(n.x) ? n.x : std::ldexp(a.x, static_cast<int>(n.x)));
}

inline Vec Even(Vec a, Vec /*b*/) { return a; }

inline void Transpose(Vec (&/*rows*/)[1]) {}
inline void Interleave(Vec (&/*rows*/)[4]) {}
inline void Deinterleave(Vec (&/*rows*/)[4]) {}

#include "kernels/f32_body.h"

}  // namespace
}  // namespace reference_f32

extern const F32Kernels kF32Reference = reference_f32::kTable;

const F32Kernels& F32KernelsFor(Isa isa) {
  if constexpr (kOnAarch64) {
    if (IsNeon(isa)) return kF32Neon;
  }
  if constexpr (kOnX86) {
    if (Includes(isa, Isa::kAvx512Vnni)) return kF32Avx512;
    if (Includes(isa, Isa::kAvx2)) return kF32Avx2;
  }
  return kF32Reference;
}

}  // namespace pared
