#include "model/graph.h"

#include <algorithm>
#include <functional>
#include <queue>
#include <unordered_set>

#include "base/error.h"

namespace pared {
namespace {

// The attribute's value as T; null: absent. Throws where it holds another type.
template <class T>
const T* Find(const Node& node, const std::string& name, const char* type_name) {
  const Attribute* attribute = node.attributes.find(name);
  if (attribute == nullptr) return nullptr;
  const T* value = std::get_if<T>(&attribute->value);
  if (value == nullptr) {
    throw Error(ErrorCode::kInvalidArgument,
                "attribute " + name + " should be of type " + type_name, NodeLabel(node));
  }
  return value;
}

template <class T>
T ValueOr(const T* value, T fallback) {
  return value == nullptr ? std::move(fallback) : *value;
}

// What the node reads, itself and through its subgraphs; may repeat names.
template <class Visitor>
void VisitReads(const Node& node, Visitor visit) {
  for (const std::string& input : node.inputs) {
    if (!input.empty()) visit(input);
  }
  for (const std::string& name : CapturedNamesOf(node)) visit(name);
}

bool NodesInOrder(const std::vector<Node>& nodes,
                  const std::unordered_map<std::string, size_t>& producers) {
  for (size_t i = 0; i < nodes.size(); ++i) {
    bool in_order = true;
    VisitReads(nodes[i], [&](const std::string& name) {
      const auto it = producers.find(name);
      if (it != producers.end() && it->second >= i) in_order = false;
    });
    if (!in_order) return false;
  }
  return true;
}

// Sorts copies of the subgraphs that are out of order; the others stay shared.
void SortSubgraphs(Node& node) {
  if (SubgraphsOf(node).empty()) return;
  const auto sorted = [](const GraphPtr& graph) -> GraphPtr {
    auto copy = std::make_shared<Graph>(*graph);
    SortNodes(*copy);
    return copy;
  };
  Attributes attributes;
  for (const auto& [name, attribute] : node.attributes) {
    Attribute copy = attribute;
    if (auto* graph = std::get_if<GraphPtr>(&copy.value)) *graph = sorted(*graph);
    if (auto* graphs = std::get_if<std::vector<GraphPtr>>(&copy.value)) {
      for (GraphPtr& graph : *graphs) graph = sorted(graph);
    }
    attributes.set(name, std::move(copy));
  }
  node.attributes = std::move(attributes);
}

// Kahn's algorithm; of the nodes that are ready the first in the old order goes next.
std::vector<size_t> TopologicalOrder(const std::vector<Node>& nodes,
                                     const std::unordered_map<std::string, size_t>& producers) {
  std::vector<std::vector<size_t>> readers(nodes.size());
  std::vector<size_t> missing(nodes.size(), 0);
  for (size_t i = 0; i < nodes.size(); ++i) {
    std::unordered_set<size_t> needs;
    VisitReads(nodes[i], [&](const std::string& name) {
      const auto it = producers.find(name);
      if (it != producers.end()) needs.insert(it->second);
    });
    for (const size_t producer : needs) readers[producer].push_back(i);
    missing[i] = needs.size();
  }
  std::priority_queue<size_t, std::vector<size_t>, std::greater<>> ready;
  for (size_t i = 0; i < nodes.size(); ++i) {
    if (missing[i] == 0) ready.push(i);
  }
  std::vector<size_t> order;
  while (!ready.empty()) {
    const size_t next = ready.top();
    ready.pop();
    order.push_back(next);
    for (const size_t reader : readers[next]) {
      if (--missing[reader] == 0) ready.push(reader);
    }
  }
  for (size_t i = 0; i < nodes.size() && order.size() < nodes.size(); ++i) {
    if (missing[i] > 0) {
      throw Error(ErrorCode::kInvalidArgument, "the nodes form a cycle", NodeLabel(nodes[i]));
    }
  }
  return order;
}

}  // namespace

int64_t Node::Int(const std::string& attribute, int64_t fallback) const {
  return ValueOr(Find<int64_t>(*this, attribute, "int"), fallback);
}

float Node::Float(const std::string& attribute, float fallback) const {
  return ValueOr(Find<float>(*this, attribute, "float"), fallback);
}

std::string Node::String(const std::string& attribute, std::string fallback) const {
  return ValueOr(Find<std::string>(*this, attribute, "string"), std::move(fallback));
}

std::vector<int64_t> Node::Ints(const std::string& attribute, std::vector<int64_t> fallback) const {
  return ValueOr(Find<std::vector<int64_t>>(*this, attribute, "ints"), std::move(fallback));
}

std::vector<float> Node::Floats(const std::string& attribute) const {
  return ValueOr(Find<std::vector<float>>(*this, attribute, "floats"), {});
}

std::vector<std::string> Node::Strings(const std::string& attribute) const {
  return ValueOr(Find<std::vector<std::string>>(*this, attribute, "strings"), {});
}

const Tensor* Node::TensorOf(const std::string& attribute) const {
  return Find<Tensor>(*this, attribute, "tensor");
}

GraphPtr Node::GraphOf(const std::string& attribute) const {
  const GraphPtr* graph = Find<GraphPtr>(*this, attribute, "graph");
  return graph == nullptr ? nullptr : *graph;
}

std::string NodeLabel(const Node& node) {
  if (!node.name.empty()) return node.op_type + " " + node.name;
  for (const std::string& output : node.outputs) {
    if (!output.empty()) return node.op_type + " producing " + output;
  }
  return node.op_type;
}

int64_t Model::Opset(std::string_view opset_domain) const {
  const std::string_view wanted = opset_domain == "ai.onnx" ? "" : opset_domain;
  for (const auto& [name, version] : opsets) {
    if ((name == "ai.onnx" ? "" : std::string_view(name)) == wanted) return version;
  }
  return 0;
}

void SortNodes(Graph& graph) {
  for (Node& node : graph.nodes) SortSubgraphs(node);
  std::unordered_map<std::string, size_t> producers;
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    for (const std::string& output : graph.nodes[i].outputs) {
      if (!output.empty()) producers.emplace(output, i);
    }
  }
  if (NodesInOrder(graph.nodes, producers)) return;
  std::vector<Node> sorted;
  sorted.reserve(graph.nodes.size());
  for (const size_t i : TopologicalOrder(graph.nodes, producers)) {
    sorted.push_back(std::move(graph.nodes[i]));
  }
  graph.nodes = std::move(sorted);
}

