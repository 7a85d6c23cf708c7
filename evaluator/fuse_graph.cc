#include "evaluator/fuse_graph.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace pared {
namespace {

constexpr int32_t kFloatType = 1, kIntType = 2, kStringType = 3, kTensorType = 4,
                  kIntsType = 7;  // AttributeProto

// The one number in `tensor`; nothing where it holds more.
std::optional<float> ScalarFloat(const Tensor* tensor) {
  if (tensor == nullptr || tensor->dtype() != DType::kFloat32 || tensor->count() != 1) return {};
  return tensor->data<float>()[0];
}

// Whether `node` computes on planar tiles as they are. Other convolutions and pools copy their
// input to a padded image first, from any layout.
bool WantsPlanar(const Node& node) {
  return node.domain == "pared" && node.op_type == "Conv" && node.Int("pointwise", 0) != 0;
}

}  // namespace

FuseGraph::FuseGraph(Model model, const ExecutorOptions& options)
    : model_(std::move(model)), options_(options), index_(model_.graph), names_(model_) {}

const Tensor* FuseGraph::constant(const std::string& value) const {
  return ConstantOf(model_.graph, index_, value, model_.ir_version);
}

const Tensor* FuseGraph::ConstantBehind(const std::string& value) const {
  if (const Tensor* found = constant(value)) return found;
  const std::optional<Quantized> quantized = DequantizedFrom(value);
  return quantized ? constant(quantized->name) : nullptr;
}

bool FuseGraph::IsInner(const std::string& value) const {
  return index_.consumers(value).size() == 1 && !index_.is_output(value);
}

const ValueType* FuseGraph::TypeOf(const std::string& value) {
  if (!types_) types_ = ShapesIfConsistent(model_);
  const auto it = types_->find(value);
  return it == types_->end() || !it->second.shape ? nullptr : &it->second;
}

std::optional<Shape> FuseGraph::ShapeOf(const std::string& value) {
  const ValueType* type = TypeOf(value);
  if (type == nullptr) return {};
  Shape shape;
  for (const Dim& dim : *type->shape) {
    if (dim.value < 0) return {};
    shape.push_back(dim.value);
  }
  return shape;
}

int64_t FuseGraph::RankOf(const std::string& value) {
  const ValueType* type = TypeOf(value);
  return type == nullptr ? -1 : static_cast<int64_t>(type->shape->size());
}

// Scale and zero point of a QuantizeLinear or DequantizeLinear.
std::optional<Quantized> FuseGraph::Parameters(const Node& node, const std::string& value) const {
  if (node.inputs.size() < 2) return {};
  const std::optional<float> scale = ScalarFloat(constant(node.inputs[1]));
  if (!scale || !std::isfinite(*scale) || *scale <= 0) return {};
  Quantized result{.name = value, .scale = *scale};
  if (node.inputs.size() < 3 || node.inputs[2].empty()) {
    const int64_t dtype = node.Int("output_dtype", 0);
    const bool is_unsigned = dtype == 0 || dtype == static_cast<int64_t>(DType::kUInt8);
    if (node.op_type != "QuantizeLinear" || !is_unsigned) return {};
    return result;
  }
  const Tensor* zero_point = constant(node.inputs[2]);
  if (zero_point == nullptr || zero_point->count() != 1) return {};
  if (zero_point->dtype() == DType::kUInt8) {
    result.zero_point = zero_point->data<uint8_t>()[0];
    return result;
  }
  if (zero_point->dtype() != DType::kInt8) return {};
  result.is_signed = true;
  result.zero_point = zero_point->data<int8_t>()[0] + 128;
  return result;
}

std::optional<Quantized> FuseGraph::QuantizedBy(const Node& quantize) const {
  if (quantize.op_type != "QuantizeLinear" || !quantize.domain.empty()) return {};
  return Parameters(quantize, quantize.outputs[0]);
}

std::optional<Quantized> FuseGraph::DequantizedFrom(const std::string& value) const {
  const Node* node = producer(value);
  if (node == nullptr || node->op_type != "DequantizeLinear" || !node->domain.empty()) return {};
  return Parameters(*node, node->inputs[0]);
}

std::string FuseGraph::Twin(const Quantized& value) {
  const auto it = twin_of_.find(value.name);
  if (it != twin_of_.end()) return it->second;
  const std::string twin = names_.Make(value.name + "_u8");
  const Node* maker = producer(value.name);
  const bool from_float = maker != nullptr && QuantizedBy(*maker).has_value();
  Node node = from_float ? MakeInt8Node("QuantizeLinear", maker->name, {maker->inputs[0]})
                         : MakeInt8Node("FromOnnx", twin, {value.name});
  node.outputs = {twin};
  SetParameters(node, "y", value);
  added_.push_back(std::move(node));
  twin_of_.emplace(value.name, twin);
  return twin;
}

