// Model, Graph, Node: an ONNX model as plain data.
//
// Values are joined by name; each name is assigned once in its scope. What pared does not model is
// kept as wire bytes (Unknown), so that a model no pass touches is written as it was read.

#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "model/tensor.h"

namespace pared {

// Concatenated protobuf fields, tags included, that pared carries without looking inside.
using Unknown = std::string;

// A map that keeps the order of insertion, as ONNX's repeated fields do. Lookup is O(1).
template <class T>
class NamedList {
 public:
  using Entry = std::pair<std::string, T>;

  bool empty() const { return entries_.empty(); }
  size_t size() const { return entries_.size(); }
  auto begin() const { return entries_.begin(); }
  auto end() const { return entries_.end(); }

  bool contains(const std::string& name) const { return index_.contains(name); }
  const T* find(const std::string& name) const {
    const auto it = index_.find(name);
    return it == index_.end() ? nullptr : &entries_[it->second].second;
  }
  T* find(const std::string& name) { return const_cast<T*>(std::as_const(*this).find(name)); }
  const T& at(const std::string& name) const {
    const T* found = find(name);
    PARED_CHECK(found != nullptr);
    return *found;
  }
  // Replaces the value of `name`, or appends it.
  void set(const std::string& name, T value) {
    if (T* found = find(name)) {
      *found = std::move(value);
      return;
    }
    index_.emplace(name, entries_.size());
    entries_.emplace_back(name, std::move(value));
  }
  // Removes every entry for which `predicate(name, value)` holds. O(n).
  template <class Predicate>
  void erase_if(Predicate predicate) {
    std::erase_if(entries_, [&](const Entry& e) { return predicate(e.first, e.second); });
    index_.clear();
    for (size_t i = 0; i < entries_.size(); ++i) index_.emplace(entries_[i].first, i);
  }

 private:
  std::vector<Entry> entries_;
  std::unordered_map<std::string, size_t> index_;
};

struct Graph;
using GraphPtr = std::shared_ptr<const Graph>;

struct Attribute {
  // AttributeProto.type; needed to tell an empty list of one type from another.
  int32_t type = 0;
  std::variant<std::monostate, int64_t, float, std::string, Tensor, GraphPtr, std::vector<int64_t>,
               std::vector<float>, std::vector<std::string>, std::vector<Tensor>,
               std::vector<GraphPtr>>
      value;             // monostate: a kind pared only carries; its bytes are in `unknown`
  std::string ref_name;  // within a function: the name of the function's attribute it stands for
  Unknown unknown;
  // What TensorProto says beside the tensor (its name, doc string), of each tensor of `value`; may
  // be shorter.
  std::vector<Unknown> tensor_unknown{};
};
using Attributes = NamedList<Attribute>;

struct Node {
  std::string name, op_type, domain;
  std::vector<std::string> inputs, outputs;  // an empty name: an optional left out
  Attributes attributes;
  Unknown unknown;
  std::string overload{};  // of the function that op_type names, where it has more than one

