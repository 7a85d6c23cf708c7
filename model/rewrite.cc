#include "model/rewrite.h"

#include <functional>

namespace pared {
namespace {

constexpr int32_t kIntAttribute = 2;  // AttributeProto.AttributeType

bool Captures(const Graph& graph, const std::string& name) {
  for (const std::string& captured : CapturedNames(graph)) {
    if (captured == name) return true;
  }
  return false;
}

// The subgraph where every read of `from` reads `to`; the same graph where it captures no `from`.
GraphPtr WithUsesReplaced(const GraphPtr& graph, const std::string& from, const std::string& to) {
  if (!Captures(*graph, from)) return graph;
  auto copy = std::make_shared<Graph>(*graph);
  ReplaceUses(*copy, from, to);
  for (ValueInfo& output : copy->outputs) {
    if (output.name == from) output.name = to;
  }
  return copy;
}

void ReplaceInSubgraphs(Node& node, const std::string& from, const std::string& to) {
  std::vector<std::pair<std::string, Attribute>> changed;
  for (const auto& [name, attribute] : node.attributes) {
    Attribute copy = attribute;
    if (auto* graph = std::get_if<GraphPtr>(&copy.value)) {
      *graph = WithUsesReplaced(*graph, from, to);
    } else if (auto* graphs = std::get_if<std::vector<GraphPtr>>(&copy.value)) {
      for (GraphPtr& each : *graphs) each = WithUsesReplaced(each, from, to);
    } else {
      continue;
    }
    changed.emplace_back(name, std::move(copy));
  }
  for (auto& [name, attribute] : changed) node.attributes.set(name, std::move(attribute));
}

void CollectNames(const std::vector<Node>& nodes, std::unordered_set<std::string>& names);

void CollectNames(const Graph& graph, std::unordered_set<std::string>& names) {
  for (const ValueInfo& input : graph.inputs) names.insert(input.name);
  for (const ValueInfo& output : graph.outputs) names.insert(output.name);
  for (const auto& [name, value] : graph.initializers) names.insert(name);
  for (const auto& [name, value] : graph.sparse_initializers) names.insert(name);
  for (const auto& [name, value] : graph.values) names.insert(name);
  CollectNames(graph.nodes, names);
}

void CollectNames(const std::vector<Node>& nodes, std::unordered_set<std::string>& names) {
  for (const Node& node : nodes) {
    names.insert(node.name);
    names.insert(node.inputs.begin(), node.inputs.end());
    names.insert(node.outputs.begin(), node.outputs.end());
    for (const auto& [name, attribute] : node.attributes) {
      if (const auto* graph = std::get_if<GraphPtr>(&attribute.value)) CollectNames(**graph, names);
      if (const auto* graphs = std::get_if<std::vector<GraphPtr>>(&attribute.value)) {
        for (const GraphPtr& each : *graphs) CollectNames(*each, names);
      }
    }
  }
}

// Walks back from the graph's outputs: a node lives where something alive reads one of its outputs.
std::unordered_set<std::string> LiveNames(const Graph& graph) {
  std::unordered_set<std::string> live;
  for (const ValueInfo& output : graph.outputs) live.insert(output.name);
  for (auto node = graph.nodes.rbegin(); node != graph.nodes.rend(); ++node) {
    bool is_live = node->outputs.empty();
    for (const std::string& output : node->outputs) is_live = is_live || live.contains(output);
    if (!is_live) continue;
    live.insert(node->inputs.begin(), node->inputs.end());
    for (const auto& [name, attribute] : node->attributes) {
      const auto add = [&](const GraphPtr& subgraph) {
        for (const std::string& captured : CapturedNames(*subgraph)) live.insert(captured);
      };
      if (const auto* subgraph = std::get_if<GraphPtr>(&attribute.value)) add(*subgraph);
      if (const auto* subgraphs = std::get_if<std::vector<GraphPtr>>(&attribute.value)) {
        for (const GraphPtr& subgraph : *subgraphs) add(subgraph);
      }
    }
  }
  live.erase("");
  return live;
}

GraphPtr EditCopy(const GraphPtr& graph, const std::function<void(Graph&)>& edit) {
  std::shared_ptr<Graph> copy = std::make_shared<Graph>(*graph);
  edit(*copy);
  return copy;
}

}  // namespace

FreshNames::FreshNames(const Model& model) {
  CollectNames(model.graph, taken_);
  for (const Function& function : model.functions) {
    taken_.insert(function.inputs.begin(), function.inputs.end());
    taken_.insert(function.outputs.begin(), function.outputs.end());
    CollectNames(function.nodes, taken_);
  }
  taken_.insert("");
}

std::string FreshNames::Make(const std::string& base) {
  if (taken_.insert(base).second) return base;
  // Counting on from the last number keeps thousands of names of one base out of O(n^2).
  for (int64_t& number = next_[base];;) {
    std::string name = base + "_" + std::to_string(++number);
    if (taken_.insert(name).second) return name;
  }
}

void ImportDomain(Model& model, const std::string& domain, int64_t version) {
  if (model.Opset(domain) != 0) return;
  model.opsets.emplace_back(domain, version);
  if (!model.opset_unknown.empty()) model.opset_unknown.emplace_back();
}

Node MakeNode(const std::string& op_type, std::vector<std::string> inputs, std::string output,
              FreshNames& names) {
  Node node;
  node.op_type = op_type;
  node.name = names.Make(output + "_" + op_type);
  node.inputs = std::move(inputs);
  node.outputs = {std::move(output)};
  return node;
}

Node MakeCast(const std::string& from, const std::string& to, DType dtype, FreshNames& names) {
  Node cast;
  cast.name = names.Make(to + "_cast");
  cast.op_type = "Cast";
  cast.inputs = {from};
  cast.outputs = {to};
  cast.attributes.set("to", {kIntAttribute, static_cast<int64_t>(dtype), "", ""});
  return cast;
}

void EditSubgraphs(Node& node, const std::function<void(Graph&)>& edit) {
  for (const auto& [name, unused] : Attributes(node.attributes)) {
    auto& value = node.attributes.find(name)->value;
    if (GraphPtr* one = std::get_if<GraphPtr>(&value)) {
      *one = EditCopy(*one, edit);
    } else if (auto* many = std::get_if<std::vector<GraphPtr>>(&value)) {
      for (GraphPtr& graph : *many) graph = EditCopy(graph, edit);
    }
  }
}

void ReplaceUses(Graph& graph, const std::string& from, const std::string& to) {
  for (Node& node : graph.nodes) {
    for (std::string& input : node.inputs) {
      if (input == from) input = to;
    }
    ReplaceInSubgraphs(node, from, to);
  }
}

void EraseDead(Graph& graph) {
  const std::unordered_set<std::string> live = LiveNames(graph);
  std::erase_if(graph.nodes, [&](const Node& node) {
    for (const std::string& output : node.outputs) {
      if (live.contains(output)) return false;
    }
    return !node.outputs.empty();
  });
  std::unordered_set<std::string> inputs;
  for (const ValueInfo& input : graph.inputs) inputs.insert(input.name);
  // The default of an unread input stays: without it callers would have to pass that input.
  graph.initializers.erase_if([&](const std::string& name, const Initializer&) {
    return !live.contains(name) && !inputs.contains(name);
  });
  graph.sparse_initializers.erase_if([&](const std::string& name, const SparseTensor&) {
    return !live.contains(name) && !inputs.contains(name);
  });
  std::unordered_set<std::string> named = live;
  for (const Node& node : graph.nodes) named.insert(node.outputs.begin(), node.outputs.end());
  graph.values.erase_if(
      [&](const std::string& name, const ValueInfo&) { return !named.contains(name); });
}

void KeepPart(Graph& graph, const std::vector<std::string>& values) {
  graph.outputs.clear();
  for (const std::string& value : values) graph.outputs.emplace_back().name = value;
  EraseDead(graph);
}

}  // namespace pared
