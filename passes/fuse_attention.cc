// Scaled dot-product attention as exporters spell it, as ONNX's operator (opset 23).
//
// Before:  y = MatMul(Softmax(MatMul(Q, Transpose(K)) / c + mask), V)
// After:   y = Attention(Q, K, V, mask)
//
// The scale may stand on the product, or on Q and K as torch's scaled_dot_product_attention has it;
// the transposition of K may be part of that of its heads. Transpositions and reshapes of the heads
// around it stay: the form of Attention that does them itself is no faster. MiniLM-L6 of 16, 128
// and 384 tokens takes 1.00, 0.94 and 0.92 of the time in onnxruntime 1.32 (one thread, the faster
// of 25 runs), and as long as before in pared.

#include "passes/fuse_attention.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>
#include <unordered_set>
#include <utility>

#include "evaluator/fuse_graph.h"
#include "passes/float_elements.h"

namespace pared {
namespace {

using Types = std::unordered_map<std::string, ValueType>;

// Null: not known.
const std::vector<Dim>* DimsOf(const Types& types, const std::string& value) {
  const auto found = types.find(value);
  return found == types.end() || !found->second.shape ? nullptr : &*found->second.shape;
}

bool AreAlike(const Dim& a, const Dim& b) {
  return a.value >= 0 ? a.value == b.value : b.value < 0;
}

class Finder {
 public:
  Finder(const Graph& graph, const Model& model, const Types& types)
      : graph_(graph),
        index_(graph),
        types_(types),
        ir_version_(model.ir_version),
        opset_(model.Opset("")) {}

  std::optional<AttentionPattern> Find(const Node& softmax) const {
    const std::string weights = Guarded(softmax.outputs[0]);
    AttentionPattern found;
    const Node* last = OneReader(weights);
    if (last != nullptr && Is(*last, "Transpose")) {
      last = OneReader(last->outputs[0]);
      found.refusal = "its weights are transposed before the product with V";
    }
    if (last == nullptr || !Is(*last, "MatMul")) return {};
    if (found.refusal.empty() && last->inputs[0] != weights) return {};
    found.last = static_cast<size_t>(last - graph_.nodes.data());
    found.values = last->inputs[1];
    const Node* product = Scores(softmax.inputs[0], found);
    if (product == nullptr) return {};
    found.products = product->outputs[0];
    found.query = Unscaled(product->inputs[0], found.scale);
    found.keys = Unscaled(product->inputs[1], found.scale);
    if (found.refusal.empty()) found.refusal = WhyRefused(softmax, found);
    const bool is_guarded = weights != softmax.outputs[0];
    if (is_guarded && found.refusal.empty() && !found.mask.empty() && !IsFinite(found.mask)) {
      found.refusal =
          "rows that are masked as a whole become zeros, and its mask is not known to leave none";
    }
    if (found.refusal.empty()) TurnKeys(found);
    return found;
  }

 private:
  static bool Is(const Node& node, const char* op_type) {
    return node.domain.empty() && node.op_type == op_type;
  }
  const Node* Made(const std::string& value, const char* op_type) const {
    const Node* node = index_.producer(value);
    return node != nullptr && Is(*node, op_type) ? node : nullptr;
  }
  // Null: none, several, or the graph's caller too.
  const Node* OneReader(const std::string& value) const {
    const std::vector<const Node*>& readers = index_.consumers(value);
    return readers.size() == 1 && !index_.is_output(value) ? readers[0] : nullptr;
  }
  // What torch makes of the weights w: Where(IsNaN(w), 0, w), for rows whose scores are all
  // -infinity. `weights` where nothing does.
  std::string Guarded(const std::string& weights) const {
    const std::vector<const Node*>& readers = index_.consumers(weights);
    if (readers.size() != 2 || index_.is_output(weights)) return weights;
    for (size_t i = 0; i < 2; ++i) {
      const Node &where = *readers[i], &test = *readers[1 - i];
      if (!Is(where, "Where") || !Is(test, "IsNaN") || where.inputs[0] != test.outputs[0] ||
          where.inputs[2] != weights || OneReader(test.outputs[0]) != &where) {
        continue;
      }
      if (Number(where.inputs[1]) == 0) return where.outputs[0];
    }
    return weights;
  }

  // Whether no element can be infinite: constants, what picks between such, and what moves them.
  bool IsFinite(const std::string& value) const {
    static const std::unordered_set<std::string> kMoving = {"Expand",   "Flatten",   "Gather",
                                                            "Identity", "Reshape",   "Slice",
                                                            "Squeeze",  "Transpose", "Unsqueeze"};
    const Tensor* constant = ConstantOf(graph_, index_, value, ir_version_);
    if (constant != nullptr) {
      const FloatElements elements(*constant);
      return std::ranges::all_of(elements.get(), [](float x) { return std::isfinite(x); });
    }
    const Node* node = index_.producer(value);
    if (node == nullptr || !node->domain.empty()) return false;
    if (node->op_type == "Where") return IsFinite(node->inputs[1]) && IsFinite(node->inputs[2]);
    return kMoving.contains(node->op_type) && IsFinite(node->inputs[0]);
  }
  std::optional<double> Number(const std::string& value) const {
    return ConstantNumber(graph_, index_, value, ir_version_);
  }

