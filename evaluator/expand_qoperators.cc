#include "evaluator/expand_qoperators.h"

#include <algorithm>
#include <iterator>
#include <map>
#include <optional>
#include <string_view>
#include <utility>

#include "evaluator/composed_attention.h"
#include "evaluator/composed_ops.h"
#include "evaluator/fuse_graph.h"
#include "model/function_call.h"

namespace pared {
namespace {

constexpr std::string_view kMicrosoft = "com.microsoft";

// Inputs of all: x, x_scale, x_zero_point, w, w_scale, w_zero_point.
struct QuantizedProduct {
  std::string_view domain, op_type;
  const char* product;  // of floats
  size_t bias, y_scale;
};

constexpr QuantizedProduct kProducts[] = {
    {"", "QLinearConv", "Conv", 8, 6},
    {"", "QLinearMatMul", "MatMul", 8, 6},
    {kMicrosoft, "QGemm", "Gemm", 6, 7},
};

const QuantizedProduct* ProductOf(const Node& node) {
  const auto* found = std::ranges::find_if(kProducts, [&](const QuantizedProduct& product) {
    return product.domain == node.domain && product.op_type == node.op_type;
  });
  return found == std::end(kProducts) ? nullptr : found;
}

class Expander {
 public:
  explicit Expander(Model& model) : model_(model), names_(model), index_(model.graph) {}

  void Run() {
    for (const Node& node : model_.graph.nodes) {
      const QuantizedProduct* product = ProductOf(node);
      if (product != nullptr && CanExpand(node, *product)) {
        Expand(node, *product);
      } else if (IsComposed(node)) {
        Inline(node);
      } else if (const Parameters* parameters = ParametersOfCodes(node)) {
        ExpandMovement(node, *parameters);
      } else {
        Push(node);
      }
    }
    model_.graph.nodes = std::move(nodes_);
  }

 private:
  struct Parameters {
    std::string scale, zero_point;  // names of constants
  };

  void Push(Node node) {
    const bool quantizes = node.op_type == "QuantizeLinear" && node.domain.empty();
    if (quantizes && HasInput(node, 2) && Scalar(node.inputs[1]) && Scalar(node.inputs[2])) {
      parameters_[node.outputs[0]] = {node.inputs[1], node.inputs[2]};
    }
    nodes_.push_back(std::move(node));
  }

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

  // The axis of the outputs in w.
  static size_t AxisOf(const Node& node, const QuantizedProduct& product) {
    const bool is_first = product.op_type == "QLinearConv" || node.Int("transB", 0) != 0;
    return is_first ? 0 : 1;
  }

  bool CanExpand(const Node& node, const QuantizedProduct& product) const {
    const std::vector<std::string>& in = node.inputs;
    if (in.size() < 6 || node.Int("transA", 0) != 0 || node.Float("alpha", 1) != 1) return false;
    if (Scalar(in[1]) == nullptr || Scalar(in[2]) == nullptr) return false;
    if (Scalar(in[1])->dtype() != DType::kFloat32 || !HasScalarResult(node, product)) return false;
    const Tensor *w = Constant(in[3]), *scale = Constant(in[4]), *zero = Constant(in[5]);
    if (w == nullptr || scale == nullptr || zero == nullptr || !IsZero(*zero)) return false;
    if (w->dtype() != DType::kInt8 || scale->dtype() != DType::kFloat32) return false;
    if (w->rank() != (product.op_type == "QLinearConv" ? 4 : 2)) return false;
    const int64_t channels = w->shape()[AxisOf(node, product)];
    if (scale->count() != 1 && scale->count() != channels) return false;
    if (!HasInput(node, product.bias)) return true;
    const Tensor* bias = Constant(in[product.bias]);
    return bias != nullptr && bias->dtype() == DType::kInt32 && bias->rank() == 1;
  }

  // Only QGemm may leave y_scale out: then its result is float.
  bool HasScalarResult(const Node& node, const QuantizedProduct& product) const {
    if (!HasInput(node, product.y_scale)) return product.op_type == "QGemm";
    return HasInput(node, product.y_scale + 1) && Scalar(node.inputs[product.y_scale]) != nullptr &&
           Scalar(node.inputs[product.y_scale + 1]) != nullptr;
  }

  // The composition's operators have their meaning from opset 7 on, Softmax from 13 on.
  bool IsComposed(const Node& node) const {
    if (node.domain != kMicrosoft || !node.op_type.starts_with("QLinear")) return false;
    return node.op_type != "QLinearSoftmax" || model_.Opset("") >= 13;
  }

