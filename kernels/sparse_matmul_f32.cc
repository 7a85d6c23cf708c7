#include "kernels/sparse_matmul_f32.h"

#include <algorithm>
#include <cstring>

namespace pared {
namespace {

// Rows [first, first + count) of A by columns [begin, end) of B.
struct Unit {
  const SparseMatMulF32& product;
  const F32Kernels& kernels;
  int64_t first = 0, count = 0, begin = 0, end = 0;
  float* sums = nullptr;    // SparseSumFloats
  float* result = nullptr;  // C transposed, the same
  float* panels = nullptr;
  float* tail = nullptr;  // [sparse_columns][lanes]

  const float* row(int64_t i) const { return product.a + (first + i) * product.a_row; }
  void Transpose(const float* from, int64_t from_row, int64_t rows, int64_t columns,
                 float* to) const;
  void Pack(int64_t k, int64_t columns) const;
  bool Multiply() const;
  void Store(int64_t from, int64_t columns) const;
  void MultiplyDense() const;
};

// Whole vectors of each row are read.
void Unit::Transpose(const float* from, int64_t from_row, int64_t rows, int64_t columns,
                     float* to) const {
  const ClampF32 all = ClampOf({});
  kernels.transpose({.sums = from,
                     .sums_row = from_row,
                     .pixels = rows,
                     .outputs = columns,
                     .y = to,
                     .y_row = kernels.tile_columns,
                     .bias = nullptr,
                     .low = all.low,
                     .high = all.high});
}

// Columns [k, k + columns) of the rows, transposed to panels.
void Unit::Pack(int64_t k, int64_t columns) const {
  const int64_t width = kernels.tile_columns;
  const int64_t lanes = kernels.lanes;
  const int64_t whole = columns / lanes * lanes;
  float* panel = panels;
  for (int64_t i = 0; i < count; i += width, panel += kSparseBlockK * width) {
    const int64_t rows = std::min(width, count - i);
    if (rows < width) std::fill_n(panel, columns * width, 0.0F);
    Transpose(row(i) + k, product.a_row, rows, whole, panel);
    if (whole == columns) continue;
    for (int64_t r = 0; r < rows; ++r) {  // behind the last column lies another row, or nothing
      std::memcpy(tail + r * lanes, row(i + r) + k + whole,
                  static_cast<size_t>(columns - whole) * sizeof(float));
    }
    Transpose(tail, lanes, rows, columns - whole, panel + whole * width);
  }
}

// False where A is found not to be finite; then C is not complete.
bool Unit::Multiply() const {
  SparsePartF32 part{.a = product.b, .panels = panels, .sums = sums};
  part.tile.c = result;
  part.tile.c_row = kernels.sparse_columns;
  part.tile.columns = count;
  for (int64_t column = begin; column < end; column += kSparseSumRows) {
    part.row_begin = column;
    part.row_end = std::min(end, column + kSparseSumRows);
    part.tile.row_bias = product.bias == nullptr ? nullptr : product.bias + column;
    const bool is_complete = RunSparseBlocks(part, kernels, [&](int64_t k, int64_t columns) {
      Pack(k, columns);
      return column > begin || HoldsOnlyFinite(panels, columns, count, kernels);
    });
    if (!is_complete) return false;
    Store(column, part.row_end - column);
  }
  return true;
}

void Unit::Store(int64_t from, int64_t columns) const {
  const int64_t at = first * product.n + from;
  const ClampF32 limits = ClampOf(product.activation);
  kernels.transpose({.sums = result,
                     .sums_row = kernels.sparse_columns,
                     .pixels = columns,
                     .outputs = count,
                     .y = product.c + at,
                     .y_row = product.n,
                     .bias = nullptr,
                     .addend = product.addend == nullptr ? nullptr : product.addend + at,
                     .low = limits.low,
                     .high = limits.high});
  if (product.activation.kind <= ActivationKind::kClamp) return;
  for (int64_t i = 0; i < count; ++i) {
    kernels.activate(product.activation, product.c + at + i * product.n, columns);
  }
}

void Unit::MultiplyDense() const {
  const int64_t at = first * product.n;
  GemmF32 gemm{.m = count, .n = product.n, .k = product.k, .b = product.dense_panels};
  SetLhs(gemm, {row(0), count, product.k, product.a_row, 1});
  gemm.c = product.c + at;
  gemm.c_row = product.n;
  gemm.column_bias = product.bias;
  gemm.addend = product.addend == nullptr ? nullptr : product.addend + at;
  gemm.activation = product.activation;
  RunGemm(gemm, kernels,
          {0, RowBlocks(gemm, kernels), begin / kernels.tile_columns,
           CeilDiv(end, kernels.tile_columns)});
}

}  // namespace

bool PrefersSparse(int64_t m, int64_t n, int64_t k, int64_t nonzeros, const F32Kernels& kernels) {
  constexpr double kTransposed = 8;  // an element of A, or of C
  const auto vectors = static_cast<double>(CeilDiv(m, kernels.lanes));
  const double dense = static_cast<double>(CeilDiv(n, kernels.lanes) * m * k);
  return k > 0 && SparseCost(n, k, nonzeros, CeilDiv(m, kernels.lanes)) +
                          kTransposed * vectors * static_cast<double>(n + k) <
                      dense;
}

SparseMatMulPlan PlanSparseMatMul(const SparseMatMulF32& product, const F32Kernels& kernels,
                                  int64_t threads) {
  SparseMatMulPlan plan{.row_groups = CeilDiv(product.m, kernels.sparse_columns)};
  const int64_t panels = CeilDiv(product.n, kernels.tile_columns);
  if (plan.row_groups < threads) {
    plan.column_splits = std::min(panels, CeilDiv(threads, plan.row_groups));
  }
  plan.units = plan.row_groups * plan.column_splits;
  plan.scratch_floats = 2 * SparseSumFloats(kernels) + SparsePanelFloats(kernels) +
                        kernels.sparse_columns * kernels.lanes + kTapSlack;
  return plan;
}

void RunSparseMatMul(const SparseMatMulF32& product, const SparseMatMulPlan& plan,
                     const F32Kernels& kernels, int64_t unit, float* scratch) noexcept {
  const int64_t group = unit / plan.column_splits;
  const int64_t split = unit % plan.column_splits;
  const int64_t panels = CeilDiv(product.n, kernels.tile_columns);
  const auto column = [&](int64_t i) {
    return std::min(product.n, panels * i / plan.column_splits * kernels.tile_columns);
  };
  // Groups of nearly equal height.
  const int64_t vectors = CeilDiv(product.m, kernels.lanes);
  const auto row = [&](int64_t i) {
    return std::min(product.m, vectors * i / plan.row_groups * kernels.lanes);
  };
  const int64_t sums = SparseSumFloats(kernels);
  const Unit part{.product = product,
                  .kernels = kernels,
                  .first = row(group),
                  .count = row(group + 1) - row(group),
                  .begin = column(split),
                  .end = column(split + 1),
                  .sums = scratch,
                  .result = scratch + sums,
                  .panels = scratch + 2 * sums,
                  .tail = scratch + 2 * sums + SparsePanelFloats(kernels)};
  if (!part.Multiply()) part.MultiplyDense();
}

}  // namespace pared
