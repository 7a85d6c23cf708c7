#include "passes/decoded_distribution.h"

namespace pared {

const std::unordered_set<std::string> kMovingOps = {
    "MaxPool",   "Reshape",      "Transpose",    "Flatten",  "Squeeze",
    "Unsqueeze", "Slice",        "Gather",       "Split",    "Expand",
    "Tile",      "DepthToSpace", "SpaceToDepth", "Identity", "Pad"};

const Node* MakerOf(const GraphIndex& index, const std::string& value) {
  const Node* producer = index.producer(value);
  while (producer != nullptr && producer->domain.empty() && !producer->inputs.empty() &&
         kMovingOps.contains(producer->op_type)) {
    producer = index.producer(producer->inputs[0]);
  }
  return producer;
}

bool IsDistribution(const GraphIndex& index, const std::string& value) {
  const Node* maker = MakerOf(index, value);
  return maker != nullptr && maker->domain.empty() && maker->op_type == "Softmax";
}

}  // namespace pared
