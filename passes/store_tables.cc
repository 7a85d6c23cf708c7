#include "passes/store_tables.h"

#include <map>

#include "passes/select_nodes.h"
#include "passes/stored_weights.h"

namespace pared {
namespace {

constexpr int64_t kElementsMin = 16384;

std::string WhyFloat(const StoredWeight& stored) {
  if (!stored.sites.empty()) {
    return "its table is also the weight of " + NodeLabel(*stored.sites[0]->node);
  }
  if (!stored.reason.empty()) return stored.reason;
  const int64_t scales = stored.tensor.shape().at(static_cast<size_t>(*stored.table_axis));
  const int64_t float_bytes = 4 * stored.tensor.count();
  if (stored.tensor.count() + 4 * scales < float_bytes) return "";
  return "its table in INT8 would be no smaller, with a scale for each lookup";
}

// Those of some size; each with the reason why it stays float.
StoredWeights TablesOf(const Model& model, const WeightScan& scan,
                       const std::unordered_set<std::string>& excluded) {
  StoredChoice choice{{"Gather"}, {}, StoredChoice::Tables::kAnyAxis};
  ForEachNode(model.graph, [&](const Node& node) {
    if (!node.name.empty() && excluded.contains(node.name)) choice.excluded.insert(&node);
  });
  StoredWeights tables = FindStoredWeights(model, scan, choice);
  std::erase_if(tables, [](const auto& entry) {
    return entry.second.lookups.empty() || entry.second.tensor.count() < kElementsMin;
  });
  for (auto& [root, stored] : tables) stored.reason = WhyFloat(stored);
  return tables;
}

void ReportFloat(const StoredWeights& tables, Json& report) {
  std::unordered_set<std::string> told;
  for (const Json& entry : report.value("skipped", Json::array())) {
    told.insert(entry.at("node").get<std::string>());
  }
  for (const auto& [root, stored] : tables) {
    for (const Node* lookup : stored.lookups) {
      const std::string label = NodeLabel(*lookup);
      if (stored.reason.empty() || !told.insert(label).second) continue;
      report["skipped"].push_back({{"node", label}, {"reason", stored.reason}});
    }
  }
}

}  // namespace

void StoreTables(Model& model, const std::unordered_set<std::string>& excluded, Json& report) {
  report["tables"] = Json::array();
  const WeightScan scan = FindWeights(model);
  StoredWeights tables = TablesOf(model, scan, excluded);
  ReportFloat(tables, report);
  std::erase_if(tables, [](const auto& entry) { return !entry.second.reason.empty(); });
  if (tables.empty()) return;
  Model out = model;
  FreshNames names(model);
  std::unordered_map<const Node*, TableCodes> lookups;
  EditBeside(out, model.graph, [&](const Graph& original, Graph& graph) {
    for (auto it = tables.lower_bound({&original, ""});
         it != tables.end() && it->first.first == &original; ++it) {
      const auto& [root, stored] = *it;
      CheckFinite(stored.tensor, root.second);
      const TableCodes codes = PutTable(root.second, stored, graph, names);
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

std::vector<std::pair<std::string, int64_t>> FloatTables(const Model& model) {
  std::map<ConstantRef, Tensor> found = FindTables(model);
  for (const WeightSite& site : FindWeights(model).sites) found.erase(site.root);
  std::vector<std::pair<std::string, int64_t>> tables;
  for (const auto& [root, tensor] : found) tables.emplace_back(root.second, tensor.count());
  return tables;
}

}  // namespace pared
