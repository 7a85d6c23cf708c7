// By which values of a model its quantized form is judged.

#pragma once

#include <string>
#include <vector>

#include "model/graph.h"

namespace pared {

// The outputs, and in place of an output that a last Concat joins, its parts - the coordinates of
// boxes would hide what becomes of their scores - in place of a last Softmax, what it is made of:
// probabilities near 0 and 1 hide all but a few samples - and in place of what is picked at
// computed places (NonMaxSuppression, TopK), whatever is added to it or scales it since, what it is
// picked from.
std::vector<std::string> JudgedValues(const Graph& graph);

// The outputs that are judged by other values and can be compared themselves, since nothing is
// picked for them: probabilities, joined parts.
std::vector<std::string> StoodForOutputs(const Graph& graph);

// Whether the node, or one within it, says which elements are picked.
bool Selects(const Node& node);

}  // namespace pared
