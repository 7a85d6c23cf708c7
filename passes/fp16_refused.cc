// What onnxruntime does not run in float16.
//
// x (float16) -> Transpose that moves the first axis to the last place or to the one before it ->
// MatMul with a matrix ends the process of onnxruntime 1.32 as it loads the model: its
// MatmulTransposeFusion makes a product of it that float16 does not have. It gets there also across
// what its optimizer removes or takes a Transpose through, and where two Transposes make such a
// one. These stay float32.

#include <numeric>

#include "passes/fp16_nodes.h"

namespace pared {
namespace {

size_t RankIn(const TypeMap& types, const std::string& value) {
  const auto found = types.find(value);
  return found == types.end() || !found->second.shape ? 0 : found->second.shape->size();
}

bool MovesFirstAxis(const Node& transpose) {
  const std::vector<int64_t> perm = transpose.Ints("perm");
  if (perm.size() < 3) return false;
  for (const size_t place : {perm.size() - 1, perm.size() - 2}) {
    std::vector<int64_t> moved(perm.size() - 1);
    std::iota(moved.begin(), moved.end(), 1);
    moved.insert(moved.begin() + static_cast<std::ptrdiff_t>(place), 0);
    if (perm == moved) return true;
  }
  return false;
}

// Walks back from a product, over what onnxruntime does not keep between.
class Walk {
 public:
  Walk(const Graph& graph, const GraphIndex& index) : graph_(graph), index_(index) {}

  // The Transposes in question that make `value`.
  std::vector<const Node*> From(const std::string& value) {
    Visit(value, nullptr);
    return std::move(found_);
  }

 private:
  // `later`: the Transpose between here and the product.
  void Visit(const std::string& value, const Node* later) {
    const Node* node = index_.producer(value);
    if (node == nullptr || !seen_.insert(node).second) return;
    if (node->op_type == "Transpose") {
      if (MovesFirstAxis(*node) || later != nullptr) found_.push_back(node);
      if (later != nullptr) found_.push_back(later);
      Visit(node->inputs[0], node);
    } else if (node->op_type == "Concat" || node->op_type == "Max" || node->op_type == "Min") {
      for (const std::string& input : node->inputs) Visit(input, later);
    } else if (IsRemoved(*node)) {
      Visit(node->inputs[0], later);
    } else if (IsArithmetic(*node)) {  // with 0 or 1, most likely
      if (IsNumber(node->inputs[1])) Visit(node->inputs[0], later);
      if (IsNumber(node->inputs[0])) Visit(node->inputs[1], later);
    }
  }

  static bool IsRemoved(const Node& node) {
    static const std::unordered_set<std::string> kRemoved = {"Identity", "Cast", "Dropout",
                                                             "Reshape", "Expand"};
    return kRemoved.contains(node.op_type);
  }
  static bool IsArithmetic(const Node& node) {
    static const std::unordered_set<std::string> kArithmetic = {"Add", "Mul", "Sub", "Div"};
    return kArithmetic.contains(node.op_type);
  }

  // What a caller may override counts, too.
  bool IsNumber(const std::string& value) const {
    constexpr int64_t kIrVersion = 3;
    const Tensor* constant = ConstantOf(graph_, index_, value, kIrVersion);
    return constant != nullptr && constant->count() == 1;
  }

  const Graph& graph_;
  const GraphIndex& index_;
  std::unordered_set<const Node*> seen_;
  std::vector<const Node*> found_;
};

}  // namespace

void FindRefused(const Graph& graph, const GraphIndex& index, const TypeMap& types,
                 Reasons& reasons) {
  for (const Node& node : graph.nodes) {
    if (node.op_type != "MatMul" || RankIn(types, node.inputs[1]) != 2) continue;
    if (RankIn(types, node.inputs[0]) == 2) continue;
    for (const Node* transpose : Walk(graph, index).From(node.inputs[0])) {
      reasons.emplace(transpose, "onnxruntime does not load " + NodeLabel(node) + " behind it");
    }
  }
}

}  // namespace pared
