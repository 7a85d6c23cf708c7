// AVX-512 versions of the loops of elementwise.cc. Tails are masked, never read past.

#include "kernels/elementwise_avx512.h"

#include <immintrin.h>

#include <algorithm>

#include "kernels/fixed_sum.h"

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,bmi2")

namespace pared {
namespace {

[[gnu::always_inline]] inline __mmask16 Mask(size_t left) {
  return left >= 16 ? __mmask16{0xffff}
                    : static_cast<__mmask16>(_bzhi_u32(0xffff, static_cast<unsigned>(left)));
}

// Bounds and zero point of a saturating conversion to uint8; the comparison with `floor` comes
// first and sends NaN there, as the scalar code does.
struct Saturation {
  __m512 scale, floor, ceiling;
  __m512i zero_point;
};

[[gnu::always_inline]] inline Saturation MakeSaturation(QuantParams q, int32_t low, int32_t high) {
  return {_mm512_set1_ps(q.scale), _mm512_set1_ps(static_cast<float>(low - q.zero_point)),
          _mm512_set1_ps(static_cast<float>(high - q.zero_point)), _mm512_set1_epi32(q.zero_point)};
}

[[gnu::always_inline]] inline __m128i Convert(__m512 v, const Saturation& s) {
  v = _mm512_div_ps(v, s.scale);
  v = _mm512_min_ps(_mm512_max_ps(v, s.floor), s.ceiling);
  return _mm512_cvtepi32_epi8(_mm512_add_epi32(_mm512_cvtps_epi32(v), s.zero_point));
}

[[gnu::always_inline]] inline __m512 LoadDequantized(const uint8_t* p, __mmask16 mask,
                                                     QuantParams q) {
  const __m512i codes = _mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(mask, p));
  const __m512i centered = _mm512_sub_epi32(codes, _mm512_set1_epi32(q.zero_point));
  return _mm512_mul_ps(_mm512_cvtepi32_ps(centered), _mm512_set1_ps(q.scale));
}

template <bool kMultiply>
void Combine(std::span<const uint8_t> a, const uint8_t* b, const AddParams& params, uint8_t* y) {
  const Saturation s = MakeSaturation(params.y, params.low, params.high);
  for (size_t i = 0; i < a.size(); i += 16) {
    const __mmask16 mask = Mask(a.size() - i);
    const __m512 left = LoadDequantized(a.data() + i, mask, params.a);
    const __m512 right = LoadDequantized(b + i, mask, params.b);
    const __m512 v = kMultiply ? _mm512_mul_ps(left, right) : _mm512_add_ps(left, right);
    _mm_mask_storeu_epi8(y + i, mask, Convert(v, s));
  }
}

}  // namespace

void QuantizeAvx512(std::span<const float> x, QuantParams q, uint8_t* y) noexcept {
  const Saturation s = MakeSaturation(q, 0, 255);
  for (size_t i = 0; i < x.size(); i += 16) {
    const __mmask16 mask = Mask(x.size() - i);
    const __m512 v = _mm512_maskz_loadu_ps(mask, x.data() + i);
    _mm_mask_storeu_epi8(y + i, mask, Convert(v, s));
  }
}

void DequantizeAvx512(std::span<const uint8_t> x, QuantParams q, float* y) noexcept {
  for (size_t i = 0; i < x.size(); i += 16) {
    const __mmask16 mask = Mask(x.size() - i);
    _mm512_mask_storeu_ps(y + i, mask, LoadDequantized(x.data() + i, mask, q));
  }
}

void AddQuantizedAvx512(std::span<const uint8_t> a, const uint8_t* b, const AddParams& params,
                        uint8_t* y) noexcept {
  Combine<false>(a, b, params, y);
}

void MulQuantizedAvx512(std::span<const uint8_t> a, const uint8_t* b, const AddParams& params,
                        uint8_t* y) noexcept {
  Combine<true>(a, b, params, y);
}

#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,bmi2")

