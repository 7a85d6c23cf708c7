// Model-local functions, written into the graphs that call them.

#pragma once

#include <string>
#include <utility>
#include <vector>

#include "model/graph.h"

namespace pared {

// Puts the body of each function in the place of its calls, so that passes see its nodes; names of
// the body that are taken elsewhere are made fresh, and functions that nobody calls any more go.
// A function whose opsets are not the model's stays a call; its nodes are returned, each label with
// the reason. Throws kUnsupported where functions call each other without end, or the graph would
// grow beyond a million nodes.
std::vector<std::pair<std::string, std::string>> InlineFunctions(Model& model);

}  // namespace pared
