#include "passes/qoperator.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "model/rewrite.h"
#include "passes/int8_choice.h"
#include "passes/select_nodes.h"
#include "passes/stored_weights.h"

namespace pared {
namespace {

constexpr const char* kMicrosoft = "com.microsoft";

// A quantized value: codes, scale and zero point, by name.
struct Parts {
  std::string codes, scale, zero_point;
};

class Converter {
 public:
  Converter(Model& model, bool contributed)
      : model_(model), contributed_(contributed), index_(model.graph), names_(model) {}

  Json Run() {
    // Looked at in the model as it was; nodes that others take the place of die.
    for (const Node& node : model_.graph.nodes) {
      if (joined_.contains(&node)) continue;
      const bool is_quantize = node.op_type == "QuantizeLinear" && node.domain.empty();
      std::optional<Node> made = is_quantize ? Join(node) : ScaledProduct(node);
      if (made) {
        out_.push_back(std::move(*made));
      } else {
        out_.push_back(node);
      }
    }
    for (const Node& node : model_.graph.nodes) KeepBranches(node);
    const bool uses_contributed =
        std::ranges::any_of(out_, [](const Node& node) { return node.domain == kMicrosoft; });
    model_.graph.nodes = std::move(out_);
    EraseDead(model_.graph);
    if (uses_contributed) ImportDomain(model_, kMicrosoft, 1);
    return {{"changed", std::move(changed_)}, {"kept_qdq", std::move(kept_)}};
  }

 private:
  const Tensor* Constant(const std::string& name) const {
    return ConstantOf(model_.graph, index_, name, model_.ir_version);
  }

  bool IsInner(const std::string& value) const {
    return index_.consumers(value).size() == 1 && !index_.is_output(value);
  }

  const Node* DequantizeOf(const std::string& value) const {
    const Node* node = index_.producer(value);
    const bool is_one = node != nullptr && node->op_type == "DequantizeLinear" &&
                        node->domain.empty() && node->inputs.size() == 3;
    return is_one ? node : nullptr;
  }

  static Parts PartsOf(const Node& node, const std::string& codes) {
    return {codes, node.inputs[1], node.inputs[2]};
  }

  // What `value` is dequantized from, with one scale; nothing where it is not.
  std::optional<Parts> Activation(const std::string& value) const {
    const Node* node = DequantizeOf(value);
    if (node == nullptr) return {};
    const Tensor* scale = Constant(node->inputs[1]);
    if (scale == nullptr || scale->count() != 1) return {};
    return PartsOf(*node, node->inputs[0]);
  }

  // Constant codes with one scale, or one along `axis`.
  std::optional<Parts> Weight(const std::string& value, int64_t axis) const {
    const Node* node = DequantizeOf(value);
    if (node == nullptr || Constant(node->inputs[0]) == nullptr) return {};
    const Tensor* scale = Constant(node->inputs[1]);
    if (scale == nullptr || node->Int("block_size", 0) != 0) return {};
    if (scale->count() != 1 && node->Int("axis", 1) != axis) return {};
    return PartsOf(*node, node->inputs[0]);
  }

  // Their constants stand outside, where a graph by itself does not find them.
  void KeepBranches(const Node& node) {
    for (const GraphPtr& graph : SubgraphsOf(node)) {
      std::unordered_set<std::string> dequantized;
      for (const Node& inner : graph->nodes) {
        const auto is_one = [&](const std::string& input) { return dequantized.contains(input); };
        if (inner.op_type == "DequantizeLinear") {
          dequantized.insert(inner.outputs.begin(), inner.outputs.end());
        } else if (std::ranges::any_of(inner.inputs, is_one)) {
          Keep(inner, "it is within a branch");
        }
        KeepBranches(inner);
      }
    }
  }

  std::optional<Node> Keep(const Node& node, const std::string& reason) {
    kept_.push_back({{"node", NodeLabel(node)}, {"reason", reason}});
    return {};
  }

  // A node in the place of `node` that makes what `quantize` makes.
  Node Made(const std::string& op_type, const Node& node, const std::string& output) {
    changed_.push_back(NodeLabel(node));
    Node made;
    made.op_type = op_type;
    Node named = node;
    KeepName(named, model_.graph.nodes);
    made.name = named.name.empty() ? names_.Make(output + "_quantized") : named.name;
    made.outputs = {output};
    made.attributes = node.attributes;
    return made;
  }

  static void Append(Node& node, const Parts& parts) {
    for (const std::string& input : {parts.codes, parts.scale, parts.zero_point}) {
      node.inputs.push_back(input);
    }
  }

