#include "passes/int8_half.h"

#include "passes/half_rewrite.h"
#include "passes/select_nodes.h"

namespace pared {
namespace {

using Names = std::unordered_set<std::string>;

// Operators that lose nothing to float16 which INT8 would keep.
const Names kFollowing = {"Add",     "Mul",         "Relu",      "Clip",    "LeakyRelu", "PRelu",
                          "Sigmoid", "HardSigmoid", "HardSwish", "Tanh",    "Gelu",      "MaxPool",
                          "Reshape", "Transpose",   "Flatten",   "Squeeze", "Unsqueeze"};

bool IsKept(const Node& node, const Names& kept) {
  return !node.outputs.empty() && kept.contains(node.outputs[0]);
}

// Whether all that the node reads are constants and at least one value of `half`.
bool Follows(const Node& node, const Model& model, const GraphIndex& index, const Names& half) {
  if (!kFollowing.contains(node.op_type)) return false;
  bool reads_half = false;
  for (const std::string& input : node.inputs) {
    const bool is_constant =
        input.empty() || ConstantOf(model.graph, index, input, model.ir_version) != nullptr;
    if (!is_constant && !half.contains(input)) return false;
    reads_half = reads_half || half.contains(input);
  }
  return reads_half;
}

}  // namespace

std::optional<Model> KeepAsHalf(const Model& quantized, const Names& kept, PassContext& context) {
  const GraphIndex index(quantized.graph);
  Names half;
  std::unordered_set<const Node*> asked;
  for (const Node& node : quantized.graph.nodes) {
    if (!IsKept(node, kept) && !Follows(node, quantized, index, half)) continue;
    asked.insert(&node);
    half.insert(node.outputs.begin(), node.outputs.end());
  }
  Reasons single;
  ForEachNode(quantized.graph, [&](const Node& node) {
    if (!asked.contains(&node)) single.emplace(&node, "it is not asked for");
  });
  const HalfChoice choice =
      ChooseFiniteHalf(quantized, single, MeasureRanges(quantized, context), context);
  Json& as_half = context.report["kept_as_float16"] = Json::array();
  Json& as_single = context.report["kept_as_float32"] = Json::array();
  for (const Node& node : quantized.graph.nodes) {
    if (!IsKept(node, kept)) continue;
    if (choice.half.contains(&node)) {
      as_half.push_back(NodeLabel(node));
      continue;
    }
    const auto why = choice.kept.find(&node);
    const std::string reason = why == choice.kept.end() ? "it is not float32" : why->second;
    as_single.push_back({{"node", NodeLabel(node)}, {"reason", reason}});
  }
  if (as_half.empty()) return std::nullopt;
  return WithHalf(quantized, choice, context);
}

}  // namespace pared
