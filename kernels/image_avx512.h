// AVX-512 versions of the inner loops of im2col.cc.

#pragma once

#include <array>
#include <cstdint>
#include <span>

namespace pared {

// Columns of a tile that lie within 128 bytes of a padded image.
struct GatherWindow {
  int64_t start;                             // of the 128 bytes
  uint64_t columns;                          // bit i: column i is in this window
  alignas(64) std::array<uint8_t, 64> pick;  // where in the window
};

// Needs VBMI. out[64] = the columns of all windows relative to `image`.
void GatherRowAvx512(const uint8_t* image, std::span<const GatherWindow> windows,
                     uint8_t* out) noexcept;

// Columns of a tile that lie within two lines of a planar channel.
struct PlanarPick {
  alignas(64) std::array<uint8_t, 64> from;  // 0 to 127: where in the two lines
};
struct PlanarWindow {
  int64_t low, high;  // bytes from the channel's first line to both
  uint64_t columns;   // bit i: column i is in this window
  uint32_t pick;      // of PlanarRows::picks
};
// The rows of one tile and channel, one for each kernel position.
struct PlanarRows {
  const PlanarWindow* windows;  // of row 0, then of row 1, ...
  const PlanarPick* picks;
  const uint32_t* counts;  // windows of each row
  int64_t rows;
};

// Needs VBMI. out: [rows][64], 64-byte aligned; columns in no window get `padding`.
void GatherPlanarAvx512(const uint8_t* channel, const PlanarRows& rows, uint8_t padding,
                        uint8_t* out) noexcept;
// The maximum of all rows.
void MaxPlanarAvx512(const uint8_t* channel, const PlanarRows& rows, uint8_t padding,
                     uint8_t* out) noexcept;

// Copies a row of `width` bytes that begins at pixel `pixel` of one channel of a planar image,
// whose tiles are `tile_stride` bytes apart.
void CopyPlanarRowAvx512(const uint8_t* channel, int64_t tile_stride, int64_t pixel, int64_t width,
                         uint8_t* out) noexcept;

}  // namespace pared
