// LayerNormalization as Keras and litert-torch spell it, without a difference that is divided.

#pragma once

#include <optional>
#include <string>
#include <unordered_map>

#include "evaluator/float_patterns.h"

namespace pared {

// `add` is of float32 in `graph`. Nothing: it ends no LayerNormalization of that kind, or a value
// in between has another reader.
std::optional<FloatPattern> FindSpreadLayerNorm(
    const Graph& graph, const GraphIndex& index, int64_t ir_version,
    const std::unordered_map<std::string, ValueType>& types, const Node& add);

}  // namespace pared
