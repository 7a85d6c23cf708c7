// Convolutions whose weights are mostly zeros: pixels fill the vectors, a few vectors of them at a
// time go by all blocks of k.

#include <algorithm>

#include "kernels/conv_f32.h"

namespace pared {

double ConvF32::DenseCost(const ConvF32Plan& plan) const {
  const int64_t outputs = options_.outputs / options_.groups;
  const int64_t vectors = plan.by_outputs ? CeilDiv(outputs, kernels_.lanes) * plan.pixels
                                          : CeilDiv(plan.pixels, kernels_.lanes) * outputs;
  constexpr double kPack = 1.06;
  return kPack * static_cast<double>(vectors * k_);
}

bool ConvF32::PrefersSparse(const ConvF32Plan& plan) const {
  const int64_t vectors = CeilDiv(plan.pixels, kernels_.lanes);
  const int64_t outputs = options_.outputs / options_.groups;
  return k_ > 0 && SparseCost(outputs, k_, nonzeros_ / options_.groups, vectors) < DenseCost(plan);
}

void ConvF32::PlanSparse(ConvF32Plan& plan, int64_t threads) const {
  plan.is_sparse = true;
  const int64_t vectors = CeilDiv(plan.pixels, kernels_.lanes);
  plan.column_groups = CeilDiv(vectors, kernels_.sparse_columns / kernels_.lanes);
  CutUnits(plan, threads);
  // Sums, and panels of a dense block.
  plan.scratch_floats =
      SparseSumFloats(kernels_) + kBlockK / kSparseBlockK * SparsePanelFloats(kernels_) + kTapSlack;
}

// Columns [first, first + count) of the output by rows [row_begin, row_end) of one group.
struct ConvF32::SparseUnit {
  int64_t group, first, count, row_begin, row_end;
};

ConvF32::SparseUnit ConvF32::SparseUnitAt(const ConvF32Plan& plan, int64_t unit) const {
  const int64_t split = unit % plan.row_splits;
  const int64_t columns_index = unit / plan.row_splits % plan.column_groups;
  const int64_t outputs = options_.outputs / options_.groups;
  const int64_t blocks = CeilDiv(outputs, kernels_.tile_rows);
  const auto row = [&](int64_t i) {
    return std::min(outputs, blocks * i / plan.row_splits * kernels_.tile_rows);
  };
  // Groups of nearly equal width.
  const int64_t vectors = CeilDiv(plan.pixels, kernels_.lanes);
  const auto column = [&](int64_t i) {
    return std::min(plan.pixels, vectors * i / plan.column_groups * kernels_.lanes);
  };
  return {.group = unit / plan.row_splits / plan.column_groups,
          .first = column(columns_index),
          .count = column(columns_index + 1) - column(columns_index),
          .row_begin = row(split),
          .row_end = row(split + 1)};
}

void ConvF32::PackSparsePanels(const ConvF32Plan& plan, const PackColumnsF32& part,
                               const SparseUnit& unit, int64_t panel_rows) const noexcept {
  const int64_t width = kernels_.tile_columns;
  PackColumnsF32 panel = part;
  for (int64_t at = 0; at < unit.count; at += width, panel.target += panel_rows * width) {
    const int64_t count = std::min(width, unit.count - at);
    if (count < width) std::fill_n(panel.target, part.k * width, 0.0F);
    PackPixels(plan, panel, unit.first + at, count);
  }
}

void ConvF32::RunSparse(const ConvF32Plan& plan, const float* x, float* y, const float* addend,
                        int64_t unit_index, float* scratch) const noexcept {
  const SparseUnit unit = SparseUnitAt(plan, unit_index);
  const int64_t first_row = unit.group * (options_.outputs / options_.groups);
  PackColumnsF32 pack{
      .source = x + unit.group * (options_.channels / options_.groups) * plan.plane_floats,
      .target = scratch + SparseSumFloats(kernels_)};
  SparsePartF32 part{.a = &plan.weights->sparse, .panels = pack.target, .sums = scratch};
  part.tile.columns = unit.count;
  part.tile.c_row = plan.pixels;
  part.tile.activation = options_.activation;
  for (int64_t row = unit.row_begin; row < unit.row_end; row += kSparseSumRows) {
    part.row_begin = first_row + row;
    part.row_end = first_row + std::min(unit.row_end, row + kSparseSumRows);
    const int64_t at = part.row_begin * plan.pixels + unit.first;
    part.tile.c = y + at;
    part.tile.addend = addend == nullptr ? nullptr : addend + at;
    part.tile.row_bias = bias_.empty() ? nullptr : bias_.data() + part.row_begin;
    const bool is_complete = RunSparseBlocks(part, kernels_, [&](int64_t k, int64_t count) {
      pack.offsets = plan.tap_offsets.data() + k;
      pack.k = count;
      PackSparsePanels(plan, pack, unit, kSparseBlockK);
      return row > unit.row_begin || HoldsOnlyFinite(part.panels, count, unit.count, kernels_);
    });
    if (!is_complete) return RunDenseUnit(plan, pack, unit, y, addend);
  }
}

void ConvF32::RunDenseUnit(const ConvF32Plan& plan, const PackColumnsF32& columns,
                           const SparseUnit& unit, float* y, const float* addend) const noexcept {
  const int64_t outputs = options_.outputs / options_.groups;
  GemmF32 gemm = GroupProduct(plan, unit.group, unit.first, y, addend);
  gemm.n = unit.count;
  SetLhs(gemm, {weights_.get() + unit.group * outputs * k_, outputs, k_, k_, 1});
  const TileRange range{unit.row_begin / kernels_.tile_rows,
                        CeilDiv(unit.row_end, kernels_.tile_rows), 0, Panels(gemm, kernels_)};
  PackColumnsF32 pack = columns;
  for (int64_t k = 0; k < k_; k += kBlockK) {
    pack.offsets = plan.tap_offsets.data() + k;
    pack.k = std::min(kBlockK, k_ - k);
    PackSparsePanels(plan, pack, unit, kBlockK);
    RunGemmPart(gemm, kernels_, range,
                {.k_begin = k,
                 .k_count = pack.k,
                 .b = pack.target,
                 .panel_step = kBlockK * kernels_.tile_columns});
  }
}

}  // namespace pared
