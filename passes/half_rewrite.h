// Writes a model whose chosen nodes compute in float16.

#pragma once

#include "passes/fp16_nodes.h"
#include "passes/pass.h"

namespace pared {

// Casts stand where float16 and float32 meet, one for each value and graph; constants that only
// float16 nodes read are stored so. `keeps_io`: the graph's inputs and outputs stay float32.
Graph RewriteHalf(const Model& model, const HalfChoice& choice, bool keeps_io,
                  const PassContext& context);

// `model` so rewritten, with float32 inputs and outputs.
Model WithHalf(const Model& model, const HalfChoice& choice, const PassContext& context);

// Chooses (ChooseHalfNodes) and, where `ranges` tell of calibration data, runs the model on it with
// every float16 result rounded. A node that makes what is no number from what still is one stays
// float, until there is none; `single` gets these with their reasons.
HalfChoice ChooseFiniteHalf(const Model& model, Reasons& single, const HalfRanges& ranges,
                            PassContext& context);

}  // namespace pared
