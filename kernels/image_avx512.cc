#include "kernels/image_avx512.h"

#include <immintrin.h>

#include <algorithm>

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512vbmi,bmi2")

namespace pared {

void GatherRowAvx512(const uint8_t* image, std::span<const GatherWindow> windows,
                     uint8_t* out) noexcept {
  __m512i row = _mm512_setzero_si512();
  for (const GatherWindow& window : windows) {
    const __m512i low = _mm512_loadu_si512(image + window.start);
    const __m512i high = _mm512_loadu_si512(image + window.start + 64);
    const __m512i pick = _mm512_load_si512(window.pick.data());
    row = _mm512_mask_blend_epi8(window.columns, row, _mm512_permutex2var_epi8(low, pick, high));
  }
  _mm512_storeu_si512(out, row);
}

namespace {

// The next row of a planar channel; `window` moves on to the row after it.
[[gnu::always_inline]] inline __m512i PlanarRow(const uint8_t* channel, const PlanarPick* picks,
                                                uint32_t count, const PlanarWindow*& window,
                                                __m512i padding) {
  __m512i row = padding;
  for (; count > 0; --count, ++window) {
    const __m512i low = _mm512_load_si512(channel + window->low);
    const __m512i high = _mm512_load_si512(channel + window->high);
    const __m512i from = _mm512_load_si512(picks[window->pick].from.data());
    row = _mm512_mask_blend_epi8(window->columns, row, _mm512_permutex2var_epi8(low, from, high));
  }
  return row;
}

}  // namespace

void GatherPlanarAvx512(const uint8_t* channel, const PlanarRows& rows, uint8_t padding,
                        uint8_t* out) noexcept {
  const PlanarWindow* window = rows.windows;
  const __m512i filled = _mm512_set1_epi8(static_cast<char>(padding));
  for (int64_t i = 0; i < rows.rows; ++i, out += 64) {
    _mm512_store_si512(out, PlanarRow(channel, rows.picks, rows.counts[i], window, filled));
  }
}

void MaxPlanarAvx512(const uint8_t* channel, const PlanarRows& rows, uint8_t padding,
                     uint8_t* out) noexcept {
  const PlanarWindow* window = rows.windows;
  const __m512i filled = _mm512_set1_epi8(static_cast<char>(padding));
  __m512i most = _mm512_setzero_si512();
  for (int64_t i = 0; i < rows.rows; ++i) {
    most = _mm512_max_epu8(most, PlanarRow(channel, rows.picks, rows.counts[i], window, filled));
  }
  _mm512_store_si512(out, most);
}

#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,bmi2")

void CopyPlanarRowAvx512(const uint8_t* channel, int64_t tile_stride, int64_t pixel, int64_t width,
                         uint8_t* out) noexcept {
  while (width > 0) {
    const int64_t column = pixel % 64, count = std::min(64 - column, width);
    const __mmask64 mask = _bzhi_u64(~uint64_t{0}, static_cast<unsigned>(count));
    const __m512i bytes =
        _mm512_maskz_loadu_epi8(mask, channel + pixel / 64 * tile_stride + column);
    _mm512_mask_storeu_epi8(out, mask, bytes);
    pixel += count;
    out += count;
    width -= count;
  }
}

#pragma GCC pop_options

}  // namespace pared
