// Functions that exporters spell with several operators, as the operator that computes them.
//
// Before:  s = Sigmoid(x)  y = Mul(x, s)                             After:  y = QuickGelu(x)
// Before:  y = x * Clip(x + 3, 0, 6) / 6                             After:  y = HardSwish(x)
// Before:  d = x - ReduceMean(x)                                     After:  y = Layer-
//          y = d / Sqrt(ReduceMean(d * d) + e) * scale + bias                Normalization(x)
// and GELU: gelu_pattern.cc, LayerNormalization without that difference: layer_norm_pattern.cc.
//
// A product is looked at as a set of factors and a number, so the order of its multiplications and
// divisions does not matter. Declines where a value in between has another reader.

#include <algorithm>
#include <cmath>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "evaluator/float_patterns.h"
#include "evaluator/fuse_float.h"
#include "evaluator/fuse_graph.h"
#include "evaluator/gelu_pattern.h"
#include "evaluator/layer_norm_pattern.h"
#include "model/rewrite.h"

namespace pared {
namespace {

// value = number * product of factors
struct Product {
  float number = 1;
  std::vector<std::string> factors;
};

class Patterns {
 public:
  Patterns(const Graph& graph, int64_t ir_version,
           const std::unordered_map<std::string, ValueType>& types)
      : graph_(graph), index_(graph), ir_version_(ir_version), types_(types) {}

  std::optional<FloatPattern> Find(const Node& node) const {
    if (!node.domain.empty()) return {};
    if (node.op_type == "Add") {
      auto found = FindSpreadLayerNorm(graph_, index_, ir_version_, types_, node);
      if (found) return found;
    }
    if (node.op_type == "Erf" || node.op_type == "Tanh") {
      return FindGelu(graph_, index_, ir_version_, node);
    }
    std::optional<Node> joined = Match(node);
    if (!joined) return {};
    return FloatPattern{static_cast<size_t>(&node - graph_.nodes.data()), std::move(*joined), {}};
  }

 private:
  // What computes the output of `node` at once.
  std::optional<Node> Match(const Node& node) const {
    if (node.op_type == "Add") return MatchLayerNorm(node);
    if (node.op_type == "Mul" || node.op_type == "Div") return MatchProduct(node);
    return {};
  }

  const Tensor* Constant(const std::string& value) const {
    const Tensor* found = ConstantOf(graph_, index_, value, ir_version_);
    return found != nullptr && found->dtype() == DType::kFloat32 ? found : nullptr;
  }
  std::optional<float> Scalar(const std::string& value) const {
    return ConstantNumber(graph_, index_, value, ir_version_);
  }
  bool IsNumber(const std::string& value, float number) const {
    const std::optional<float> scalar = Scalar(value);
    return scalar && std::abs(*scalar - number) <= 1e-6F * std::abs(number);
  }
  // Null: no such operator makes `value`.
  const Node* Made(const std::string& value, const std::string& op_type) const {
    const Node* node = index_.producer(value);
    return node != nullptr && node->domain.empty() && node->op_type == op_type ? node : nullptr;
  }
  bool IsInner(const std::string& value) const {
    return index_.consumers(value).size() == 1 && !index_.is_output(value);
  }

  void Collect(const Node& node, Product& product) const {
    const bool divides = node.op_type == "Div";
    for (size_t i = 0; i < 2; ++i) {
      const std::string& input = node.inputs[i];
      if (const std::optional<float> scalar = Scalar(input); scalar && (!divides || i == 1)) {
        product.number = divides ? product.number / *scalar : product.number * *scalar;
        continue;
      }
      const Node* maker = index_.producer(input);
      const bool may_open = maker != nullptr && IsInner(input) && maker->domain.empty() &&
                            node.inputs[0] != node.inputs[1] && !(divides && i == 1);
      if (may_open && maker->op_type == "Mul") {
        Collect(*maker, product);
      } else if (may_open && maker->op_type == "Div" && Scalar(maker->inputs[1])) {
        Collect(*maker, product);
      } else {
        product.factors.push_back(input);
      }
    }
  }

