// Numbers that are held as floats and end as integers: places, lengths, identifiers. Few bits make
// others of them: float16 holds the integers up to 2048, bfloat16 up to 256.

#pragma once

#include <string>
#include <unordered_map>
#include <unordered_set>

#include "model/graph.h"
#include "model/infer_shapes.h"

namespace pared {

inline constexpr const char* kEndsAsIntegers =
    "its values end as integers, which fewer bits would round";

bool IsInteger(DType dtype);  // of 8 to 64 bits

// The nodes of `graph` whose floats are cast to integers, and back from there what computes as
// numbers are computed: arithmetic, what moves elements, sums, and products with a constant that is
// all integers, as strides are and learned weights are not. `types`: of the graph's values.
std::unordered_set<const Node*> NodesOfIntegers(
    const Graph& graph, const GraphIndex& index,
    const std::unordered_map<std::string, ValueType>& types, int64_t ir_version);

// Those of all graphs of the model.
std::unordered_set<const Node*> NodesOfIntegers(const Model& model);

}  // namespace pared
