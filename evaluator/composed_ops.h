// Operators that are compositions of others, as ONNX's own function bodies are: the contributed
// ones that ONNX Runtime's quantizer and optimizer write, and losses.

#pragma once

#include <optional>

#include "model/graph.h"

namespace pared {

// A function that computes what `node` does, made for its attributes and for which of its inputs
// are given; nothing where its operator is no composition. Throws kUnsupported where the
// composition does not cover an attribute.
std::optional<Function> ComposeOp(const Node& node);

}  // namespace pared
