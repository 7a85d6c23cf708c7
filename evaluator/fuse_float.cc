// Joins to a float convolution or matrix product what follows it, element by element.
//
// Before:  c = Conv(x, w)  n = BatchNormalization(c, s, t, m, v)  a = Add(n, r)  y = Relu(a)
// After:   y = FloatConv(x, w', t', r) {activation = "Relu"}
//
// Before:  p = MatMul(x, w)  b = Add(p, bias)  y = Gelu(b)
// After:   y = FloatMatMul(x, w, bias) {activation = "Gelu"}
//
// Declines where weights or parameters are no float32 constants, where a value in between has
// another reader, and where an Add may broadcast.

#include "evaluator/fuse_float.h"

#include <array>
#include <cmath>
#include <limits>
#include <optional>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "evaluator/fuse_graph.h"
#include "model/infer_shapes.h"
#include "model/rewrite.h"

namespace pared {
namespace {

struct ActivationSpec {
  std::string name;
  std::vector<float> parameters;
};

// A product and what has been joined to it so far. Its parts come in this order; none comes twice.
struct Chain {
  const Node* head = nullptr;
  const Node* last = nullptr;  // whose outputs the joined node makes
  Shape weights_shape;
  std::vector<float> weights;  // of a convolution: by output
  std::vector<float> bias;     // empty: none
  bool weights_changed = false;
  std::string addend;
  ActivationSpec activation;

  bool is_convolution() const { return head->op_type == "Conv"; }
  int64_t outputs() const { return is_convolution() ? weights_shape[0] : weights_shape.back(); }
};

class FloatFusion {
 public:
  explicit FloatFusion(Model& model) : model_(model), index_(model.graph), names_(model) {}

  void Run() {
    for (const Node& node : model_.graph.nodes) {
      std::optional<Chain> chain = Begin(node);
      if (!chain) continue;
      std::vector<const Node*> joined;
      while (const Node* next = Next(*chain)) {
        if (!Join(*chain, *next)) break;
        joined.push_back(chain->last);
        chain->last = next;
      }
      if (joined.empty()) continue;
      taken_.insert(joined.begin(), joined.end());
      made_.emplace(chain->last, Make(*chain));
    }
    std::vector<Node> nodes;
    for (const Node& node : model_.graph.nodes) {
      const auto made = made_.find(&node);
      if (made != made_.end()) {
        nodes.push_back(std::move(made->second));
      } else if (!taken_.contains(&node)) {
        nodes.push_back(node);
      }
    }
    model_.graph.nodes = std::move(nodes);
  }

 private:
  const Tensor* Constant(const std::string& value) const {
    const Tensor* found = ConstantOf(model_.graph, index_, value, model_.ir_version);
    return found != nullptr && found->dtype() == DType::kFloat32 ? found : nullptr;
  }

  std::optional<Chain> Begin(const Node& node) const {
    const bool is_convolution = node.op_type == "Conv";
    if (!node.domain.empty() || (!is_convolution && node.op_type != "MatMul")) return {};
    const Tensor* weights = Constant(node.inputs[1]);
    if (weights == nullptr || weights->rank() < (is_convolution ? 3 : 2)) return {};
    if (!is_convolution && weights->rank() != 2) return {};
    Chain chain;
    chain.head = chain.last = &node;
    chain.weights_shape = weights->shape();
    if (is_convolution) {
      const std::span<const float> values = weights->data<float>();
      chain.weights.assign(values.begin(), values.end());
      if (node.inputs.size() > 2 && !node.inputs[2].empty()) {
        const Tensor* bias = Constant(node.inputs[2]);
        if (bias == nullptr || bias->count() != chain.outputs()) return {};
        const std::span<const float> biases = bias->data<float>();
        chain.bias.assign(biases.begin(), biases.end());
      }
    }
    return chain;
  }

  // The one reader of what the chain makes.
  const Node* Next(const Chain& chain) const {
    const std::string& value = chain.last->outputs[0];
    const std::vector<const Node*>& readers = index_.consumers(value);
    if (readers.size() != 1 || index_.is_output(value) || !chain.activation.name.empty()) {
      return nullptr;
    }
    const bool is_free = !taken_.contains(readers[0]) && !made_.contains(readers[0]);
    return is_free ? readers[0] : nullptr;
  }

