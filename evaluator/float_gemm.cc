#include "evaluator/float_gemm.h"

#include <algorithm>

#include "evaluator/op_checks.h"
#include "evaluator/worker_slots.h"
#include "kernels/sparse_matmul_f32.h"

namespace pared {
namespace {

constexpr int64_t kDirectRows = 6;   // up to one row block, packing B costs more than it saves
constexpr int64_t kManyRows = 1024;  // if sparse products do not repay here, they never do

struct Product {
  GemmF32 gemm;
  MatrixF32 right;
};

Product MakeProduct(const BatchedGemm& call, const GemmOperands& operands) {
  Product p;
  p.gemm.m = call.m;
  p.gemm.n = call.n;
  p.gemm.k = call.k;
  SetLhs(p.gemm, {operands.a, call.m, call.k, call.a_row_step, call.a_column_step});
  p.gemm.c = operands.c;
  p.gemm.c_row = call.n;
  p.gemm.column_bias = call.column_bias;
  p.gemm.activation = call.activation;
  if (call.addend != nullptr) p.gemm.addend = call.addend + (operands.c - call.products[0].c);
  p.right = {operands.b, call.k, call.n, call.b_row_step, call.b_column_step};
  return p;
}

void PackScaled(const BatchedGemm& call, const MatrixF32& right, const F32Kernels& kernels,
                const TileRange& range, float* panels) {
  PackRhs(right, kernels, range.panel_begin, range.panel_end, panels);
  if (call.alpha == 1) return;
  const int64_t panel_floats = call.k * kernels.tile_columns;
  float* begin = panels + range.panel_begin * panel_floats;
  kernels.scale_shift(begin, begin, (range.panel_end - range.panel_begin) * panel_floats,
                      call.alpha, 0);
}

// One row block of A: rows of B are read where they lie; only a last, partial panel is packed.
void RunDirect(const Product& product, const F32Kernels& kernels, const TileRange& range,
               float* memory) {
  const GemmF32& gemm = product.gemm;
  const int64_t width = kernels.tile_columns;
  GemmTileF32 tile;
  tile.a = gemm.a;
  tile.a_row = gemm.a_row;
  tile.a_step = gemm.a_step;
  tile.c_row = gemm.c_row;
  tile.k = gemm.k;
  tile.rows = gemm.m;
  tile.activation = gemm.activation;
  for (int64_t panel = range.panel_begin; panel < range.panel_end; ++panel) {
    const int64_t column = panel * width;
    tile.columns = std::min(width, gemm.n - column);
    tile.b = product.right.data + column;
    tile.b_step = product.right.row_step;
    if (tile.columns < width) {
      MatrixF32 last = product.right;
      last.data += column;
      last.columns = tile.columns;
      PackRhs(last, kernels, 0, 1, memory);
      tile.b = memory;
      tile.b_step = width;
    }
    tile.c = gemm.c + column;
    tile.column_bias = gemm.column_bias == nullptr ? nullptr : gemm.column_bias + column;
    tile.addend = gemm.addend == nullptr ? nullptr : gemm.addend + column;
    kernels.gemm_tile(tile);
  }
}

void RunRange(const BatchedGemm& call, const Product& product, const F32Kernels& kernels,
              const TileRange& range, float* memory) {
  if (call.packed != nullptr) {
    GemmF32 gemm = product.gemm;
    gemm.b = call.packed->panels.data();
    RunGemm(gemm, kernels, range);
    return;
  }
  if (call.m <= kDirectRows && call.b_column_step == 1 && call.alpha == 1) {
    RunDirect(product, kernels, range, memory);
    return;
  }
  PackScaled(call, product.right, kernels, range, memory);
  GemmF32 gemm = product.gemm;
  gemm.b = memory;
  RunGemm(gemm, kernels, range);
}

// Few products: each is cut among the workers.
void RunOneByOne(const BatchedGemm& call, const F32Kernels& kernels, Scratch& scratch) {
  const int64_t floats = call.packed != nullptr ? 0 : PackedRhsFloats(call.k, call.n, kernels);
  float* memory = reinterpret_cast<float*>(
      scratch.Temporary(Sz(std::max<int64_t>(floats, 16)) * sizeof(float)));
  for (const GemmOperands& operands : call.products) {
    const Product product = MakeProduct(call, operands);
    const int64_t blocks = RowBlocks(product.gemm, kernels);
    const int64_t panels = Panels(product.gemm, kernels);
    const bool is_packed = call.packed != nullptr;
    if (is_packed && blocks > panels) {
      scratch.ParallelFor(blocks, 8, [&](int64_t begin, int64_t end) {
        RunRange(call, product, kernels, {begin, end, 0, panels}, memory);
      });
      continue;
    }
    const int64_t share = (panels + scratch.threads() - 1) / scratch.threads();
    scratch.ParallelFor(panels, share, [&](int64_t begin, int64_t end) {
      // A packed panel has its own place in memory; a direct one needs room for one tail.
      RunRange(call, product, kernels, {0, blocks, begin, end}, memory);
    });
  }
}

bool PrefersSparse(const BatchedGemm& call, const F32Kernels& kernels) {
  if (call.packed == nullptr || call.a_column_step != 1) return false;
  const SparseLhsF32& b = call.packed->sparse;
  return b.rows > 0 && PrefersSparse(call.m, call.n, call.k, b.nonzeros, kernels);
}

void RunSparse(const BatchedGemm& call, const F32Kernels& kernels, Scratch& scratch) {
  for (const GemmOperands& operands : call.products) {
    const GemmF32 gemm = MakeProduct(call, operands).gemm;
    const SparseMatMulF32 product{.m = call.m,
                                  .n = call.n,
                                  .k = call.k,
                                  .a = operands.a,
                                  .a_row = call.a_row_step,
                                  .b = &call.packed->sparse,
                                  .dense_panels = call.packed->panels.data(),
                                  .c = gemm.c,
                                  .bias = gemm.column_bias,
                                  .addend = gemm.addend,
                                  .activation = gemm.activation};
    const SparseMatMulPlan plan = PlanSparseMatMul(product, kernels, scratch.threads());
    ForEachShare(scratch, plan.units, plan.scratch_floats,
                 [&](int64_t begin, int64_t end, float* memory) {
                   for (int64_t unit = begin; unit < end; ++unit) {
                     RunSparseMatMul(product, plan, kernels, unit, memory);
                   }
                 });
  }
}

}  // namespace

std::shared_ptr<const PackedRhs> PackConstantRhs(const MatrixF32& b, const F32Kernels& kernels) {
  auto packed = std::make_shared<PackedRhs>();
  packed->k = b.rows;
  packed->n = b.columns;
  packed->panels.resize(Sz(PackedRhsFloats(b.rows, b.columns, kernels)));
  const int64_t panels = (b.columns + kernels.tile_columns - 1) / kernels.tile_columns;
  PackRhs(b, kernels, 0, panels, packed->panels.data());
  const int64_t nonzeros = NonZeros(b.data, b.rows * b.columns);
  if (PrefersSparse(kManyRows, b.columns, b.rows, nonzeros, kernels)) {
    packed->sparse =
        PackSparseLhs({b.data, b.columns, b.rows, b.column_step, b.row_step}, nonzeros);
  }
  return packed;
}

void RunBatchedGemm(const BatchedGemm& gemm, const F32Kernels& kernels, Scratch& scratch) {
  const int64_t count = static_cast<int64_t>(gemm.products.size());
  if (count == 0 || gemm.m == 0 || gemm.n == 0) return;
  scratch.AddMacs(count * gemm.m * gemm.n * gemm.k);
  if (PrefersSparse(gemm, kernels)) return RunSparse(gemm, kernels, scratch);
  if (scratch.threads() == 1 || count < scratch.threads()) {
    RunOneByOne(gemm, kernels, scratch);
    return;
  }
  const int64_t floats = gemm.packed != nullptr ? 16 : PackedRhsFloats(gemm.k, gemm.n, kernels);
  ForEachShare(scratch, count, floats, [&](int64_t begin, int64_t end, float* memory) {
    for (int64_t i = begin; i < end; ++i) {
      const Product product = MakeProduct(gemm, gemm.products[Sz(i)]);
      const TileRange all = {0, RowBlocks(product.gemm, kernels), 0, Panels(product.gemm, kernels)};
      RunRange(gemm, product, kernels, all, memory);
    }
  });
}

}  // namespace pared
