#include "kernels/winograd_f32.h"

#include <algorithm>
#include <array>

#include "kernels/gemm_f32.h"

namespace pared {
namespace {

constexpr int64_t kPositions = 36;
constexpr int64_t kBlockTiles = 64;
constexpr int64_t kSumFloats = 48 * 1024;  // of the products at a time: 192 KB of an L2 cache

// Floats of one position: of the inputs, and of the sums of the outputs at a time. What follows the
// last tile is read and written by whole vectors.
int64_t InputPlane(const WinogradPlanF32& plan, const F32Kernels& kernels) {
  return plan.shape.channels * plan.pitch + kernels.lanes;
}
int64_t SumPlane(const WinogradPlanF32& plan, const F32Kernels& kernels) {
  return plan.row_blocks * kernels.tile_rows * plan.pitch + kernels.lanes;
}

int64_t PositionFloats(const WinogradShapeF32& shape, const F32Kernels& kernels) {
  return PackedLhsFloats(shape.outputs, shape.channels, kernels);
}

// Calls run(row of tiles, first tile of it, count, place in the block) for the tiles of a block.
template <class Run>
void ForEachRow(const WinogradPlanF32& plan, int64_t block, const Run& run) {
  const int64_t begin = block * plan.block_tiles;
  const int64_t end = std::min(plan.tiles, begin + plan.block_tiles);
  for (int64_t tile = begin; tile < end;) {
    const int64_t first = tile % plan.tiles_x;
    const int64_t count = std::min(end - tile, plan.tiles_x - first);
    run(tile / plan.tiles_x, first, count, tile - begin);
    tile += count;
  }
}

struct Unit {
  const WinogradPlanF32& plan;
  const F32Kernels& kernels;
  const WinogradCallF32& call;
  int64_t block;
  float *inputs, *sums, *scratch;

