#include "passes/stored_weights.h"

#include <algorithm>
#include <cmath>

#include "model/domain.h"
#include "passes/float_elements.h"
#include "passes/index_values.h"
#include "passes/select_nodes.h"
#include "passes/weight_codes.h"

namespace pared {
namespace {

bool Names(const std::vector<std::string>& list, const std::string& name) {
  return std::ranges::find(list, name) != list.end();
}

bool IsLookup(const Node& node) {
  return node.op_type == "Gather" && IsDefaultDomain(node.domain) && node.inputs.size() == 2;
}

// Whether the node hands its input on as it is, so that its readers are those of a weight.
bool IsView(const Node& node) {
  static const std::unordered_set<std::string> kViews = {
      "Identity", "Cast", "Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze"};
  return kViews.contains(node.op_type);
}

// The constants in sight of a graph: its own and those of the graphs around it.
struct Scope {
  const Graph* graph = nullptr;
  GraphIndex index;
  const Scope* outer = nullptr;
};

// The stored tensor that `name` means in this scope; null: none.
const Tensor* ConstantIn(const Scope& scope, const std::string& name, int64_t ir_version,
                         const Graph** owner) {
  for (const Scope* at = &scope; at != nullptr; at = at->outer) {
    *owner = at->graph;
    const Tensor* constant = ConstantOf(*at->graph, at->index, name, ir_version);
    if (constant != nullptr) return constant;
    bool is_input = false;
    for (const ValueInfo& input : at->graph->inputs) is_input = is_input || input.name == name;
    if (is_input || at->index.producer(name) != nullptr) return nullptr;
  }
  return nullptr;
}

void FindLookups(const Graph& graph, const Scope* outer, int64_t ir_version,
                 StoredWeights& weights) {
  const Scope scope{&graph, GraphIndex(graph), outer};
  for (const Node& node : graph.nodes) {
    for (const GraphPtr& subgraph : SubgraphsOf(node)) {
      FindLookups(*subgraph, &scope, ir_version, weights);
    }
    if (!IsLookup(node)) continue;
    const Graph* owner = nullptr;
    const Tensor* table = ConstantIn(scope, node.inputs[0], ir_version, &owner);
    if (table == nullptr || table->dtype() != DType::kFloat32) continue;
    StoredWeight& stored = weights[{owner, node.inputs[0]}];
    const int64_t axis = node.Int("axis", 0);
    const int64_t from_front = axis < 0 ? axis + table->rank() : axis;
    if (stored.lookups.empty()) stored.table_axis = from_front;
    if (stored.table_axis != from_front) stored.table_axis.reset();
    stored.tensor = *table;
    stored.lookups.push_back(&node);
  }
}

bool HasInfinite(const Tensor& table) {
  const FloatElements elements(table);
  const bool has_infinite =
      std::ranges::any_of(elements.get(), [](float element) { return std::isinf(element); });
  table.DropPages();
  return has_infinite;
}

std::string WhyNoTable(const StoredWeight& stored, StoredChoice::Tables tables) {
  const bool has_rows = stored.tensor.rank() == 2 && stored.table_axis == 0;
  if (tables == StoredChoice::Tables::kRows) {
    return has_rows ? "" : "only rows of a matrix are looked up as codes";
  }
  return stored.table_axis ? "" : "its table is looked up along more than one axis";
}

std::string WhyFloat(const ConstantRef& root, const StoredWeight& stored,
                     const StoredChoice& choice) {
  if (!stored.reason.empty()) return stored.reason;
  if (!stored.lookups.empty()) {
    if (std::string form = WhyNoTable(stored, choice.tables); !form.empty()) return form;
  }
  std::unordered_set<const Node*> known(stored.lookups.begin(), stored.lookups.end());
  for (const WeightSite* site : stored.sites) known.insert(site->node);
  for (const Node* node : known) {
    if (choice.excluded.contains(node)) {
      return "excluded, or shares its weight with an excluded node";
    }
    if (!Names(choice.op_types, node->op_type)) return node->op_type + " is not in op_types";
  }
  if (stored.sites.empty() && HasInfinite(stored.tensor)) {
    return "its table has infinities, as masks do: no scale covers them";
  }
  std::string reason;
  ForEachNode(*root.first, [&](const Node& node) {
    if (!Names(node.inputs, root.second) || known.contains(&node) || IsView(node)) return;
    reason = "its weight is also read by " + NodeLabel(node) + ", as a value";
  });
  return reason;
}

// All of them, with the reasons that their form alone gives.
StoredWeights Collect(const Model& model, const WeightScan& scan) {
  StoredWeights weights;
  for (const WeightSite& site : scan.sites) {
    StoredWeight& stored = weights[site.root];
    stored.tensor = site.stored;
    stored.sites.push_back(&site);
  }
  FindLookups(model.graph, nullptr, model.ir_version, weights);
  const auto integers = NodesOfIntegers(model);
  const auto ends_as_integers = [&](const Node* node) { return integers.contains(node); };
  for (auto& [root, stored] : weights) {
    const auto node_of = [](const WeightSite* site) { return site->node; };
    if (std::ranges::any_of(stored.lookups, ends_as_integers) ||
        std::ranges::any_of(stored.sites, ends_as_integers, node_of)) {
      stored.reason = kEndsAsIntegers;
    }
  }
  return weights;
}

}  // namespace

StoredWeights FindStoredWeights(const Model& model, const WeightScan& scan,
                                const StoredChoice& choice) {
  StoredWeights weights = Collect(model, scan);
  for (auto& [root, stored] : weights) stored.reason = WhyFloat(root, stored, choice);
  return weights;
}

std::map<ConstantRef, Tensor> FindTables(const Model& model) {
  StoredWeights weights;
  FindLookups(model.graph, nullptr, model.ir_version, weights);
  std::map<ConstantRef, Tensor> tables;
  for (const auto& [root, stored] : weights) tables.emplace(root, stored.tensor);
  return tables;
}

Json UntieTables(Model& model, const StoredChoice& choice,
                 const std::function<bool(const StoredWeight&)>& is_wanted) {
  const WeightScan scan = FindWeights(model);
  FreshNames names(model);
  Json untied = Json::array();
  for (const auto& [root, stored] : Collect(model, scan)) {
    const bool is_tied = !stored.lookups.empty() && !stored.sites.empty();
    const bool is_here = root.first == &model.graph &&
                         std::ranges::all_of(stored.sites, [&](const WeightSite* site) {
                           return site->graph == &model.graph;
                         });
    if (!is_tied || !is_here || !WhyFloat(root, stored, choice).empty()) continue;
    StoredWeight products = stored;
    products.lookups.clear();
    if (!is_wanted(products)) continue;
    const std::string copy = names.Make(root.second + "_product");
    model.graph.initializers.set(copy, {stored.tensor, ""});
    for (Node& node : model.graph.nodes) {
      if (std::ranges::count(stored.lookups, &node) == 0) {
        std::ranges::replace(node.inputs, root.second, copy);
      }
    }
    untied.push_back({{"weight", root.second}, {"copy", copy}});
  }
  return untied;
}

Json ReportStored(const StoredWeights& weights, const WeightScan& scan) {
  Json report = {{"changed", Json::array()}, {"skipped", Json::array()}};
  int64_t all = 0, quantized = 0;
  for (const auto& [root, stored] : weights) {
    all += stored.tensor.count();
    if (stored.reason.empty()) quantized += stored.tensor.count();
    std::vector<const Node*> readers = stored.lookups;
    for (const WeightSite* site : stored.sites) readers.push_back(site->node);
    for (const Node* node : readers) {
      if (stored.reason.empty()) {
        report["changed"].push_back({{"node", NodeLabel(*node)}, {"weight", root.second}});
      } else {
        report["skipped"].push_back({{"node", NodeLabel(*node)}, {"reason", stored.reason}});
      }
    }
  }
  for (const SkippedNode& skipped : scan.skipped) {
    report["skipped"].push_back({{"node", NodeLabel(*skipped.node)}, {"reason", skipped.reason}});
  }
  report["quantized_weight_share"] =
      all == 0 ? 0.0 : static_cast<double>(quantized) / static_cast<double>(all);
  return report;
}

std::string FirstSkipped(const Json& report) {
  const Json& skipped = report.at("skipped");
  if (skipped.empty()) return "it has none";
  return skipped[0].at("node").get<std::string>() + ": " +
         skipped[0].at("reason").get<std::string>();
}

void EditBeside(Model& model, const Graph& original,
                const std::function<void(const Graph& original, Graph& graph)>& visit) {
  std::vector<const Graph*> originals = {&original};
  for (size_t i = 0; i < originals.size(); ++i) {
    // In the order of EditGraphs: a graph, then the graphs of its nodes, each with those inside.
    std::vector<const Graph*> inner;
    for (const Node& node : originals[i]->nodes) {
      for (const GraphPtr& subgraph : SubgraphsOf(node)) inner.push_back(subgraph.get());
    }
    originals.insert(originals.begin() + static_cast<std::ptrdiff_t>(i) + 1, inner.begin(),
                     inner.end());
  }
  size_t at = 0;
  EditGraphs(model.graph, [&](Graph& graph) { visit(*originals.at(at++), graph); });
}

TableCodes PutTable(const std::string& table, const StoredWeight& stored, Graph& graph,
                    FreshNames& names) {
  PARED_CHECK(stored.table_axis.has_value());
  WeightCodes made = CodeChannels(stored.tensor, stored.table_axis);
  Shape scale_shape(stored.tensor.shape().size(), 1);
  scale_shape[static_cast<size_t>(*stored.table_axis)] = made.scales.count();
  const TableCodes codes = {names.Make(table + "_quantized"), names.Make(table + "_scale")};
  graph.initializers.set(codes.codes, {std::move(made.codes), ""});
  graph.initializers.set(codes.scale, {made.scales.Reshaped(scale_shape), ""});
  return codes;
}

void AddLookup(Node node, const TableCodes& table, Graph& graph, FreshNames& names) {
  const std::string output = node.outputs[0];
  Node scale = node, product;
  node.inputs[0] = table.codes;
  node.outputs[0] = names.Make(output + "_codes");
  scale.inputs[0] = table.scale;
  scale.outputs[0] = names.Make(output + "_scales");
  scale.name = names.Make(scale.outputs[0] + "_gather");
  Node cast = MakeCast(node.outputs[0], names.Make(output + "_cast"), DType::kFloat32, names);
  product.op_type = "Mul";
  product.name = names.Make(output + "_dequantize");
  product.inputs = {cast.outputs[0], scale.outputs[0]};
  product.outputs = {output};
  for (Node* made : {&node, &scale, &cast, &product}) graph.nodes.push_back(std::move(*made));
}

}  // namespace pared