  // Those of the codes that the node moves as they are, or takes the greatest of. Null: it does
  // not, or nobody knows them.
  const Parameters* ParametersOfCodes(const Node& node) const {
    if (!node.domain.empty() || node.inputs.empty()) return nullptr;
    const size_t axes = node.Ints("kernel_shape").size();
    const bool is_maximum =
        node.op_type == "MaxPool" && node.outputs.size() == 1 && (axes == 1 || axes == 2);
    const bool is_nearest =
        node.op_type == "Resize" && node.String("mode", "nearest") == "nearest" &&
        node.String("coordinate_transformation_mode", "") != "tf_crop_and_resize";
    if (!is_maximum && !is_nearest && node.op_type != "Split") return nullptr;
    const auto found = parameters_.find(node.inputs[0]);
    return found == parameters_.end() ? nullptr : &found->second;
  }

  void ExpandMovement(Node node, const Parameters& parameters) {
    const auto [scale, zero_point] = parameters;  // Push adds to where it is kept
    node.inputs[0] = Dequantize({node.inputs[0], scale, zero_point}, -1);
    const std::vector<std::string> codes = node.outputs;
    for (std::string& output : node.outputs) output = names_.Make(output + "_float");
    const std::vector<std::string> floats = node.outputs;
    Push(std::move(node));
    for (size_t i = 0; i < codes.size(); ++i) {
      Push(MakeNode("QuantizeLinear", {floats[i], scale, zero_point}, codes[i], names_));
    }
  }

  std::string Dequantize(std::vector<std::string> inputs, int64_t axis) {
    const std::string name = names_.Make(inputs[0] + "_float");
    Node node = MakeNode("DequantizeLinear", std::move(inputs), name, names_);
    if (axis >= 0) SetInt(node, "axis", axis);
    Push(std::move(node));
    return name;
  }

  // The scales of the accumulator: those of x times those of w.
  std::string BiasScale(const Node& node, const std::string& bias) {
    const float x = Scalar(node.inputs[1])->data<float>()[0];
    const Tensor& w = *Constant(node.inputs[4]);
    std::vector<float> scales;
    for (const float scale : w.data<float>()) scales.push_back(x * scale);
    const std::string name = names_.Make(bias + "_scale");
    Tensor tensor = Tensor::Make(w.shape(), std::move(scales));
    model_.graph.initializers.set(name, {tensor.count() == 1 ? tensor.Reshaped({}) : tensor, ""});
    return name;
  }

  void Expand(const Node& node, const QuantizedProduct& product) {
    const std::vector<std::string>& in = node.inputs;
    const bool is_by_channel = Constant(in[4])->count() != 1;
    const auto axis = static_cast<int64_t>(AxisOf(node, product));
    std::vector<std::string> inputs = {
        Dequantize({in[0], in[1], in[2]}, -1),
        Dequantize({in[3], in[4], in[5]}, is_by_channel ? axis : -1)};
    if (HasInput(node, product.bias)) {
      const std::string& bias = in[product.bias];
      inputs.push_back(Dequantize({bias, BiasScale(node, bias)}, is_by_channel ? 0 : -1));
    }
    const bool is_quantized = HasInput(node, product.y_scale);
    const std::string& y = node.outputs[0];
    const std::string result = is_quantized ? names_.Make(y + "_float") : y;
    Node made = MakeNode(product.product, std::move(inputs), result, names_);
    made.name = node.name;
    made.attributes = node.attributes;
    Push(std::move(made));
    if (!is_quantized) return;
    Push(MakeNode("QuantizeLinear", {result, in[product.y_scale], in[product.y_scale + 1]}, y,
                  names_));
  }

  // The node between Dequantize- and QuantizeLinear keeps the name of what it stands for.
  void Inline(const Node& node) {
    const std::optional<Function> function = ComposeOp(node);
    if (!function) return Push(node);
    for (Node& part : InlineCall(node, *function, names_)) {
      const bool is_boundary =
          part.op_type == "DequantizeLinear" || part.op_type == "QuantizeLinear";
      part.name = is_boundary ? names_.Make(part.outputs[0] + "/" + part.op_type) : node.name;
      Push(std::move(part));
    }
  }

  Model& model_;
  FreshNames names_;
  GraphIndex index_;
  std::vector<Node> nodes_;
  std::map<std::string, Parameters> parameters_;  // of codes
};

}  // namespace

void ExpandQOperators(Model& model) {
  const auto is_quantized = [](const Node& node) {
    return node.op_type.starts_with("QLinear") || node.op_type == "QGemm";
  };
  if (std::ranges::any_of(model.graph.nodes, is_quantized)) Expander(model).Run();
}

}  // namespace pared
