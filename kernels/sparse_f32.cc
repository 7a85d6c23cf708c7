#include "kernels/sparse_f32.h"

#include <algorithm>
#include <cmath>

namespace pared {
SparseLhsF32 PackSparseLhs(const MatrixF32& a, int64_t nonzeros) {
  SparseLhsF32 packed{.rows = a.rows, .k = a.columns, .nonzeros = nonzeros};
  packed.begins.reserve(static_cast<size_t>(CeilDiv(a.columns, kSparseBlockK) * a.rows + 1));
  packed.begins.push_back(0);
  // Zeros are written too, and overwritten: a branch would be guessed wrong as often as not.
  packed.values.resize(static_cast<size_t>(nonzeros + 1));
  packed.k_in_block.resize(static_cast<size_t>(nonzeros + 1));
  int64_t count = 0;
  for (int64_t first = 0; first < a.columns; first += kSparseBlockK) {
    const int64_t end = std::min(a.columns, first + kSparseBlockK);
    for (int64_t row = 0; row < a.rows; ++row) {
      const float* from = a.data + row * a.row_step;
      for (int64_t k = first; k < end; ++k) {
        const float value = from[k * a.column_step];
        packed.values[static_cast<size_t>(count)] = value;
        packed.k_in_block[static_cast<size_t>(count)] = static_cast<uint8_t>(k - first);
        count += value != 0 ? 1 : 0;
      }
      packed.begins.push_back(count);
    }
  }
  return packed;
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

int64_t SparseSumFloats(int64_t rows, const F32Kernels& kernels) {
  return rows * kernels.sparse_columns;
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

}  // namespace pared
