#include "kernels/elementwise.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "kernels/elementwise_avx2.h"
#include "kernels/elementwise_avx512.h"

namespace pared {
namespace {

#pragma GCC push_options
#pragma GCC optimize("O3")
#define PARED_LOOPS "kernels/elementwise_body.h"
#include "kernels/each_isa.h"
#pragma GCC pop_options

// Calls body(pixel, columns, tile): columns of the tile are pixels [pixel, pixel + columns).
template <class Body>
void EachTile(ImageSize size, TileRange tiles, Body body) {
  for (int64_t t = tiles.begin; t < tiles.end; ++t) {
    body(t * 64, std::min<int64_t>(64, size.pixels - t * 64), t * size.channels * 64);
  }
}

template <class T>
void CopyFromPlanar(const T* x, ImageSize size, TileRange tiles, T* y) {
  EachTile(size, tiles, [&](int64_t pixel, int64_t columns, int64_t tile) {
    for (int64_t c = 0; c < size.channels; ++c) {
      std::memcpy(y + c * size.pixels + pixel, x + tile + c * 64,
                  static_cast<size_t>(columns) * sizeof(T));
    }
  });
}

using Words = int32_t __attribute__((vector_size(16)));

// y[n * channels + c] = x[c * 64 + n] for four n and four c, of 4-byte elements.
void TransposeWords(const void* x, void* y, int64_t channels) {
  Words rows[4];
  for (int64_t i = 0; i < 4; ++i) {
    std::memcpy(&rows[i], static_cast<const std::byte*>(x) + i * 256, sizeof(Words));
  }
  const Words low[] = {__builtin_shufflevector(rows[0], rows[1], 0, 4, 1, 5),
                       __builtin_shufflevector(rows[2], rows[3], 0, 4, 1, 5)};
  const Words high[] = {__builtin_shufflevector(rows[0], rows[1], 2, 6, 3, 7),
                        __builtin_shufflevector(rows[2], rows[3], 2, 6, 3, 7)};
  const Words columns[] = {__builtin_shufflevector(low[0], low[1], 0, 1, 4, 5),
                           __builtin_shufflevector(low[0], low[1], 2, 3, 6, 7),
                           __builtin_shufflevector(high[0], high[1], 0, 1, 4, 5),
                           __builtin_shufflevector(high[0], high[1], 2, 3, 6, 7)};
  for (int64_t i = 0; i < 4; ++i) {
    std::memcpy(static_cast<std::byte*>(y) + i * channels * 4, &columns[i], sizeof(Words));
  }
}

// Blocks of 16 channels, so that the lines of all of them stay in the L1 cache.
template <class T>
void CopyRowsFromPlanar(const T* x, ImageSize size, TileRange tiles, T* y) {
  static_assert(sizeof(T) == 4);
  EachTile(size, tiles, [&](int64_t pixel, int64_t columns, int64_t tile) {
    for (int64_t c0 = 0; c0 < size.channels; c0 += 16) {
      const int64_t count = std::min<int64_t>(16, size.channels - c0);
      const T* from = x + tile + c0 * 64;
      T* to = y + pixel * size.channels + c0;
      const int64_t whole_columns = columns / 4 * 4, whole = count / 4 * 4;
      for (int64_t n = 0; n < whole_columns; n += 4) {
        for (int64_t c = 0; c < whole; c += 4) {
          TransposeWords(from + c * 64 + n, to + n * size.channels + c, size.channels);
        }
      }
      for (int64_t n = 0; n < columns; ++n) {
        for (int64_t c = n < whole_columns ? whole : 0; c < count; ++c) {
          to[n * size.channels + c] = from[c * 64 + n];
        }
      }
    }
  });
}

constexpr int64_t kBlock = 16;
using Bytes = uint8_t __attribute__((vector_size(kBlock)));

// 16 x 16 bytes. To interleave rows i and i + 8 rotates the eight bits of an element's place, row
// and column, by one: four times swap rows and columns.
void TransposeBlock(const uint8_t* x, int64_t x_stride, uint8_t* y, int64_t y_stride) {
  Bytes rows[kBlock], next[kBlock];
  for (int64_t i = 0; i < kBlock; ++i) std::memcpy(&rows[i], x + i * x_stride, kBlock);
  for (int round = 0; round < 4; ++round) {
    for (int64_t i = 0; i < kBlock / 2; ++i) {
      next[2 * i] = __builtin_shufflevector(rows[i], rows[i + 8], 0, 16, 1, 17, 2, 18, 3, 19, 4, 20,
                                            5, 21, 6, 22, 7, 23);
      next[2 * i + 1] = __builtin_shufflevector(rows[i], rows[i + 8], 8, 24, 9, 25, 10, 26, 11, 27,
                                                12, 28, 13, 29, 14, 30, 15, 31);
    }
    std::copy(next, next + kBlock, rows);
  }
  for (int64_t i = 0; i < kBlock; ++i) std::memcpy(y + i * y_stride, &rows[i], kBlock);
}

// y[c * y_stride + r] = x[r * x_stride + c]
void Transpose(const uint8_t* x, int64_t x_stride, int64_t rows, int64_t columns, uint8_t* y,
               int64_t y_stride) {
  const auto edge = [&](int64_t r0, int64_t r1, int64_t c0, int64_t c1) {
    for (int64_t r = r0; r < r1; ++r) {
      for (int64_t c = c0; c < c1; ++c) y[c * y_stride + r] = x[r * x_stride + c];
    }
  };
  const int64_t whole_rows = rows / kBlock * kBlock, whole_columns = columns / kBlock * kBlock;
  for (int64_t c = 0; c < whole_columns; c += kBlock) {
    for (int64_t r = 0; r < whole_rows; r += kBlock) {
      TransposeBlock(x + r * x_stride + c, x_stride, y + c * y_stride + r, y_stride);
    }
  }
  edge(0, whole_rows, whole_columns, columns);
  edge(whole_rows, rows, 0, columns);
}

}  // namespace

void Quantize(std::span<const float> x, QuantParams q, uint8_t* y, Isa isa) noexcept {
#ifdef __x86_64__
  if (isa >= Isa::kAvx512Vnni) return QuantizeAvx512(x, q, y);
  if (isa >= Isa::kAvx2) return avx2::QuantizeLoop(x, q, y);
#endif
  static_cast<void>(isa);
  plain::QuantizeLoop(x, q, y);
}

void Dequantize(std::span<const uint8_t> x, QuantParams q, float* y, Isa isa) noexcept {
#ifdef __x86_64__
  if (isa >= Isa::kAvx512Vnni) return DequantizeAvx512(x, q, y);
  if (isa >= Isa::kAvx2) return avx2::DequantizeLoop(x, q, y);
#endif
  static_cast<void>(isa);
  plain::DequantizeLoop(x, q, y);
}

void QuantizeToPlanar(const float* x, ImageSize size, QuantParams q, TileRange tiles, uint8_t* y,
                      Isa isa) noexcept {
  EachTile(size, tiles, [&](int64_t pixel, int64_t columns, int64_t tile) {
    for (int64_t c = 0; c < size.channels; ++c) {
      Quantize({x + c * size.pixels + pixel, static_cast<size_t>(columns)}, q, y + tile + c * 64,
               isa);
    }
  });
}

void DequantizeFromPlanar(const uint8_t* x, ImageSize size, QuantParams q, TileRange tiles,
                          float* y, Isa isa) noexcept {
  EachTile(size, tiles, [&](int64_t pixel, int64_t columns, int64_t tile) {
    for (int64_t c = 0; c < size.channels; ++c) {
      Dequantize({x + tile + c * 64, static_cast<size_t>(columns)}, q, y + c * size.pixels + pixel,
                 isa);
    }
  });
}

void ToPlanar(const uint8_t* x, ImageSize size, TileRange tiles, uint8_t* y) noexcept {
  EachTile(size, tiles, [&](int64_t pixel, int64_t columns, int64_t tile) {
    for (int64_t c = 0; c < size.channels; ++c) {
      std::memcpy(y + tile + c * 64, x + c * size.pixels + pixel, static_cast<size_t>(columns));
    }
  });
}

void FromPlanar(const uint8_t* x, ImageSize size, TileRange tiles, uint8_t* y) noexcept {
  CopyFromPlanar(x, size, tiles, y);
}
void FromPlanar(const float* x, ImageSize size, TileRange tiles, float* y) noexcept {
  CopyFromPlanar(x, size, tiles, y);
}
void FromPlanar(const int32_t* x, ImageSize size, TileRange tiles, int32_t* y) noexcept {
  CopyFromPlanar(x, size, tiles, y);
}

void QuantizeRowsToPlanar(const float* x, ImageSize size, QuantParams q, TileRange tiles,
                          uint8_t* y, Isa isa) noexcept {
  // Blocks of 64 channels, so that the bytes to transpose stay in the L1 cache.
  std::array<uint8_t, 64 * 64> block{};
  EachTile(size, tiles, [&](int64_t pixel, int64_t columns, int64_t tile) {
    for (int64_t c0 = 0; c0 < size.channels; c0 += 64) {
      const int64_t count = std::min<int64_t>(64, size.channels - c0);
      for (int64_t n = 0; n < columns; ++n) {
        Quantize({x + (pixel + n) * size.channels + c0, static_cast<size_t>(count)}, q,
                 block.data() + n * 64, isa);
      }
      Transpose(block.data(), 64, columns, count, y + tile + c0 * 64, 64);
    }
  });
}

void RowsToPlanar(const uint8_t* x, ImageSize size, TileRange tiles, uint8_t* y) noexcept {
  EachTile(size, tiles, [&](int64_t pixel, int64_t columns, int64_t tile) {
    Transpose(x + pixel * size.channels, size.channels, columns, size.channels, y + tile, 64);
  });
}

void RowsFromPlanar(const uint8_t* x, ImageSize size, TileRange tiles, uint8_t* y) noexcept {
  EachTile(size, tiles, [&](int64_t pixel, int64_t columns, int64_t tile) {
    Transpose(x + tile, 64, size.channels, columns, y + pixel * size.channels, size.channels);
  });
}
void RowsFromPlanar(const float* x, ImageSize size, TileRange tiles, float* y) noexcept {
  CopyRowsFromPlanar(x, size, tiles, y);
}
void RowsFromPlanar(const int32_t* x, ImageSize size, TileRange tiles, int32_t* y) noexcept {
  CopyRowsFromPlanar(x, size, tiles, y);
}

void AddQuantized(std::span<const uint8_t> a, const uint8_t* b, const AddParams& params, uint8_t* y,
                  Isa isa) noexcept {
#ifdef __x86_64__
  if (isa >= Isa::kAvx512Vnni) return AddQuantizedAvx512(a, b, params, y);
  if (isa >= Isa::kAvx2) return avx2::CombineLoop<false>(a, b, params, y);
#endif
  static_cast<void>(isa);
  plain::CombineLoop<false>(a, b, params, y);
}

void MulQuantized(std::span<const uint8_t> a, const uint8_t* b, const AddParams& params, uint8_t* y,
                  Isa isa) noexcept {
#ifdef __x86_64__
  if (isa >= Isa::kAvx512Vnni) return MulQuantizedAvx512(a, b, params, y);
  if (isa >= Isa::kAvx2) return avx2::CombineLoop<true>(a, b, params, y);
#endif
  static_cast<void>(isa);
  plain::CombineLoop<true>(a, b, params, y);
}

void LookUp(std::span<const uint8_t> x, const ByteTable& table, uint8_t* y, Isa isa) noexcept {
#ifdef __x86_64__
  if (isa >= Isa::kAvx512Vnni && HasAvx512Vbmi()) return LookUpAvx512(x, table, y);
  if (isa >= Isa::kAvx2) return LookUpAvx2(x, table, y);
#endif
  static_cast<void>(isa);
  for (size_t i = 0; i < x.size(); ++i) y[i] = table[x[i]];
}

ByteTable RequantizeTable(QuantParams from, QuantParams to) {
  ByteTable table{};
  for (size_t i = 0; i < table.size(); ++i) {
    const float x = plain::DequantizeOne(static_cast<uint8_t>(i), from);
    table[i] = plain::Saturate(x / to.scale, to.zero_point, 0, 255);
  }
  return table;
}

}  // namespace pared
