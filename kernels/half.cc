#include "kernels/half.h"

#ifdef __x86_64__
#include <immintrin.h>
#else
#include <arm_neon.h>
#endif

#include <bit>

namespace pared {
namespace {

// Whole vectors; the number of elements that they hold.
#ifdef __x86_64__
#pragma GCC push_options
#pragma GCC target("avx2,f16c")  // every CPU with AVX2 has F16C

int64_t WidenMost(const uint16_t* halves, int64_t count, float* floats) noexcept {
  int64_t i = 0;
  for (; i + 8 <= count; i += 8) {
    const __m128i in = _mm_loadu_si128(reinterpret_cast<const __m128i*>(halves + i));
    _mm256_storeu_ps(floats + i, _mm256_cvtph_ps(in));
  }
  return i;
}

int64_t NarrowMost(const float* floats, int64_t count, uint16_t* halves) noexcept {
  int64_t i = 0;
  for (; i + 8 <= count; i += 8) {
    const __m128i out = _mm256_cvtps_ph(_mm256_loadu_ps(floats + i), _MM_FROUND_TO_NEAREST_INT);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(halves + i), out);
  }
  return i;
}

#pragma GCC pop_options
#else
int64_t WidenMost(const uint16_t* halves, int64_t count, float* floats) noexcept {
  int64_t i = 0;
  for (; i + 4 <= count; i += 4) {
    vst1q_f32(floats + i, vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(halves + i))));
  }
  return i;
}

int64_t NarrowMost(const float* floats, int64_t count, uint16_t* halves) noexcept {
  int64_t i = 0;
  for (; i + 4 <= count; i += 4) {
    vst1_u16(halves + i, vreinterpret_u16_f16(vcvt_f16_f32(vld1q_f32(floats + i))));
  }
  return i;
}
#endif

}  // namespace

float HalfToFloat(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
  const uint32_t rest = half & 0x7fffu;
  if (rest >= 0x7c00u) {
    const uint32_t quiet = rest > 0x7c00u ? 0x400000u : 0u;  // as the hardware quiets a NaN
    return std::bit_cast<float>(sign | 0x7f800000u | quiet | (rest & 0x3ffu) << 13);
  }
  // Shifted into place the exponent is 112 too small; the product also normalizes subnormals.
  const float shifted = std::bit_cast<float>(rest << 13) * 0x1p112f;
  return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(shifted));
}

uint16_t FloatToHalf(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t sign = bits >> 16 & 0x8000u;
  const uint32_t magnitude = bits & 0x7fffffffu;
  uint32_t half;
  if (magnitude > 0x7f800000u) {
    half = 0x7e00u | (magnitude >> 13 & 0x3ffu);
  } else if (magnitude >= 0x477ff000u) {  // 65520: half a step above the largest
    half = 0x7c00u;
  } else if (magnitude < 0x38800000u) {
    // Subnormal: adding 0.5 puts the last bit of the half where float rounds.
    half = std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) + 0.5f) - 0x3f000000u;
  } else {
    const uint32_t odd = magnitude >> 13 & 1u;
    half = (magnitude - 0x38000000u + 0xfffu + odd) >> 13;
  }
  return static_cast<uint16_t>(sign | half);
}

void HalvesToFloats(const uint16_t* halves, int64_t count, float* floats, Isa isa) noexcept {
  int64_t i = isa == Isa::kReference ? 0 : WidenMost(halves, count, floats);
  for (; i < count; ++i) floats[i] = HalfToFloat(halves[i]);
}

void FloatsToHalves(const float* floats, int64_t count, uint16_t* halves, Isa isa) noexcept {
  int64_t i = isa == Isa::kReference ? 0 : NarrowMost(floats, count, halves);
  for (; i < count; ++i) halves[i] = FloatToHalf(floats[i]);
}

}  // namespace pared
