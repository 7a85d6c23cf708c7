#include "kernels/sparse_f32.h"

#include <algorithm>
#include <cmath>

namespace pared {
namespace {

template <class RowAt>
SparseLhsF32 Pack(int64_t rows, int64_t k_all, int64_t step, int64_t nonzeros, RowAt row_at) {
  SparseLhsF32 packed{.rows = rows, .k = k_all, .nonzeros = nonzeros};
  packed.begins.reserve(static_cast<size_t>(CeilDiv(k_all, kSparseBlockK) * rows + 1));
  packed.begins.push_back(0);
  // Zeros are written too, and overwritten: a branch would be guessed wrong as often as not.
  packed.values.resize(static_cast<size_t>(nonzeros + 1));
  packed.k_in_block.resize(static_cast<size_t>(nonzeros + 1));
  int64_t count = 0;
  for (int64_t first = 0; first < k_all; first += kSparseBlockK) {
    const int64_t end = std::min(k_all, first + kSparseBlockK);
    for (int64_t row = 0; row < rows; ++row) {
      const float* from = row_at(row);
      for (int64_t k = first; k < end; ++k) {
        const float value = from[k * step];
        packed.values[static_cast<size_t>(count)] = value;
        packed.k_in_block[static_cast<size_t>(count)] = static_cast<uint8_t>(k - first);
        count += value != 0 ? 1 : 0;
      }
      packed.begins.push_back(count);
    }
  }
  return packed;
}

}  // namespace

SparseLhsF32 PackSparseLhs(const MatrixF32& a, int64_t nonzeros) {
  return Pack(a.rows, a.columns, a.column_step, nonzeros,
              [&](int64_t row) { return a.data + row * a.row_step; });
}

SparseLhsF32 PackSparseRows(std::span<const float* const> rows, int64_t k, int64_t nonzeros) {
  return Pack(std::ssize(rows), k, 1, nonzeros,
              [&](int64_t row) { return rows[static_cast<size_t>(row)]; });
}

int64_t NonZeros(const float* values, int64_t count) {
  return std::count_if(values, values + count, [](float value) { return value != 0; });
}

double SparseCost(int64_t rows, int64_t k, int64_t nonzeros, int64_t vectors) {
  constexpr double kNonZero = 1.5;  // a multiply-add whose operand is loaded
  constexpr double kRow = 7;        // of a block of k: sums loaded and stored, a loop that ends
  constexpr double kPack = 6;       // an element of B packed and looked at
  const auto blocks = static_cast<double>(CeilDiv(k, kSparseBlockK) * rows);
  return static_cast<double>(vectors) * (kNonZero * static_cast<double>(nonzeros) + kRow * blocks +
                                         kPack * static_cast<double>(k));
}

int64_t SparsePanelFloats(const F32Kernels& kernels) {
  return kSparseBlockK * std::max(kernels.sparse_columns, kernels.tile_columns);
}

int64_t SparseSumFloats(const F32Kernels& kernels) {
  return kSparseSumRows * kernels.sparse_columns;
}

bool HoldsOnlyFinite(const float* panels, int64_t k, int64_t columns, const F32Kernels& kernels) {
  const int64_t width = kernels.tile_columns;
  for (int64_t first = 0; first < columns; first += width, panels += kSparseBlockK * width) {
    if (!std::isfinite(kernels.sum(panels, k * width))) return false;
  }
  return true;
}

void RunSparsePart(const SparsePartF32& part, const F32Kernels& kernels) noexcept {
  constexpr int64_t kBlocks = kBlockK / kSparseBlockK;  // whose sums a dense product adds up alone
  const int64_t blocks = CeilDiv(part.a->k, kSparseBlockK);
  SparseRowsF32 rows{.values = part.a->values.data(),
                     .k = part.a->k_in_block.data(),
                     .begins = part.a->begins.data() + part.block * part.a->rows + part.row_begin,
                     .rows = part.row_end - part.row_begin,
                     .panels = part.panels,
                     .sums = part.sums,
                     .begins_sums = part.block % kBlocks == 0,
                     .tile = part.tile};
  const bool is_last = part.block + 1 == blocks;
  rows.ends_sums = is_last || (part.block + 1) % kBlocks == 0;
  rows.tile.accumulate = part.block >= kBlocks;
  rows.tile.finish = is_last;
  kernels.sparse_rows(rows);
}

int64_t SparseScratchFloats(const F32Kernels& kernels) {
  return SparseSumFloats(kernels) + SparsePanelFloats(kernels);
}

void RunSparseBlock(const SparseBlockF32& block, const F32Kernels& kernels,
                    float* scratch) noexcept {
  const int64_t k_all = block.a->k;
  const int64_t width = kernels.tile_columns;
  float* panels = scratch + SparseSumFloats(kernels);
  SparsePartF32 part{.a = block.a, .panels = panels, .sums = scratch};
  part.tile.columns = block.count;
  part.tile.c_row = block.c_row;
  const auto pack = [&](int64_t k, int64_t count) {
    const float* from = block.b + (block.column / width * k_all + k) * width;
    if (kernels.sparse_columns <= width) {
      part.panels = from;
      return true;
    }
    for (int64_t at = 0; at < block.count; at += width, from += k_all * width) {
      std::copy(from, from + count * width, panels + at * kSparseBlockK);
    }
    return true;
  };
  for (int64_t row = block.row_begin; row < block.row_end; row += kSparseSumRows) {
    part.row_begin = row;
    part.row_end = std::min(block.row_end, row + kSparseSumRows);
    part.tile.c = block.c + row * block.c_row + block.column;
    RunSparseBlocks(part, kernels, pack);
  }
}

}  // namespace pared