  // What a product with a number, or a quotient by one, is of; empty: `node` is neither.
  std::string ScaledBy(const Node& node, double& scale) const {
    const bool divides = Is(node, "Div");
    if (!divides && !Is(node, "Mul")) return "";
    for (size_t i = 0; i < (divides ? 1 : 2); ++i) {
      const std::optional<double> number = Number(node.inputs[1 - i]);
      if (!number || *number == 0 || Number(node.inputs[i])) continue;
      scale = divides ? scale / *number : scale * *number;
      return node.inputs[i];
    }
    return "";
  }

  // `value` without the factors that are numbers, which go into `scale`.
  std::string Unscaled(std::string value, double& scale) const {
    const Node* node = index_.producer(value);
    for (std::string factor; node != nullptr; node = index_.producer(value)) {
      factor = ScaledBy(*node, scale);
      if (factor.empty()) break;
      value = factor;
    }
    return value;
  }

  // The product of Q and K' that the scores are made of, with scale and mask. Null: none.
  const Node* Scores(const std::string& value, AttentionPattern& found) const {
    const Node* node = index_.producer(value);
    if (node == nullptr || OneReader(value) == nullptr) return nullptr;
    if (Is(*node, "MatMul")) return node;
    if (const std::string factor = ScaledBy(*node, found.scale); !factor.empty()) {
      const Node* product = Scores(factor, found);
      if (product != nullptr && !found.mask.empty()) found.refusal = "its mask is scaled";
      return product;
    }
    if (Is(*node, "Where")) {
      for (const std::string& input : {node->inputs[1], node->inputs[2]}) {
        AttentionPattern attempt = found;
        const Node* product = Scores(input, attempt);
        if (product == nullptr) continue;
        found.refusal =
            "Where masks it, which differs from a mask that is added where a row is "
            "masked as a whole";
        return product;
      }
    }
    if (!Is(*node, "Add")) return nullptr;
    for (size_t i = 0; i < 2; ++i) {
      AttentionPattern attempt = found;
      const Node* product = Scores(node->inputs[i], attempt);
      if (product == nullptr) continue;
      if (!attempt.mask.empty()) attempt.refusal = "two masks are added to it";
      attempt.mask = node->inputs[1 - i];
      found = std::move(attempt);
      return product;
    }
    return nullptr;
  }

  std::string WhyRefused(const Node& softmax, const AttentionPattern& found) const {
    const auto *scores = DimsOf(types_, found.products), *values = DimsOf(types_, found.values);
    const auto *query = DimsOf(types_, found.query), *keys = DimsOf(types_, found.keys);
    if (scores == nullptr || values == nullptr || query == nullptr || keys == nullptr) {
      return "the ranks of its operands are not known";
    }
    const size_t rank = query->size();
    if (rank != keys->size() || rank != values->size() || (rank != 3 && rank != 4)) {
      return "Attention takes operands of rank 3 or 4, all of one, and these have " +
             std::to_string(rank) + ", " + std::to_string(keys->size()) + " and " +
             std::to_string(values->size());
    }
    for (const std::string& value : {found.query, found.keys, found.values}) {
      if (types_.at(value).dtype != DType::kFloat32) return "it does not compute in float32";
    }
    const int64_t axis = softmax.Int("axis", opset_ < 13 ? 1 : -1);
    if (axis != -1 && axis != static_cast<int64_t>(rank) - 1) {
      return "Softmax is not along the last axis";
    }
    for (size_t i = 0; i + 2 < rank; ++i) {
      if (!AreAlike((*query)[i], (*keys)[i]) || !AreAlike((*query)[i], (*values)[i])) {
        return "its operands broadcast along axis " + std::to_string(i) +
               ", or are not known not to";
      }
    }
    return found.mask.empty() ? "" : WhyMaskRefused(*scores, found.mask);
  }

  std::string WhyMaskRefused(const std::vector<Dim>& scores, const std::string& value) const {
    const auto* mask = DimsOf(types_, value);
    if (mask == nullptr) return "the rank of its mask is not known";
    if (types_.at(value).dtype != DType::kFloat32) return "its mask is not float32";
    if (mask->empty() || mask->size() > scores.size()) return "its mask has another rank";
    for (size_t i = 0; i < mask->size(); ++i) {
      const Dim& own = (*mask)[mask->size() - 1 - i];
      if (own.value != 1 && !AreAlike(own, scores[scores.size() - 1 - i])) {
        return "its mask may be larger than its scores along axis " +
               std::to_string(scores.size() - 1 - i);
      }
    }
    return "";
  }

