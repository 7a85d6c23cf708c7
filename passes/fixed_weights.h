// Weights that are computed from constants alone, stored as what they come to.
//
// Before:  n = ReduceL2(v)  u = Div(v, n)  w = Mul(g, u)  y = Conv(x, w)      v, g: initializers
// After:   y = Conv(x, w)                                                   w: an initializer
//
// Weight normalization and the gates of recurrent layers, put in order by Slice and Concat, are
// exported so. A chain that only views or casts a constant stays: FindWeights follows it.

#pragma once

#include <functional>

#include "config/fields.h"
#include "model/graph.h"

namespace pared {

// Of the main graph. Returns [{"node"}, ...]: what is no longer computed. A result that would make
// the constants larger by more than fold_constants allows by default stays. Throws kCancelled.
Json FoldFixedWeights(Model& model, const std::function<bool()>& cancelled);

}  // namespace pared
