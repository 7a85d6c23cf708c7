#include <algorithm>

#include "passes/weights.h"

namespace pared {
namespace {

void ReplaceIn(Graph& graph, const Graph* original, const ConstantEdits& edits);

void ReplaceInAttribute(Attribute& attribute, const ConstantEdits& edits) {
  const auto replaced = [&](const GraphPtr& subgraph) {
    std::shared_ptr<Graph> copy = std::make_shared<Graph>(*subgraph);
    ReplaceIn(*copy, subgraph.get(), edits);
    return GraphPtr(copy);
  };
  if (GraphPtr* one = std::get_if<GraphPtr>(&attribute.value)) *one = replaced(*one);
  if (auto* many = std::get_if<std::vector<GraphPtr>>(&attribute.value)) {
    for (GraphPtr& subgraph : *many) subgraph = replaced(subgraph);
  }
}

// `original` is the graph's address when the edits were decided.
void ReplaceIn(Graph& graph, const Graph* original, const ConstantEdits& edits) {
  for (auto it = edits.lower_bound({original, ""}); it != edits.end(); ++it) {
    if (it->first.first != original) break;
    if (Initializer* initializer = graph.initializers.find(it->first.second)) {
      initializer->tensor = it->second;
    }
  }
  for (Node& node : graph.nodes) {
    if (node.op_type == "Constant" && !node.outputs.empty()) {
      const auto edit = edits.find({original, node.outputs[0]});
      if (edit != edits.end()) node.attributes.find("value")->value = edit->second;
    }
    for (const auto& [name, unused] : Attributes(node.attributes)) {
      ReplaceInAttribute(*node.attributes.find(name), edits);
    }
  }
}

}  // namespace

void ReplaceConstants(Model& model, const ConstantEdits& edits) {
  if (!edits.empty()) ReplaceIn(model.graph, &model.graph, edits);
}

void DropInitializerInputs(Model& model) {
  std::erase_if(model.graph.inputs, [&](const ValueInfo& input) {
    return model.graph.initializers.contains(input.name);
  });
  model.ir_version = std::max<int64_t>(model.ir_version, 4);
}

}  // namespace pared
