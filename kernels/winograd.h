// INT8 convolution by Winograd's F(4x4, 3x3), exact: 3x3 windows of stride and dilation 1 with 36
// products for 16 outputs in place of 144. Matrices: Lavin and Gray, "Fast Algorithms for
// Convolutional Neural Networks" (CVPR 2016), section 4.3.
//
//   y = A^T [(G g G^T) * (B^T d B)] A      d: 6x6 inputs, g: 3x3 weights, y: 4x4 outputs
//
// Rows of G have denominators: row i is multiplied by s = 12, 6, 6, 24, 24, 3 and column i of A^T
// by 24 / s, so that all is integer. Row j of A^T keeps no common power of two:
//
//   B^T = 4  0 -5  0  1  0     s G =  3  0  0      A^T = 2  4  4  1  1  0   24 times too large
//         0 -4 -4  1  1  0           -1 -1 -1            0  2 -2  1 -1  0   12 times
//         0  4 -4 -1  1  0           -1  1 -1            0  1  1  1  1  0    6 times
//         0 -2 -1  2  1  0            1  2  4            0  1 -1  2 -2  2    6 times
//         0  2 -1 -2  1  0            1 -2  4
//         0  4  0 -5  0  1            0  0  3
//
// Transformed codes are at most 68 * 255 = 17,340, weights 49 * 128 = 6,272: int16, exact. Sums of
// their products are taken modulo 2^32. What A leaves is 9 * 2^a times the sum of w * x modulo
// 2^32, a <= 6: times the inverse of 9 modulo 2^32, then shifted right by a, it is that sum
// wherever the sum lies within 2^25 (Accepts).
//
// A block of tiles of 4x4 outputs is worked on at a time, T of them, a multiple of 8:
//
//   operand     [36][pairs of channels][T][2]    int16: what one load brings is eight tiles
//   weights     [rows / 16][36][4 panels][pairs of channels][4 rows][2]    int16
//   products    [16 rows][T / 8][36][8]          int32, of 16 rows at a time
//   staged      [4][T][4]                        outputs of one row: 4 lines of pixels
//
// then lines go where they belong in the planar output (gemm.h).

#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "kernels/aligned.h"
#include "kernels/elementwise.h"
#include "kernels/gemm.h"
#include "kernels/im2col.h"

namespace pared {

class PackedEpilogue;  // packing.h

// How the outputs of one size of image are cut into blocks.
class WinogradPlan {
 public:
  // Of at most `block_tiles` tiles each, a multiple of 8.
  WinogradPlan(const ConvGeometry& geometry, int64_t block_tiles, Isa isa);

  static int64_t TilesOf(const ConvGeometry& geometry);

  // Pads the input so that there are whole tiles.
  const Im2col& im2col() const { return im2col_; }
  int64_t row_bytes() const { return row_bytes_; }  // of the padded image

  // Tiles side by side; `offset`: of the first one's input in a channel of the padded image.
  struct Run {
    int64_t offset, column, count;
  };
  // Pixels that lie side by side, staged and in a tile of the planar output.
  struct Piece {
    int64_t from, tile, column, count;
  };
  struct Block {
    int64_t columns = 0;  // T
    std::vector<Run> runs;
    std::vector<Piece> pieces;
  };
  std::span<const Block> blocks() const { return blocks_; }
  int64_t columns_max() const { return columns_max_; }  // of a block

 private:
  void AddPieces(const ConvGeometry& geometry, int64_t tile, Block& block) const;

  Im2col im2col_;
  int64_t row_bytes_ = 0, columns_max_ = 0;
  std::vector<Block> blocks_;
};

// Immutable; Transform and Run may be called by many threads at once.
class PackedWinograd {
 public:
  static constexpr int64_t kGroupRows = 16;

  // Whether `isa` has the kernel and all sums of these weights, [m][channels][3][3], are in reach.
  static bool Accepts(const GemmWeights& weights, Isa isa);

  explicit PackedWinograd(const GemmWeights& weights);
  ~PackedWinograd();

  int64_t m() const { return m_; }
  int64_t pairs() const { return (channels_ + 1) / 2; }
  int64_t groups() const { return (m_ + kGroupRows - 1) / kGroupRows; }
  // Tiles of a block of which operand and products stay in the L2 cache.
  int64_t block_tiles() const;

  size_t operand_bytes(int64_t columns) const;
  size_t scratch_bytes(int64_t columns) const;  // of Run
  size_t weight_bytes() const;
  static const char* kernel_name() { return "winograd_avx2"; }

  // The operand of pairs [begin, end) of channels. `image`: padded by the plan's Im2col.
  struct Part {
    const WinogradPlan* plan;
    int64_t block, begin, end;
  };
  void Transform(const uint8_t* image, const Part& pairs, std::byte* operand) const noexcept;
  struct Output {
    void* y;                           // [tiles][m][64] of the output's type
    const ByteTable* table = nullptr;  // what becomes of each code; null: it stays
  };
  // The outputs of groups [begin, end) of 16 rows.
  void Run(const std::byte* operand, const Part& groups, const Output& output,
           std::byte* scratch) const noexcept;
  // The same as they are staged, one row behind the other: [m][4][T][4]. Pieces say where they
  // belong.
  void Stage(const std::byte* operand, const Part& groups, std::byte* staged,
             std::byte* scratch) const noexcept;
  // Of a row.
  static int64_t staged_elements(int64_t columns) { return columns * 16; }

 private:
  // Calls visit(row, products of the row).
  template <class Visit>
  void ForEachRow(const std::byte* operand, const Part& groups, std::byte* scratch,
                  const Visit& visit) const noexcept;
  void Place(const WinogradPlan::Block& block, int64_t row, std::byte* staged,
             const Output& output) const noexcept;

  int64_t m_, channels_;
  AlignedBuffer<int16_t> values_;
  std::unique_ptr<const PackedEpilogue> epilogue_;
};

}  // namespace pared
