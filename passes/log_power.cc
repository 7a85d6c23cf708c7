#include "passes/log_power.h"

#include <algorithm>
#include <string>
#include <unordered_map>

namespace pared {
namespace {

using Nodes = std::unordered_set<const Node*>;
using Names = std::unordered_set<std::string>;

const Names kSquares = {"Pow", "Abs", "ReduceSumSquare", "ReduceL1", "ReduceL2"};
const Names kSumming = {"Add", "Concat", "Max", "Where"};  // of all inputs
const Names kCarrying = {"Mul",        "Div",       "Clip",    "Sqrt",      "Conv",     "MatMul",
                         "Gemm",       "ReduceSum", "Reshape", "Slice",     "Identity", "Transpose",
                         "ReduceMean", "Squeeze",   "Flatten", "Unsqueeze", "Cast",     "Pad"};
const Names kProducts = {"Conv", "MatMul", "Gemm"};

bool IsSquare(const Node& node) {
  if (node.op_type == "Mul") return node.inputs[0] == node.inputs[1];
  return kSquares.contains(node.op_type);
}

class Finder {
 public:
  Finder(const Model& model, const GraphIndex& index) : model_(model), index_(index) {}

  Nodes Run() {
    const std::vector<Node>& nodes = model_.graph.nodes;
    for (const Node& node : nodes) {
      if (node.op_type == "Log" && IsPower(node.inputs[0])) found_.insert(&node);
    }
    if (found_.empty()) return {};
    for (auto node = nodes.rbegin(); node != nodes.rend(); ++node) {
      if (OnlyFeedsFound(*node)) found_.insert(&*node);
    }
    return std::move(found_);
  }

 private:
  // Adds the nodes between `value` and the squares that it is made of; false: there are none.
  bool IsPower(const std::string& value) {
    const Node* node = index_.producer(value);
    if (node == nullptr) return false;
    const auto [known, is_new] = is_power_.emplace(node, false);
    if (!is_new) return known->second;
    const bool is_power = IsSquare(*node) || IsMadeOfPower(*node);
    if (is_power) found_.insert(node);
    return is_power_[node] = is_power;
  }

  bool IsMadeOfPower(const Node& node) {
    if (kSumming.contains(node.op_type)) {
      bool is_power = false;
      for (const std::string& input : node.inputs) is_power = IsPower(input) || is_power;
      return is_power;
    }
    if (!kCarrying.contains(node.op_type)) return false;
    if (!kProducts.contains(node.op_type)) return IsPower(node.inputs[0]);
    for (const size_t weight : {size_t{1}, size_t{0}}) {
      if (IsPositive(node.inputs[weight])) return IsPower(node.inputs[1 - weight]);
    }
    return false;
  }

  bool IsPositive(const std::string& value) const {
    const Tensor* tensor = ConstantOf(model_.graph, index_, value, model_.ir_version);
    if (tensor == nullptr || tensor->dtype() != DType::kFloat32) return false;
    return std::ranges::all_of(tensor->data<float>(), [](float weight) { return weight >= 0; });
  }

  bool OnlyFeedsFound(const Node& node) const {
    bool is_read = false;
    for (const std::string& output : node.outputs) {
      if (index_.is_output(output)) return false;
      for (const Node* reader : index_.consumers(output)) {
        if (reader->op_type == "Shape" || reader->op_type == "Size") continue;
        if (!found_.contains(reader)) return false;
        is_read = true;
      }
    }
    return is_read;
  }

  const Model& model_;
  const GraphIndex& index_;
  Nodes found_;
  std::unordered_map<const Node*, bool> is_power_;
};

}  // namespace

std::unordered_set<const Node*> NodesBeforeLogPower(const Model& model, const GraphIndex& index) {
  return Finder(model, index).Run();
}

}  // namespace pared
