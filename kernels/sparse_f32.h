// Single-precision products with a sparse left operand, of which only the nonzeros are stored and
// multiplied: C[m][n] = activation(sum over k of A[m][k] B[k][n] + bias + addend).
//
// The sums of kernels/gemm_f32, bit for bit, where B is finite: they are taken in the same order,
// and a product with zero adds nothing. Where B holds NaN or infinity, products with zero are NaN:
// the caller, who looks for them (HoldsOnlyFinite), takes the dense product there.
//
// B is worked on in blocks of kSparseBlockK rows by `sparse_columns` columns, which the L1 cache
// holds, since each row of A reads every nonzero's row of B anew.

#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/f32.h"
#include "kernels/gemm_f32.h"

namespace pared {

static_assert(kBlockK % kSparseBlockK == 0, "sums are cut where dense ones are");

struct SparseLhsF32 {
  int64_t rows = 0, k = 0, nonzeros = 0;
  // Nonzeros by [block of k][row], each in the order of k; one element more than there are.
  std::vector<float> values{};
  std::vector<uint8_t> k_in_block{};  // of each
  std::vector<int64_t> begins{};      // of each block's rows, and the end
};

int64_t NonZeros(const float* values, int64_t count);
SparseLhsF32 PackSparseLhs(const MatrixF32& a, int64_t nonzeros);
// Rows that lie anywhere, of `k` floats each.
SparseLhsF32 PackSparseRows(std::span<const float* const> rows, int64_t k, int64_t nonzeros);

// What a product is expected to take, in multiply-adds of whole vectors in dense tiles. `vectors`:
// of a row of C. Measured: docs/kernels_f32.md.
double SparseCost(int64_t rows, int64_t k, int64_t nonzeros, int64_t vectors);

// Rows of A whose sums are kept from block to block at once: 128 KB of 64 columns.
constexpr int64_t kSparseSumRows = 512;
// Floats of a block of B, and of these sums.
int64_t SparsePanelFloats(const F32Kernels& kernels);
int64_t SparseSumFloats(const F32Kernels& kernels);

// Whether the panels of a block of B, packed in `k` rows, are known to be finite.
bool HoldsOnlyFinite(const float* panels, int64_t k, int64_t columns, const F32Kernels& kernels);

// Rows [row_begin, row_end) of A by block `block` of B, whose panels of tile_columns, kSparseBlockK
// rows each, follow each other at `panels`. tile: c, columns, bias, addend and activation, of row
// row_begin. The blocks of a product follow each other from 0 on: see RunSparseBlocks.
struct SparsePartF32 {
  const SparseLhsF32* a = nullptr;
  int64_t row_begin = 0, row_end = 0;  // kSparseSumRows at most
  int64_t block = 0;
  const float* panels = nullptr;
  float* sums = nullptr;  // SparseSumFloats, kept from block to block
  GemmTileF32 tile{};
};
void RunSparsePart(const SparsePartF32& part, const F32Kernels& kernels) noexcept;

// All blocks of B by the rows of `part`. pack(k, count) sees to it that rows [k, k + count) of B
// lie at part.panels, or returns false, which ends it; then so does this.
template <class Pack>
bool RunSparseBlocks(SparsePartF32& part, const F32Kernels& kernels, const Pack& pack) {
  for (part.block = 0; part.block * kSparseBlockK < part.a->k; ++part.block) {
    const int64_t k = part.block * kSparseBlockK;
    if (!pack(k, std::min(kSparseBlockK, part.a->k - k))) return false;
    RunSparsePart(part, kernels);
  }
  return true;
}

// Rows [row_begin, row_end) of A by columns [column, column + count) of B, packed by PackRhs and
// finite. count: at most sparse_columns; column: a multiple of tile_columns. c: row 0, column 0.
struct SparseBlockF32 {
  const SparseLhsF32* a = nullptr;
  int64_t row_begin = 0, row_end = 0;
  const float* b = nullptr;
  int64_t column = 0, count = 0;
  float* c = nullptr;
  int64_t c_row = 0;
};
int64_t SparseScratchFloats(const F32Kernels& kernels);
void RunSparseBlock(const SparseBlockF32& block, const F32Kernels& kernels,
                    float* scratch) noexcept;

}  // namespace pared
