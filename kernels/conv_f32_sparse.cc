// Convolutions whose weights are mostly zeros: pixels fill the vectors, a few vectors of them at a
// time go by all blocks of k.

#include <algorithm>

#include "kernels/conv_f32.h"

namespace pared {
namespace {

// Rows of sums that are kept from block to block at once: 128 KB of 64 columns.
constexpr int64_t kSumRows = 512;

}  // namespace

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
  const int64_t blocks = CeilDiv(options_.outputs / options_.groups, kernels_.tile_rows);
  const int64_t pieces = plan.column_groups * options_.groups;
  if (pieces < threads) plan.row_splits = std::min(blocks, CeilDiv(threads, pieces));
  plan.units = pieces * plan.row_splits;
  // Sums, and panels of a dense block.
  plan.packed_floats = SparseSumFloats(kSumRows, kernels_);
  plan.scratch_floats =
      plan.packed_floats + kBlockK / kSparseBlockK * SparsePanelFloats(kernels_) + kTapSlack;
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
      .target = scratch + plan.packed_floats};
  SparsePartF32 part{.a = &plan.weights->sparse, .panels = pack.target, .sums = scratch};
  part.tile.columns = unit.count;
  part.tile.c_row = plan.pixels;
  part.tile.activation = options_.activation;
  for (int64_t row = unit.row_begin; row < unit.row_end; row += kSumRows) {
    part.row_begin = first_row + row;
    part.row_end = first_row + std::min(unit.row_end, row + kSumRows);
    const int64_t at = part.row_begin * plan.pixels + unit.first;
    part.tile.c = y + at;
    part.tile.addend = addend == nullptr ? nullptr : addend + at;
    part.tile.row_bias = bias_.empty() ? nullptr : bias_.data() + part.row_begin;
    for (part.block = 0; part.block * kSparseBlockK < k_; ++part.block) {
      const int64_t k = part.block * kSparseBlockK;
      pack.offsets = plan.tap_offsets.data() + k;
      pack.k = std::min(kSparseBlockK, k_ - k);
      PackSparsePanels(plan, pack, unit, kSparseBlockK);
      if (row == unit.row_begin && !HoldsOnlyFinite(part.panels, pack.k, unit.count, kernels_)) {
        return RunDenseUnit(plan, pack, unit, y, addend);
      }
      RunSparsePart(part, kernels_);
    }
  }
}

void ConvF32::RunDenseUnit(const ConvF32Plan& plan, const PackColumnsF32& columns,
                           const SparseUnit& unit, float* y, const float* addend) const noexcept {
  const int64_t outputs = options_.outputs / options_.groups;
  const int64_t first_row = unit.group * outputs;
  GemmF32 gemm{.m = outputs, .n = unit.count, .k = k_};
  SetLhs(gemm, {weights_.get() + first_row * k_, outputs, k_, k_, 1});
  const int64_t at = first_row * plan.pixels + unit.first;
  gemm.c = y + at;
  gemm.c_row = plan.pixels;
  gemm.row_bias = bias_.empty() ? nullptr : bias_.data() + first_row;
  gemm.addend = addend == nullptr ? nullptr : addend + at;
  gemm.activation = options_.activation;
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
