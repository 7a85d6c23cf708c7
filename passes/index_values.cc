#include "passes/index_values.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <ranges>
#include <span>
#include <vector>

#include "passes/float_elements.h"
#include "passes/fp16_nodes.h"

namespace pared {
namespace {

using Names = std::unordered_set<std::string>;

// Through these a number stays one.
const Names kArithmetic = {"Abs",
                           "Add",
                           "Cast",
                           "Ceil",
                           "Clip",
                           "Concat",
                           "CumSum",
                           "Div",
                           "Dropout",
                           "Exp",
                           "Expand",
                           "Flatten",
                           "Floor",
                           "Gather",
                           "GatherND",
                           "Identity",
                           "GatherElements",
                           "Log",
                           "Max",
                           "MaxPool",
                           "Min",
                           "Mod",
                           "Mul",
                           "Neg",
                           "Pad",
                           "Pow",
                           "Range",
                           "ReduceMax",
                           "ReduceMin",
                           "ReduceProd",
                           "ReduceSum",
                           "Relu",
                           "Reshape",
                           "Round",
                           "ScatterElements",
                           "ScatterND",
                           "Sign",
                           "Slice",
                           "Split",
                           "Sqrt",
                           "Squeeze",
                           "Sub",
                           "Sum",
                           "Tile",
                           "TopK",
                           "Transpose",
                           "Trilu",
                           "Unsqueeze",
                           "Where"};
const Names kProducts = {"MatMul", "Gemm", "Conv", "Einsum"};

bool IsFloat(DType dtype) { return dtype == DType::kFloat32 || dtype == DType::kFloat64; }

// And not all zeros, which a pruned weight may be.
bool IsAllIntegers(const Tensor& tensor) {
  if (tensor.dtype() != DType::kFloat32) return false;
  const std::span<const float> elements = tensor.data<float>();
  const bool is_so = std::ranges::any_of(elements, [](float element) { return element != 0; }) &&
                     std::ranges::all_of(elements, [](float element) {
                       return std::nearbyint(element) == element;
                     });
  tensor.DropPages();
  return is_so;
}

}  // namespace

bool IsInteger(DType dtype) {
  return dtype == DType::kInt8 || dtype == DType::kInt16 || dtype == DType::kInt32 ||
         dtype == DType::kInt64 || dtype == DType::kUInt8 || dtype == DType::kUInt16 ||
         dtype == DType::kUInt32 || dtype == DType::kUInt64;
}

std::unordered_set<const Node*> NodesOfIntegers(
    const Graph& graph, const GraphIndex& index,
    const std::unordered_map<std::string, ValueType>& types, int64_t ir_version) {
  const auto type_of = [&](const std::string& value) {
    const auto found = types.find(value);
    return found == types.end() ? DType::kUndefined : found->second.dtype;
  };
  const auto is_followed = [&](const Node& node) {
    if (!node.domain.empty()) return false;
    if (!kProducts.contains(node.op_type)) return kArithmetic.contains(node.op_type);
    // Not of a bias, which may well be all zeros.
    const size_t factors = node.op_type == "Einsum" ? node.inputs.size() : 2;
    return std::ranges::any_of(node.inputs | std::views::take(factors), [&](const auto& input) {
      const Tensor* constant = ConstantOf(graph, index, input, ir_version);
      return constant != nullptr && constant->rank() > 0 && IsAllIntegers(*constant);
    });
  };
  std::unordered_set<const Node*> found;
  std::vector<const Node*> open;
  for (const Node& node : graph.nodes) {
    if (node.op_type != "Cast" || node.inputs.empty() || node.outputs.empty()) continue;
    if (IsFloat(type_of(node.inputs[0])) && IsInteger(type_of(node.outputs[0]))) {
      open.push_back(&node);
    }
  }
  while (!open.empty()) {
    const Node* node = open.back();
    open.pop_back();
    if (!found.insert(node).second) continue;
    for (const std::string& input : node->inputs) {
      const Node* producer = index.producer(input);
      if (producer == nullptr || !IsFloat(type_of(input))) continue;
      if (is_followed(*producer)) open.push_back(producer);
    }
  }
  return found;
}

std::unordered_set<const Node*> NodesOfIntegers(const Model& model) {
  std::unordered_set<const Node*> found;
  const std::function<void(const Graph&, const TypeMap&)> look = [&](const Graph& graph,
                                                                     const TypeMap& types) {
    found.merge(NodesOfIntegers(graph, GraphIndex(graph), types, model.ir_version));
    for (const Node& node : graph.nodes) {
      for (const GraphPtr& inner : SubgraphsOf(node)) {
        look(*inner, TypesOfSubgraph(model, *inner, types));
      }
    }
  };
  look(model.graph, InferShapes(model));
  return found;
}

}  // namespace pared
