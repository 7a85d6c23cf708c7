// GELU as exporters spell it, with Erf or with Tanh.

#pragma once

#include <optional>

#include "evaluator/float_patterns.h"

namespace pared {

// `function` is an Erf or Tanh of float32 in `graph`. Nothing: what surrounds it is no GELU, or a
// value in between has another reader. The node found is a Gelu of com.microsoft; its attribute
// `approximate`, as of ONNX's Gelu, is "tanh" where the function is Tanh.
std::optional<FloatPattern> FindGelu(const Graph& graph, const GraphIndex& index,
                                     int64_t ir_version, const Node& function);

}  // namespace pared