  // A Transpose that made K' is taken together with the one that undoes it.
  void TurnKeys(AttentionPattern& found) const {
    const auto rank = static_cast<int64_t>(DimsOf(types_, found.keys)->size());
    found.rank = rank;
    std::vector<int64_t> identity(Sz(rank));
    std::iota(identity.begin(), identity.end(), 0);
    found.keys_perm = identity;
    if (const Node* turned = Made(found.keys, "Transpose")) {
      std::vector<int64_t> reversed(identity.rbegin(), identity.rend());
      found.keys_perm = turned->Ints("perm", std::move(reversed));
      found.keys = Unscaled(turned->inputs[0], found.scale);
    }
    std::swap(found.keys_perm[Sz(rank - 1)], found.keys_perm[Sz(rank - 2)]);
    if (found.keys_perm == identity) found.keys_perm.clear();
  }

  static size_t Sz(int64_t i) { return static_cast<size_t>(i); }

  const Graph& graph_;
  GraphIndex index_;
  const Types& types_;
  int64_t ir_version_, opset_;
};

// Makes the nodes that stand before one Attention.
class Writer {
 public:
  Writer(Graph& graph, const Types& types, FreshNames& names)
      : graph_(graph), types_(types), names_(names) {}

  Node Attention(const AttentionPattern& pattern) {
    const Node& last = graph_.nodes[pattern.last];
    Node node;
    node.name = last.name;
    node.op_type = "Attention";
    node.outputs = last.outputs;
    std::string keys = pattern.keys;
    if (!pattern.keys_perm.empty()) {
      keys = Emit("Transpose", {keys}, keys + "_keys");
      SetInts(made_.back(), "perm", pattern.keys_perm);
    }
    node.inputs = {pattern.query, keys, pattern.values};
    if (!pattern.mask.empty()) node.inputs.push_back(Mask(pattern, keys));
    SetFloat(node, "scale", static_cast<float>(pattern.scale));
    if (pattern.rank == 3) {  // each batch is one head
      SetInt(node, "q_num_heads", 1);
      SetInt(node, "kv_num_heads", 1);
    }
    return node;
  }

  std::vector<Node> TakeMade() { return std::exchange(made_, {}); }

 private:
  // Attention wants a mask with a row for each of Q's: ONNX broadcasts the axes before only.
  std::string Mask(const AttentionPattern& pattern, const std::string& keys) {
    std::string mask = pattern.mask;
    if (!HasFullRows(pattern)) {
      const std::string rows = LengthOf(pattern.query), columns = LengthOf(keys);
      const std::string shape = Emit("Concat", {rows, columns}, mask + "_shape");
      SetInt(made_.back(), "axis", 0);
      mask = Emit("Expand", {mask, shape}, mask + "_rows");
    }
    if (pattern.rank == 3 && DimsOf(types_, pattern.mask)->size() == 3) {
      const std::string axes = names_.Make(mask + "_axes");
      graph_.initializers.set(axes, {Tensor::Make<int64_t>({1}, {1}), ""});
      mask = Emit("Unsqueeze", {mask, axes}, mask + "_heads");
    }
    return mask;
  }

  // [places] of [..., places, size].
  std::string LengthOf(const std::string& value) {
    const std::string length = Emit("Shape", {value}, value + "_length");
    SetInt(made_.back(), "start", -2);
    SetInt(made_.back(), "end", -1);
    return length;
  }

  bool HasFullRows(const AttentionPattern& pattern) const {
    const std::vector<Dim>&mask = *DimsOf(types_, pattern.mask),
          &scores = *DimsOf(types_, pattern.products);
    if (mask.size() < 2) return false;
    for (size_t i = 1; i <= 2; ++i) {
      const Dim &own = mask[mask.size() - i], &wanted = scores[scores.size() - i];
      if (own.value < 0 || own.value != wanted.value) return false;
    }
    return true;
  }

  std::string Emit(const std::string& op_type, std::vector<std::string> inputs,
                   const std::string& output) {
    made_.push_back(MakeNode(op_type, std::move(inputs), names_.Make(output), names_));
    return made_.back().outputs[0];
  }

  Graph& graph_;
  const Types& types_;
  FreshNames& names_;
  std::vector<Node> made_;
};

}  // namespace

std::vector<AttentionPattern> FindAttention(const Graph& graph, const Model& model,
                                            const Types& types) {
  std::vector<AttentionPattern> found;
  const Finder finder(graph, model, types);
  for (const Node& node : graph.nodes) {
    if (!node.domain.empty() || node.op_type != "Softmax") continue;
    if (auto pattern = finder.Find(node)) found.push_back(std::move(*pattern));
  }
  return found;
}

void WriteAttention(Graph& graph, const std::vector<AttentionPattern>& patterns, const Types& types,
                    FreshNames& names) {
  Writer writer(graph, types, names);
  std::vector<std::vector<Node>> before(graph.nodes.size());
  for (const AttentionPattern& pattern : patterns) {
    graph.nodes[pattern.last] = writer.Attention(pattern);
    before[pattern.last] = writer.TakeMade();
  }
  std::vector<Node> nodes;
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    std::ranges::move(before[i], std::back_inserter(nodes));
    nodes.push_back(std::move(graph.nodes[i]));
  }
  graph.nodes = std::move(nodes);
}

}  // namespace pared