  static void AppendScale(Node& node, const Parts& parts) {
    node.inputs.push_back(parts.scale);
    node.inputs.push_back(parts.zero_point);
  }

  // Whether the codes that `quantize` makes saturate no later than Relu or Clip do.
  bool IsTakenIn(const Node& node, const Node& quantize) const {
    const Tensor* scale = Constant(quantize.inputs[1]);
    const Tensor* zero = Constant(quantize.inputs[2]);
    if (zero == nullptr || zero->dtype() != DType::kUInt8 || zero->count() != 1) return false;
    if (zero->data<uint8_t>()[0] != 0) return false;
    if (node.op_type == "Relu") return true;
    if (node.op_type != "Clip" || node.inputs.size() != 3) return false;
    const Tensor *low = Constant(node.inputs[1]), *high = Constant(node.inputs[2]);
    if (low == nullptr || high == nullptr || low->dtype() != DType::kFloat32) return false;
    const float last = scale->data<float>()[0] * 255;
    // What the last code stands for may exceed the bound by a rounding of the scale.
    constexpr float kRounding = 1.00001f;
    return low->data<float>()[0] == 0 && last <= high->data<float>()[0] * kRounding;
  }

  std::optional<Node> Join(const Node& quantize) {
    const Tensor* scale = Constant(quantize.inputs[1]);
    if (scale == nullptr || scale->count() != 1 || quantize.inputs.size() != 3) return {};
    const Node* node = index_.producer(quantize.inputs[0]);
    if (node == nullptr) return {};
    if (!IsInner(quantize.inputs[0])) {
      return HasQuantizedInput(*node) ? Keep(*node, "its result is read as float too")
                                      : std::nullopt;
    }
    if (node->op_type == "Relu" || node->op_type == "Clip") {
      const Node* before = index_.producer(node->inputs[0]);
      const bool is_joined =
          before != nullptr && IsInner(node->inputs[0]) && HasQuantizedInput(*before);
      if (is_joined && IsTakenIn(*node, quantize)) return Convert(*before, quantize);
      if (is_joined) Keep(*before, node->op_type + " after it is no saturation of its codes");
      if (is_joined) return {};
    }
    return HasQuantizedInput(*node) ? Convert(*node, quantize) : std::nullopt;
  }

  bool HasQuantizedInput(const Node& node) const {
    return std::ranges::any_of(
        node.inputs, [&](const std::string& input) { return DequantizeOf(input) != nullptr; });
  }

  std::optional<Node> Convert(const Node& node, const Node& quantize) {
    const Parts y = PartsOf(quantize, quantize.outputs[0]);
    if (!node.domain.empty()) return Keep(node, "it is of domain " + node.domain);
    if (node.op_type == "Conv") return Convolution(node, y);
    if (node.op_type == "MatMul") return Product(node, y);
    if (KeepsRange(node) || node.op_type == "Identity") return Movement(node, quantize);
    if (!contributed_) return Keep(node, node.op_type + " has no quantized form in ONNX");
    if (node.op_type == "Gemm") return Gemm(node, &y);
    return Contributed(node, y);
  }

  std::optional<Node> Convolution(const Node& node, const Parts& y) {
    const auto x = Activation(node.inputs[0]), w = Weight(node.inputs[1], 0);
    if (!x || !w) return Keep(node, "its operands are not quantized with constant scales");
    const bool has_bias = node.inputs.size() > 2 && !node.inputs[2].empty();
    const auto bias = has_bias ? Weight(node.inputs[2], 0) : std::optional<Parts>();
    if (has_bias && !bias) return Keep(node, "its bias is float");
    Node made = Made("QLinearConv", node, y.codes);
    Append(made, *x);
    Append(made, *w);
    AppendScale(made, y);
    if (bias) made.inputs.push_back(bias->codes);
    return made;
  }

  // The operands of a product: two activations, or one and constant columns.
  std::optional<std::pair<Parts, Parts>> Operands(const Node& node) const {
    const auto a = Activation(node.inputs[0]);
    auto b = Activation(node.inputs[1]);
    if (!b) b = Weight(node.inputs[1], 1);
    if (!a || !b) return {};
    return std::make_pair(*a, *b);
  }

  std::string WhyNoOperands(const Node& node) const {
    const Node* weight = DequantizeOf(node.inputs[1]);
    const Tensor* codes = weight == nullptr ? nullptr : Constant(weight->inputs[0]);
    if (codes != nullptr && codes->rank() > 2) return "its weight is a stack of matrices";
    return "its operands are not quantized with constant scales";
  }

