// The loops of kernels/winograd.h for AVX2; that file draws the layouts.

#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/packing.h"

namespace pared {

constexpr int64_t kWinogradPositions = 36;
constexpr int64_t kWinogradPanelRows = 4;

// Bytes between the positions of an operand: a line more than its size, or the 36 stores of a
// transformed tile would meet in one set of the L1 cache.
constexpr int64_t WinogradStride(int64_t pairs, int64_t columns) {
  return pairs * columns * 4 + 64;
}

// Two channels of the padded image, 6x6 inputs of up to eight tiles side by side.
struct WinogradInput {
  const uint8_t *even, *odd;
  int64_t row_bytes;
};
// To `out`, positions `stride` bytes apart: all eight tiles, whatever follows in the image.
void WinogradTransformAvx2(const WinogradInput& in, int64_t stride, std::byte* out) noexcept;

// All positions of `panels` panels over `columns` tiles.
struct WinogradProduct {
  int64_t pairs, columns, panels;
};
void WinogradMultiplyAvx2(const WinogradProduct& product, const std::byte* operand,
                          const int16_t* weights, int32_t* products) noexcept;

// The outputs of one row: products are [columns / 8][36][8].
void WinogradOutputAvx2(const int32_t* products, int64_t columns, const EpilogueView& e,
                        int64_t row, std::byte* staged) noexcept;

}  // namespace pared
