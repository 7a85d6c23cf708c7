#include "evaluator/winograd.h"

#include <algorithm>
#include <cmath>

#include "evaluator/ops_int8.h"

namespace pared {
namespace {

// Nanoseconds on Zen 3, from the table in docs/kernels.md; only their order decides.
constexpr double kDenseStepNs = 3.9;  // four weights of a row times 64 columns
constexpr double kGatherRowNs = 6;    // 64 columns of one k
constexpr double kProductNs = 0.25;   // eight tiles, one row, two channels, one of 36 positions
constexpr double kWeightsNs = 0.45;   // or what reading their weights takes
constexpr double kInputsNs = 80;      // eight tiles of two channels
constexpr double kOutputsNs = 60;     // eight tiles of a row

constexpr int64_t kBlocksPerThread = 4;  // fewer, and threads share the rows of blocks too
constexpr int64_t kBlockTilesMin = 16;
constexpr int64_t kPairGrain = 8;

// A thread transforms and multiplies whole blocks.
void RunBlocks(const WinogradCall& call, Scratch& scratch) {
  const PackedWinograd& weights = *call.weights;
  const int64_t columns = call.plan->columns_max();
  const size_t operand_bytes = weights.operand_bytes(columns);
  const auto run = [&](int64_t begin, int64_t end, std::byte* memory) {
    for (int64_t block = begin; block < end; ++block) {
      weights.Transform(call.image, {call.plan, block, 0, weights.pairs()}, memory);
      weights.Run(memory, {call.plan, block, 0, weights.groups()}, call.output,
                  memory + operand_bytes);
    }
  };
  ForEachPiece(scratch, std::ssize(call.plan->blocks()),
               operand_bytes + weights.scratch_bytes(columns), run);
}

// All blocks are transformed first; then threads share blocks times groups of rows.
void RunGroups(const WinogradCall& call, Scratch& scratch) {
  const PackedWinograd& weights = *call.weights;
  const int64_t blocks = std::ssize(call.plan->blocks()), pairs = weights.pairs();
  const int64_t columns = call.plan->columns_max();
  const size_t operand_bytes = weights.operand_bytes(columns);
  std::byte* operands = scratch.Temporary(operand_bytes * static_cast<size_t>(blocks));
  const auto operand = [&](int64_t block) {
    return operands + operand_bytes * static_cast<size_t>(block);
  };
  scratch.ParallelFor(blocks * pairs, kPairGrain, [&](int64_t begin, int64_t end) {
    while (begin < end) {
      const int64_t block = begin / pairs, first = begin % pairs;
      const int64_t last = std::min(pairs, first + end - begin);
      weights.Transform(call.image, {call.plan, block, first, last}, operand(block));
      begin += last - first;
    }
  });
  // By group, then by block: a thread stays with one group's weights as long as it can.
  const auto run = [&](int64_t begin, int64_t end, std::byte* memory) {
    for (int64_t item = begin; item < end; ++item) {
      const int64_t group = item / blocks, block = item % blocks;
      weights.Run(operand(block), {call.plan, block, group, group + 1}, call.output, memory);
    }
  };
  ForEachPiece(scratch, blocks * weights.groups(), weights.scratch_bytes(columns), run);
}

}  // namespace

bool MayTakeWinograd(const Node& node, Isa isa) {
  const auto are_one = [](const std::vector<int64_t>& values) {
    return std::ranges::all_of(values, [](int64_t v) { return v == 1; });
  };
  return isa == Isa::kAvx2 && node.Ints("kernel_shape") == std::vector<int64_t>{3, 3} &&
         are_one(node.Ints("strides")) && are_one(node.Ints("dilations")) &&
         node.Int("group", 1) == 1;
}

bool WinogradPays(const GatheredLayer& layer) {
  const auto m = static_cast<double>(layer.m), k = static_cast<double>(layer.k);
  const double channels = k / 9, pixels = static_cast<double>(layer.pixels);
  const double tiles = pixels / kTileColumns;
  const double gathered = tiles * (m * k / 4 * kDenseStepNs / layer.gain + k * kGatherRowNs);
  // An image whose sides are equal.
  const double side = std::ceil(std::sqrt(pixels) / 4);
  const double vectors = std::ceil(side * side / 8), pairs = std::ceil(channels / 2);
  const double products = std::max(vectors * kProductNs, kWeightsNs);
  const double transformed = vectors * (pairs * kInputsNs + m * kOutputsNs);
  return products * 36 * pairs * m + transformed < gathered;
}

std::unique_ptr<const PackedWinograd> PackWinograd(const GemmWeights& weights, Isa isa) {
  if (!PackedWinograd::Accepts(weights, isa)) return nullptr;
  return std::make_unique<PackedWinograd>(weights);
}

std::unique_ptr<const WinogradPlan> PlanWinograd(const PackedWinograd& weights,
                                                 const ConvGeometry& geometry, int64_t threads) {
  int64_t block_tiles = weights.block_tiles();
  if (threads > 1) {
    const int64_t wanted = WinogradPlan::TilesOf(geometry) / (kBlocksPerThread * threads);
    block_tiles = std::clamp(wanted / kBlockTilesMin * kBlockTilesMin, kBlockTilesMin, block_tiles);
  }
  return std::make_unique<WinogradPlan>(geometry, block_tiles, Isa::kAvx2);
}

void RunWinograd(const WinogradCall& call, Scratch& scratch) {
  const int64_t threads = scratch.threads();
  const bool has_many = std::ssize(call.plan->blocks()) >= kBlocksPerThread * threads;
  threads == 1 || has_many ? RunBlocks(call, scratch) : RunGroups(call, scratch);
}

void RunWinogradSums(const WinogradCall& call, const StoreWinogradSums& store, Scratch& scratch) {
  const PackedWinograd& weights = *call.weights;
  const int64_t columns = call.plan->columns_max();
  const size_t operand_bytes = weights.operand_bytes(columns);
  const size_t work_bytes = operand_bytes + weights.scratch_bytes(columns);
  const auto run = [&](int64_t begin, int64_t end, std::byte* memory) {
    std::byte* staged = memory + work_bytes;
    for (int64_t block = begin; block < end; ++block) {
      weights.Transform(call.image, {call.plan, block, 0, weights.pairs()}, memory);
      weights.Stage(memory, {call.plan, block, 0, weights.groups()}, staged,
                    memory + operand_bytes);
      store(call.plan->blocks()[static_cast<size_t>(block)],
            reinterpret_cast<const int32_t*>(staged));
    }
  };
  const auto staged_bytes =
      static_cast<size_t>(weights.m() * PackedWinograd::staged_elements(columns) * 4);
  ForEachPiece(scratch, std::ssize(call.plan->blocks()), work_bytes + staged_bytes, run);
}

}  // namespace pared
