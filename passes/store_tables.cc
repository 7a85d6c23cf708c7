#include "passes/store_tables.h"

#include <map>

#include "passes/select_nodes.h"
#include "passes/stored_weights.h"

namespace pared {
namespace {

constexpr int64_t kElementsMin = 16384;

StoredWeights TablesOf(const Model& model, const std::unordered_set<std::string>& excluded) {
  StoredChoice choice{{"Gather"}, {}};
  ForEachNode(model.graph, [&](const Node& node) {
    if (!node.name.empty() && excluded.contains(node.name)) choice.excluded.insert(&node);
  });
  StoredWeights tables = FindStoredWeights(model, FindWeights(model), choice);
  std::erase_if(tables, [](const auto& entry) {
    const StoredWeight& stored = entry.second;
    return stored.lookups.empty() || !stored.reason.empty() || stored.tensor.count() < kElementsMin;
  });
  return tables;
}

}  // namespace

void StoreTables(Model& model, const std::unordered_set<std::string>& excluded, Json& report) {
  report["tables"] = Json::array();
  const StoredWeights tables = TablesOf(model, excluded);
  if (tables.empty()) return;
  Model out = model;
  FreshNames names(model);
  std::unordered_map<const Node*, TableCodes> lookups;
  EditBeside(out, model.graph, [&](const Graph& original, Graph& graph) {
    for (auto it = tables.lower_bound({&original, ""});
         it != tables.end() && it->first.first == &original; ++it) {
      const auto& [root, stored] = *it;
      CheckFinite(stored.tensor, root.second);
      const TableCodes codes = PutTable(root.second, stored.tensor, graph, names);
      for (const Node* node : stored.lookups) lookups.emplace(node, codes);
      report["tables"].push_back(root.second);
    }
    std::vector<Node> nodes = std::move(graph.nodes);
    graph.nodes.clear();
    for (size_t i = 0; i < nodes.size(); ++i) {
      const auto found = lookups.find(&original.nodes[i]);
      if (found == lookups.end()) {
        graph.nodes.push_back(std::move(nodes[i]));
      } else {
        AddLookup(std::move(nodes[i]), found->second, graph, names);
      }
    }
  });
  EditGraphs(out.graph, EraseDead);
  model = std::move(out);
}

}  // namespace pared
