// Writes the model that computes the chosen nodes in INT8, as QuantizeLinear/DequantizeLinear
// pairs.

#pragma once

#include "passes/calibrate.h"
#include "passes/int8_choice.h"
#include "passes/int8_params.h"

namespace pared {

// Codes of a weight in place of the nearest ones, in the order of the node's view, and what the
// mean of each output channel loses by them; no loss: it follows from the calibration's means.
struct FittedWeight {
  std::vector<int8_t> codes;
  std::vector<double> mean_loss;
};
using FittedWeights = std::map<std::string, FittedWeight>;  // by the node's first output

struct Int8Settings {
  bool is_per_channel = true;
  RangeOptions range;
  bool bias_correction = true;
  int32_t code_max = 127;  // of the weights
  FittedWeights fitted;
};

struct Int8Rewrite {
  Model model;
  int32_t code_max = 127;                      // of the weights
  Json ranges;                                 // value to {"min", "max", "scale"}
  std::map<std::string, WeightScales> scales;  // of weights, by the node's first output
  std::unordered_map<std::string, ActivationParams> params;
};

// Nodes keep the names of their outputs, so that values can be compared with the float model's.
Int8Rewrite RewriteInt8(const Int8ChoiceContext& context, const Int8Choice& choice,
                        const Calibration& calibration, const Int8Settings& settings);

}  // namespace pared
