// Products that take the expectation of a distribution: coordinates, not features.

#pragma once

#include <string>
#include <unordered_set>

#include "model/graph.h"

namespace pared {

// Operators that move elements of their first input and change none. Pad adds zeros.
extern const std::unordered_set<std::string> kMovingOps;

// The node whose elements `value` has, before others moved them; null: an input's.
const Node* MakerOf(const GraphIndex& index, const std::string& value);

// Why the weights of such a product, which say what each class stands for, are left as they are.
inline constexpr const char* kDecodesDistribution = "it decodes a distribution that a Softmax made";

// Whether a Softmax made the elements of `value` (Li et al., Generalized focal loss, 2020).
bool IsDistribution(const GraphIndex& index, const std::string& value);

}  // namespace pared
