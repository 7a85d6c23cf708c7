// Which INT8 convolutions take Winograd's algorithm (kernels/winograd.h), and how threads share
// one.

#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>

#include "evaluator/ops.h"
#include "kernels/winograd.h"

namespace pared {

// Whether `node` is a convolution of windows that the algorithm is for, and `isa` one it is for.
bool MayTakeWinograd(const Node& node, Isa isa);

// A layer of m rows of k weights: the outputs of an image, and how many times as fast as dense the
// kernel is that would multiply what is gathered (GemmPrediction).
struct GatheredLayer {
  int64_t m, k, pixels;
  double gain = 1;
};
// Whether the algorithm is expected to be faster than that.
bool WinogradPays(const GatheredLayer& layer);

// Null where the sums of these weights are out of reach.
std::unique_ptr<const PackedWinograd> PackWinograd(const GemmWeights& weights, Isa isa);

// Cut so that `threads` have enough to share.
std::unique_ptr<const WinogradPlan> PlanWinograd(const PackedWinograd& weights,
                                                 const ConvGeometry& geometry, int64_t threads);

struct WinogradCall {
  const PackedWinograd* weights;
  const WinogradPlan* plan;
  const uint8_t* image;  // padded by the plan's Im2col
  PackedWinograd::Output output = {};
};
void RunWinograd(const WinogradCall& call, Scratch& scratch);

// The int32 sums of each block, [m][4][T][4], in place of an output.
using StoreWinogradSums =
    std::function<void(const WinogradPlan::Block& block, const int32_t* sums)>;
void RunWinogradSums(const WinogradCall& call, const StoreWinogradSums& store, Scratch& scratch);

}  // namespace pared
