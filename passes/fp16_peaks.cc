// Peaks of a heat map, found by comparing it with its own maximum.
//
// m = MaxPool(s), s = Sigmoid(Conv(x)) -> Equal(s, m): rounded to float16 neighbours become equal,
// and more elements are peaks than in float. So what is compared stays float32, back to the layer
// that makes it.

#include "passes/fp16_nodes.h"

namespace pared {
namespace {

const char* const kReason =
    "its values are compared with their own maximum, and float16 would make neighbours equal";

// Operators that keep the order of their first input's elements, or only move them.
const std::unordered_set<std::string> kHanding = {
    "Sigmoid",   "Tanh",    "Softplus",  "Exp",         "Log",
    "Sqrt",      "Relu",    "LeakyRelu", "HardSigmoid", "Clip",
    "Add",       "Sub",     "Mul",       "Div",         "Identity",
    "Transpose", "Reshape", "Slice",     "Split",       "Squeeze",
    "Unsqueeze", "Flatten", "Pad",       "Softmax",     "BatchNormalization"};

// A damaged model's nodes may lack inputs.
bool HandsOn(const Node& node) { return kHanding.contains(node.op_type) && !node.inputs.empty(); }

// The pool whose result `value` is; null: none.
const Node* PoolOf(const GraphIndex& index, const std::string& value) {
  const Node* node = index.producer(value);
  while (node != nullptr && HandsOn(*node)) node = index.producer(node->inputs[0]);
  const bool is_pool = node != nullptr && node->op_type == "MaxPool" && !node->inputs.empty();
  return is_pool ? node : nullptr;
}

// Whether `value` is made of `from` by operators that hand it on.
bool IsMadeOf(const GraphIndex& index, std::string value, const std::string& from) {
  while (value != from) {
    const Node* node = index.producer(value);
    if (node == nullptr || !HandsOn(*node)) return false;
    value = node->inputs[0];
  }
  return true;
}

void KeepMakers(const GraphIndex& index, const std::string& value, Reasons& reasons) {
  const Node* node = index.producer(value);
  while (node != nullptr && reasons.emplace(node, kReason).second && HandsOn(*node)) {
    node = index.producer(node->inputs[0]);
  }
}

}  // namespace

void FindPeaks(const Graph& graph, const GraphIndex& index, Reasons& reasons) {
  for (const Node& node : graph.nodes) {
    const bool compares = node.op_type == "Equal" || node.op_type == "GreaterOrEqual" ||
                          node.op_type == "LessOrEqual" || node.op_type == "Sub";
    if (!compares || node.inputs.size() != 2) continue;
    for (size_t i = 0; i < 2; ++i) {
      const Node* pool = PoolOf(index, node.inputs[i]);
      if (pool == nullptr || !IsMadeOf(index, node.inputs[1 - i], pool->inputs[0])) continue;
      KeepMakers(index, node.inputs[0], reasons);
      KeepMakers(index, node.inputs[1], reasons);
      KeepMakers(index, pool->inputs[0], reasons);
      reasons.emplace(&node, kReason);
    }
  }
}

}  // namespace pared
