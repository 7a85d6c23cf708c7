// Functions that exporters spell with several operators, found in a graph of float32.

#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "model/graph.h"
#include "model/infer_shapes.h"
#include "model/rewrite.h"

namespace pared {

// `node` computes at once what the node at index `last` of the graph and those that only it reads
// do: QuickGelu or Gelu of com.microsoft (Gelu with `approximate`, as ONNX's since opset 20),
// HardSwish (opset 14) or LayerNormalization (opset 17).
struct FloatPattern {
  size_t last = 0;
  Node node;
  // Inputs by place that are initializers to add, called after what the node has there.
  std::vector<std::pair<size_t, Tensor>> constants{};
};

// Puts the node in its place.
void WritePattern(Graph& graph, FloatPattern pattern, FreshNames& names);

// In the graph itself, subgraphs apart. `types` of its values, where they are known, tell which
// axis is the last one.
std::vector<FloatPattern> FindFloatPatterns(
    const Graph& graph, int64_t ir_version,
    const std::unordered_map<std::string, ValueType>& types = {});

}  // namespace pared