GraphIndex::GraphIndex(const Graph& graph) {
  for (const Node& node : graph.nodes) {
    for (const std::string& output : node.outputs) {
      if (!output.empty()) producers_.emplace(output, &node);
    }
    VisitReads(node, [&](const std::string& name) {
      std::vector<const Node*>& readers = consumers_[name];
      if (readers.empty() || readers.back() != &node) readers.push_back(&node);
    });
  }
  for (const ValueInfo& output : graph.outputs) outputs_.emplace(output.name, true);
}

const Node* GraphIndex::producer(const std::string& value) const {
  const auto it = producers_.find(value);
  return it == producers_.end() ? nullptr : it->second;
}

const std::vector<const Node*>& GraphIndex::consumers(const std::string& value) const {
  static const std::vector<const Node*> kNone;
  const auto it = consumers_.find(value);
  return it == consumers_.end() ? kNone : it->second;
}

bool GraphIndex::is_output(const std::string& value) const { return outputs_.contains(value); }

std::vector<ValueInfo> CallerInputs(const Graph& graph) {
  std::vector<ValueInfo> inputs;
  for (const ValueInfo& input : graph.inputs) {
    if (!graph.initializers.contains(input.name)) inputs.push_back(input);
  }
  return inputs;
}

std::vector<GraphPtr> SubgraphsOf(const Node& node) {
  std::vector<GraphPtr> subgraphs;
  for (const auto& [name, attribute] : node.attributes) {
    if (const GraphPtr* one = std::get_if<GraphPtr>(&attribute.value)) subgraphs.push_back(*one);
    if (const auto* many = std::get_if<std::vector<GraphPtr>>(&attribute.value)) {
      subgraphs.insert(subgraphs.end(), many->begin(), many->end());
    }
  }
  return subgraphs;
}

std::vector<std::string> CapturedNamesOf(const Node& node) {
  std::vector<std::string> names;
  for (const GraphPtr& graph : SubgraphsOf(node)) {
    const std::vector<std::string> captured = CapturedNames(*graph);
    names.insert(names.end(), captured.begin(), captured.end());
  }
  return names;
}

std::vector<std::string> CapturedNames(const Graph& graph) {
  std::unordered_set<std::string> known;  // assigned within, or listed already
  for (const ValueInfo& input : graph.inputs) known.insert(input.name);
  for (const auto& [name, initializer] : graph.initializers) known.insert(name);
  for (const auto& [name, tensor] : graph.sparse_initializers) known.insert(name);
  for (const Node& node : graph.nodes) known.insert(node.outputs.begin(), node.outputs.end());
  std::vector<std::string> captured;
  const auto add = [&](const std::string& name) {
    if (known.insert(name).second) captured.push_back(name);
  };
  for (const Node& node : graph.nodes) VisitReads(node, add);
  for (const ValueInfo& output : graph.outputs) add(output.name);
  return captured;
}

const Tensor* ConstantOf(const Graph& graph, const GraphIndex& index, const std::string& value,
                         int64_t ir_version) {
  if (const Initializer* initializer = graph.initializers.find(value)) {
    const bool is_default = ir_version >= 4 && IsAmong(graph.inputs, value);
    return is_default ? nullptr : &initializer->tensor;
  }
  const Node* node = index.producer(value);
  if (node == nullptr || node->op_type != "Constant") return nullptr;
  const Attribute* attribute = node->attributes.find("value");
  return attribute == nullptr ? nullptr : std::get_if<Tensor>(&attribute->value);
}

std::optional<float> ConstantNumber(const Graph& graph, const GraphIndex& index,
                                    const std::string& value, int64_t ir_version) {
  const Tensor* found = ConstantOf(graph, index, value, ir_version);
  if (found == nullptr || found->dtype() != DType::kFloat32) return {};
  if (found->count() != 1 || found->rank() > 1) return {};
  return found->data<float>()[0];
}

bool IsAmong(const std::vector<ValueInfo>& values, const std::string& name) {
  return std::ranges::find(values, name, &ValueInfo::name) != values.end();
}

}  // namespace pared
