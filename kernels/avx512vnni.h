// What the AVX-512 VNNI kernels share: the 4 x 64 activation quad and the epilogue.
//
// A quad is four k of 64 columns, interleaved so that each 32-bit lane holds one column's four
// values, as vpdpbusd wants them. Two rounds of byte and word unpacks make it from four rows of a
// planar tile; they leave the columns of the four vectors in this order (128-bit lanes):
//
//   x0:  0- 3  16-19  32-35  48-51        x1:  4- 7  20-23  36-39  52-55
//   x2:  8-11  24-27  40-43  56-59        x3: 12-15  28-31  44-47  60-63
//
// The two rounds of saturating packs in StoreRow undo exactly that order, so that uint8 results
// need no shuffle of their own.
//
// Included by kernels that are compiled for this target only; nothing here may be used elsewhere.

#pragma once

#include <immintrin.h>

#include <cstdint>

#include "kernels/packing.h"

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")

namespace pared::avx512 {

// The sums of one row over 64 columns, in the order of a quad.
struct Sums {
  __m512i c0, c1, c2, c3;
};

[[gnu::always_inline]] inline __m512i Load(const void* p) { return _mm512_loadu_si512(p); }

// The hot loops are assembly: around intrinsics gcc 12 spills or copies the sums in every step.
// Sums live in %0, %1, ... (outputs of the statement, zmm0 to zmm23), the rest in zmm24 to zmm31:
// rows of x in 24 to 27, which PARED_QUAD_UNPACK turns into a quad, and then weights in 28 to 31.
#define PARED_QUAD_UNPACK                  \
  "vpunpcklbw %%zmm25, %%zmm24, %%zmm28\n" \
  "vpunpckhbw %%zmm25, %%zmm24, %%zmm29\n" \
  "vpunpcklbw %%zmm27, %%zmm26, %%zmm30\n" \
  "vpunpckhbw %%zmm27, %%zmm26, %%zmm31\n" \
  "vpunpcklwd %%zmm30, %%zmm28, %%zmm24\n" \
  "vpunpckhwd %%zmm30, %%zmm28, %%zmm25\n" \
  "vpunpcklwd %%zmm31, %%zmm29, %%zmm26\n" \
  "vpunpckhwd %%zmm31, %%zmm29, %%zmm27\n"

// Adds weights (a register) times the quad to the sums a, b, c, d.
#define PARED_QUAD_DOT(weights, a, b, c, d) \
  "vpdpbusd %%zmm" weights ", %%zmm24, %" a \
  "\n"                                      \
  "vpdpbusd %%zmm" weights ", %%zmm25, %" b \
  "\n"                                      \
  "vpdpbusd %%zmm" weights ", %%zmm26, %" c \
  "\n"                                      \
  "vpdpbusd %%zmm" weights ", %%zmm27, %" d "\n"

// Sets the sums of a row to the int32 at `address`.
#define PARED_QUAD_BROADCAST(address, a, b, c, d) \
  "vpbroadcastd " address ", %" a                 \
  "\n"                                            \
  "vmovdqa64 %" a ", %" b                         \
  "\n"                                            \
  "vmovdqa64 %" a ", %" c                         \
  "\n"                                            \
  "vmovdqa64 %" a ", %" d "\n"

#define PARED_QUAD_CLOBBERS \
  "zmm24", "zmm25", "zmm26", "zmm27", "zmm28", "zmm29", "zmm30", "zmm31", "cc", "memory"

#define PARED_SUMS_OUT(s) "=&v"((s).c0), "=&v"((s).c1), "=&v"((s).c2), "=&v"((s).c3)

// vpdpbusd with the sum tied to its register: gcc 12 copies sums between registers around the
// intrinsic when many are alive.
[[gnu::always_inline]] inline void Dot(__m512i& sum, __m512i x, __m512i w) {
  asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(x), "v"(w));
}

[[gnu::always_inline]] inline __m512i BroadcastWeights(const int8_t* w) {
  int32_t four = 0;
  __builtin_memcpy(&four, w, 4);
  return _mm512_set1_epi32(four);
}

// Four k of 16 columns as one vector, columns in order: the rows go to the four 128-bit lanes, a
// 4 x 4 transpose of 32-bit lanes and one of bytes within lanes do the rest.
[[gnu::always_inline]] inline __m512i Interleave16(const uint8_t* r0, const uint8_t* r1,
                                                   const uint8_t* r2, const uint8_t* r3) {
  const __m512i dwords = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  const __m512i bytes =
      _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
  const auto load = [](const uint8_t* p) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  };
  __m512i rows = _mm512_castsi128_si512(load(r0));
  rows = _mm512_inserti32x4(rows, load(r1), 1);
  rows = _mm512_inserti32x4(rows, load(r2), 2);
  rows = _mm512_inserti32x4(rows, load(r3), 3);
  return _mm512_shuffle_epi8(_mm512_permutexvar_epi32(dwords, rows), bytes);
}

// round_even(float(sum) * scale), held below the point where the conversion overflows; sums that
// underflow it become INT_MIN, which the packs saturate as they should.
[[gnu::always_inline]] inline __m512i Scale(__m512i sum, __m512 scale, __m512 high) {
  return _mm512_cvtps_epi32(_mm512_min_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(sum), scale), high));
}

