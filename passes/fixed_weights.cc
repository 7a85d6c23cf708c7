#include "passes/fixed_weights.h"

#include <algorithm>
#include <vector>

namespace pared {
namespace {

using Names = std::unordered_set<std::string>;

// What stores a constant differently, or shows it in another shape or type.
const Names kViews = {"Cast",    "Constant", "Flatten",   "Identity",
                      "Reshape", "Squeeze",  "Transpose", "Unsqueeze"};
const Names kWeighted = {"Conv", "ConvTranspose", "Gemm", "MatMul", "GRU", "LSTM", "RNN"};

// Their constant operands go into the layer before them, whatever shape they are shown in.
const Names kFollowing = {"Add", "BatchNormalization", "Div", "Mul", "PRelu", "Sub"};

// The nodes that compute `value`, which is fixed; empty: they only view or expand a constant and
// `takes_views` is not set, convert one, or are random.
std::set<std::string> ConeOf(const GraphIndex& index, const std::string& value, bool takes_views) {
  std::set<std::string> cone;
  bool computes = false;
  std::vector<std::string> open = {value};
  while (!open.empty()) {
    const Node* producer = index.producer(open.back());
    open.pop_back();
    if (producer == nullptr) continue;
    const bool is_random = producer->inputs.empty() && producer->op_type != "Constant";
    if (is_random || producer->op_type == "DequantizeLinear") return {};
    if (!cone.insert(producer->outputs[0]).second) continue;
    if (takes_views && producer->op_type == "Cast") return {};
    computes = computes || takes_views || !kViews.contains(producer->op_type);
    open.insert(open.end(), producer->inputs.begin(), producer->inputs.end());
  }
  return computes ? cone : std::set<std::string>();
}

}  // namespace

Names FixedValues(const Graph& graph, const GraphIndex& index, int64_t ir_version) {
  Names fixed;
  for (const Node& node : graph.nodes) {
    const bool is_fixed = std::ranges::all_of(node.inputs, [&](const std::string& input) {
      return input.empty() || fixed.contains(input) ||
             ConstantOf(graph, index, input, ir_version) != nullptr;
    });
    if (is_fixed) fixed.insert(node.outputs.begin(), node.outputs.end());
  }
  return fixed;
}

std::set<std::string> FindFixedWeights(const Model& model) {
  const GraphIndex index(model.graph);
  const Names fixed = FixedValues(model.graph, index, model.ir_version);
  std::set<std::string> found;
  for (const Node& node : model.graph.nodes) {
    const bool follows = kFollowing.contains(node.op_type) && !fixed.contains(node.outputs[0]);
    if (!follows && !kWeighted.contains(node.op_type)) continue;
    for (const std::string& input : node.inputs) {
      const Node* producer = fixed.contains(input) ? index.producer(input) : nullptr;
      if (producer != nullptr && producer->op_type != "Constant") {
        found.merge(ConeOf(index, input, follows));
      }
    }
  }
  return found;
}

}  // namespace pared
