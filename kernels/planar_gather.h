// Convolution as GEMM straight from a planar image: gathers the inputs of 64 output pixels into a
// tile [k][64] without the padded copy that Im2col reads (im2col.h has the order of k).
//
// The source pixels of the 64 columns at one kernel position rise from column to column, so they
// lie in few windows of two lines of 64 pixels: one where the stride is 1. A window costs two
// loads and one two-register byte permute:
//
//   lines of one channel   [ 0 .. 63 ][ 64 .. 127 ][ 128 .. 191 ]
//   columns 0 .. 63                 [ window: any 64 of 128 ]         columns in the padding: a
//   constant

#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/im2col.h"

namespace pared {

class PlanarGather {
 public:
  static bool Supports(Isa isa) { return isa >= Isa::kAvx512Vnni && HasAvx512Vbmi(); }

  // The image has `total_channels`, of which the geometry's are some.
  PlanarGather(const ConvGeometry& geometry, int64_t total_channels);

  const ConvGeometry& geometry() const { return geometry_; }

  struct Channels {
    const uint8_t* x;  // that of channel 0 of the geometry in the image's first tile
    int64_t begin, end;
    uint8_t padding;  // what the columns beside the image read
  };
  // out: [(end - begin) * kernel][64], 64-byte aligned. Columns past the last pixel get `padding`.
  void Gather(const Channels& channels, int64_t tile, uint8_t* out) const noexcept;
  // The maximum over the kernel: out is [end - begin][64].
  void Max(const Channels& channels, int64_t tile, uint8_t* out) const noexcept;

 private:
  void PlanRow(int64_t tile, int64_t tap, int64_t line_bytes);
  PlanarRows RowsOf(int64_t tile) const;

  ConvGeometry geometry_;
  std::vector<PlanarWindow> windows_;
  std::vector<uint32_t>
      counts_;                 // windows of each row, a row for each kernel position of each tile
  std::vector<size_t> first_;  // window of each tile
  std::vector<PlanarPick> picks_;  // those of all windows, each once
};

}  // namespace pared