  // The other operand of an Add of `number`.
  std::optional<std::string> PlusNumber(const std::string& value, float number) const {
    const Node* add = Made(value, "Add");
    if (add == nullptr || !IsInner(value)) return {};
    if (IsNumber(add->inputs[1], number)) return add->inputs[0];
    if (IsNumber(add->inputs[0], number)) return add->inputs[1];
    return {};
  }

  static bool IsAbout(float a, float b) { return std::abs(a - b) <= 1e-6F * std::abs(b); }

  bool IsClipToSix(const std::string& value, const std::string& x) const {
    const Node* clip = Made(value, "Clip");
    if (clip == nullptr || !IsInner(value) || PlusNumber(clip->inputs[0], 3) != x) return false;
    if (clip->attributes.contains("min") && clip->attributes.contains("max")) {  // before opset 11
      return clip->Float("min", -1) == 0 && clip->Float("max", 0) == 6;
    }
    if (clip->inputs.size() != 3) return false;
    const std::optional<float> low = Scalar(clip->inputs[1]);
    return low && *low == 0 && IsNumber(clip->inputs[2], 6);
  }

  bool IsHardSigmoid(const std::string& value, const std::string& x) const {
    const Node* node = Made(value, "HardSigmoid");
    return node != nullptr && IsInner(value) && node->inputs[0] == x &&
           IsAbout(node->Float("alpha", 0.2F), 1.0F / 6) && node->Float("beta", 0.5F) == 0.5F;
  }

  std::optional<Node> MatchProduct(const Node& node) const {
    if (node.op_type == "Div" && !Scalar(node.inputs[1])) return {};
    Product product;
    Collect(node, product);
    if (product.factors.size() != 2) return {};
    for (size_t i = 0; i < 2; ++i) {
      const std::string& x = product.factors[i];
      const std::string& other = product.factors[1 - i];
      const Node* sigmoid = Made(other, "Sigmoid");
      if (sigmoid != nullptr && sigmoid->inputs[0] == x && IsInner(other) && product.number == 1) {
        Node silu = Joined(node, "QuickGelu", "com.microsoft", {x});
        SetFloat(silu, "alpha", 1);
        return silu;
      }
      if (IsAbout(product.number, 1.0F / 6) && IsClipToSix(other, x)) {
        return Joined(node, "HardSwish", "", {x});
      }
      if (product.number == 1 && IsHardSigmoid(other, x)) {
        return Joined(node, "HardSwish", "", {x});
      }
    }
    return {};
  }

  static Node Joined(const Node& last, const std::string& op_type, const std::string& domain,
                     std::vector<std::string> inputs) {
    Node node{.name = last.name,
              .op_type = op_type,
              .domain = domain,
              .inputs = std::move(inputs),
              .outputs = last.outputs,
              .attributes = {},
              .unknown = {}};
    return node;
  }

  // What the mean over the last axis that makes `value` is of.
  std::optional<std::string> MeanOf(const std::string& value) const {
    const Node* mean = Made(value, "ReduceMean");
    if (mean == nullptr || !IsInner(value) || mean->Int("keepdims", 1) != 1) return {};
    std::vector<int64_t> axes = mean->Ints("axes");
    if (mean->inputs.size() > 1) {
      const Tensor* given = ConstantOf(graph_, index_, mean->inputs[1], ir_version_);
      if (given == nullptr || given->dtype() != DType::kInt64) return {};
      const std::span<const int64_t> values = given->data<int64_t>();
      axes.assign(values.begin(), values.end());
    }
    if (axes.size() != 1 || !IsLastAxis(axes[0], mean->inputs[0])) return {};
    return mean->inputs[0];
  }

  bool IsLastAxis(int64_t axis, const std::string& value) const {
    if (axis == -1) return true;
    const auto type = types_.find(value);
    return type != types_.end() && type->second.shape &&
           axis == std::ssize(*type->second.shape) - 1;
  }

