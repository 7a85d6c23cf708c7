// Calls of functions written out: of model-local ones, and of operators defined by others.

#pragma once

#include <vector>

#include "model/graph.h"
#include "model/rewrite.h"

namespace pared {

// What the function's attributes are in this call: those of the call, else the defaults.
Attributes BoundAttributes(const Function& function, const Node& call);

// A node of a function's body, whose attributes that stand for the function's own become what
// `bound` gives, or go. Nodes within subgraphs are left alone.
Node Bind(const Node& node, const Attributes& bound);

// The nodes that the call stands for. Inputs and outputs have the call's names, all other values
// and nodes fresh ones, also within subgraphs; outputs that the function only hands on come from
// Identity nodes. Calls within the body are left as they are.
std::vector<Node> InlineCall(const Node& call, const Function& function, FreshNames& names);

}  // namespace pared
