// C[m][n] = activation(sum over k of A[m][k] B[k][n] + bias[n] + addend[m][n]) in single precision,
// where B is constant and mostly zeros: kernels/sparse_f32 of the transposed product. Rows of A are
// transposed on the way in, a few vectors of them at a time, and sums on the way out.

#pragma once

#include <cstdint>

#include "kernels/sparse_f32.h"

namespace pared {

struct SparseMatMulF32 {
  int64_t m = 0, n = 0, k = 0;
  const float* a = nullptr;
  int64_t a_row = 0;                    // from one row to the next; columns are neighbours
  const SparseLhsF32* b = nullptr;      // of B's transpose
  const float* dense_panels = nullptr;  // all of B as RunGemm takes it, for A that is not finite
  float* c = nullptr;                   // [m][n]
  const float* bias = nullptr;          // or null
  const float* addend = nullptr;        // laid out as c, or null
  ActivationF32 activation{};
};

// Whether the sparse product is expected to be faster for so many rows.
bool PrefersSparse(int64_t m, int64_t n, int64_t k, int64_t nonzeros, const F32Kernels& kernels);

// The work is cut into units by rows of A, then by columns of B where those are too few for
// `threads` workers.
struct SparseMatMulPlan {
  int64_t row_groups = 0, column_splits = 1, units = 0;
  int64_t scratch_floats = 0;  // of one worker
};
SparseMatMulPlan PlanSparseMatMul(const SparseMatMulF32& product, const F32Kernels& kernels,
                                  int64_t threads);
void RunSparseMatMul(const SparseMatMulF32& product, const SparseMatMulPlan& plan,
                     const F32Kernels& kernels, int64_t unit, float* scratch) noexcept;

}  // namespace pared