  bool IsSquareOf(const std::string& value, const std::string& x) const {
    if (const Node* pow = Made(value, "Pow")) {
      return IsInner(value) && pow->inputs[0] == x && IsNumber(pow->inputs[1], 2);
    }
    const Node* mul = Made(value, "Mul");
    return mul != nullptr && IsInner(value) && mul->inputs[0] == x && mul->inputs[1] == x;
  }

  // The epsilon where `value` is the deviation of `centered`.
  std::optional<float> DeviationOf(const std::string& value, const std::string& centered) const {
    const Node* root = Made(value, "Sqrt");
    const Node* add = root == nullptr || !IsInner(value) ? nullptr : Made(root->inputs[0], "Add");
    if (add == nullptr || !IsInner(root->inputs[0])) return {};
    for (size_t i = 0; i < 2; ++i) {
      const std::optional<float> epsilon = Scalar(add->inputs[1 - i]);
      const std::optional<std::string> square = MeanOf(add->inputs[i]);
      if (epsilon && square && IsSquareOf(*square, centered)) return epsilon;
    }
    return {};
  }

  std::optional<Node> MatchLayerNorm(const Node& add) const {
    for (size_t i = 0; i < 2; ++i) {
      const std::string& bias = add.inputs[1 - i];
      const Node* mul = Made(add.inputs[i], "Mul");
      if (mul == nullptr || !IsInner(add.inputs[i])) continue;
      for (size_t j = 0; j < 2; ++j) {
        std::optional<Node> found = LayerNormOf(add, mul->inputs[j], mul->inputs[1 - j], bias);
        if (found) return found;
      }
    }
    return {};
  }

  std::optional<Node> LayerNormOf(const Node& last, const std::string& normalized,
                                  const std::string& scale, const std::string& bias) const {
    const Tensor* scales = Constant(scale);
    const Tensor* biases = Constant(bias);
    const Node* div = Made(normalized, "Div");
    if (scales == nullptr || biases == nullptr || div == nullptr) return {};
    if (!IsInner(normalized) || scales->rank() != 1) return {};
    // One element would widen along the normalized axis.
    if (scales->shape() != biases->shape() || scales->count() == 1) return {};
    const Node* sub = Made(div->inputs[0], "Sub");
    const std::optional<float> epsilon = DeviationOf(div->inputs[1], div->inputs[0]);
    if (sub == nullptr || !epsilon || MeanOf(sub->inputs[1]) != sub->inputs[0]) return {};
    if (index_.consumers(div->inputs[0]).size() != 2 || index_.is_output(div->inputs[0])) return {};
    Node node = Joined(last, "LayerNormalization", "", {sub->inputs[0], scale, bias});
    SetFloat(node, "epsilon", *epsilon);
    return node;
  }

  const Graph& graph_;
  GraphIndex index_;
  int64_t ir_version_;
  const std::unordered_map<std::string, ValueType>& types_;
};

}  // namespace

std::vector<FloatPattern> FindFloatPatterns(
    const Graph& graph, int64_t ir_version,
    const std::unordered_map<std::string, ValueType>& types) {
  std::vector<FloatPattern> found;
  const Patterns patterns(graph, ir_version, types);
  for (const Node& node : graph.nodes) {
    if (std::optional<FloatPattern> pattern = patterns.Find(node)) {
      found.push_back(std::move(*pattern));
    }
  }
  return found;
}

void WritePattern(Graph& graph, FloatPattern pattern, FreshNames& names) {
  for (auto& [input, constant] : pattern.constants) {
    std::string& name = pattern.node.inputs[input];
    name = names.Make(name + "_row");
    graph.initializers.set(name, {std::move(constant), ""});
  }
  graph.nodes[pattern.last] = std::move(pattern.node);
}

void JoinFloatPatterns(Model& model) {
  std::optional<FreshNames> names;  // they cost a look at the whole model, which few patterns need
  for (FloatPattern& pattern : FindFloatPatterns(model.graph, model.ir_version)) {
    if (pattern.constants.empty()) {
      model.graph.nodes[pattern.last] = std::move(pattern.node);
      continue;
    }
    if (!names) names.emplace(model);
    WritePattern(model.graph, std::move(pattern), *names);
  }
  EraseDead(model.graph);
}

}  // namespace pared
