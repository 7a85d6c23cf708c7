// Functions of one quantized value as a table.
//
// Before:  f = Sigmoid(DQ(x))  q = Q(f)  g = Mul(DQ(x), DQ(q))  y = Q(g)     After:  y = LookUp(x)
//
// However many operators lie between x and y, y has 256 possible values. They are computed once by
// running those very operators on all codes, so the results equal the unfused model's. Declines
// where an operand does not follow from x and is no single constant.

#include <algorithm>
#include <utility>

#include "evaluator/fuse_graph.h"

namespace pared {
namespace {

constexpr int64_t kCodes = 256;

// Operators that compute each element of their result from the same element of their inputs.
bool ActsOnElements(const Node& node) {
  static const std::unordered_set<std::string> kElementwise = {
      "Abs",       "Add",      "Celu",      "Ceil",    "Clip", "Div",
      "Elu",       "Erf",      "Exp",       "Floor",   "Gelu", "HardSigmoid",
      "HardSwish", "Identity", "LeakyRelu", "Log",     "Max",  "Min",
      "Mish",      "Mul",      "Neg",       "PRelu",   "Pow",  "Reciprocal",
      "Relu",      "Round",    "Selu",      "Sigmoid", "Sign", "Softplus",
      "Softsign",  "Sqrt",     "Sub",       "Swish",   "Tanh", "ThresholdedRelu"};
  return node.domain.empty() && kElementwise.contains(node.op_type);
}

// Appends the nodes between `root` and `value` in topological order.
void CollectNodes(const FuseGraph& graph, const std::string& root, const std::string& value,
                  std::unordered_set<const Node*>& seen, Graph& cone) {
  if (value == root || value.empty()) return;
  if (const Tensor* constant = graph.constant(value)) {
    cone.initializers.set(value, Initializer{.tensor = *constant, .unknown = {}});
    return;
  }
  const Node* node = graph.producer(value);
  PARED_CHECK(node != nullptr);
  if (!seen.insert(node).second) return;
  for (const std::string& input : node->inputs) CollectNodes(graph, root, input, seen, cone);
  cone.nodes.push_back(*node);
}

Tensor AllCodes(bool is_signed) {
  if (is_signed) {
    std::vector<int8_t> codes(kCodes);
    for (int code = 0; code < kCodes; ++code) {
      codes[static_cast<size_t>(code)] = static_cast<int8_t>(code - 128);
    }
    return Tensor::Make<int8_t>({kCodes}, std::move(codes));
  }
  std::vector<uint8_t> codes(kCodes);
  for (int code = 0; code < kCodes; ++code) {
    codes[static_cast<size_t>(code)] = static_cast<uint8_t>(code);
  }
  return Tensor::Make<uint8_t>({kCodes}, std::move(codes));
}

ValueInfo Described(const std::string& name, bool is_signed) {
  ValueInfo info;
  info.name = name;
  info.dtype = is_signed ? DType::kInt8 : DType::kUInt8;
  return info;
}

bool IsIdentity(const std::vector<uint8_t>& table) {
  for (size_t code = 0; code < table.size(); ++code) {
    if (table[code] != code) return false;
  }
  return true;
}

}  // namespace

std::vector<uint8_t> Tabulate(const FuseGraph& graph, const Quantized& x, const Quantized& y) {
  Model cone;
  cone.ir_version = graph.model().ir_version;
  cone.opsets = graph.model().opsets;
  cone.functions = graph.model().functions;
  std::unordered_set<const Node*> seen;
  CollectNodes(graph, x.name, y.name, seen, cone.graph);
  cone.graph.inputs = {Described(x.name, x.is_signed)};
  cone.graph.outputs = {Described(y.name, y.is_signed)};
  ExecutorOptions options = graph.options();
  options.fuse = false;
  options.threads = 1;
  const std::vector<Tensor> results = Executor(cone, options).Run({AllCodes(x.is_signed)});
  std::vector<uint8_t> table(kCodes);
  const std::span<const std::byte> codes = results.at(0).bytes();
  PARED_CHECK(codes.size() == table.size());
  for (size_t i = 0; i < table.size(); ++i) {
    table[i] = static_cast<uint8_t>(std::to_integer<uint8_t>(codes[i]) ^ (y.is_signed ? 128 : 0));
  }
  return table;
}

std::optional<std::string> TableFusion::RootOfOperands(const Node& node, int64_t& rank_min) {
  std::string root;
  for (const std::string& input : node.inputs) {
    if (input.empty()) continue;
    if (const Tensor* constant = graph_.ConstantBehind(input)) {
      if (constant->count() != 1) return {};
      rank_min = std::max(rank_min, constant->rank());
      continue;
    }
    const std::optional<std::string> found = RootOf(input);
    if (!found || (!root.empty() && !found->empty() && *found != root)) return {};
    if (!found->empty()) root = *found;
  }
  return root;
}

std::optional<std::string> TableFusion::FindRoot(const std::string& value) {
  const Node* node = graph_.producer(value);
  if (node == nullptr) return {};
  if (const std::optional<Quantized> quantized = graph_.DequantizedFrom(value)) {
    quantized_.emplace(quantized->name, *quantized);
    return RootOf(quantized->name);
  }
  if (const std::optional<Quantized> quantized = graph_.QuantizedBy(*node)) {
    quantized_.emplace(value, *quantized);  // its readers may take the codes as they are
    const std::optional<std::string> root = RootOf(node->inputs[0]);
    return root ? root : std::optional<std::string>(value);
  }
  if (!ActsOnElements(*node)) return {};
  int64_t rank_min = 0;
  const std::optional<std::string> root = RootOfOperands(*node, rank_min);
  // A constant of higher rank would add axes to the result.
  if (root && !root->empty() && rank_min > 0 && graph_.RankOf(*root) < rank_min) return {};
  return root;
}

std::optional<std::string> TableFusion::RootOf(const std::string& value) {
  const auto it = roots_.find(value);
  if (it != roots_.end()) return it->second;
  std::optional<std::string> root = FindRoot(value);
  if (!root && quantized_.contains(value)) root = value;  // codes that no QuantizeLinear makes
  roots_.emplace(value, root);
  return root;
}

bool TableFusion::Fuse(const Node& quantize, const Quantized& output) {
  const std::optional<std::string> root = RootOf(quantize.inputs[0]);
  if (!root || root->empty()) return false;
  const Quantized& x = quantized_.at(*root);
  std::vector<uint8_t> table = Tabulate(graph_, x, output);
  if (IsIdentity(table)) {
    graph_.Alias(output, x);
    return true;
  }
  const Node* last = graph_.producer(quantize.inputs[0]);
  Node node =
      MakeInt8Node("LookUp", last == nullptr ? quantize.name : last->name, {graph_.Twin(x)});
  SetTensor(node, "table", Tensor::Make<uint8_t>({kCodes}, std::move(table)));
  graph_.MakeTwin(output, std::move(node));
  return true;
}

}  // namespace pared
