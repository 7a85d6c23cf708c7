#pragma once

#include "model/graph.h"

namespace pared {

// Throws kInvalidArgument naming the tensor where a weight of the model, or a bias beside it, has
// an element that is NaN or infinite.
void CheckFiniteWeights(const Model& model);

}  // namespace pared
