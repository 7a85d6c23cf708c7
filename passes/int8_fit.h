// Codes of INT8 weights that make up for each other's rounding and for the layers before.
//
// Layer after layer in graph order: the target of a layer is what it makes in the float model, its
// input is what the layers before, already quantized, give it, rounded to the input's codes. Least
// squares with the original weights as anchor says what the real weights should be, and
// second-order rounding (second_order_round.h) turns them into codes of the scales they have. How
// far the samples are followed, half of them tell of the others (choose_damping.h); where they tell
// nothing, the nearest codes stay.

#pragma once

#include <map>
#include <string>
#include <vector>

#include "passes/int8_rewrite.h"

namespace pared {

// What is fitted of each node is under the name of its first output. Layers that have no statistics
// (WhyNoStatistics) or share their weight are not in it.
FittedWeights FitInt8Weights(const Int8ChoiceContext& context, const Int8Choice& choice,
                             const Int8Rewrite& nearest, PassContext& pass_context);

}  // namespace pared