  void TransformInputs() const;
  void Multiply(int64_t begin, int64_t end) const;
  void TransformSums(int64_t begin, int64_t end) const;
};

void Unit::TransformInputs() const {
  const WinogradShapeF32& shape = plan.shape;
  WinogradInputF32 input{.height = shape.height,
                         .width = shape.width,
                         .pad_y = shape.pad_y,
                         .pad_x = shape.pad_x,
                         .plane = InputPlane(plan, kernels),
                         .scratch = scratch};
  for (int64_t c = 0; c < shape.channels; ++c) {
    input.x = call.x + c * shape.height * shape.width;
    ForEachRow(plan, block, [&](int64_t row, int64_t first, int64_t count, int64_t place) {
      input.tile_row = row;
      input.first_tile = first;
      input.tiles = count;
      input.v = inputs + c * plan.pitch + place;
      kernels.winograd_input(input);
    });
  }
}

// Blocks [begin, end) of outputs.
void Unit::Multiply(int64_t begin, int64_t end) const {
  const int64_t channels = plan.shape.channels, rows = kernels.tile_rows;
  const int64_t columns =
      Whole(std::min(plan.block_tiles, plan.tiles - block * plan.block_tiles), kernels.lanes);
  GemmTileF32 tile{.a_row = 1, .a_step = rows, .b_step = plan.pitch, .c_row = plan.pitch};
  tile.rows = rows;
  tile.finish = false;
  for (int64_t position = 0; position < kPositions; ++position) {
    const float* weights = call.weights + position * PositionFloats(plan.shape, kernels);
    const float* x = inputs + position * InputPlane(plan, kernels);
    float* y = sums + position * SumPlane(plan, kernels);
    for (int64_t k = 0; k < channels; k += kBlockK) {
      tile.k = std::min(kBlockK, channels - k);
      tile.accumulate = k > 0;
      for (int64_t i = begin; i < end; ++i) {
        tile.a = weights + (i * channels + k) * rows;
        for (int64_t column = 0; column < columns; column += kernels.tile_columns) {
          tile.columns = std::min(kernels.tile_columns, columns - column);
          tile.b = x + k * plan.pitch + column;
          tile.c = y + (i - begin) * rows * plan.pitch + column;
          kernels.gemm_tile(tile);
        }
      }
    }
  }
}

void Unit::TransformSums(int64_t begin, int64_t end) const {
  const WinogradShapeF32& shape = plan.shape;
  const ActivationF32& activation = call.activation;
  const ClampF32 limits = ClampOf(activation);
  WinogradOutputF32 output{.plane = SumPlane(plan, kernels),
                           .y_step = shape.out_width,
                           .low = limits.low,
                           .high = limits.high};
  const int64_t first_output = begin * kernels.tile_rows;
  const int64_t end_output = std::min(shape.outputs, end * kernels.tile_rows);
  for (int64_t m = first_output; m < end_output; ++m) {
    output.bias = call.bias.empty() ? 0.0F : call.bias[static_cast<size_t>(m)];
    ForEachRow(plan, block, [&](int64_t row, int64_t first, int64_t count, int64_t place) {
      const int64_t at = (m * shape.out_height + 4 * row) * shape.out_width + 4 * first;
      output.m = sums + (m - first_output) * plan.pitch + place;
      output.tiles = count;
      output.y = call.y + at;
      output.addend = call.addend == nullptr ? nullptr : call.addend + at;
      output.rows = std::min<int64_t>(4, shape.out_height - 4 * row);
      output.columns = std::min(4 * count, shape.out_width - 4 * first);
      kernels.winograd_output(output);
      if (activation.kind <= ActivationKind::kClamp) return;
      for (int64_t r = 0; r < output.rows; ++r) {
        kernels.activate(activation, output.y + r * output.y_step, output.columns);
      }
    });
  }
}

using Matrix6x3 = std::array<std::array<double, 3>, 6>;

constexpr Matrix6x3 MakeG() {
  constexpr std::array<double, 5> kPoints = {0, 0.75, -0.75, 1.5, -1.5};
  Matrix6x3 g{};
  for (size_t i = 0; i < kPoints.size(); ++i) {
    double product = 1;
    for (size_t k = 0; k < kPoints.size(); ++k) {
      if (k != i) product *= kPoints[i] - kPoints[k];
    }
    g[i] = {1 / product, kPoints[i] / product, kPoints[i] * kPoints[i] / product};
  }
  g[5] = {0, 0, 1};
  return g;
}
constexpr Matrix6x3 kG = MakeG();

// G g G^T of one output and channel; element i, j goes to u[(6 i + j) * plane].
void TransformWeights(const float* g, float* u, int64_t plane) {
  std::array<std::array<double, 6>, 3> rows;  // g G^T
  for (size_t i = 0; i < 3; ++i) {
    const double first = g[3 * i], second = g[3 * i + 1], third = g[3 * i + 2];
    for (size_t j = 0; j < 6; ++j) {
      rows[i][j] = kG[j][0] * first + kG[j][1] * second + kG[j][2] * third;
    }
  }
  for (size_t i = 0; i < 6; ++i) {
    for (size_t j = 0; j < 6; ++j, u += plane) {
      *u =
          static_cast<float>(kG[i][0] * rows[0][j] + kG[i][1] * rows[1][j] + kG[i][2] * rows[2][j]);
    }
  }
}

}  // namespace

bool PrefersWinograd(const WinogradShapeF32& shape, const F32Kernels& kernels) {
  if (kernels.winograd_input == nullptr) return false;
  // The transforms cost as much as products with some eight channels, or outputs.
  const bool repays =
      std::min(shape.channels, shape.outputs) >= 8 && shape.channels * shape.outputs >= 256;
  // Of the fourfold gain, what tiles that reach over the edge or leave lanes idle let through.
  const int64_t tiles = CeilDiv(shape.out_height, 4) * CeilDiv(shape.out_width, 4);
  return repays && shape.out_height * shape.out_width >= 6 * Whole(tiles, 16);
}

double WinogradCost(const WinogradShapeF32& shape, const F32Kernels& kernels) {
  const int64_t tiles = CeilDiv(shape.out_height, 4) * CeilDiv(shape.out_width, 4);
  const int64_t vectors = CeilDiv(tiles, kernels.lanes);
  const auto channels = static_cast<double>(shape.channels);
  const auto outputs = static_cast<double>(shape.outputs);
  // The transforms, as above, and tiles that one vector of columns leaves short of work.
  const double products = channels * outputs + 8 * (channels + outputs);
  const double rate = 1.15 + 0.7 / static_cast<double>(vectors);
  return rate * static_cast<double>(kPositions * vectors) * products;
}

WinogradPlanF32 PlanWinograd(const WinogradShapeF32& shape, const F32Kernels& kernels,
                             int64_t threads) {
  WinogradPlanF32 plan{.shape = shape};
  plan.tiles_x = CeilDiv(shape.out_width, 4);
  plan.tiles = plan.tiles_x * CeilDiv(shape.out_height, 4);
  plan.blocks = CeilDiv(plan.tiles, kBlockTiles);
  plan.block_tiles = Whole(CeilDiv(plan.tiles, plan.blocks), kernels.lanes);
  plan.blocks = CeilDiv(plan.tiles, plan.block_tiles);
  plan.pitch = plan.block_tiles;
  const int64_t all = CeilDiv(shape.outputs, kernels.tile_rows);
  plan.row_blocks = kSumFloats / (kPositions * kernels.tile_rows * plan.pitch);
  plan.row_blocks = std::clamp<int64_t>(plan.row_blocks, 1, all);
  if (plan.blocks < threads) plan.splits = std::min(all, CeilDiv(threads, plan.blocks));
  plan.units = plan.blocks * plan.splits;
  plan.scratch_floats = kPositions * (InputPlane(plan, kernels) + SumPlane(plan, kernels)) +
                        WinogradScratchF32(std::min(plan.block_tiles, plan.tiles_x), kernels.lanes);
  return plan;
}

AlignedBuffer<float> PackWinograd(const float* weights, int64_t outputs, int64_t channels,
                                  const F32Kernels& kernels) {
  const WinogradShapeF32 shape{.channels = channels, .outputs = outputs};
  const int64_t floats = PositionFloats(shape, kernels);
  AlignedBuffer<float> packed(static_cast<size_t>(kPositions * floats));
  const int64_t rows = kernels.tile_rows;
  for (int64_t m = 0; m < outputs; ++m) {
    for (int64_t c = 0; c < channels; ++c) {
      float* to = packed.data() + (m / rows * channels + c) * rows + m % rows;
      TransformWeights(weights + (m * channels + c) * 9, to, floats);
    }
  }
  return packed;
}

void RunWinograd(const WinogradPlanF32& plan, const F32Kernels& kernels,
                 const WinogradCallF32& call, int64_t unit, float* scratch) noexcept {
  const int64_t split = unit % plan.splits;
  const int64_t all = CeilDiv(plan.shape.outputs, kernels.tile_rows);
  const int64_t end = all * (split + 1) / plan.splits;
  Unit part{plan, kernels, call, unit / plan.splits, scratch, nullptr, nullptr};
  part.sums = part.inputs + kPositions * InputPlane(plan, kernels);
  part.scratch = part.sums + kPositions * SumPlane(plan, kernels);
  part.TransformInputs();
  for (int64_t i = all * split / plan.splits; i < end; i += plan.row_blocks) {
    const int64_t last = std::min(end, i + plan.row_blocks);
    part.Multiply(i, last);
    part.TransformSums(i, last);
  }
}

}  // namespace pared
