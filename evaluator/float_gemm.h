// Matrix products of activations, shared by MatMul, Gemm, attention and the recurrent ops.

#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "evaluator/ops.h"
#include "kernels/gemm_f32.h"
#include "kernels/sparse_f32.h"

namespace pared {

// A constant right operand, packed once.
struct PackedRhs {
  int64_t k = 0, n = 0;
  std::vector<float> panels;
  // Its transpose's nonzeros, where some number of rows is multiplied faster by them; else none.
  SparseLhsF32 sparse;
};
std::shared_ptr<const PackedRhs> PackConstantRhs(const MatrixF32& b, const F32Kernels& kernels);

// One product of a batch: operands and result by pointer, all of the same shape.
struct GemmOperands {
  const float* a;
  const float* b;  // not read where the right operand is packed
  float* c;
};

struct BatchedGemm {
  int64_t m = 0, n = 0, k = 0;
  int64_t a_row_step = 0, a_column_step = 0;
  int64_t b_row_step = 0, b_column_step = 0;
  const PackedRhs* packed = nullptr;  // the right operand of every product
  float alpha = 1;                    // of the product; with `packed` it must be 1
  const float* column_bias = nullptr;
  const float* addend = nullptr;  // laid out as the first c
  ActivationF32 activation{};
  std::vector<GemmOperands> products{};
};

void RunBatchedGemm(const BatchedGemm& gemm, const F32Kernels& kernels, Scratch& scratch);

}  // namespace pared
