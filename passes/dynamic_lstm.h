// LSTM in the form that ONNX Runtime's own quantizer gives it: DynamicQuantizeLSTM of
// com.microsoft, whose weights are codes and whose inputs and states get theirs while it runs.

#pragma once

#include <array>
#include <string>

#include "passes/stored_weights.h"
#include "passes/weight_codes.h"

namespace pared {

// Why the LSTM that reads this weight has no such form, whatever its other weight; empty: it has.
std::string WhyNoDynamicLstm(const WeightSite& site);

// Weights stay float where another of the same LSTM does or is no constant.
void KeepLstmsWhole(StoredWeights& weights);

// Of W or R: codes [directions, k, 4 * hidden], scales [directions, 4 * hidden], zero points of the
// same shape, all 0.
WeightCodes CodeLstm(const WeightSite& site, float code_max);

// Initializers with the codes of a weight; zero_point: empty where there are none.
struct CodeNames {
  std::string codes, scale, zero_point;
};
// `node`, an LSTM, with what CodeLstm made of W and R in their place.
Node MakeDynamicLstm(const Node& node, const std::array<CodeNames, 2>& weights);

}  // namespace pared
