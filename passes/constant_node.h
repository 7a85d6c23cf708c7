// One node computed from constants alone.

#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <unordered_map>

#include "model/graph.h"

namespace pared {

using ConstantValues = std::unordered_map<std::string, Tensor>;

constexpr int64_t kEvaluatedBytesMax = int64_t{1} << 28;  // of one node's results

// A model of the node alone, with its inputs, all among `values`, as initializers and its outputs
// as the graph's.
Model Alone(const Model& model, const Node& node, const ConstantValues& values);

// Bytes of all outputs. nullopt: their shapes do not follow from the node.
std::optional<int64_t> ResultBytes(const Model& alone);

// Adds the node's outputs to `known`, which has its inputs; or says why they cannot be had.
std::string Evaluate(const Model& model, const Node& node, ConstantValues& known);

// "3 NaN and 1 infinite of 8 elements", where the node made them of finite numbers; empty: none.
std::string MadeNotFinite(const Node& node, const ConstantValues& known);

}  // namespace pared
