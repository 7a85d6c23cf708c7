#include "kernels/gemm_f32.h"

#include <algorithm>
#include <cstring>

namespace pared {
namespace {

// A block of A, 6 x 512, is 12 KB and stays in L1.
constexpr int64_t kSmallAColumns = 128;
constexpr int64_t kSmallA = 64 * 1024;

}  // namespace

int64_t PanelGroup(int64_t a_floats, const F32Kernels& kernels) {
  int64_t columns = kernels.packed_floats / kBlockK;
  if (a_floats <= kSmallA) columns = std::min(columns, kSmallAColumns);
  return columns / kernels.tile_columns;
}

int64_t PackedLhsFloats(int64_t m, int64_t k, const F32Kernels& kernels) {
  return CeilDiv(m, kernels.tile_rows) * kernels.tile_rows * k;
}

int64_t PackedRhsFloats(int64_t k, int64_t n, const F32Kernels& kernels) {
  return CeilDiv(n, kernels.tile_columns) * kernels.tile_columns * k;
}

void PackLhs(const MatrixF32& a, const F32Kernels& kernels, float* packed) noexcept {
  const int64_t rows = kernels.tile_rows;
  for (int64_t first = 0; first < a.rows; first += rows) {
    const int64_t used = std::min(rows, a.rows - first);
    for (int64_t k = 0; k < a.columns; ++k, packed += rows) {
      const float* from = a.data + first * a.row_step + k * a.column_step;
      for (int64_t r = 0; r < rows; ++r) packed[r] = r < used ? from[r * a.row_step] : 0.0F;
    }
  }
}

void PackRhs(const MatrixF32& b, const F32Kernels& kernels, int64_t panel_begin, int64_t panel_end,
             float* packed) noexcept {
  const int64_t width = kernels.tile_columns;
  for (int64_t panel = panel_begin; panel < panel_end; ++panel) {
    const int64_t first = panel * width;
    const int64_t used = std::min(width, b.columns - first);
    float* target = packed + panel * width * b.rows;
    const float* from = b.data + first * b.column_step;
    if (b.column_step == 1) {
      for (int64_t k = 0; k < b.rows; ++k, target += width, from += b.row_step) {
        std::memcpy(target, from, static_cast<size_t>(used) * sizeof(float));
        std::fill(target + used, target + width, 0.0F);
      }
      continue;
    }
    // Columns are contiguous: 64 rows at a time are read by whole lines, some at a time from
    // memory, and stay in L1 as they are written.
    for (int64_t k0 = 0; k0 < b.rows; k0 += 64) {
      const int64_t k1 = std::min(b.rows, k0 + 64);
      for (int64_t j = 0; j < width; ++j) {
        const float* column = from + j * b.column_step;
        for (int64_t k = k0; k < k1; ++k) {
          target[k * width + j] = j < used ? column[k * b.row_step] : 0.0F;
        }
      }
    }
  }
}

void SetLhs(GemmF32& gemm, const MatrixF32& a) {
  gemm.a = a.data;
  gemm.a_row = a.row_step;
  gemm.a_step = a.column_step;
  gemm.a_block = -1;  // rows of a block are row_step apart, as blocks are: see RunGemmPart
}

void SetPackedLhs(GemmF32& gemm, const float* packed, const F32Kernels& kernels) {
  gemm.a = packed;
  gemm.a_row = 1;
  gemm.a_step = kernels.tile_rows;
  gemm.a_block = kernels.tile_rows * gemm.k;
}

int64_t RowBlocks(const GemmF32& gemm, const F32Kernels& kernels) {
  return CeilDiv(gemm.m, kernels.tile_rows);
}

int64_t Panels(const GemmF32& gemm, const F32Kernels& kernels) {
  return CeilDiv(gemm.n, kernels.tile_columns);
}

void RunGemmPart(const GemmF32& gemm, const F32Kernels& kernels, const TileRange& range,
                 const GemmPartF32& part) noexcept {
  const int64_t rows = kernels.tile_rows;
  const int64_t columns = kernels.tile_columns;
  const int64_t a_block = gemm.a_block < 0 ? rows * gemm.a_row : gemm.a_block;
  GemmTileF32 tile;
  tile.a_row = gemm.a_row;
  tile.a_step = gemm.a_step;
  tile.c_row = gemm.c_row;
  tile.k = part.k_count;
  tile.accumulate = part.k_begin > 0;
  tile.finish = part.k_begin + part.k_count == gemm.k;
  tile.activation = gemm.activation;
  for (int64_t block = range.block_begin; block < range.block_end; ++block) {
    const int64_t row = block * rows;
    tile.a = gemm.a + block * a_block + part.k_begin * gemm.a_step;
    tile.rows = std::min(rows, gemm.m - row);
    tile.row_bias = gemm.row_bias == nullptr ? nullptr : gemm.row_bias + row;
    for (int64_t panel = range.panel_begin; panel < range.panel_end; ++panel) {
      const int64_t column = panel * columns;
      const int64_t at = row * gemm.c_row + column;
      const int64_t offset = (panel - range.panel_begin) * part.panel_step;
      tile.c = gemm.c + at;
      tile.columns = std::min(columns, gemm.n - column);
      const bool packs =
          part.rows != nullptr && block == range.block_begin && tile.columns == columns;
      tile.b = packs ? part.rows + column : part.b + offset;
      tile.b_step = packs ? part.rows_step : columns;
      tile.packed = packs ? part.packed + offset : nullptr;
      tile.b_offsets = tile.columns == columns ? part.b_offsets : nullptr;
      for (int64_t v = 0; v < 2 && tile.b_offsets != nullptr; ++v) {
        tile.b_vectors[v] = part.b_vectors[2 * (panel - range.panel_begin) + v];
      }
      tile.column_bias = gemm.column_bias == nullptr ? nullptr : gemm.column_bias + column;
      tile.addend = gemm.addend == nullptr ? nullptr : gemm.addend + at;
      kernels.gemm_tile(tile);
    }
  }
}

void RunGemm(const GemmF32& gemm, const F32Kernels& kernels, const TileRange& range) noexcept {
  const int64_t group = PanelGroup(gemm.m * gemm.k, kernels);
  const int64_t width = kernels.tile_columns;
  for (int64_t panel = range.panel_begin; panel < range.panel_end; panel += group) {
    TileRange part_range = range;
    part_range.panel_begin = panel;
    part_range.panel_end = std::min(range.panel_end, panel + group);
    int64_t k = 0;
    do {  // once at least: with k = 0 the result is what the epilogue makes of zero
      GemmPartF32 part;
      part.k_begin = k;
      part.k_count = std::min(kBlockK, gemm.k - k);
      part.panel_step = gemm.k * width;
      part.b = gemm.b + panel * part.panel_step + k * width;
      RunGemmPart(gemm, kernels, part_range, part);
      k += kBlockK;
    } while (k < gemm.k);
  }
}

}  // namespace pared
