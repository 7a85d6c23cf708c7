#include "passes/constant_aliases.h"

#include <map>
#include <string>

#include "model/domain.h"
#include "model/rewrite.h"
#include "passes/select_nodes.h"

namespace pared {
namespace {

void RemoveIn(Graph& graph, const Model& model, const std::function<bool(const Node&)>& keep) {
  const GraphIndex index(graph);
  const auto is_alias = [&](const Node& node) {
    return node.op_type == "Identity" && IsDefaultDomain(node.domain) &&
           !index.is_output(node.outputs[0]) && graph.initializers.contains(node.inputs[0]) &&
           ConstantOf(graph, index, node.inputs[0], model.ir_version) != nullptr && !keep(node);
  };
  std::map<std::string, std::string> aliases;
  for (const Node& node : graph.nodes) {
    if (is_alias(node)) aliases.emplace(node.outputs[0], node.inputs[0]);
  }
  std::erase_if(graph.nodes, [&](const Node& node) {
    return !node.outputs.empty() && aliases.contains(node.outputs[0]);
  });
  for (const auto& [alias, constant] : aliases) ReplaceUses(graph, alias, constant);
  graph.values.erase_if(
      [&](const std::string& name, const ValueInfo&) { return aliases.contains(name); });
}

}  // namespace

void RemoveConstantAliases(Model& model, const std::function<bool(const Node&)>& keep) {
  EditGraphs(model.graph, [&](Graph& graph) { RemoveIn(graph, model, keep); });
}

}  // namespace pared
