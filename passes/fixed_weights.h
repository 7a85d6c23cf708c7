// Weights that are computed from constants alone, stored as what they come to.
//
// Before:  n = ReduceL2(v)  u = Div(v, n)  w = Mul(g, u)  y = Conv(x, w)      v, g: initializers
// After:   y = Conv(x, w)                                                   w: an initializer
//
// Weight normalization and the gates of recurrent layers, put in order by Slice and Concat, are
// exported so. A chain that only views or casts a constant stays: FindWeights follows it. But that
// of an operand of what follows a layer goes, as the biases that PaddlePaddle exports: Add(y,
// Reshape(b, shape)).

#pragma once

#include <functional>
#include <set>
#include <string>
#include <unordered_set>

#include "config/fields.h"
#include "model/graph.h"

namespace pared {

// Values of the graph that nodes compute from its constants (ConstantOf) alone.
std::unordered_set<std::string> FixedValues(const Graph& graph, const GraphIndex& index,
                                            int64_t ir_version);

// The nodes of the main graph, by their first outputs, that compute inputs of weighted operators,
// or operands of additions, factors and normalizations, from constants alone.
std::set<std::string> FindFixedWeights(const Model& model);

struct FixedWeightsReport {
  Json changed;   // [{"node"}, ...]: what is no longer computed
  Json warnings;  // texts: NaN and infinity made of finite numbers
};

// Stores what the nodes of FindFixedWeights come to. A result that would make the constants larger
// by more than fold_constants allows by default stays. Throws kCancelled.
FixedWeightsReport FoldFixedWeights(Model& model, const std::set<std::string>& found,
                                    const std::function<bool()>& cancelled);

}  // namespace pared
