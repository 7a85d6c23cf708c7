// Joins a table, sum or product to the INT8 convolution or matrix product that makes its operand,
// so that it works on a tile still in cache.
//
// Before:  c = Conv(x)  y = LookUp(c)                          After:  y = Conv(x), then a table
// Before:  c = Conv(x)  y = Add(c, r)                          After:  y = Conv(x, r), then a sum
//
// The codes of c are made all the same, so the results do not change. Declines where c has another
// reader.

#include <algorithm>
#include <unordered_set>
#include <utility>

#include "evaluator/fuse_graph.h"

namespace pared {
namespace {

bool IsInt8(const Node& node, const std::string& op_type) {
  return node.domain == "pared" && node.op_type == op_type;
}

class Joiner {
 public:
  explicit Joiner(Graph& graph) : graph_(graph), index_(graph) {
    for (Node& node : graph_.nodes) {
      for (const std::string& output : node.outputs) makers_.emplace(output, &node);
    }
  }

  void Run() {
    for (Node& node : graph_.nodes) {
      if (IsInt8(node, "LookUp")) JoinTable(node);
      if (IsInt8(node, "Add") || IsInt8(node, "Mul") || IsInt8(node, "Sub")) JoinBinary(node);
    }
    std::erase_if(graph_.nodes, [&](const Node& node) { return joined_.contains(&node); });
  }

 private:
  // The Conv or MatMul that makes the codes `value` for one reader and has no sum joined. Null:
  // none.
  Node* MakerOf(const std::string& value) {
    const bool inner = index_.consumers(value).size() == 1 && !index_.is_output(value);
    const auto it = makers_.find(value);
    if (!inner || it == makers_.end()) return nullptr;
    Node* maker = it->second;
    const bool computes = IsInt8(*maker, "Conv") || IsInt8(*maker, "MatMul");
    const bool open = maker->inputs.size() == 1 && maker->Int("float_output", 0) == 0;
    return computes && open ? maker : nullptr;
  }

  void Take(Node& maker, Node& node) {
    maker.outputs = node.outputs;
    makers_[maker.outputs[0]] = &maker;
    joined_.insert(&node);
  }

  void JoinTable(Node& node) {
    Node* maker = MakerOf(node.inputs[0]);
    if (maker == nullptr || maker->TensorOf("table") != nullptr) return;
    SetTensor(*maker, "table", *node.TensorOf("table"));
    Take(*maker, node);
  }

  void JoinBinary(Node& node) {
    if (node.inputs[0] == node.inputs[1]) return;
    // A difference is joined to its first operand only.
    for (size_t i = 0; i < (node.op_type == "Sub" ? 1u : 2u); ++i) {
      Node* maker = MakerOf(node.inputs[i]);
      if (maker == nullptr || maker->op_type != "Conv") continue;
      maker->inputs.push_back(node.inputs[1 - i]);
      // `then_a` are the parameters of the convolution's own codes.
      for (const auto& [name, attribute] : node.attributes) {
        std::string mine = name;
        if (i == 1 && name.ends_with("_a")) mine.back() = 'b';
        if (i == 1 && name.ends_with("_b")) mine.back() = 'a';
        maker->attributes.set("then_" + mine, attribute);
      }
      SetString(*maker, "then", node.op_type);
      Take(*maker, node);
      return;
    }
  }

  Graph& graph_;
  GraphIndex index_;
  std::unordered_map<std::string, Node*> makers_;
  std::unordered_set<const Node*> joined_;
};

}  // namespace

void JoinToProducts(Graph& graph) {
  Joiner(graph).Run();
  SortNodes(graph);
}

}  // namespace pared
