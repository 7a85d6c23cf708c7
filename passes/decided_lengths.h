// Where a model computes how long its values are: speech that is as long as the durations it
// predicts.

#pragma once

#include <string>
#include <unordered_map>
#include <unordered_set>

#include "model/graph.h"
#include "model/infer_shapes.h"

namespace pared {

// Why such a node stays float.
inline constexpr const char* kDecidesLength =
    "what it makes is rounded to the length of a value, which a small error would change";

// The nodes of the main graph whose numbers, not only their shapes, reach what says how large a
// value is (the shape of Reshape, the end of Range ...), having been made integers by a Cast.
// Where all products and convolutions are such, none is: nothing would be left.
std::unordered_set<const Node*> NodesThatDecideLengths(const Model& model);
// The same with the index and the types of the model's main graph.
std::unordered_set<const Node*> NodesThatDecideLengths(
    const Model& model, const GraphIndex& index,
    const std::unordered_map<std::string, ValueType>& types);

}  // namespace pared