  std::optional<Node> Product(const Node& node, const Parts& y) {
    const auto operands = Operands(node);
    if (!operands) return Keep(node, WhyNoOperands(node));
    if (IsSigned(operands->first)) {
      return Keep(node, "onnxruntime has no QLinearMatMul whose left operand is signed");
    }
    Node made = Made("QLinearMatMul", node, y.codes);
    Append(made, operands->first);
    Append(made, operands->second);
    AppendScale(made, y);
    return made;
  }

  // Without `y` the result is float. alpha would scale the bias too.
  std::optional<Node> Gemm(const Node& node, const Parts* y) {
    const auto a = Activation(node.inputs[0]);
    const auto b = Weight(node.inputs[1], node.Int("transB", 0) != 0 ? 0 : 1);
    const bool has_bias = node.inputs.size() > 2 && !node.inputs[2].empty();
    const auto bias = has_bias ? Weight(node.inputs[2], 0) : std::optional<Parts>();
    if (!a || !b) return Keep(node, "its operands are not quantized with constant scales");
    if (has_bias && !bias) return Keep(node, "its bias is float");
    if (node.Float("alpha", 1) != 1 || node.Float("beta", 1) != 1) {
      return Keep(node, "it scales its product or its bias");
    }
    Node made = Made("QGemm", node, y != nullptr ? y->codes : node.outputs[0]);
    made.domain = kMicrosoft;
    made.attributes.erase_if([](const std::string& name, auto&) { return name == "beta"; });
    Append(made, *a);
    Append(made, *b);
    if (bias || y != nullptr) made.inputs.push_back(bias ? bias->codes : "");
    if (y != nullptr) AppendScale(made, *y);
    return made;
  }

  // The codes are moved as they are, where all scales are one.
  std::optional<Node> Movement(const Node& node, const Node& quantize) {
    const auto x = Activation(node.inputs[0]);
    if (node.op_type == "Resize" && node.String("mode", "nearest") != "nearest") {
      return Keep(node, "it makes new values");
    }
    if (node.op_type == "GlobalMaxPool") return Keep(node, "in ONNX it takes no codes");
    const bool adds = node.op_type == "Pad" && node.String("mode", "constant") == "constant";
    if (adds && !PadsZeros(node)) return Keep(node, "it adds another value than zero");
    std::vector<std::string> outputs;
    std::vector<const Node*> readers;
    for (const std::string& output : node.outputs) {
      const Node* reader = IsInner(output) ? index_.consumers(output)[0] : nullptr;
      const bool is_quantize = reader != nullptr && reader->op_type == "QuantizeLinear";
      if (!x || !is_quantize || !SameScale(*x, PartsOf(*reader, ""))) {
        if (&quantize == reader || !is_quantize) Keep(node, "not all its scales are the same");
        return {};
      }
      outputs.push_back(reader->outputs[0]);
      readers.push_back(reader);
    }
    joined_.insert(readers.begin(), readers.end());
    Node made = Made(node.op_type, node, quantize.outputs[0]);
    made.outputs = std::move(outputs);
    made.inputs = node.inputs;
    made.inputs[0] = x->codes;
    if (adds) {
      made.inputs.resize(std::max(made.inputs.size(), size_t{3}));
      made.inputs[2] = x->zero_point;
    }
    return made;
  }

  bool PadsZeros(const Node& node) const {
    if (node.inputs.size() < 3 || node.inputs[2].empty()) return true;
    const Tensor* value = Constant(node.inputs[2]);
    return value != nullptr && value->dtype() == DType::kFloat32 && value->count() == 1 &&
           value->data<float>()[0] == 0;
  }

  bool IsSigned(const Parts& parts) const {
    const Tensor* zero_point = Constant(parts.zero_point);
    return zero_point != nullptr && zero_point->dtype() == DType::kInt8;
  }

  bool SameScale(const Parts& a, const Parts& b) const {
    const Tensor *as = Constant(a.scale), *bs = Constant(b.scale);
    const Tensor *az = Constant(a.zero_point), *bz = Constant(b.zero_point);
    if (as == nullptr || bs == nullptr || az == nullptr || bz == nullptr) return false;
    return SameTensor(*as, *bs) && SameTensor(*az, *bz);
  }

  static bool SameTensor(const Tensor& a, const Tensor& b) {
    return a.dtype() == b.dtype() && a.count() == b.count() &&
           std::ranges::equal(a.bytes(), b.bytes());
  }

