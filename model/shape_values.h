// Integer values that follow from static shapes, whatever the model's inputs hold.

#pragma once

#include <string>
#include <unordered_map>

#include "model/graph.h"

namespace pared {

// By value name, for the main graph: int32 and int64 values of rank 0 or 1 that Shape, and what is
// computed from it, make where the dimensions in question are numbers. Initializers count as what
// they are, also those that a caller may override. Empty where the model's shapes contradict each
// other.
std::unordered_map<std::string, Tensor> InferShapeValues(const Model& model);

}  // namespace pared
