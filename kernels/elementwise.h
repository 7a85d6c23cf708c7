// What surrounds the INT8 GEMM: quantize and dequantize, changes of layout, additions, tables and
// pools. All results are the same bits on every ISA.
//
// Layouts of one image of c channels and p pixels (or of a matrix of k columns and n rows, where
// channel means column and pixel means row):
//   planar: [tile][c][64], 64 pixels a tile; what lies past pixel p in the last tile is anything
//   by channel: [c][p], NCHW          by pixel: [p][c], NHWC, or the rows of a matrix

#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "kernels/cpu.h"
#include "kernels/im2col.h"

namespace pared {

struct QuantParams {
  float scale = 1;
  int32_t zero_point = 0;
};

struct ImageSize {
  int64_t channels = 0, pixels = 0;
  int64_t tiles() const { return (pixels + 63) / 64; }
  int64_t planar_bytes() const { return tiles() * channels * 64; }
};

// ONNX QuantizeLinear: saturate(round_even(x / scale) + zero_point). NaN becomes 0.
void Quantize(std::span<const float> x, QuantParams q, uint8_t* y, Isa isa) noexcept;
// (x - zero_point) * scale
void Dequantize(std::span<const uint8_t> x, QuantParams q, float* y, Isa isa) noexcept;

// By channel <-> planar, tiles [begin, end) of the planar side.
struct TileRange {
  int64_t begin, end;
};
void QuantizeToPlanar(const float* x, ImageSize size, QuantParams q, TileRange tiles, uint8_t* y,
                      Isa isa) noexcept;
void DequantizeFromPlanar(const uint8_t* x, ImageSize size, QuantParams q, TileRange tiles,
                          float* y, Isa isa) noexcept;
void ToPlanar(const uint8_t* x, ImageSize size, TileRange tiles, uint8_t* y) noexcept;
void FromPlanar(const uint8_t* x, ImageSize size, TileRange tiles, uint8_t* y) noexcept;
void FromPlanar(const float* x, ImageSize size, TileRange tiles, float* y) noexcept;
void FromPlanar(const int32_t* x, ImageSize size, TileRange tiles, int32_t* y) noexcept;

// By pixel <-> planar: for a MatMul, tokens are pixels.
void QuantizeRowsToPlanar(const float* x, ImageSize size, QuantParams q, TileRange tiles,
                          uint8_t* y, Isa isa) noexcept;
void RowsToPlanar(const uint8_t* x, ImageSize size, TileRange tiles, uint8_t* y) noexcept;
void RowsFromPlanar(const uint8_t* x, ImageSize size, TileRange tiles, uint8_t* y) noexcept;
void RowsFromPlanar(const float* x, ImageSize size, TileRange tiles, float* y) noexcept;
void RowsFromPlanar(const int32_t* x, ImageSize size, TileRange tiles, int32_t* y) noexcept;

// y = quantize(dequantize(a) + dequantize(b)), in float, then clamped to [low, high]: the layout
// does not matter.
struct AddParams {
  QuantParams a, b, y;
  int32_t low = 0, high = 255;
};
void AddQuantized(std::span<const uint8_t> a, const uint8_t* b, const AddParams& params, uint8_t* y,
                  Isa isa) noexcept;
void MulQuantized(std::span<const uint8_t> a, const uint8_t* b, const AddParams& params, uint8_t* y,
                  Isa isa) noexcept;

// y[i] = table[x[i]]: every unary function of a uint8.
using ByteTable = std::array<uint8_t, 256>;
void LookUp(std::span<const uint8_t> x, const ByteTable& table, uint8_t* y, Isa isa) noexcept;
// The table of quantize(f(dequantize(x))) for f the identity.
ByteTable RequantizeTable(QuantParams from, QuantParams to);

// Pools over the padded image of `im2col`, whose padding for MaxPoolTile must be 0 (never the
// maximum: every window holds a real pixel). Channels [begin, end) of one output tile, planar
// [tiles][channels][64]. `scratch`: kernel positions * 64 + 64 bytes, 64-byte aligned.
struct PoolRange {
  int64_t tile, begin, end;
};
void MaxPoolTile(const Im2col& im2col, const uint8_t* image, PoolRange range, uint8_t* y,
                 std::byte* scratch) noexcept;

// quantize(dequantized mean of the window). The padded image must be padded with x's zero point;
// count_include_pad as ONNX defines it.
struct AveragePoolParams {
  QuantParams x, y;
  bool count_include_pad = false;
  Isa isa = Isa::kReference;
};
void AveragePoolTile(const Im2col& im2col, const AveragePoolParams& params, const uint8_t* image,
                     PoolRange range, uint8_t* y, std::byte* scratch) noexcept;

// The mean over all pixels of each channel of a planar image; y: [channels].
void GlobalAveragePool(const uint8_t* x, ImageSize size, QuantParams from, QuantParams to,
                       uint8_t* y) noexcept;
// The exact sums, for those who dequantize: y[c] = sum over pixels of x.
void SumPixels(const uint8_t* x, ImageSize size, int64_t* y) noexcept;

}  // namespace pared
