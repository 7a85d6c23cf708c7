#include "kernels/winograd_avx2.h"

#include <immintrin.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "kernels/packing.h"
#include "kernels/sparse.h"

#pragma GCC push_options
#pragma GCC target("avx2,fma")

#include "kernels/gemm_256.h"

namespace pared {
namespace {

constexpr int kSide = 6, kOut = 4;  // of a tile: inputs, outputs
constexpr int64_t kLanes = 8;
constexpr int kInverseOf9 = 0x38e38e39;    // modulo 2^32
constexpr int kTwos[kOut] = {3, 2, 1, 1};  // row i of A^T is 3 * 2^kTwos[i] times too large

[[gnu::always_inline]] inline __m256i Load(const void* p) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(p));
}

[[gnu::always_inline]] inline __m128i LoadFour(const uint8_t* p) {
  int32_t v = 0;
  __builtin_memcpy(&v, p, 4);
  return _mm_cvtsi32_si128(v);
}

// The six inputs of one line of eight tiles, of two channels side by side as int16: input i of tile
// t is byte 4 t + i.
[[gnu::always_inline]] inline void LoadLine(const uint8_t* even, const uint8_t* odd,
                                            __m256i (&d)[kSide]) {
  const __m256i by_fours = _mm256_broadcastsi128_si256(
      _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
  const __m256i a = _mm256_shuffle_epi8(Load(even), by_fours);
  const __m256i b = _mm256_shuffle_epi8(Load(odd), by_fours);
  // Inputs 0 | 1 and 2 | 3 of all tiles.
  const __m256i low = _mm256_permute4x64_epi64(_mm256_unpacklo_epi8(a, b), 0xd8);
  const __m256i high = _mm256_permute4x64_epi64(_mm256_unpackhi_epi8(a, b), 0xd8);
  const __m128i s0 = _mm256_castsi256_si128(low), s1 = _mm256_extracti128_si256(low, 1);
  // Inputs 4 and 5 are inputs 0 and 1 of the tile to the right.
  const __m128i next = _mm_unpacklo_epi8(LoadFour(even + 32), LoadFour(odd + 32));
  d[0] = _mm256_cvtepu8_epi16(s0);
  d[1] = _mm256_cvtepu8_epi16(s1);
  d[2] = _mm256_cvtepu8_epi16(_mm256_castsi256_si128(high));
  d[3] = _mm256_cvtepu8_epi16(_mm256_extracti128_si256(high, 1));
  d[4] = _mm256_cvtepu8_epi16(_mm_alignr_epi8(next, s0, 2));
  d[5] = _mm256_cvtepu8_epi16(_mm_alignr_epi8(_mm_srli_si128(next, 2), s1, 2));
}

[[gnu::always_inline]] inline __m256i Add16(__m256i a, __m256i b) { return _mm256_add_epi16(a, b); }
[[gnu::always_inline]] inline __m256i Sub16(__m256i a, __m256i b) { return _mm256_sub_epi16(a, b); }

// B^T d in place.
[[gnu::always_inline]] inline void TimesB(__m256i (&d)[kSide]) {
  const __m256i even = Sub16(d[4], d[2]), odd = Sub16(d[3], d[1]);
  const __m256i even4 = Sub16(d[4], _mm256_slli_epi16(d[2], 2));
  const __m256i odd4 = Sub16(d[3], _mm256_slli_epi16(d[1], 2));
  const __m256i odd2 = Add16(odd, odd);
  d[0] = Add16(_mm256_slli_epi16(Sub16(d[0], d[2]), 2), even);
  d[5] = Sub16(Sub16(d[5], d[3]), _mm256_slli_epi16(odd, 2));
  d[1] = Add16(even4, odd4);
  d[2] = Sub16(even4, odd4);
  d[3] = Add16(even, odd2);
  d[4] = Sub16(even, odd2);
}

// Four rows of 8 N tiles at one position; rows are `row_step` elements of products apart.
template <int N>
[[gnu::always_inline]] inline void Panel(const std::byte* x, int64_t x_step, const int16_t* w,
                                         int64_t pairs, int32_t* out, int64_t row_step) {
  constexpr int R = kWinogradPanelRows;
  __m256i s[R][N];
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 2
    for (int n = 0; n < N; ++n) s[r][n] = _mm256_setzero_si256();
  }
  for (int64_t i = 0; i < pairs; ++i, x += x_step, w += 2 * R) {
    __m256i q[N];
#pragma GCC unroll 2
    for (int n = 0; n < N; ++n) q[n] = Load(x + 32 * n);
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      const __m256i weight = Broadcast256(w + 2 * r);
#pragma GCC unroll 2
      for (int n = 0; n < N; ++n) {
        s[r][n] = _mm256_add_epi32(s[r][n], _mm256_madd_epi16(q[n], weight));
      }
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 2
    for (int n = 0; n < N; ++n) {
      int32_t* to = out + r * row_step + n * kWinogradPositions * kLanes;
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), s[r][n]);
    }
  }
}