  // The attribute's value, or `fallback` where it is absent. Throws kInvalidArgument where it has
  // another type.
  int64_t Int(const std::string& attribute, int64_t fallback) const;
  float Float(const std::string& attribute, float fallback) const;
  std::string String(const std::string& attribute, std::string fallback) const;
  std::vector<int64_t> Ints(const std::string& attribute, std::vector<int64_t> fallback = {}) const;
  std::vector<float> Floats(const std::string& attribute) const;
  std::vector<std::string> Strings(const std::string& attribute) const;
  const Tensor* TensorOf(const std::string& attribute) const;  // null: absent
  GraphPtr GraphOf(const std::string& attribute) const;        // null: absent
};

// "Conv conv_12", or "Conv producing y" where the node has no name.
std::string NodeLabel(const Node& node);

struct Dim {
  int64_t value = -1;  // -1: not known
  std::string param;   // the symbol, where it has one
  Unknown unknown;
};

struct ValueInfo {
  std::string name;
  DType dtype = DType::kUndefined;        // kUndefined: not known, or no tensor
  std::optional<std::vector<Dim>> shape;  // nullopt: rank not known
  std::string type_bytes;                 // TypeProto wire bytes where it is no plain tensor
  Unknown unknown;
  Unknown type_unknown{};  // of TypeProto beside the tensor type: its denotation
};

// Whether one of the graph's inputs or outputs has the name.
bool IsAmong(const std::vector<ValueInfo>& values, const std::string& name);

// A COO tensor of GraphProto.sparse_initializer, as stored.
struct SparseTensor {
  Tensor values;   // [nnz]
  Tensor indices;  // int64 [nnz] or [nnz, rank]
  Shape dims;
  Unknown unknown{}, values_unknown{}, indices_unknown{};
};

// The fields of an initializer beside its tensor.
struct Initializer {
  Tensor tensor;
  Unknown unknown;
};

struct Graph {
  std::string name;
  std::vector<ValueInfo> inputs, outputs;
  std::vector<Node> nodes;              // topological order
  NamedList<Initializer> initializers;  // may also stand among the inputs (IR version 3)
  NamedList<SparseTensor> sparse_initializers;
  NamedList<ValueInfo> values;  // value_info
  Unknown unknown;
};

// A model-local function (FunctionProto).
struct Function {
  std::string name, domain, overload;
  std::vector<std::string> inputs, outputs, attributes;
  Attributes default_attributes;
  std::vector<Node> nodes;
  std::map<std::string, int64_t> opsets;
  Unknown unknown;
};

struct Model {
  int64_t ir_version = 8;
  std::vector<std::pair<std::string, int64_t>> opsets;  // domain ("" is ai.onnx), version
  std::string producer_name, producer_version, domain, doc_string;
  int64_t model_version = 0;
  Graph graph;
  std::vector<std::pair<std::string, std::string>> metadata;
  std::vector<Function> functions;
  Unknown unknown;
  std::vector<Unknown> opset_unknown{};  // of opsets[i]; as long as opsets, or empty

  // The version imported for `domain`; 0 where it is not imported.
  int64_t Opset(std::string_view domain) const;
};

// Puts the nodes of the graph and its subgraphs in topological order, stably: a graph in order is
// not changed. Throws kInvalidArgument naming a node of a cycle.
void SortNodes(Graph& graph);

// Throws Error(kInvalidArgument) naming the node or value where a name is assigned twice in its
// scope, a name is read that nothing assigns before, an initializer's size is wrong, or a node's
// domain has no opset.
void Verify(const Model& model);

// Who makes and who reads each value of one graph; computed when asked, never stored in the graph.
// Names that subgraphs capture from this graph count as read by the node that holds the subgraph.
class GraphIndex {
 public:
  explicit GraphIndex(const Graph& graph);

  // Null: a graph input, an initializer or an outer name.
  const Node* producer(const std::string& value) const;
  // In node order, a node once however often it reads the value.
  const std::vector<const Node*>& consumers(const std::string& value) const;
  bool is_output(const std::string& value) const;

 private:
  std::unordered_map<std::string, const Node*> producers_;
  std::unordered_map<std::string, std::vector<const Node*>> consumers_;
  std::unordered_map<std::string, bool> outputs_;
};

// The graphs that the node holds, in the order of its attributes.
std::vector<GraphPtr> SubgraphsOf(const Node& node);

// The names that `graph` (a subgraph) reads from outside, in order of first use.
std::vector<std::string> CapturedNames(const Graph& graph);
// Those of each graph that the node holds; may repeat names.
std::vector<std::string> CapturedNamesOf(const Node& node);

// The inputs that a caller must give: those that are no initializers.
std::vector<ValueInfo> CallerInputs(const Graph& graph);

// The constant that `value` is: an initializer, or the output of a Constant node. Null: neither.
// An initializer that is also a graph input counts, unless `ir_version` >= 4 makes it a default
// that the caller may override.
const Tensor* ConstantOf(const Graph& graph, const GraphIndex& index, const std::string& value,
                         int64_t ir_version);

// The float32 number that `value` is: a constant of rank 0, or of rank 1 with one element.
std::optional<float> ConstantNumber(const Graph& graph, const GraphIndex& index,
                                    const std::string& value, int64_t ir_version);

}  // namespace pared
