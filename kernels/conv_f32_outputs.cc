// Convolutions of few pixels: outputs fill the vectors, pixels are the rows of the product.
//
// Wide tiles read the pixels where they lie in the image, or in panels as they are packed for other
// convolutions. Narrow ones take few multiply-adds for each line that they read: theirs are packed
//
//   [tile][k][tile_rows]
//
// so that a tile's pixels stay in the L1 cache.

#include <algorithm>
#include <cstring>

#include "kernels/conv_f32.h"

namespace pared {
namespace {

constexpr int64_t kLineFloats = 16;  // of a cache line

bool HasWideTiles(const F32Kernels& kernels) { return kernels.pack_rows == nullptr; }

// Copies the first `count` floats, at most 6, of each of `k` rows to rows of 6.
void CopyTile(const float* from, int64_t from_step, int64_t count, int64_t k, float* to) {
  constexpr int64_t kRows = 6;
  for (int64_t i = 0; i < k; ++i, from += from_step, to += kRows) {
    if (count < 4) {
      std::copy(from, from + count, to);
    } else {  // two copies that overlap
      std::memcpy(to, from, 4 * sizeof(float));
      std::memcpy(to + count - 4, from + count - 4, 4 * sizeof(float));
    }
  }
}

}  // namespace

void ConvF32::PlanOutputs(ConvF32Plan& plan, int64_t threads) const {
  const int64_t width = kernels_.tile_columns;
  const int64_t panels = CeilDiv(options_.outputs / options_.groups, width);
  if (options_.groups < threads) {
    plan.row_splits = std::min(panels, CeilDiv(threads, options_.groups));
  }
  plan.units = options_.groups * plan.row_splits;
  const bool wide = HasWideTiles(kernels_);
  const bool by_panels = wide && !plan.is_direct;
  for (int64_t first = 0; first < plan.pixels; first += by_panels ? width : plan.pixels) {
    const int64_t count = std::min(plan.pixels - first, by_panels ? width : plan.pixels);
    // Of nearly equal heights: a tile of a single row would wait for its sums.
    const int64_t tiles = CeilDiv(count, kernels_.tile_rows);
    for (int64_t i = 0; i < tiles; ++i) plan.tile_begins.push_back(first + count * i / tiles);
  }
  const auto tiles = static_cast<int64_t>(plan.tile_begins.size());
  plan.tile_begins.push_back(plan.pixels);
  // Narrow tiles are cut from a panel that lies behind them.
  const int64_t packed = by_panels ? Whole(plan.pixels, width)
                         : wide    ? 0
                                   : tiles * kernels_.tile_rows + width;
  plan.packed_floats = packed * std::min(k_, kBlockK) + kTapSlack;
  plan.scratch_floats = plan.packed_floats + CeilDiv(panels, plan.row_splits) * width * plan.pixels;
}

void ConvF32::PackPixelPanels(const ConvF32Plan& plan, const PackColumnsF32& part) const noexcept {
  const int64_t width = kernels_.tile_columns;
  for (int64_t first = 0; first < plan.pixels; first += width) {
    PackColumnsF32 panel = part;
    panel.target += first * part.k;
    PackPixels(plan, panel, first, std::min(width, plan.pixels - first));
  }
}

void ConvF32::PackPixelTiles(const ConvF32Plan& plan, const PackColumnsF32& part) const noexcept {
  const auto tiles = static_cast<int64_t>(plan.tile_begins.size()) - 1;
  const int64_t tile_floats = kernels_.tile_rows * part.k;
  const auto begin = [&](int64_t i) { return plan.tile_begins[static_cast<size_t>(i)]; };
  PackColumnsF32 panel = part;
  panel.target += tiles * tile_floats;
  int64_t first = 0;  // of the panel
  for (int64_t i = 0; i < tiles; ++i) {
    float* to = part.target + i * tile_floats;
    const int64_t count = begin(i + 1) - begin(i);
    if (plan.is_direct) {
      CopyTile(part.source + part.offsets[0] + begin(i), plan.plane_floats, count, part.k, to);
      continue;
    }
    if (i % 2 == 0) {  // two tiles fit a panel
      first = begin(i);
      PackPixels(plan, panel, first, begin(std::min(i + 2, tiles)) - first);
    }
    CopyTile(panel.target + begin(i) - first, kernels_.tile_columns, count, part.k, to);
  }
}

void ConvF32::RunOutputs(const ConvF32Plan& plan, const float* x, float* y, const float* addend,
                         int64_t unit, float* scratch) const noexcept {
  const int64_t split = unit % plan.row_splits;
  const int64_t g = unit / plan.row_splits;
  const int64_t width = kernels_.tile_columns;
  const int64_t outputs = options_.outputs / options_.groups;
  const int64_t panels = CeilDiv(outputs, width);
  const int64_t begin = panels * split / plan.row_splits;
  const int64_t end = panels * (split + 1) / plan.row_splits;
  const float* weights = plan.weights->dense.data() + g * group_floats(true);
  float* sums = scratch + plan.packed_floats;
  const bool wide = HasWideTiles(kernels_);
  GemmTileF32 tile{.a_row = 1, .b_step = width, .ahead_step = kLineFloats, .c_row = width};
  tile.a_step = !wide ? kernels_.tile_rows : plan.is_direct ? plan.plane_floats : width;
  tile.finish = false;
  PackColumnsF32 part{.source = x + g * (options_.channels / options_.groups) * plan.plane_floats,
                      .target = scratch};
  for (int64_t k = 0; k < k_; k += kBlockK) {
    part.offsets = plan.tap_offsets.data() + k;
    part.k = tile.k = std::min(kBlockK, k_ - k);
    tile.accumulate = k > 0;
    if (!wide) {
      PackPixelTiles(plan, part);
    } else if (!plan.is_direct) {
      PackPixelPanels(plan, part);
    }
    const auto pixels = [&](int64_t i, int64_t first) -> const float* {
      if (!wide) return part.target + i * kernels_.tile_rows * tile.k;
      if (plan.is_direct) return part.source + part.offsets[0] + first;
      return part.target + first / width * width * tile.k + first % width;
    };
    for (int64_t panel = begin; panel < end; ++panel) {
      tile.b = weights + (panel * k_ + k) * width;
      tile.columns = Whole(std::min(width, outputs - panel * width), kernels_.lanes);
      // Weights come from memory, once: the next panel is fetched while this one is at work.
      const float* next = panel + 1 < end ? tile.b + k_ * width : nullptr;
      float* panel_sums = sums + (panel - begin) * plan.pixels * width;
      for (size_t i = 0; i + 1 < plan.tile_begins.size(); ++i) {
        const int64_t first = plan.tile_begins[i];
        const int64_t fetched = static_cast<int64_t>(i) * tile.ahead_step;
        tile.ahead = next != nullptr && fetched < width ? next + fetched * tile.k : nullptr;
        tile.a = pixels(static_cast<int64_t>(i), first);
        tile.rows = plan.tile_begins[i + 1] - first;
        tile.c = panel_sums + first * width;
        kernels_.gemm_tile(tile);
      }
      if (k + kBlockK >= k_) {
        FinishOutputs(plan, panel_sums, g * outputs + panel * width, y, addend);
      }
    }
  }
}

void ConvF32::FinishOutputs(const ConvF32Plan& plan, const float* sums, int64_t output, float* y,
                            const float* addend) const noexcept {
  const int64_t outputs = options_.outputs / options_.groups;
  const ClampF32 limits = ClampOf(options_.activation);
  const int64_t first = output * plan.pixels;
  TransposeF32 transpose{.sums = sums,
                         .sums_row = kernels_.tile_columns,
                         .pixels = plan.pixels,
                         .outputs = std::min(kernels_.tile_columns, outputs - output % outputs),
                         .y = y + first,
                         .y_row = plan.pixels,
                         .bias = bias_.empty() ? nullptr : bias_.data() + output,
                         .addend = addend == nullptr ? nullptr : addend + first,
                         .low = limits.low,
                         .high = limits.high};
  kernels_.transpose(transpose);
  if (options_.activation.kind == ActivationKind::kClamp) return;
  kernels_.activate(options_.activation, transpose.y, transpose.outputs * plan.pixels);
}

}  // namespace pared