  bool Join(Chain& chain, const Node& next) {
    const bool is_onnx = next.domain.empty();
    if (is_onnx && next.op_type == "BatchNormalization") return JoinBatchNorm(chain, next);
    if (is_onnx && next.op_type == "Add") return JoinAdd(chain, next);
    if (is_onnx && next.op_type == "Mul" && chain.is_convolution()) return JoinScale(chain, next);
    if (next.inputs.empty() || next.inputs[0] != chain.last->outputs[0]) return false;
    std::optional<ActivationSpec> activation = ActivationOf(next);
    if (activation) chain.activation = std::move(*activation);
    return activation.has_value();
  }

  // y = c * scale + shift by output channel.
  static void ScaleShift(Chain& chain, const std::vector<double>& scale,
                         const std::vector<double>& shift) {
    const size_t outputs = scale.size();
    const size_t row = chain.weights.size() / outputs;
    chain.bias.resize(outputs);
    for (size_t o = 0; o < outputs; ++o) {
      for (size_t i = o * row; i < (o + 1) * row; ++i) {
        chain.weights[i] = static_cast<float>(static_cast<double>(chain.weights[i]) * scale[o]);
      }
      chain.bias[o] = static_cast<float>(static_cast<double>(chain.bias[o]) * scale[o] + shift[o]);
    }
    chain.weights_changed = true;
  }

  bool JoinBatchNorm(Chain& chain, const Node& node) const {
    if (!chain.is_convolution() || !chain.addend.empty() || chain.weights.empty()) return false;
    if (node.inputs.size() != 5 || node.inputs[0] != chain.last->outputs[0]) return false;
    if (node.outputs.size() != 1 || node.Int("training_mode", 0) != 0) return false;
    std::array<const Tensor*, 4> parameters{};
    for (size_t i = 0; i < 4; ++i) {
      parameters[i] = Constant(node.inputs[i + 1]);
      if (parameters[i] == nullptr || parameters[i]->count() != chain.outputs()) return false;
    }
    const double epsilon = static_cast<double>(node.Float("epsilon", 1e-5F));
    std::vector<double> scale, shift;
    for (size_t o = 0; o < static_cast<size_t>(chain.outputs()); ++o) {
      const auto at = [&](size_t i) {
        return static_cast<double>(parameters[i]->data<float>()[o]);
      };
      scale.push_back(at(0) / std::sqrt(at(3) + epsilon));
      shift.push_back(at(1) - at(2) * scale.back());
    }
    ScaleShift(chain, scale, shift);
    return true;
  }

  // The constant operand of `node` as one number for each output; nothing where it is none.
  std::optional<std::vector<float>> ByOutput(const Chain& chain, const Node& node) const {
    const size_t other = node.inputs[0] == chain.last->outputs[0] ? 1 : 0;
    const Tensor* constant = Constant(node.inputs[other]);
    if (constant == nullptr) return {};
    const Shape& shape = constant->shape();
    const size_t outputs = static_cast<size_t>(chain.outputs());
    const std::span<const float> values = constant->data<float>();
    if (constant->count() == 1 && shape.size() <= 1) return std::vector<float>(outputs, values[0]);
    if (values.size() != outputs) return {};
    // Spatial axes are as many as the weights have; a rank above the output's would raise it.
    const size_t spatial = chain.is_convolution() ? chain.weights_shape.size() - 2 : 0;
    if (shape.size() < spatial + 1 || shape.size() > spatial + (spatial > 0 ? 2 : 1)) return {};
    if (shape[shape.size() - 1 - spatial] != chain.outputs()) return {};
    return std::vector<float>(values.begin(), values.end());
  }

  bool JoinScale(Chain& chain, const Node& node) const {
    const std::optional<std::vector<float>> factor = ByOutput(chain, node);
    if (!factor || !chain.addend.empty() || chain.weights.empty()) return false;
    const std::vector<double> scale(factor->begin(), factor->end());
    ScaleShift(chain, scale, std::vector<double>(scale.size(), 0.0));
    return true;
  }

  bool JoinAdd(Chain& chain, const Node& node) {
    if (node.inputs[0] == node.inputs[1]) return false;
    if (const std::optional<std::vector<float>> bias = ByOutput(chain, node)) {
      chain.bias.resize(bias->size());
      for (size_t i = 0; i < bias->size(); ++i) chain.bias[i] += (*bias)[i];
      return true;
    }
    const std::string& own = chain.last->outputs[0];
    const std::string& other = node.inputs[node.inputs[0] == own ? 1 : 0];
    if (!chain.addend.empty() || !HaveSameShape(own, other)) return false;
    chain.addend = other;
    return true;
  }

