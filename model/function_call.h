// Calls of functions written out: of model-local ones, and of operators defined by others.

#pragma once

#include <cstdint>
#include <vector>

#include "model/graph.h"
#include "model/rewrite.h"

namespace pared {

// Of functions, and of subgraphs, within each other.
constexpr int kNestingMax = 64;

// Counts a node, a call or one of what it stands for: functions that call functions are small
// files. Throws kUnsupported beyond 1,000,000.
void CountWrittenOut(int64_t& count);

// The same of all that the calls of the model's graph stand for, counted without writing it out;
// also where functions call each other without end, or more than kNestingMax deep.
void CheckWrittenOut(const Model& model);

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
