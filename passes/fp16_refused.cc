// What onnxruntime does not run in float16.
//
// x (float16, rank 3) -> Transpose, perm [1, 0, 2] or [1, 2, 0] -> MatMul with a matrix ends the
// process of onnxruntime 1.32 as it loads the model (its MatmulTransposeFusion); a Reshape between
// does not help, unless it makes a matrix. The Transpose stays float32.

#include "passes/fp16_nodes.h"

namespace pared {
namespace {

size_t RankIn(const TypeMap& types, const std::string& value) {
  const auto found = types.find(value);
  return found == types.end() || !found->second.shape ? 0 : found->second.shape->size();
}

}  // namespace

void FindRefused(const Graph& graph, const GraphIndex& index, const TypeMap& types,
                 Reasons& reasons) {
  for (const Node& node : graph.nodes) {
    if (node.op_type != "MatMul" || RankIn(types, node.inputs[1]) != 2) continue;
    if (RankIn(types, node.inputs[0]) == 2) continue;
    const Node* producer = index.producer(node.inputs[0]);
    while (producer != nullptr &&
           (producer->op_type == "Reshape" || producer->op_type == "Identity")) {
      producer = index.producer(producer->inputs[0]);
    }
    if (producer == nullptr || producer->op_type != "Transpose") continue;
    const std::vector<int64_t> perm = producer->Ints("perm");
    if (perm != std::vector<int64_t>{1, 0, 2} && perm != std::vector<int64_t>{1, 2, 0}) continue;
    reasons.emplace(producer, "onnxruntime does not load " + NodeLabel(node) + " behind it");
  }
}

}  // namespace pared