void FuseGraph::MakeTwin(const Quantized& value, Node node) {
  const std::string twin = names_.Make(value.name + "_u8");
  node.outputs = {twin};
  added_.push_back(std::move(node));
  twin_of_.emplace(value.name, twin);
  made_.insert(value.name);
}

std::string FuseGraph::Add(Node node) {
  const std::string output = names_.Make(node.inputs[0] + "_" + node.op_type);
  node.outputs = {output};
  added_.push_back(std::move(node));
  return output;
}

void FuseGraph::Alias(const Quantized& value, const Quantized& same) {
  twin_of_.emplace(value.name, Twin(same));
  made_.insert(value.name);
}

void FuseGraph::Replace(const Node& replaced, Node node) {
  replaced_.insert(&replaced);
  node.outputs = replaced.outputs;
  added_.push_back(std::move(node));
}

Model FuseGraph::Finish() {
  std::vector<Node> nodes;
  for (const Node& node : model_.graph.nodes) {
    if (replaced_.contains(&node)) continue;
    const std::string first = node.inputs.empty() ? "" : node.inputs[0];
    if (node.op_type == "QuantizeLinear" && made_.contains(node.outputs[0])) {
      Node back = MakeInt8Node("ToOnnx", node.name, {twin_of_.at(node.outputs[0])});
      back.outputs = node.outputs;
      SetInt(back, "is_signed", QuantizedBy(node)->is_signed ? 1 : 0);
      nodes.push_back(std::move(back));
    } else if (node.op_type == "DequantizeLinear" && twin_of_.contains(first) &&
               DequantizedFrom(node.outputs[0])) {
      Node back = MakeInt8Node("DequantizeLinear", node.name, {twin_of_.at(first)});
      back.outputs = node.outputs;
      SetParameters(back, "x", *DequantizedFrom(node.outputs[0]));
      nodes.push_back(std::move(back));
    } else {
      nodes.push_back(node);
    }
  }
  std::unordered_set<std::string> planar;
  for (const Node& node : added_) {
    if (WantsPlanar(node)) planar.insert(node.inputs.begin(), node.inputs.end());
  }
  for (Node& node : added_) {
    if (planar.contains(node.outputs[0])) SetInt(node, "planar", 1);
    nodes.push_back(std::move(node));
  }
  model_.graph.nodes = std::move(nodes);
  if (model_.Opset("pared") == 0) model_.opsets.emplace_back("pared", 1);
  SortNodes(model_.graph);
  EraseDead(model_.graph);
  JoinToProducts(model_.graph);
  return std::move(model_);
}

namespace {

void SetAttribute(Node& node, const std::string& name, int32_t type,
                  decltype(Attribute::value) value) {
  Attribute attribute;
  attribute.type = type;
  attribute.value = std::move(value);
  node.attributes.set(name, std::move(attribute));
}

}  // namespace

void SetInt(Node& node, const std::string& name, int64_t value) {
  SetAttribute(node, name, kIntType, value);
}

void SetFloat(Node& node, const std::string& name, float value) {
  SetAttribute(node, name, kFloatType, value);
}

void SetInts(Node& node, const std::string& name, std::vector<int64_t> value) {
  SetAttribute(node, name, kIntsType, std::move(value));
}

void SetString(Node& node, const std::string& name, std::string value) {
  SetAttribute(node, name, kStringType, std::move(value));
}

void SetTensor(Node& node, const std::string& name, Tensor value) {
  SetAttribute(node, name, kTensorType, std::move(value));
}

Node MakeInt8Node(const std::string& op_type, const std::string& name,
                  std::vector<std::string> inputs) {
  Node node;
  node.op_type = op_type;
  node.domain = "pared";
  node.name = name;
  node.inputs = std::move(inputs);
  return node;
}

void SetParameters(Node& node, const std::string& suffix, const Quantized& value) {
  SetFloat(node, "scale_" + suffix, value.scale);
  SetInt(node, "zero_point_" + suffix, value.zero_point);
  SetInt(node, "is_signed_" + suffix, value.is_signed ? 1 : 0);
}

void SetRange(Node& node, const CodeLimits& range) {
  SetInt(node, "low", range.low);
  SetInt(node, "high", range.high);
}

}  // namespace pared