[[gnu::always_inline]] inline __m256i Add32(__m256i a, __m256i b) { return _mm256_add_epi32(a, b); }
[[gnu::always_inline]] inline __m256i Sub32(__m256i a, __m256i b) { return _mm256_sub_epi32(a, b); }
[[gnu::always_inline]] inline __m256i Twice(__m256i a) { return Add32(a, a); }

// A^T m.
[[gnu::always_inline]] inline void TimesA(const __m256i (&m)[kSide], __m256i (&y)[kOut]) {
  const __m256i sum12 = Add32(m[1], m[2]), difference12 = Sub32(m[1], m[2]);
  const __m256i sum34 = Add32(m[3], m[4]), difference34 = Sub32(m[3], m[4]);
  y[0] = Add32(Twice(Add32(m[0], Twice(sum12))), sum34);
  y[1] = Add32(Twice(difference12), difference34);
  y[2] = Add32(sum12, sum34);
  y[3] = Add32(difference12, Twice(Add32(difference34, m[5])));
}

// The sums of four lines: y[i][j] has pixel j of line i of eight tiles.
[[gnu::always_inline]] inline void Sums(const int32_t* products, __m256i bias,
                                        __m256i (&y)[kOut][kOut]) {
  __m256i half[kSide][kOut];  // [column][line]
#pragma GCC unroll 6
  for (int j = 0; j < kSide; ++j) {
    __m256i m[kSide];
#pragma GCC unroll 6
    for (int i = 0; i < kSide; ++i) m[i] = Load(products + (i * kSide + j) * kLanes);
    TimesA(m, half[j]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < kOut; ++i) {
    const __m256i m[kSide] = {half[0][i], half[1][i], half[2][i],
                              half[3][i], half[4][i], half[5][i]};
    TimesA(m, y[i]);
#pragma GCC unroll 4
    for (int j = 0; j < kOut; ++j) {
      const __m256i exact = _mm256_mullo_epi32(y[i][j], _mm256_set1_epi32(kInverseOf9));
      y[i][j] = Add32(_mm256_srai_epi32(exact, kTwos[i] + kTwos[j]), bias);
    }
  }
}

// The codes of one line: four of each of eight tiles.
[[gnu::always_inline]] inline __m256i CodesOf(const EpilogueView& e, __m256 scale,
                                              const __m256i (&sums)[kOut]) {
  const Vectors256<kOut> line = {{sums[0], sums[1], sums[2], sums[3]}};
  const __m256i by_fours = _mm256_broadcastsi128_si256(
      _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
  return _mm256_shuffle_epi8(Codes256(e, line, scale), by_fours);
}

// Four elements of 4 bytes of each of eight tiles, tile by tile.
[[gnu::always_inline]] inline void StoreWide(const __m256i (&v)[kOut], std::byte* out) {
  const __m256i low01 = _mm256_unpacklo_epi32(v[0], v[1]),
                low23 = _mm256_unpacklo_epi32(v[2], v[3]);
  const __m256i high01 = _mm256_unpackhi_epi32(v[0], v[1]);
  const __m256i high23 = _mm256_unpackhi_epi32(v[2], v[3]);
  // Tiles i and i + 4.
  const __m256i t[4] = {_mm256_unpacklo_epi64(low01, low23), _mm256_unpackhi_epi64(low01, low23),
                        _mm256_unpacklo_epi64(high01, high23),
                        _mm256_unpackhi_epi64(high01, high23)};
  auto* to = reinterpret_cast<__m256i*>(out);
  _mm256_storeu_si256(to, _mm256_permute2x128_si256(t[0], t[1], 0x20));
  _mm256_storeu_si256(to + 1, _mm256_permute2x128_si256(t[2], t[3], 0x20));
  _mm256_storeu_si256(to + 2, _mm256_permute2x128_si256(t[0], t[1], 0x31));
  _mm256_storeu_si256(to + 3, _mm256_permute2x128_si256(t[2], t[3], 0x31));
}

}  // namespace

void WinogradTransformAvx2(const WinogradInput& in, int64_t stride, std::byte* out) noexcept {
  __m256i d[kSide][kSide];
#pragma GCC unroll 6
  for (int i = 0; i < kSide; ++i) {
    LoadLine(in.even + i * in.row_bytes, in.odd + i * in.row_bytes, d[i]);
    TimesB(d[i]);
  }
#pragma GCC unroll 6
  for (int j = 0; j < kSide; ++j) {
    __m256i column[kSide] = {d[0][j], d[1][j], d[2][j], d[3][j], d[4][j], d[5][j]};
    TimesB(column);
#pragma GCC unroll 6
    for (int i = 0; i < kSide; ++i) {
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + (i * kSide + j) * stride), column[i]);
    }
  }
}