  std::optional<Node> Contributed(const Node& node, const Parts& y) {
    static const std::unordered_map<std::string, std::string> kForms = {
        {"Add", "QLinearAdd"},
        {"AveragePool", "QLinearAveragePool"},
        {"Concat", "QLinearConcat"},
        {"GlobalAveragePool", "QLinearGlobalAveragePool"},
        {"LeakyRelu", "QLinearLeakyRelu"},
        {"Mul", "QLinearMul"},
        {"Sigmoid", "QLinearSigmoid"}};
    const auto form = kForms.find(node.op_type);
    if (form == kForms.end()) return Keep(node, node.op_type + " has no quantized form");
    std::vector<Parts> inputs;
    for (const std::string& input : node.inputs) {
      const auto x = Activation(input);
      if (!x) return Keep(node, "\"" + input + "\" is not quantized");
      inputs.push_back(*x);
    }
    Node made = Made(form->second, node, y.codes);
    made.domain = kMicrosoft;
    if (node.op_type == "Concat") AppendScale(made, y);
    for (const Parts& x : inputs) Append(made, x);
    if (node.op_type != "Concat") AppendScale(made, y);
    return made;
  }

  // A product that is read as float. Returns the node that makes its result.
  std::optional<Node> ScaledProduct(const Node& node) {
    const bool is_product = node.op_type == "MatMul" || node.op_type == "Gemm";
    if (!node.domain.empty() || !HasQuantizedInput(node)) return {};
    for (const Node* reader : index_.consumers(node.outputs[0])) {
      if (reader->op_type == "QuantizeLinear") return {};  // reported there
    }
    if (node.op_type == "Conv") {
      const std::vector<const Node*>& readers = index_.consumers(node.outputs[0]);
      const bool may_join =
          readers.size() == 1 && (readers[0]->op_type == "Relu" || readers[0]->op_type == "Clip");
      return may_join ? std::nullopt : Keep(node, "its result is read as float");
    }
    if (!is_product) return {};
    if (node.op_type == "Gemm") {
      return contributed_ ? Gemm(node, nullptr) : Keep(node, "Gemm has no quantized form in ONNX");
    }
    const auto operands = Operands(node);
    if (!operands) return Keep(node, WhyNoOperands(node));
    return ScaledSums(node, *operands);
  }

  Node ScaledSums(const Node& node, const std::pair<Parts, Parts>& operands) {
    const auto& [a, b] = operands;
    // Of signed and unsigned codes onnxruntime has the operator of ONNX only.
    if (contributed_ && (!IsSigned(a) || IsSigned(b))) {
      Node made = Made("MatMulIntegerToFloat", node, node.outputs[0]);
      made.domain = kMicrosoft;
      made.inputs = {a.codes, b.codes, a.scale, b.scale, a.zero_point, b.zero_point};
      return made;
    }
    const std::string& output = node.outputs[0];
    Node sums = Made("MatMulInteger", node, names_.Make(output + "_sums"));
    sums.inputs = {a.codes, b.codes, a.zero_point, b.zero_point};
    Node cast = MakeCast(sums.outputs[0], names_.Make(output + "_float"), DType::kFloat32, names_);
    Node scaled;
    scaled.op_type = "Mul";
    scaled.name = names_.Make(output + "_scaled");
    scaled.inputs = {cast.outputs[0], ProductOfScales(a.scale, b.scale, output)};
    scaled.outputs = {output};
    out_.push_back(std::move(sums));
    out_.push_back(std::move(cast));
    return scaled;
  }

  std::string ProductOfScales(const std::string& a, const std::string& b,
                              const std::string& output) {
    const float factor = Constant(a)->data<float>()[0];
    std::vector<float> scales;
    for (const float scale : Constant(b)->data<float>()) scales.push_back(factor * scale);
    const std::string name = names_.Make(output + "_scale");
    const Shape shape = Constant(b)->shape();
    model_.graph.initializers.set(name, {Tensor::Make<float>(shape, std::move(scales)), ""});
    return name;
  }

  Model& model_;
  bool contributed_;
  GraphIndex index_;
  FreshNames names_;
  std::vector<Node> out_;
  std::unordered_set<const Node*> joined_;  // made by a node that is written already
  Json changed_ = Json::array(), kept_ = Json::array();
};

}  // namespace

Json ToQOperators(Model& model, bool contributed) { return Converter(model, contributed).Run(); }

}  // namespace pared
