#include "passes/log_power.h"

#include <algorithm>
#include <string>
#include <vector>

#include "base/joined.h"
#include "passes/fixed_weights.h"
#include "passes/select_nodes.h"

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

// Whether it has as many inputs as its operator reads: the model may not have been run before.
bool IsWhole(const Node& node) {
  const bool reads_two = node.op_type == "Mul" || kProducts.contains(node.op_type);
  return node.inputs.size() >= (reads_two ? 2 : 1);
}

bool IsSquare(const Node& node) {
  if (node.op_type == "Mul") return node.inputs[0] == node.inputs[1];
  return kSquares.contains(node.op_type);
}

class Finder {
 public:
  Finder(const Graph& graph, int64_t ir_version)
      : graph_(graph),
        index_(graph),
        ir_version_(ir_version),
        fixed_(FixedValues(graph, index_, ir_version)) {}

  Nodes Run() {
    const std::vector<Node>& nodes = graph_.nodes;
    for (const Node& node : nodes) {
      if (IsWhole(node) && (IsSquare(node) || IsMadeOfPower(node))) powers_.insert(&node);
    }
    for (auto node = nodes.rbegin(); node != nodes.rend(); ++node) {
      if (!IsWhole(*node)) continue;
      const bool is_log = node->op_type == "Log" && IsPower(node->inputs[0]);
      if (is_log || IsReadByLog(*node) || OnlyFeedsFound(*node)) found_.insert(&*node);
    }
    return std::move(found_);
  }

  // The products among them that are powers.
  Nodes RunSums() {
    Nodes sums = Run();
    std::erase_if(sums, [&](const Node* node) {
      return !powers_.contains(node) || !kProducts.contains(node->op_type);
    });
    return sums;
  }

 private:
  bool IsPower(const std::string& value) const {
    const Node* node = index_.producer(value);
    return node != nullptr && powers_.contains(node);
  }

  // Whether it is a power that a Log reads, maybe by nodes that carry it.
  bool IsReadByLog(const Node& node) const {
    if (!powers_.contains(&node)) return false;
    for (const std::string& output : node.outputs) {
      for (const Node* reader : index_.consumers(output)) {
        if (!found_.contains(reader) || IsSquare(*reader)) continue;
        if (reader->op_type == "Log" || powers_.contains(reader)) return true;
      }
    }
    return false;
  }

  bool IsMadeOfPower(const Node& node) const {
    if (kSumming.contains(node.op_type)) {
      return std::ranges::any_of(node.inputs, [&](const auto& input) { return IsPower(input); });
    }
    if (!kCarrying.contains(node.op_type)) return false;
    if (!kProducts.contains(node.op_type)) return IsPower(node.inputs[0]);
    for (const size_t weight : {size_t{1}, size_t{0}}) {
      if (IsPower(node.inputs[1 - weight]) && IsPositive(node.inputs[weight])) return true;
    }
    return false;
  }

  // Of a weight that nodes make of constants it is assumed: a Log reads what is positive.
  bool IsPositive(const std::string& value) const {
    const Tensor* tensor = ConstantOf(graph_, index_, value, ir_version_);
    if (tensor == nullptr) return fixed_.contains(value);
    if (tensor->dtype() != DType::kFloat32) return false;
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

  const Graph& graph_;
  const GraphIndex index_;
  const int64_t ir_version_;
  const Names fixed_;
  Nodes powers_;  // squares, and what is made of them
  Nodes found_;
};

}  // namespace

std::unordered_set<const Node*> NodesBeforeLogPower(const Model& model) {
  Nodes found = Finder(model.graph, model.ir_version).Run();
  ForEachNode(model.graph, [&](const Node& node) {
    for (const GraphPtr& graph : SubgraphsOf(node)) {
      found.merge(Finder(*graph, model.ir_version).Run());
    }
  });
  return found;
}

std::unordered_set<const Node*> SumsBeforeLog(const Model& model) {
  return Finder(model.graph, model.ir_version).RunSums();
}

void WarnOfLogPower(const Model& model, Json& report) {
  Names changed;
  for (const Json& entry : report.at("changed")) changed.insert(entry.at("node"));
  std::vector<std::string> before_log;
  for (const Node* node : NodesBeforeLogPower(model)) {
    if (changed.contains(NodeLabel(*node))) before_log.push_back(NodeLabel(*node));
  }
  if (before_log.empty()) return;
  std::ranges::sort(before_log);
  report["warnings"].push_back(
      "the logarithm of a power is taken that these nodes make, and few bits move it by decibels; "
      "excluded they stay float: " +
      Joined(before_log));
}

}  // namespace pared
