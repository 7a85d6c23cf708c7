#include "model/tflite_values.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <numeric>
#include <unordered_set>

#include "base/error.h"
#include "model/permute.h"

namespace pared {
namespace {

constexpr int64_t kIrVersion = 8;
constexpr int64_t kOpset = 17;
const std::vector<int64_t> kToChannels = {0, 3, 1, 2};
const std::vector<int64_t> kToPlain = {0, 2, 3, 1};

bool IsCode(DType dtype) { return dtype == DType::kUInt8 || dtype == DType::kInt8; }

// Within 32 bits, which no dimension is beyond: numbers that mean "to the end" still do.
template <class T>
std::vector<int64_t> Widened(const Tensor& tensor) {
  std::vector<int64_t> numbers;
  for (const int64_t value : tensor.data<T>()) {
    numbers.push_back(std::clamp<int64_t>(value, INT32_MIN, INT32_MAX));
  }
  return numbers;
}

// The zero points as codes of the type.
Tensor ZeroPoints(DType dtype, const Shape& shape, const std::vector<int64_t>& points) {
  const auto make = [&]<class T>(T) {
    return Tensor::Make<T>(shape, std::vector<T>(points.begin(), points.end()));
  };
  if (dtype == DType::kUInt8) return make(uint8_t{});
  if (dtype == DType::kInt32) return make(int32_t{});
  return make(int8_t{});
}

// What codes stand for that ONNX of opset 17 has no DequantizeLinear for; scales lie along `axis`.
Tensor WideConstant(const TfliteTensor& quantized, const Tensor& codes, size_t axis) {
  size_t inner = 1;
  for (size_t i = axis + 1; i < codes.shape().size(); ++i) {
    inner *= static_cast<size_t>(codes.shape()[i]);
  }
  const auto make = [&]<class T>(std::span<const T> values) {
    std::vector<float> floats;
    for (size_t i = 0; i < values.size(); ++i) {
      const size_t scale = i / inner % quantized.scales.size();
      const double code =
          static_cast<double>(values[i]) - static_cast<double>(quantized.zero_points[scale]);
      floats.push_back(quantized.scales[scale] * static_cast<float>(code));
    }
    return Tensor::Make<float>(codes.shape(), floats);
  };
  return codes.dtype() == DType::kInt16 ? make(codes.data<int16_t>()) : make(codes.data<int64_t>());
}

using Renames = std::unordered_map<std::string, std::string>;

void Rename(std::string& name, const Renames& renamed) {
  if (const auto found = renamed.find(name); found != renamed.end()) name = found->second;
}

// No two values have one name, whatever graph they are in.
void RenameReads(Graph& graph, const Renames& renamed) {
  for (Node& node : graph.nodes) {
    for (std::string& input : node.inputs) Rename(input, renamed);
    EditSubgraphs(node, [&](Graph& part) { RenameReads(part, renamed); });
  }
}

}  // namespace

int64_t ChannelsAxis(int64_t axis) {
  constexpr std::array<int64_t, 4> kAxes = {0, 2, 3, 1};
  return kAxes.at(static_cast<size_t>(axis));
}

NamedAttributes FloatAttribute(const std::string& name, float value) {
  return {{name, {1, value, "", ""}}};
}

NamedAttributes TextAttribute(const std::string& name, const std::string& value) {
  return {{name, {3, value, "", ""}}};
}

NamedAttributes GraphAttribute(const std::string& name, GraphPtr value) {
  return {{name, {5, std::move(value), "", {}}}};
}

NamedAttributes operator+(NamedAttributes attributes, const NamedAttributes& more) {
  attributes.insert(attributes.end(), more.begin(), more.end());
  return attributes;
}

NamedAttributes IntAttribute(const std::string& name, int64_t value) {
  return {{name, {2, value, "", ""}}};
}

NamedAttributes IntsAttribute(const std::string& name, std::vector<int64_t> values) {
  return {{name, {7, std::move(values), "", ""}}};
}

TfliteValues::TfliteValues(const TfliteFile& file) : file_(file) {
  model_.ir_version = kIrVersion;
  model_.opsets = {{"", kOpset}};
  model_.doc_string = file.description;
  model_.graph.name = "main";
  const auto find = [&](const TfliteGraph& graph) {
    for (const TfliteOp& op : graph.ops) {
      if (op.type != "SQUARED_DIFFERENCE" || op.inputs.size() != 2) continue;
      deviations_.insert(std::minmax(op.inputs[0], op.inputs[1]));
    }
  };
  find(file.main);
  for (const auto& [number, part] : file.parts) find(part);
  AddInputs();
}

void TfliteValues::AddInputs() {
  // Names of inputs and outputs are the file's; those of other values give way.
  const auto name_of = [&](int64_t t, const std::string& fallback) {
    return names_.Make(tensor(t).name.empty() ? fallback : tensor(t).name);
  };
  const bool has_batch = std::ranges::all_of(
      file_.main.inputs, [&](int64_t t) { return tensor(t).rank() > 0 && Dim(t, 0) < 0; });
  for (const int64_t t : file_.main.inputs) {
    const TfliteTensor& input = tensor(t);
    if (input.dtype == DType::kUndefined || input.dtype == DType::kComplex64 || IsConstant(t)) {
      Refuse("input " + BaseOf(t) + " is no plain tensor");
    }
    ValueInfo info{
        name_of(t, "input"), input.dtype, std::vector<pared::Dim>(input.shape.size()), "", "", ""};
    for (size_t i = 0; i < input.shape.size(); ++i) {
      pared::Dim& dim = (*info.shape)[i];
      dim.value = input.shape[i];
      if (dim.value < 0) {
        dim.param = i == 0 && has_batch ? "batch" : info.name + "_" + std::to_string(i);
      }
    }
    model_.graph.inputs.push_back(std::move(info));
  }
  for (const int64_t t : file_.main.outputs) {
    model_.graph.outputs.push_back(
        {name_of(t, "output"), tensor(t).dtype, std::nullopt, "", "", ""});
  }
  for (size_t i = 0; i < file_.main.inputs.size(); ++i) {
    const int64_t t = file_.main.inputs[i];
    const std::string& name = model_.graph.inputs[i].name;
    if (HasCodes(t)) {
      held_[t].plain_codes = name;
      held_[t].plain = Dequantize(t, name, -1);
    } else if (HasWideCodes(t)) {
      held_[t].plain = FromWideCodes(t, name);
    } else {
      held_[t].plain = name;
    }
  }
}

void TfliteValues::CheckRank(int64_t t, int64_t rank) const {
  Require(tensor(t).rank() == rank, BaseOf(t) + " is said to have " +
                                        std::to_string(tensor(t).rank()) +
                                        " axes, its operator makes " + std::to_string(rank));
}

bool TfliteValues::HasCodes(int64_t t) const {
  const TfliteTensor& value = tensor(t);
  Require(!value.is_quantized() || value.dtype != DType::kInt32,
          BaseOf(t) + " is quantized to " + DTypeName(value.dtype) +
              "; activations of int8, uint8 and int16 are supported");
  return value.is_quantized() && IsCode(value.dtype);
}

void TfliteValues::Begin(const TfliteOp& op) { op_ = &op; }

void TfliteValues::Refuse(const std::string& why) const {
  std::string where = file_.file->where();
  if (op_ != nullptr) {
    where = op_->type;
    if (!op_->outputs.empty()) where += " " + BaseOf(op_->outputs[0]);
  }
  throw Error(ErrorCode::kUnsupported, why, where);
}

int64_t TfliteValues::Axis(int64_t axis, int64_t rank) const {
  Require(axis >= -rank && axis < rank,
          "axis " + std::to_string(axis) + " of a tensor of " + std::to_string(rank) + " axes");
  return axis < 0 ? axis + rank : axis;
}

int64_t TfliteValues::Source(int64_t t) const {
  for (auto found = sources_.find(t); found != sources_.end(); found = sources_.find(t)) {
    t = found->second;
  }
  return t;
}

const TfliteValues::Held* TfliteValues::Find(int64_t t) const {
  const auto found = held_.find(Source(t));
  return found == held_.end() ? nullptr : &found->second;
}

std::vector<int64_t> TfliteValues::Integers(int64_t t, const std::string& name) const {
  Require(t >= 0 && IsConstant(t), name + " must be a constant");
  const Tensor& values = tensor(Source(t)).constant;
  if (values.dtype() == DType::kInt32) return Widened<int32_t>(values);
  if (values.dtype() == DType::kInt64) return Widened<int64_t>(values);
  Refuse(name + " must be integers of 32 or 64 bits");
}

std::string TfliteValues::BaseOf(int64_t t) const {
  // Converters join the names of what they fused by semicolons.
  const std::string& name = tensor(t).name;
  const std::string first = name.substr(0, name.find(';'));
  return first.empty() ? "t" + std::to_string(t) : first;
}

std::string TfliteValues::AddInitializer(const std::string& name, Tensor tensor) {
  const std::string fresh = names_.Make(name);
  model_.graph.initializers.set(fresh, {std::move(tensor), ""});
  return fresh;
}

std::string TfliteValues::AddInt64(const std::vector<int64_t>& values) {
  return AddInitializer(BaseOf(op_->outputs[0]) + "_numbers",
                        Tensor::Make<int64_t>({std::ssize(values)}, values));
}

std::string TfliteValues::Emit(const std::string& op_type, std::vector<std::string> inputs,
                               const std::string& base, const NamedAttributes& attributes) {
  return EmitSeveral(op_type, std::move(inputs), {base}, attributes).front();
}

std::vector<std::string> TfliteValues::EmitSeveral(const std::string& op_type,
                                                   std::vector<std::string> inputs,
                                                   const std::vector<std::string>& bases,
                                                   const NamedAttributes& attributes) {
  while (!inputs.empty() && inputs.back().empty()) inputs.pop_back();
  Node node;
  node.op_type = op_type;
  node.inputs = std::move(inputs);
  for (const std::string& base : bases) node.outputs.push_back(names_.Make(base));
  node.name = names_.Make(node.outputs[0] + "/" + op_type);
  for (const auto& [name, attribute] : attributes) node.attributes.set(name, attribute);
  model_.graph.nodes.push_back(std::move(node));
  return model_.graph.nodes.back().outputs;
}

std::string TfliteValues::Cast(const std::string& value, DType to) {
  return Emit("Cast", {value}, value + "_cast", IntAttribute("to", static_cast<int64_t>(to)));
}

std::string TfliteValues::Get(int64_t t, Form form) {
  if (t < 0) return "";
  t = Source(t);
  if (std::string held = held_[t].In(form); !held.empty()) return held;
  const bool is_plain = form == Form::kPlain;
  std::vector<int64_t> order = kToChannels;
  if (is_plain) {
    order.resize(static_cast<size_t>(tensor(t).rank()));
    std::iota(order.begin(), order.end(), 0);
  }
  Require(is_plain || IsConstant(t) || tensor(t).rank() == 4,
          "a tensor of 4 axes is needed, " + BaseOf(t) + " has others");
  const std::string made = Reordered(t, order, is_plain ? "_nhwc" : "_nchw");
  held_[t].In(form) = made;
  return made;
}

std::string TfliteValues::Permuted(int64_t t, const std::vector<int64_t>& order) {
  t = Source(t);
  Require(tensor(t).rank() == std::ssize(order),
          BaseOf(t) + " must have " + std::to_string(order.size()) + " axes");
  std::string& made = permuted_[{t, order}];
  if (made.empty()) made = Reordered(t, order, "_transposed");
  return made;
}

std::string TfliteValues::Reordered(int64_t t, const std::vector<int64_t>& order,
                                    const char* suffix) {
  if (IsConstant(t)) return AddConstant(t, order);
  const auto [origin, joined] = OriginOf(t, order);
  if (std::ranges::is_sorted(joined)) return origin;
  return Emit("Transpose", {origin}, BaseOf(t) + suffix, IntsAttribute("perm", joined));
}

// The constant with axes of length 1 before it up to those of the order, then in it. Halves stay
// halves.
std::string TfliteValues::AddConstant(int64_t t, const std::vector<int64_t>& order) {
  const TfliteTensor& source = tensor(t);
  Tensor constant = source.constant;
  const int64_t added = std::ssize(order) - constant.rank();
  Require(added >= 0, BaseOf(t) + " has more than " + std::to_string(order.size()) + " axes");
  Shape shape(static_cast<size_t>(added), 1);
  shape.insert(shape.end(), constant.shape().begin(), constant.shape().end());
  constant = constant.Reshaped(std::move(shape));
  constant = pared::Permuted(constant, order);
  const DType dtype = constant.dtype();
  const auto at = std::ranges::find(order, source.axis + added) - order.begin();
  if (source.is_quantized() && (dtype == DType::kInt16 || dtype == DType::kInt64)) {
    return AddInitializer(BaseOf(t), WideConstant(source, constant, static_cast<size_t>(at)));
  }
  const std::string name = AddInitializer(BaseOf(t), std::move(constant));
  if (dtype == DType::kFloat16 || dtype == DType::kBFloat16) return Cast(name, DType::kFloat32);
  if (!source.is_quantized()) return name;
  return Dequantize(t, name, at);
}

std::pair<std::string, std::string> TfliteValues::AddScale(int64_t t) {
  if (const auto found = scales_.find(t); found != scales_.end()) return found->second;
  const TfliteTensor& quantized = tensor(t);
  Require(IsCode(quantized.dtype) || quantized.dtype == DType::kInt32,
          BaseOf(t) + " is quantized to " + DTypeName(quantized.dtype) +
              "; ONNX of opset 17 has scales for int8, uint8 and int32");
  const Shape shape = quantized.scales.size() == 1 ? Shape{} : Shape{std::ssize(quantized.scales)};
  const std::pair<std::string, std::string> names = {
      AddInitializer(BaseOf(t) + "_scale", Tensor::Make<float>(shape, quantized.scales)),
      AddInitializer(BaseOf(t) + "_zero_point",
                     ZeroPoints(quantized.dtype, shape, quantized.zero_points))};
  scales_[t] = names;
  return names;
}

// `axis`: of the scales, where there are several.
std::string TfliteValues::Dequantize(int64_t t, const std::string& codes, int64_t axis) {
  const auto [scale, zero_point] = AddScale(t);
  return Emit("DequantizeLinear", {codes, scale, zero_point}, codes + "_dequantized",
              tensor(t).scales.size() > 1 ? IntAttribute("axis", axis) : NamedAttributes{});
}

std::string TfliteValues::AddWideScale(int64_t t) {
  Require(tensor(t).scales.size() == 1 && tensor(t).zero_points[0] == 0,
          BaseOf(t) + " has codes of 16 bits with several scales or a zero point");
  return AddInitializer(BaseOf(t) + "_scale", Tensor::Scalar<float>(tensor(t).scales[0]));
}

std::string TfliteValues::FromWideCodes(int64_t t, const std::string& codes) {
  const std::string scale = AddWideScale(t);
  return Emit("Mul", {Cast(codes, DType::kFloat32), scale}, codes + "_dequantized");
}

std::string TfliteValues::ToWideCodes(int64_t t, const std::string& value) {
  const auto number = [&](const char* name, float of) {
    return AddInitializer(BaseOf(t) + name, Tensor::Scalar<float>(of));
  };
  const std::string scaled = Emit("Div", {value, AddWideScale(t)}, value + "_scaled");
  const std::string codes = Emit("Round", {scaled}, value + "_rounded");
  return Cast(Emit("Clip", {codes, number("_least", INT16_MIN), number("_most", INT16_MAX)},
                   value + "_clipped"),
              DType::kInt16);
}

std::string TfliteValues::Int64(int64_t t) {
  if (IsConstant(t)) {
    const std::vector<int64_t> values = Integers(t, BaseOf(t));
    return AddInitializer(BaseOf(t) + "_int64",
                          Tensor::Make<int64_t>(tensor(Source(t)).constant.shape(), values));
  }
  return tensor(t).dtype == DType::kInt64 ? Plain(t) : Cast(Plain(t), DType::kInt64);
}

Form TfliteValues::CommonForm(const std::vector<int64_t>& inputs, int64_t output) const {
  if (tensor(output).rank() != 4) return Form::kPlain;
  bool is_held = false;
  for (const int64_t t : inputs) {
    if (t < 0 || IsConstant(t)) continue;
    const Held* held = Find(t);
    if (tensor(t).rank() != 4 || held == nullptr) return Form::kPlain;
    is_held = is_held || held->plain.empty();
  }
  return is_held ? Form::kChannels : Form::kPlain;
}

std::string TfliteValues::InPlainOrder(int64_t t) {
  const Held* held = Find(t);
  if (held == nullptr || !held->plain.empty() || held->channels.empty()) return Plain(t);
  const bool is_same = Dim(t, 3) == 1 || (Dim(t, 1) == 1 && Dim(t, 2) == 1);
  return Get(t, is_same ? Form::kChannels : Form::kPlain);
}

std::string TfliteValues::Aligned(int64_t t, Form form) {
  const int64_t source = t < 0 ? t : Source(t);
  if (t < 0 || form == Form::kPlain || !IsConstant(t)) return Get(t, form);
  if (tensor(source).rank() == 4 || tensor(source).constant.count() == 1) {
    return Get(t, tensor(source).rank() == 4 ? form : Form::kPlain);
  }
  std::string& made = permuted_[{source, {4}}];  // a key that is no order
  if (made.empty()) made = AddConstant(source, kToChannels);
  return made;
}

std::pair<std::string, std::vector<int64_t>> TfliteValues::OriginOf(int64_t t,
                                                                    std::vector<int64_t> order) {
  const Held* held = Find(t);
  if (held != nullptr && !held->origin.empty()) {
    for (int64_t& axis : order) axis = held->order[static_cast<size_t>(axis)];
    return {held->origin, std::move(order)};
  }
  if (held != nullptr && !held->plain.empty()) return {held->plain, std::move(order)};
  if (held != nullptr && !held->channels.empty()) {
    for (int64_t& axis : order) axis = ChannelsAxis(axis);
    return {held->channels, std::move(order)};
  }
  if (IsConstant(t)) return {Plain(t), std::move(order)};
  Refuse(BaseOf(t) + (tensor(t).is_variable ? " is a state; models with states are not supported"
                                            : " is read before anything makes it"));
}

void TfliteValues::DefineTransposed(int64_t t, int64_t source, const std::vector<int64_t>& order) {
  CheckRank(t, std::ssize(order));
  auto [origin, joined] = OriginOf(source, order);
  if (HasCodes(t)) {  // they are a node of their own
    return Define(t, Form::kPlain,
                  Emit("Transpose", {origin}, BaseOf(t), IntsAttribute("perm", joined)));
  }
  held_[t].origin = std::move(origin);
  held_[t].order = std::move(joined);
}

void TfliteValues::DefineAs(int64_t t, int64_t source) {
  Require(Source(source) != t, BaseOf(t) + " is made of itself");
  CheckRank(t, tensor(Source(source)).rank());
  sources_[t] = source;
}

void TfliteValues::Define(int64_t t, Form form, const std::string& value) {
  if (form == Form::kChannels) CheckRank(t, 4);
  Held& held = held_[t];
  if (!HasCodes(t)) {
    held.In(form) = value;
    return;
  }
  Require(tensor(t).scales.size() == 1, BaseOf(t) + " is computed and has several scales");
  const auto [scale, zero_point] = AddScale(t);
  held.CodesIn(form) = Emit("QuantizeLinear", {value, scale, zero_point}, BaseOf(t));
  held.In(form) = Dequantize(t, held.CodesIn(form), 0);
}

// A constant is what is stored, a quantized value its codes; of what is another tensor those of it.
std::string TfliteValues::OutputOf(int64_t t) {
  const int64_t source = Source(t);
  const Tensor& constant = tensor(source).constant;
  if (constant.defined() && (source == t || constant.dtype() == tensor(t).dtype)) {
    return AddInitializer(BaseOf(t), constant);
  }
  const std::string value = Plain(t);
  if (HasWideCodes(t)) return ToWideCodes(t, value);
  if (!HasCodes(t)) return value;
  Held& held = held_[source];
  if (held.plain_codes.empty()) {
    held.plain_codes =
        Emit("Transpose", {held.channels_codes}, BaseOf(t), IntsAttribute("perm", kToPlain));
  }
  return held.plain_codes;
}

Model TfliteValues::Finish() {
  op_ = nullptr;
  std::vector<std::string> values;
  for (const int64_t t : file_.main.outputs) values.push_back(OutputOf(t));
  Graph& graph = model_.graph;
  std::unordered_set<std::string> made;
  for (const Node& node : graph.nodes) made.insert(node.outputs.begin(), node.outputs.end());
  // What a node makes takes the output's name; the rest is handed on.
  Renames renamed;
  std::vector<std::pair<std::string, std::string>> handed_on;
  for (size_t i = 0; i < values.size(); ++i) {
    const std::string& name = graph.outputs[i].name;
    const bool is_first = made.contains(values[i]) && renamed.emplace(values[i], name).second;
    if (!is_first) handed_on.emplace_back(values[i], name);
  }
  RenameReads(graph, renamed);
  for (Node& node : graph.nodes) {
    for (std::string& output : node.outputs) Rename(output, renamed);
  }
  for (auto& [value, name] : handed_on) {
    Rename(value, renamed);
    graph.nodes.push_back(MakeNode("Identity", {value}, name, names_));
  }
  EraseDead(graph);
  return std::move(model_);
}

}  // namespace pared
