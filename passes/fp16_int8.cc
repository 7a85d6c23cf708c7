// What computes in INT8.
//
// d = DequantizeLinear(x), v = DequantizeLinear(w) -> Conv(d, v) -> Relu -> QuantizeLinear is one
// INT8 operator to a runtime as long as nothing stands between; a Cast would end that. A product of
// two dequantized operands counts whatever reads it: its codes are multiplied as integers. Other
// operators count where all that reads their results is quantized again, or counts. Products whose
// activation is not quantized (a model of which only the weights are) do not count.

#include <algorithm>
#include <ranges>

#include "model/domain.h"
#include "passes/fp16_nodes.h"

namespace pared {
namespace {

using Names = std::unordered_set<std::string>;

const Names kProducts = {"Conv", "ConvTranspose", "Gemm", "MatMul"};

// Operators that runtimes take a DequantizeLinear through.
const Names kMoving = {"Flatten", "Identity",     "MaxPool",      "Reshape",
                       "Slice",   "SpaceToDepth", "DepthToSpace", "Split",
                       "Squeeze", "Transpose",    "Unsqueeze"};

// Float operators of their own, wherever their operands come from.
const Names kFloat = {"Attention", "DeformConv", "Einsum", "GRU", "LSTM", "RNN"};

class Finder {
 public:
  Finder(const Graph& graph, const GraphIndex& index, const TypeMap& types)
      : graph_(graph), index_(index), types_(types) {
    for (const auto& [name, initializer] : graph.initializers) made_[name] = Made::kStored;
  }

  void Run(Reasons& reasons) {
    for (const Node& node : graph_.nodes) {
      const Made made = MadeBy(node);
      for (const std::string& output : node.outputs) made_[output] = made;
    }
    for (const Node& node : std::views::reverse(graph_.nodes)) {
      if (IsInt8(node)) int8_.insert(&node);
    }
    for (const Node* node : int8_) {
      const bool is_product = kProducts.contains(node->op_type);
      reasons.emplace(node,
                      is_product ? "computed in INT8" : "computed in INT8 or between INT8 values");
    }
  }

 private:
  // Of what a value is made.
  enum class Made { kOther, kStored, kQuantized, kFromQuantized };

  Made Of(const std::string& value) const {
    const auto found = made_.find(value);
    return found == made_.end() ? Made::kOther : found->second;
  }

  bool IsFloat(const std::string& value) const {
    const auto found = types_.find(value);
    return found != types_.end() && found->second.dtype == DType::kFloat32;
  }

  Made MadeBy(const Node& node) const {
    const auto all = [&](Made made) {
      return std::ranges::all_of(node.inputs, [&](const std::string& input) {
        return input.empty() || Of(input) == made;
      });
    };
    if (!SubgraphsOf(node).empty()) return Made::kOther;
    if (all(Made::kStored)) return Made::kStored;
    if (!IsDefaultDomain(node.domain)) return Made::kOther;
    if (node.op_type == "DequantizeLinear") return Made::kQuantized;
    if (kProducts.contains(node.op_type)) {
      return IsProduct(node) ? Made::kFromQuantized : Made::kOther;
    }
    if (kFloat.contains(node.op_type)) return Made::kOther;
    bool reads_quantized = false;
    bool is_direct = kMoving.contains(node.op_type);
    for (const std::string& input : node.inputs) {
      if (!IsFloat(input)) continue;
      const Made made = Of(input);
      if (made == Made::kOther) return Made::kOther;
      reads_quantized = reads_quantized || made != Made::kStored;
      is_direct = is_direct && made == Made::kQuantized;
    }
    if (!reads_quantized) return Made::kOther;
    return is_direct ? Made::kQuantized : Made::kFromQuantized;
  }

  // Whether both operands are dequantized and one at least is an activation.
  bool IsProduct(const Node& node) const {
    bool has_activation = false;
    for (size_t i = 0; i < 2; ++i) {
      const bool is_activation = Of(node.inputs[i]) == Made::kQuantized;
      if (!is_activation && !IsDequantizedConstant(node.inputs[i])) return false;
      has_activation = has_activation || is_activation;
    }
    return has_activation;
  }

  bool IsDequantizedConstant(const std::string& value) const {
    const Node* node = index_.producer(value);
    if (node == nullptr || Of(value) != Made::kStored) return false;
    if (node->op_type == "DequantizeLinear") return IsDefaultDomain(node->domain);
    return kMoving.contains(node->op_type) && IsDequantizedConstant(node->inputs[0]);
  }

  bool IsInt8(const Node& node) const {
    if (node.outputs.empty() || node.op_type == "DequantizeLinear") return false;
    const Made made = Of(node.outputs[0]);
    if (made == Made::kOther) return false;
    if (kProducts.contains(node.op_type) && made == Made::kFromQuantized) return true;
    bool is_read = false;
    for (const std::string& output : node.outputs) {
      if (output.empty()) continue;
      if (!IsFloat(output) || index_.is_output(output)) return false;
      for (const Node* reader : index_.consumers(output)) {
        const bool is_quantized =
            reader->op_type == "QuantizeLinear" && IsDefaultDomain(reader->domain);
        if (!is_quantized && !int8_.contains(reader)) return false;
        is_read = true;
      }
    }
    return is_read;
  }

  const Graph& graph_;
  const GraphIndex& index_;
  const TypeMap& types_;
  std::unordered_map<std::string, Made> made_;
  std::unordered_set<const Node*> int8_;
};

}  // namespace

void FindInt8(const Graph& graph, const GraphIndex& index, const TypeMap& types, Reasons& reasons) {
  Finder(graph, index, types).Run(reasons);
}

}  // namespace pared
