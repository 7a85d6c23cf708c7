// Which INT8 convolutions take Winograd's algorithm (kernels/winograd.h), and how threads share
// one.

#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "evaluator/ops.h"
#include "kernels/winograd.h"

namespace pared {

// Packed where `node`, a convolution of `pixels` outputs an image, is one that it makes faster.
std::unique_ptr<const PackedWinograd> PackWinogradFor(const Node& node, const GemmWeights& weights,
                                                      int64_t pixels, Isa isa);

// Cut so that `threads` have enough to share.
std::unique_ptr<const WinogradPlan> PlanWinograd(const PackedWinograd& weights,
                                                 const ConvGeometry& geometry, int64_t threads);

struct WinogradCall {
  const PackedWinograd* weights;
  const WinogradPlan* plan;
  const uint8_t* image;  // padded by the plan's Im2col
  PackedWinograd::Output output;
};
void RunWinograd(const WinogradCall& call, Scratch& scratch);

}  // namespace pared
