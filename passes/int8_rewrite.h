// Writes the model that computes the chosen nodes in INT8, as QuantizeLinear/DequantizeLinear
// pairs.

#pragma once

#include "passes/calibrate.h"
#include "passes/int8_choice.h"
#include "passes/int8_params.h"

namespace pared {

struct Int8Settings {
  bool is_per_channel = true;
  RangeOptions range;
  bool bias_correction = true;
  bool reduce_range = false;
};

struct Int8Rewrite {
  Model model;
  Json ranges;  // value to {"min", "max", "scale"}
};

// Nodes keep the names of their outputs, so that values can be compared with the float model's.
Int8Rewrite RewriteInt8(const Int8ChoiceContext& context, const Int8Choice& choice,
                        const Calibration& calibration, const Int8Settings& settings);

}  // namespace pared
