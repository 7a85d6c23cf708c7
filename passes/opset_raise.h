// Raises a model to a later opset by converting its nodes, not by stamping the number.

#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/graph.h"

namespace pared {

// Converts the nodes of the graph and its subgraphs from opset 7 or later to `opset` (at most 23);
// a model that is there already is unchanged. Returns a line for every kind of conversion done.
// Throws kUnsupported naming a node whose meaning cannot be kept.
std::vector<std::string> RaiseOpset(Model& model, int64_t opset);

}  // namespace pared
