// The last tile of a dense product, where fewer than 64 columns are in use: images of 7 x 7 and
// 14 x 14 end in 49 and 4.
//
//   49 columns = 3 vectors of 16 + 1 single column
//
// Vectors: the tile is repacked once to quads [k/4][vectors][16 columns][4], so that a step of a
// panel is a load a vector, a broadcast a row and a vpdpbusd for both; there is nothing to unpack.
// Single columns, up to seven: 16 consecutive dwords of a panel [k/4][R][4] are weights of
// 16 / R steps, and one permute brings the column's values beside them. That is a sixteenth of the
// products that a vector would compute, for about twice the cost of each; four columns at a time
// share the loads of weights and hide the latency of their sums.

#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/packing.h"

namespace pared {

struct DenseTail {
  const uint8_t* x;  // the tile, [k][64]
  int64_t columns;   // in use, 1 to 63
  const int8_t* w;   // PackDensePanels of group 4 and heights 6, 4, 2, 1
  int64_t m, k;
  void* y;             // the tile, [m][64]
  std::byte* scratch;  // DenseTailScratch(k) bytes, 64-byte aligned
};

size_t DenseTailScratch(int64_t k);

// False where the whole tile is cheaper; then nothing was done.
bool RunDenseTailAvx512Vnni(const DenseTail& tail, const EpilogueView& e) noexcept;

}  // namespace pared
