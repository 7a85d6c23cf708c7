#include "evaluator/winograd.h"

#include <algorithm>

#include "evaluator/ops_int8.h"

namespace pared {
namespace {

// Smaller images leave lanes of tiles empty and read all weights for few products; fewer channels
// have too few products for the transforms (docs/kernels.md).
constexpr int64_t kPixelsMin = 100, kChannelsMin = 4;

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

bool WinogradPays(int64_t pixels, int64_t k) {
  return pixels >= kPixelsMin && k >= kChannelsMin * 9;
}

std::unique_ptr<const PackedWinograd> PackWinogradFor(const Node& node, const GemmWeights& weights,
                                                      int64_t pixels, Isa isa) {
  if (!MayTakeWinograd(node, isa) || pixels < kPixelsMin || weights.k < kChannelsMin * 9)
    return nullptr;
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
