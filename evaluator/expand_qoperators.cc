#include "evaluator/expand_qoperators.h"

#include <algorithm>
#include <map>
#include <string_view>

#include "evaluator/fuse_graph.h"
#include "model/rewrite.h"

namespace pared {
namespace {

class Expander {
 public:
  explicit Expander(Model& model) : model_(model), names_(model), index_(model.graph) {}

  void Run() {
    std::vector<Node> expanded;
    for (const Node& node : model_.graph.nodes) {
      const bool is_convolution = node.op_type == "QLinearConv";
      const bool is_product = node.op_type == "QLinearMatMul";
      if (node.domain.empty() && (is_convolution || is_product) && CanExpand(node)) {
        Expand(node, is_convolution, expanded);
      } else if (const size_t operands = OperandsOf(node); operands > 0) {
        ExpandElementwise(node, operands, expanded);
      } else {
        expanded.push_back(node);
      }
    }
    model_.graph.nodes = std::move(expanded);
  }

 private:
  const Tensor* Constant(const std::string& name) const {
    return ConstantOf(model_.graph, index_, name, model_.ir_version);
  }
  const Tensor* Scalar(const std::string& name) const {
    const Tensor* tensor = Constant(name);
    return tensor != nullptr && tensor->count() == 1 ? tensor : nullptr;
  }

  static bool IsZero(const Tensor& zero_point) {
    if (zero_point.dtype() != DType::kInt8) return false;
    return std::ranges::all_of(zero_point.data<int8_t>(), [](int8_t z) { return z == 0; });
  }

  // x, x_scale, x_zero_point, w, w_scale, w_zero_point, y_scale, y_zero_point, bias
  bool CanExpand(const Node& node) const {
    const std::vector<std::string>& in = node.inputs;
    if (in.size() < 8) return false;
    for (const size_t i : {1, 2, 6, 7}) {
      if (Scalar(in[i]) == nullptr) return false;
    }
    if (Scalar(in[1])->dtype() != DType::kFloat32) return false;
    const Tensor *w = Constant(in[3]), *scale = Constant(in[4]), *zero = Constant(in[5]);
    if (w == nullptr || scale == nullptr || zero == nullptr || !IsZero(*zero)) return false;
    if (w->dtype() != DType::kInt8 || scale->dtype() != DType::kFloat32) return false;
    const bool is_convolution = node.op_type == "QLinearConv";
    if (w->rank() != (is_convolution ? 4 : 2)) return false;
    const int64_t channels = w->shape()[is_convolution ? 0 : 1];
    if (scale->count() != 1 && scale->count() != channels) return false;
    if (in.size() < 9 || in[8].empty()) return true;
    const Tensor* bias = Constant(in[8]);
    return bias != nullptr && bias->dtype() == DType::kInt32;
  }

  // How many quantized operands an elementwise node or pool of com.microsoft has, each with scale
  // and zero point, before those of its result; 0: it is none.
  static size_t OperandsOf(const Node& node) {
    static const std::map<std::string, size_t> kOperands = {{"QLinearAdd", 2},
                                                            {"QLinearMul", 2},
                                                            {"QLinearGlobalAveragePool", 1},
                                                            {"QLinearLeakyRelu", 1},
                                                            {"QLinearSigmoid", 1}};
    if (node.domain != "com.microsoft" || node.Int("channels_last", 0) != 0) return 0;
    const auto found = kOperands.find(node.op_type);
    const bool fits = found != kOperands.end() && node.inputs.size() == 3 * found->second + 2;
    return fits ? found->second : 0;
  }

  std::string Dequantize(std::vector<std::string> inputs, int64_t axis, std::vector<Node>& nodes) {
    const std::string name = names_.Make(inputs[0] + "_float");
    nodes.push_back(MakeNode("DequantizeLinear", std::move(inputs), name, names_));
    if (axis >= 0) SetInt(nodes.back(), "axis", axis);
    return name;
  }

  // The scales of the accumulator: those of x times those of w.
  std::string BiasScale(const Node& node) {
    const float x = Scalar(node.inputs[1])->data<float>()[0];
    const Tensor& w = *Constant(node.inputs[4]);
    std::vector<float> scales;
    for (const float scale : w.data<float>()) scales.push_back(x * scale);
    const std::string name = names_.Make(node.inputs[8] + "_scale");
    Tensor tensor = Tensor::Make(w.shape(), std::move(scales));
    model_.graph.initializers.set(name, {tensor.count() == 1 ? tensor.Reshaped({}) : tensor, ""});
    return name;
  }

  void Expand(const Node& node, bool is_convolution, std::vector<Node>& nodes) {
    const std::vector<std::string>& in = node.inputs;
    const bool is_by_channel = Constant(in[4])->count() != 1;
    const std::string x = Dequantize({in[0], in[1], in[2]}, -1, nodes);
    const int64_t axis = is_convolution ? 0 : 1;
    const std::string w = Dequantize({in[3], in[4], in[5]}, is_by_channel ? axis : -1, nodes);
    std::vector<std::string> inputs = {x, w};
    if (in.size() > 8 && !in[8].empty()) {
      inputs.push_back(Dequantize({in[8], BiasScale(node)}, is_by_channel ? 0 : -1, nodes));
    }
    AddWithResult(node, is_convolution ? "Conv" : "MatMul", std::move(inputs), 6, nodes);
  }

  void ExpandElementwise(const Node& node, size_t operands, std::vector<Node>& nodes) {
    const std::vector<std::string>& in = node.inputs;
    std::vector<std::string> inputs;
    for (size_t i = 0; i < 3 * operands; i += 3) {
      inputs.push_back(Dequantize({in[i], in[i + 1], in[i + 2]}, -1, nodes));
    }
    AddWithResult(node, node.op_type.substr(std::string_view("QLinear").size()), std::move(inputs),
                  3 * operands, nodes);
    nodes[nodes.size() - 2].attributes.erase_if(
        [](const std::string& name, const Attribute&) { return name == "channels_last"; });
  }

  // `op_type` with the node's attributes, quantized by its inputs from `at` on.
  void AddWithResult(const Node& node, const std::string& op_type, std::vector<std::string> inputs,
                     size_t at, std::vector<Node>& nodes) {
    const std::string result = names_.Make(node.outputs[0] + "_float");
    Node product = MakeNode(op_type, std::move(inputs), result, names_);
    product.name = node.name;
    product.attributes = node.attributes;
    nodes.push_back(std::move(product));
    nodes.push_back(MakeNode("QuantizeLinear", {result, node.inputs[at], node.inputs[at + 1]},
                             node.outputs[0], names_));
  }

  Model& model_;
  FreshNames names_;
  GraphIndex index_;
};

}  // namespace

void ExpandQOperators(Model& model) {
  const auto is_quantized = [](const Node& node) { return node.op_type.starts_with("QLinear"); };
  if (std::ranges::any_of(model.graph.nodes, is_quantized)) Expander(model).Run();
}

}  // namespace pared