  bool HaveSameShape(const std::string& a, const std::string& b) {
    if (!types_) types_ = ShapesIfConsistent(model_);
    const auto x = types_->find(a), y = types_->find(b);
    if (x == types_->end() || y == types_->end()) return false;
    if (!x->second.shape || !y->second.shape) return false;
    if (x->second.shape->size() != y->second.shape->size()) return false;
    for (size_t i = 0; i < x->second.shape->size(); ++i) {
      const Dim& p = (*x->second.shape)[i];
      const Dim& q = (*y->second.shape)[i];
      const bool is_same =
          p.value >= 0 ? p.value == q.value : q.value < 0 && !p.param.empty() && p.param == q.param;
      if (!is_same) return false;
    }
    return true;
  }

  std::optional<ActivationSpec> ActivationOf(const Node& node) const {
    const std::string& op = node.op_type;
    if (node.domain == "com.microsoft" && op == "QuickGelu") {
      return ActivationSpec{"Silu", {node.Float("alpha", 1.702F)}};
    }
    if (!node.domain.empty() && (node.domain != "com.microsoft" || op != "Gelu")) return {};
    if (op == "Relu" || op == "Sigmoid" || op == "Tanh" || op == "HardSwish" || op == "Erf") {
      return ActivationSpec{op, {}};
    }
    if (op == "LeakyRelu") return ActivationSpec{op, {node.Float("alpha", 0.01F)}};
    if (op == "HardSigmoid") {
      return ActivationSpec{op, {node.Float("alpha", 0.2F), node.Float("beta", 0.5F)}};
    }
    if (op == "Gelu") {
      const bool is_tanh = node.String("approximate", "none") == "tanh";
      return ActivationSpec{is_tanh ? "GeluTanh" : "Gelu", {}};
    }
    return op == "Clip" ? ClipOf(node) : std::nullopt;
  }

  std::optional<ActivationSpec> ClipOf(const Node& node) const {
    constexpr float kInfinity = std::numeric_limits<float>::infinity();
    std::vector<float> bounds = {node.Float("min", -kInfinity), node.Float("max", kInfinity)};
    for (size_t i = 1; i < node.inputs.size(); ++i) {
      if (node.inputs[i].empty()) continue;
      const Tensor* bound = Constant(node.inputs[i]);
      if (bound == nullptr || bound->count() != 1) return {};
      bounds[i - 1] = bound->data<float>()[0];
    }
    // Where they cross, or one is NaN, ONNX says what comes out: leave it to Clip.
    if (!(bounds[0] <= bounds[1])) return {};
    return ActivationSpec{"Clip", std::move(bounds)};
  }

  std::string AddInitializer(const std::string& base, Shape shape, std::vector<float> values) {
    const std::string name = names_.Make(base);
    model_.graph.initializers.set(name,
                                  {Tensor::Make<float>(std::move(shape), std::move(values)), {}});
    return name;
  }

  Node Make(Chain& chain) {
    Node node = *chain.head;
    node.domain = "pared";
    node.op_type = chain.is_convolution() ? "FloatConv" : "FloatMatMul";
    node.outputs = chain.last->outputs;
    node.inputs.resize(2);
    const int64_t outputs = chain.outputs();
    if (chain.weights_changed) {
      node.inputs[1] =
          AddInitializer(node.inputs[1] + "_fused", chain.weights_shape, std::move(chain.weights));
    }
    if (!chain.bias.empty() || !chain.addend.empty()) node.inputs.emplace_back();
    if (!chain.bias.empty()) {
      node.inputs[2] =
          AddInitializer(chain.head->outputs[0] + "_bias", {outputs}, std::move(chain.bias));
    }
    if (!chain.addend.empty()) node.inputs.push_back(chain.addend);
    if (!chain.activation.name.empty()) {
      SetString(node, "activation", chain.activation.name);
      node.attributes.set(
          "activation_params",
          Attribute{
              .type = 6, .value = chain.activation.parameters, .ref_name = {}, .unknown = {}});
    }
    return node;
  }

  Model& model_;
  GraphIndex index_;
  FreshNames names_;
  std::optional<std::unordered_map<std::string, ValueType>> types_;  // inferred on first use
  std::unordered_set<const Node*> taken_;       // joined to what comes after them
  std::unordered_map<const Node*, Node> made_;  // by the node whose place they take
};

}  // namespace

Model FuseFloat(Model model, const std::vector<std::string>& kept) {
  const std::vector<ValueInfo> outputs = model.graph.outputs;
  for (const std::string& value : kept) model.graph.outputs.emplace_back().name = value;
  JoinFloatPatterns(model);
  FloatFusion(model).Run();
  EraseDead(model.graph);
  model.graph.outputs = outputs;
  return model;
}

}  // namespace pared
