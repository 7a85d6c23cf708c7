// What each layer of a model costs and how far it is from the float model's.

#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "evaluator/executor.h"
#include "model/graph.h"
#include "model/tensor.h"

namespace pared {

// SQNR in dB of the results of `layers`, before they are quantized, by the layer's name: of those
// with weights that both models call alike. Both models run node by node on `inputs`; of each
// result at most 65,536 elements, evenly spread, are kept and compared, so that memory is bounded.
// Results of another shape than the reference's are left out.
std::map<std::string, double> LayerSqnr(const Model& model, const Model& reference,
                                        const std::vector<Tensor>& inputs,
                                        const std::vector<LayerStats>& layers);

// The scales that a node's operands were quantized with; nullopt: that one is float.
struct LayerScales {
  std::optional<double> input, output;           // of the activations
  std::optional<double> weight_min, weight_max;  // of the weight's channels
};

// By the node's name: those of the main graph with a DequantizeLinear before or a QuantizeLinear
// after them whose scales are constants, and the quantized operators (QLinearConv ...).
std::map<std::string, LayerScales> ScalesOf(const Model& model);

}  // namespace pared