[[gnu::always_inline]] inline __m512i ScaleInt32(__m512i sum, __m512 scale) {
  return _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_cvtepi32_ps(sum), scale));
}

// What is stored of sums that are no int32: floats, or codes before they are cut to bytes.
[[gnu::always_inline]] inline __m512i Finished(const EpilogueView& e, __m512i sums, __m512 scale) {
  if (e.output == GemmOutput::kFloat32) {
    return _mm512_castps_si512(_mm512_mul_ps(_mm512_cvtepi32_ps(sums), scale));
  }
  const __m512i low = _mm512_set1_epi32(e.low - e.zero_point);
  sums = _mm512_max_epi32(Scale(sums, scale, _mm512_set1_ps(e.high_minus_zero)), low);
  return _mm512_add_epi32(sums, _mm512_set1_epi32(e.zero_point));
}

// Codes of four vectors in quad order. Constants come from memory: a broadcast from a register
// would take turns with the arithmetic.
[[gnu::always_inline]] inline void StoreCodes(const EpilogueView& e, void* y, const Sums& s) {
  __m512i a = _mm512_packs_epi32(s.c0, s.c1), b = _mm512_packs_epi32(s.c2, s.c3);
  if (e.range == CodeSaturation::kPlain) [[likely]] {
    _mm512_storeu_si512(y, _mm512_packus_epi16(a, b));
    return;
  }
  const __m512i zero_points = Load(e.zero_points);
  a = _mm512_adds_epi16(a, zero_points);
  b = _mm512_adds_epi16(b, zero_points);
  const __m512i bytes = _mm512_min_epu8(_mm512_packus_epi16(a, b), Load(e.highs));
  _mm512_storeu_si512(y, _mm512_max_epu8(bytes, Load(e.lows)));
}

// The four sums of one row, in quad order, to 64 columns of y.
[[gnu::always_inline]] inline void StoreRow(const EpilogueView& e, int64_t row, void* y,
                                            const Sums& s) {
  if (e.output == GemmOutput::kUInt8) [[likely]] {
    const __m512 scale = _mm512_set1_ps(e.scale[row]);
    uint8_t* out = static_cast<uint8_t*>(y) + row * 64;
    if (e.range != CodeSaturation::kAny) [[likely]] {
      return StoreCodes(e, out,
                        {ScaleInt32(s.c0, scale), ScaleInt32(s.c1, scale), ScaleInt32(s.c2, scale),
                         ScaleInt32(s.c3, scale)});
    }
    const __m512 high = _mm512_set1_ps(e.high_minus_zero);
    return StoreCodes(e, out,
                      {Scale(s.c0, scale, high), Scale(s.c1, scale, high), Scale(s.c2, scale, high),
                       Scale(s.c3, scale, high)});
  }
  // A 4 x 4 transpose of 128-bit lanes brings the columns in order.
  const __m512i a = _mm512_shuffle_i32x4(s.c0, s.c1, 0x44),
                b = _mm512_shuffle_i32x4(s.c2, s.c3, 0x44);
  const __m512i c = _mm512_shuffle_i32x4(s.c0, s.c1, 0xee),
                d = _mm512_shuffle_i32x4(s.c2, s.c3, 0xee);
  const __m512i ordered[4] = {_mm512_shuffle_i32x4(a, b, 0x88), _mm512_shuffle_i32x4(a, b, 0xdd),
                              _mm512_shuffle_i32x4(c, d, 0x88), _mm512_shuffle_i32x4(c, d, 0xdd)};
  int32_t* out = static_cast<int32_t*>(y) + row * 64;
  for (int i = 0; i < 4; ++i) {
    __m512i v = ordered[i];
    if (e.output == GemmOutput::kFloat32) {
      const __m512 scale = _mm512_set1_ps(e.scale[row]);
      v = _mm512_castps_si512(_mm512_mul_ps(_mm512_cvtepi32_ps(v), scale));
    }
    _mm512_storeu_si512(out + 16 * i, v);
  }
}

// The sums of 16 columns in order to columns [column, column + 16) of y's row.
[[gnu::always_inline]] inline void StoreRow16(const EpilogueView& e, int64_t row, void* y,
                                              __m512i sum) {
  if (e.output == GemmOutput::kUInt8) [[likely]] {
    const __m512 scale = _mm512_set1_ps(e.scale[row]), high = _mm512_set1_ps(e.high_minus_zero);
    __m512i v = _mm512_max_epi32(Scale(sum, scale, high), _mm512_set1_epi32(e.low - e.zero_point));
    v = _mm512_add_epi32(v, _mm512_set1_epi32(e.zero_point));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(static_cast<uint8_t*>(y) + row * 64),
                     _mm512_cvtepi32_epi8(v));
    return;
  }
  if (e.output == GemmOutput::kFloat32) {
    sum = _mm512_castps_si512(_mm512_mul_ps(_mm512_cvtepi32_ps(sum), _mm512_set1_ps(e.scale[row])));
  }
  _mm512_storeu_si512(static_cast<int32_t*>(y) + row * 64, sum);
}

}  // namespace pared::avx512

#pragma GCC pop_options