void WinogradMultiplyAvx2(const WinogradProduct& product, const std::byte* operand,
                          const int16_t* weights, int32_t* products) noexcept {
  const auto [pairs, columns, panels] = product;
  const int64_t vector_step = kWinogradPositions * kLanes,
                row_step = columns / kLanes * vector_step;
  const int64_t stride = WinogradStride(pairs, columns);
  for (int64_t p = 0; p < kWinogradPositions; ++p, operand += stride, products += kLanes) {
    for (int64_t panel = 0; panel < panels; ++panel) {
      int32_t* out = products + panel * kWinogradPanelRows * row_step;
      int64_t n = 0;
      for (; n + 16 <= columns; n += 16, out += 2 * vector_step) {
        Panel<2>(operand + 4 * n, 4 * columns, weights, pairs, out, row_step);
      }
      if (n < columns) Panel<1>(operand + 4 * n, 4 * columns, weights, pairs, out, row_step);
      weights += pairs * 2 * kWinogradPanelRows;
    }
  }
}

void WinogradOutputAvx2(const int32_t* products, int64_t columns, const EpilogueView& e,
                        int64_t row, std::byte* staged) noexcept {
  const __m256i bias = _mm256_set1_epi32(e.bias[row]);
  const __m256 scale = _mm256_set1_ps(e.output == GemmOutput::kInt32 ? 0 : e.scale[row]);
  const int64_t line_bytes = columns * kOut * OutputBytes(e.output);
  for (int64_t n = 0; n < columns; n += kLanes, products += kWinogradPositions * kLanes) {
    __m256i y[kOut][kOut];
    Sums(products, bias, y);
    for (int i = 0; i < kOut; ++i) {
      std::byte* line = staged + i * line_bytes + n * kOut * OutputBytes(e.output);
      if (e.output == GemmOutput::kUInt8) [[likely]] {
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(line), CodesOf(e, scale, y[i]));
        continue;
      }
      if (e.output == GemmOutput::kFloat32) {
        for (__m256i& v : y[i]) {
          v = _mm256_castps_si256(_mm256_mul_ps(_mm256_cvtepi32_ps(v), scale));
        }
      }
      StoreWide(y[i], line);
    }
  }
}

}  // namespace pared

#pragma GCC pop_options
