#include "kernels/elementwise.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/elementwise_avx512.h"

namespace pared {
namespace {

// Clamped before rounding: the bounds are integers, and a conversion of what lies outside of int32
// would be undefined. The comparisons send NaN to `low`.
uint8_t Saturate(float v, int32_t zero_point, int32_t low, int32_t high) {
  const float floor = static_cast<float>(low - zero_point);
  const float ceiling = static_cast<float>(high - zero_point);
  v = v > floor ? v : floor;
  v = v < ceiling ? v : ceiling;
  return static_cast<uint8_t>(static_cast<int32_t>(std::nearbyint(v)) + zero_point);
}

uint8_t QuantizeOne(float x, QuantParams q) { return Saturate(x / q.scale, q.zero_point, 0, 255); }

float DequantizeOne(uint8_t x, QuantParams q) {
  return static_cast<float>(x - q.zero_point) * q.scale;
}

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

template <class T>
void CopyRowsFromPlanar(const T* x, ImageSize size, TileRange tiles, T* y) {
  EachTile(size, tiles, [&](int64_t pixel, int64_t columns, int64_t tile) {
    for (int64_t n = 0; n < columns; ++n) {
      for (int64_t c = 0; c < size.channels; ++c) {
        y[(pixel + n) * size.channels + c] = x[tile + c * 64 + n];
      }
    }
  });
}

}  // namespace

void Quantize(std::span<const float> x, QuantParams q, uint8_t* y, Isa isa) noexcept {
  if (isa >= Isa::kAvx512Vnni) return QuantizeAvx512(x, q, y);
  for (size_t i = 0; i < x.size(); ++i) y[i] = QuantizeOne(x[i], q);
}

void Dequantize(std::span<const uint8_t> x, QuantParams q, float* y) noexcept {
  // Blocks of constant length: gcc vectorizes those at -O2.
  size_t i = 0;
  for (; i + 16 <= x.size(); i += 16) {
    std::array<float, 16> block;
    for (size_t j = 0; j < 16; ++j) block[j] = DequantizeOne(x[i + j], q);
    std::memcpy(y + i, block.data(), sizeof block);
  }
  for (; i < x.size(); ++i) y[i] = DequantizeOne(x[i], q);
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
                          float* y) noexcept {
  EachTile(size, tiles, [&](int64_t pixel, int64_t columns, int64_t tile) {
    for (int64_t c = 0; c < size.channels; ++c) {
      Dequantize({x + tile + c * 64, static_cast<size_t>(columns)}, q, y + c * size.pixels + pixel);
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
  std::array<uint8_t, 64> row{};
  EachTile(size, tiles, [&](int64_t pixel, int64_t columns, int64_t tile) {
    for (int64_t c0 = 0; c0 < size.channels; c0 += 64) {
      const int64_t count = std::min<int64_t>(64, size.channels - c0);
      for (int64_t n = 0; n < columns; ++n) {
        Quantize({x + (pixel + n) * size.channels + c0, static_cast<size_t>(count)}, q, row.data(),
                 isa);
        uint8_t* out = y + tile + c0 * 64 + n;
        for (int64_t c = 0; c < count; ++c) out[c * 64] = row[static_cast<size_t>(c)];
      }
    }
  });
}

void RowsToPlanar(const uint8_t* x, ImageSize size, TileRange tiles, uint8_t* y) noexcept {
  EachTile(size, tiles, [&](int64_t pixel, int64_t columns, int64_t tile) {
    for (int64_t n = 0; n < columns; ++n) {
      for (int64_t c = 0; c < size.channels; ++c) {
        y[tile + c * 64 + n] = x[(pixel + n) * size.channels + c];
      }
    }
  });
}

void RowsFromPlanar(const uint8_t* x, ImageSize size, TileRange tiles, uint8_t* y) noexcept {
  CopyRowsFromPlanar(x, size, tiles, y);
}
void RowsFromPlanar(const float* x, ImageSize size, TileRange tiles, float* y) noexcept {
  CopyRowsFromPlanar(x, size, tiles, y);
}
void RowsFromPlanar(const int32_t* x, ImageSize size, TileRange tiles, int32_t* y) noexcept {
  CopyRowsFromPlanar(x, size, tiles, y);
}

void AddQuantized(std::span<const uint8_t> a, const uint8_t* b, const AddParams& params, uint8_t* y,
                  Isa isa) noexcept {
  if (isa >= Isa::kAvx512Vnni) return AddQuantizedAvx512(a, b, params, y);
  for (size_t i = 0; i < a.size(); ++i) {
    const float sum = DequantizeOne(a[i], params.a) + DequantizeOne(b[i], params.b);
    y[i] = Saturate(sum / params.y.scale, params.y.zero_point, params.low, params.high);
  }
}

void MulQuantized(std::span<const uint8_t> a, const uint8_t* b, const AddParams& params, uint8_t* y,
                  Isa isa) noexcept {
  if (isa >= Isa::kAvx512Vnni) return MulQuantizedAvx512(a, b, params, y);
  for (size_t i = 0; i < a.size(); ++i) {
    const float product = DequantizeOne(a[i], params.a) * DequantizeOne(b[i], params.b);
    y[i] = Saturate(product / params.y.scale, params.y.zero_point, params.low, params.high);
  }
}

void LookUp(std::span<const uint8_t> x, const ByteTable& table, uint8_t* y, Isa isa) noexcept {
  if (isa >= Isa::kAvx512Vnni && HasAvx512Vbmi()) return LookUpAvx512(x, table, y);
  for (size_t i = 0; i < x.size(); ++i) y[i] = table[x[i]];
}

ByteTable RequantizeTable(QuantParams from, QuantParams to) {
  ByteTable table{};
  for (size_t i = 0; i < table.size(); ++i) {
    table[i] = QuantizeOne(DequantizeOne(static_cast<uint8_t>(i), from), to);
  }
  return table;
}

}  // namespace pared