namespace {

// The constants of a FixedSum, each of a and b as a pair of words.
struct FixedConstants {
  explicit FixedConstants(const FixedSum& s)
      : high(Pair(s.high_a, s.high_b)),
        low(Pair(s.low_a, s.low_b)),
        high_c(_mm512_set1_epi32(s.high_c)),
        low_c(_mm512_set1_epi32(s.low_c)),
        shift(_mm_cvtsi32_si128(s.shift)) {}
  static __m512i Pair(int32_t a, int32_t b) {
    return _mm512_set1_epi32((a & 0xffff) | static_cast<int32_t>(static_cast<uint32_t>(b) << 16));
  }
  __m512i high, low, high_c, low_c;
  __m128i shift;
};

// 16 pairs of words (a, b) -> 16 sums.
[[gnu::always_inline]] inline __m512i SumFixed(__m512i pairs, const FixedConstants& c) {
  const __m512i low = _mm512_srai_epi32(_mm512_dpwssd_epi32(c.low_c, pairs, c.low), 15);
  const __m512i sum = _mm512_dpwssd_epi32(_mm512_add_epi32(low, c.high_c), pairs, c.high);
  return _mm512_sra_epi32(sum, c.shift);
}

}  // namespace

void AddFixedAvx512Vnni(std::span<const uint8_t> a, const uint8_t* b, const FixedSum& sum,
                        uint8_t* y) noexcept {
  const FixedConstants constants(sum);
  const __m512i zero = _mm512_setzero_si512();
  const __m512i least = _mm512_set1_epi8(static_cast<char>(sum.low));
  const __m512i most = _mm512_set1_epi8(static_cast<char>(sum.high));
  for (size_t i = 0; i < a.size(); i += 64) {
    const unsigned left = static_cast<unsigned>(std::min<size_t>(64, a.size() - i));
    const __mmask64 mask = _bzhi_u64(~uint64_t{0}, left);
    const __m512i va = _mm512_maskz_loadu_epi8(mask, a.data() + i);
    const __m512i vb = _mm512_maskz_loadu_epi8(mask, b + i);
    // Unpacks and packs undo each other's order.
    const __m512i front = _mm512_unpacklo_epi8(va, vb), back = _mm512_unpackhi_epi8(va, vb);
    const __m512i p = _mm512_packs_epi32(SumFixed(_mm512_unpacklo_epi8(front, zero), constants),
                                         SumFixed(_mm512_unpackhi_epi8(front, zero), constants));
    const __m512i q = _mm512_packs_epi32(SumFixed(_mm512_unpacklo_epi8(back, zero), constants),
                                         SumFixed(_mm512_unpackhi_epi8(back, zero), constants));
    const __m512i codes = _mm512_packus_epi16(p, q);
    _mm512_mask_storeu_epi8(y + i, mask, _mm512_min_epu8(_mm512_max_epu8(codes, least), most));
  }
}

#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512vbmi,bmi2")

void LookUpAvx512(std::span<const uint8_t> x, const ByteTable& table, uint8_t* y) noexcept {
  const __m512i t0 = _mm512_loadu_si512(table.data());
  const __m512i t1 = _mm512_loadu_si512(table.data() + 64);
  const __m512i t2 = _mm512_loadu_si512(table.data() + 128);
  const __m512i t3 = _mm512_loadu_si512(table.data() + 192);
  for (size_t i = 0; i < x.size(); i += 64) {
    const unsigned left = static_cast<unsigned>(std::min<size_t>(64, x.size() - i));
    const __mmask64 mask = _bzhi_u64(~uint64_t{0}, left);
    const __m512i v = _mm512_maskz_loadu_epi8(mask, x.data() + i);
    // A permute picks from 128 bytes by the low seven bits; the top bit chooses the half.
    const __m512i low = _mm512_permutex2var_epi8(t0, v, t1);
    const __m512i high = _mm512_permutex2var_epi8(t2, v, t3);
    const __m512i picked = _mm512_mask_blend_epi8(_mm512_movepi8_mask(v), low, high);
    _mm512_mask_storeu_epi8(y + i, mask, picked);
  }
}

#pragma GCC pop_options

}  // namespace pared
