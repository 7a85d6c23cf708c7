#include "model/tflite_lowering.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>

#include "base/error.h"
#include "model/domain.h"
#include "model/permute.h"
#include "model/shape_values.h"

namespace pared {
namespace {

AxisOrder Inverse(const AxisOrder& order) {
  AxisOrder inverse(order.size());
  for (size_t i = 0; i < order.size(); ++i) {
    inverse[static_cast<size_t>(order[i])] = static_cast<int64_t>(i);
  }
  return inverse;
}

// first[second[i]]
AxisOrder Composed(const AxisOrder& first, const AxisOrder& second) {
  AxisOrder composed;
  for (const int64_t axis : second) composed.push_back(first[static_cast<size_t>(axis)]);
  return composed;
}

bool IsHalf(DType dtype) { return dtype == DType::kFloat16 || dtype == DType::kBFloat16; }

// Of a Constant node whose value is no tensor.
Tensor ConstantAttribute(const Node& node) {
  if (node.attributes.contains("value_float")) {
    return Tensor::Scalar<float>(node.Float("value_float", 0));
  }
  if (node.attributes.contains("value_int"))
    return Tensor::Scalar<int64_t>(node.Int("value_int", 0));
  if (node.attributes.contains("value_floats")) {
    const std::vector<float> values = node.Floats("value_floats");
    return Tensor::Make<float>({std::ssize(values)}, values);
  }
  if (node.attributes.contains("value_ints")) {
    const std::vector<int64_t> values = node.Ints("value_ints");
    return Tensor::Make<int64_t>({std::ssize(values)}, values);
  }
  return {};
}

}  // namespace

AxisOrder PlainOrder(int64_t rank) {
  AxisOrder order(static_cast<size_t>(rank));
  std::iota(order.begin(), order.end(), 0);
  return order;
}

AxisOrder ChannelsLast(int64_t rank) {
  AxisOrder order = PlainOrder(rank);
  if (rank > 2) std::rotate(order.begin() + 1, order.begin() + 2, order.end());
  return order;
}

int64_t PlaceOf(const AxisOrder& order, int64_t axis) {
  return std::ranges::find(order, axis) - order.begin();
}

Shape Permuted(const Shape& shape, const AxisOrder& order) { return Composed(shape, order); }

TfliteLowering::TfliteLowering(const Model& model)
    : model_(model),
      opset_(model.Opset("")),
      index_(model.graph),
      types_(InferShapes(model)),
      shape_values_(InferShapeValues(model)),
      names_(model) {
  for (const Node& node : model.graph.nodes) {
    if (node.op_type != "Constant" || !IsDefaultDomain(node.domain)) continue;
    Tensor constant = ConstantAttribute(node);
    if (constant.defined()) shape_values_[node.outputs[0]] = std::move(constant);
  }
  ReadScales();
  AddInputs();
}

void TfliteLowering::Refuse(const std::string& why) const {
  throw Error(ErrorCode::kUnsupported, why + "; a TensorFlow Lite file cannot say that",
              node_ == nullptr ? "" : NodeLabel(*node_));
}

const std::string& TfliteLowering::Input(size_t i) const {
  Require(HasInput(i), "input " + std::to_string(i) + " is left out");
  return node_->inputs[i];
}

void TfliteLowering::Begin(const Node& node, Codes codes, bool fuses) {
  node_ = &node;
  codes_ = codes;
  activation_ = 0;
  bias_.clear();
  result_ = node.outputs[0];
  result_scale_.reset();
  in_codes_ = false;
  if (fuses && node.op_type.ends_with("MatMul")) FindBias();
  if (fuses) FindActivation();
  if (codes == Codes::kNever || !ReadsCodes()) return;
  if (codes == Codes::kMoved) {
    in_codes_ = true;
    return;
  }
  const Node* reader = OnlyReader(result_);
  if (reader == nullptr || reader->op_type != "QuantizeLinear") return;
  const auto scale = scales_.find(reader->outputs[0]);
  if (scale == scales_.end()) return;
  in_codes_ = true;
  result_scale_ = scale->second;
  done_.insert(reader);
  result_ = reader->outputs[0];
}

void TfliteLowering::LeaveCodes() {
  if (!in_codes_) return;
  in_codes_ = false;
  result_scale_.reset();
  if (codes_ != Codes::kComputed) return;
  const Node* quantizer = index_.producer(result_);
  done_.erase(quantizer);
  result_ = quantizer->inputs[0];
}

void TfliteLowering::Absorb(const Node& reader) {
  // In codes the result is that of the QuantizeLinear behind.
  PARED_CHECK(!in_codes_);
  done_.insert(&reader);
  result_ = reader.outputs[0];
}

// An Add of constants, one for each column of a product.
void TfliteLowering::FindBias() {
  const Node* reader = AnyReader(result_);
  if (reader == nullptr || reader->op_type != "Add") return;
  const Node& add = *reader;
  if (TypeOf(result_) != DType::kFloat32) return;
  const std::string& other = add.inputs[0] == result_ ? add.inputs[1] : add.inputs[0];
  const Tensor* constant = Constant(other);
  const bool is_stored = constant == nullptr && StoredCodes(other);
  const int64_t columns = ShapeOf(node_->inputs[1]).back();
  if ((constant == nullptr && !is_stored)) return;
  const Shape shape = ShapeOf(other);
  if (shape.empty() || shape.back() != columns || ElementCount(shape) != columns) return;
  if (std::ssize(shape) > RankOf(result_)) return;
  bias_ = other;
  Absorb(add);
}

// Relu and Clip that an operator can be given: ActivationFunctionType.
void TfliteLowering::FindActivation() {
  const Node* reader = OnlyReader(result_);
  if (reader == nullptr || TypeOf(result_) != DType::kFloat32) return;
  if (reader->op_type == "Relu") {
    activation_ = 1;
  } else if (reader->op_type == "Clip") {
    const auto bound = [&](size_t input, const char* attribute, float fallback) {
      if (opset_ < 11) return std::optional(reader->Float(attribute, fallback));
      const bool is_given = reader->inputs.size() > input && !reader->inputs[input].empty();
      return is_given ? Number(reader->inputs[input]) : std::optional(fallback);
    };
    const std::optional<float> low = bound(1, "min", std::numeric_limits<float>::lowest());
    const std::optional<float> high = bound(2, "max", std::numeric_limits<float>::max());
    if (low == -1.0f && high == 1.0f) activation_ = 2;
    if (low == 0.0f && high == 6.0f) activation_ = 3;
  }
  if (activation_ != 0) Absorb(*reader);
}

const Node* TfliteLowering::AnyReader(const std::string& value) const {
  const std::vector<const Node*>& readers = index_.consumers(value);
  if (readers.size() != 1 || index_.is_output(value)) return nullptr;
  const Node* reader = readers.front();
  const bool is_once = std::ranges::count(reader->inputs, value) == 1;
  const bool is_known = IsDefaultDomain(reader->domain);
  return is_once && is_known && !done_.contains(reader) ? reader : nullptr;
}

const Node* TfliteLowering::OnlyReader(const std::string& value) const {
  const Node* reader = AnyReader(value);
  return reader != nullptr && reader->inputs[0] == value ? reader : nullptr;
}

DType TfliteLowering::TypeOf(const std::string& value) const {
  const auto type = types_.find(value);
  Require(type != types_.end() && type->second.dtype != DType::kUndefined,
          "the type of " + value + " is not known");
  return IsHalf(type->second.dtype) ? DType::kFloat32 : type->second.dtype;
}

Shape TfliteLowering::ShapeOf(const std::string& value) const {
  if (const Tensor* constant = Constant(value)) return constant->shape();
  const auto type = types_.find(value);
  Require(type != types_.end() && type->second.shape, "the rank of " + value + " is not known");
  Shape shape;
  for (const Dim& dim : *type->second.shape) shape.push_back(dim.value);
  return shape;
}

int64_t TfliteLowering::Axis(int64_t axis, int64_t rank) const {
  const int64_t from_front = axis < 0 ? axis + rank : axis;
  Require(from_front >= 0 && from_front < rank,
          "axis " + std::to_string(axis) + " of " + std::to_string(rank));
  return from_front;
}

const Tensor* TfliteLowering::Constant(const std::string& value) const {
  // Also one that a caller could override: a TensorFlow Lite file has no such inputs.
  if (const Initializer* found = model_.graph.initializers.find(value)) return &found->tensor;
  const Tensor* constant = ConstantOf(model_.graph, index_, value, model_.ir_version);
  if (constant != nullptr) return constant;
  const auto known = shape_values_.find(value);
  return known == shape_values_.end() || !known->second.defined() ? nullptr : &known->second;
}

std::vector<float> TfliteLowering::Floats(const std::string& value, const std::string& what) const {
  const Tensor* constant = Constant(value);
  std::optional<Stored> stored;
  if (constant == nullptr) stored = StoredCodes(value);
  if (stored && stored->scales.size() == 1 && stored->tensor.dtype() == DType::kInt8) {
    std::vector<float> floats;
    for (const int8_t code : stored->tensor.data<int8_t>()) {
      floats.push_back(static_cast<float>(code - stored->zero_points[0]) * stored->scales[0]);
    }
    return floats;
  }
  Require(constant != nullptr && constant->dtype() == DType::kFloat32,
          what + " must be a constant of float");
  const auto data = constant->data<float>();
  return {data.begin(), data.end()};
}

std::optional<float> TfliteLowering::Number(const std::string& value) const {
  const Tensor* constant = Constant(value);
  if (constant == nullptr || constant->count() != 1 || constant->dtype() != DType::kFloat32) {
    return std::nullopt;
  }
  return constant->data<float>()[0];
}

std::vector<int64_t> TfliteLowering::Integers(const std::string& value,
                                              const std::string& what) const {
  const Tensor* constant = Constant(value);
  Require(constant != nullptr, what + " are computed when the model runs");
  std::vector<int64_t> numbers;
  if (constant->dtype() == DType::kInt64) {
    for (const int64_t number : constant->data<int64_t>()) numbers.push_back(number);
  } else {
    Require(constant->dtype() == DType::kInt32, what + " must be integers");
    for (const int32_t number : constant->data<int32_t>()) numbers.push_back(number);
  }
  return numbers;
}

std::optional<std::vector<int64_t>> TfliteLowering::IntegersOf(const std::string& attribute,
                                                               size_t input) const {
  if (node_->attributes.contains(attribute)) return node_->Ints(attribute);
  if (!HasInput(input)) return std::nullopt;
  return Integers(node_->inputs[input], attribute);
}

TfliteLowering::Alias TfliteLowering::Resolve(const std::string& value, bool to_codes) const {
  Alias found = {value, PlainOrder(RankOf(value))};
  while (true) {
    if (const auto alias = aliases_.find(found.source); alias != aliases_.end()) {
      found = {alias->second.source, Composed(alias->second.order, found.order)};
      continue;
    }
    const auto codes = dequantized_.find(found.source);
    if (!to_codes || codes == dequantized_.end()) return found;
    found.source = codes->second;
  }
}

std::vector<AxisOrder> TfliteLowering::OrdersOf(const std::string& value) const {
  std::vector<AxisOrder> orders;
  for (const bool to_codes : {false, true}) {
    const Alias alias = Resolve(value, to_codes);
    const auto held = held_.find(alias.source);
    if (held == held_.end()) continue;
    const AxisOrder inverse = Inverse(alias.order);
    for (const auto& [order, t] : held->second) {
      const AxisOrder seen = Composed(inverse, order);
      if (std::ranges::find(orders, seen) == orders.end()) orders.push_back(seen);
    }
  }
  return orders;
}

AxisOrder TfliteLowering::CommonOrder(const std::vector<std::string>& inputs, int64_t rank) const {
  std::map<AxisOrder, int64_t> votes;
  for (const std::string& input : inputs) {
    if (input.empty() || Constant(input) != nullptr || RankOf(input) != rank) continue;
    for (const AxisOrder& order : OrdersOf(input)) ++votes[order];
  }
  // Of orders that as many hold, one that is not plain: convolutions are near.
  AxisOrder best = PlainOrder(rank);
  int64_t most = 0;
  for (const auto& [order, count] : votes) {
    if (count < most || (count == most && order == PlainOrder(rank))) continue;
    best = order;
    most = count;
  }
  return best;
}

int64_t TfliteLowering::Get(const std::string& value, const AxisOrder& order) {
  return GetResolved(value, order, in_codes_);
}

int64_t TfliteLowering::GetResolved(const std::string& value, const AxisOrder& order,
                                    bool to_codes) {
  const Alias alias = Resolve(value, to_codes);
  Require(alias.order.size() == order.size(),
          value + " has " + std::to_string(alias.order.size()) + " axes");
  return MakeHeld(alias.source, Composed(alias.order, order));
}

int64_t TfliteLowering::MakeHeld(const std::string& root, const AxisOrder& order) {
  std::map<AxisOrder, int64_t>& held = held_[root];
  if (const auto found = held.find(order); found != held.end()) return found->second;
  int64_t made = -1;
  if (!held.empty()) {
    const auto plain = held.find(PlainOrder(std::ssize(order)));
    const auto& [from, t] = plain == held.end() ? *held.begin() : *plain;
    AxisOrder steps;
    for (const int64_t axis : order) steps.push_back(PlaceOf(from, axis));
    made = Transposed(t, steps);
  } else if (const Tensor* constant = Constant(root)) {
    made = MakeConstant(root, Permuted(*constant, order));
  } else if (std::optional<Stored> stored = StoredCodes(root)) {
    stored->tensor = Permuted(stored->tensor, order);
    stored->axis = PlaceOf(order, stored->axis);
    made = AddStored(root, *stored);
  } else if (const auto codes = dequantized_.find(root); codes != dequantized_.end()) {
    made = Dequantized(GetResolved(codes->second, order, true));
  } else {
    Refuse("nothing makes " + root);
  }
  return held_[root][order] = made;
}

// A constant that an operator in codes reads is a single number: it has codes of its own.
int64_t TfliteLowering::MakeConstant(const std::string& name, const Tensor& tensor) {
  if (IsHalf(tensor.dtype())) return AddStored(name, {tensor, {}, {}, 0});
  return AddConstant(name, tensor);
}

int64_t TfliteLowering::AddStored(const std::string& name, const Stored& stored) {
  if (stored.scales.empty()) {
    Require(stored.tensor.dtype() == DType::kFloat16, "weights of bfloat16");
    return EmitTyped("DEQUANTIZE", {AddConstant(name, stored.tensor)}, stored.tensor.shape(),
                     DType::kFloat32);
  }
  const int64_t codes = AddCodes(name, stored);
  return Dequantized(codes);
}

int64_t TfliteLowering::Aligned(const std::string& value, const AxisOrder& order) {
  return AlignedTo(value, order, in_codes_);
}

int64_t TfliteLowering::AlignedTo(const std::string& value, const AxisOrder& order, bool to_codes) {
  const int64_t rank = std::ssize(order), own = RankOf(value);
  if (own == rank) return GetResolved(value, order, to_codes);
  Require(own < rank, value + " has more axes than the result");
  Shape shape = ShapeOf(value);
  shape.insert(shape.begin(), static_cast<size_t>(rank - own), 1);
  if (const Tensor* constant = Constant(value)) {
    return AddConstant(value, Permuted(constant->Reshaped(shape), order));
  }
  const int64_t plain = GetResolved(value, PlainOrder(own), to_codes);
  if (order == PlainOrder(rank)) return plain;
  return Transposed(Reshaped(plain, shape), order);
}

void TfliteLowering::Define(const AxisOrder& order, int64_t t) { DefineOutput(0, order, t); }

void TfliteLowering::DefineOutput(size_t output, const AxisOrder& order, int64_t t) {
  const std::string& value = output == 0 ? result_ : node_->outputs[output];
  const bool is_moved = in_codes_ && codes_ == Codes::kMoved;
  if (is_moved && !HoldsCodes(node_->inputs[0])) return DefineCodes(value, order, t);
  if (is_moved) scales_[value] = {tensor(t).scales[0], tensor(t).zero_points[0]};
  if (in_codes_ && !is_moved) t = Requantized(t, *result_scale_);
  held_[value][order] = t;
}

void TfliteLowering::DefineCodes(const std::string& value, const AxisOrder& order, int64_t t) {
  const std::string codes = names_.Make(value + "_codes");
  dequantized_[value] = codes;
  scales_[codes] = {tensor(t).scales[0], tensor(t).zero_points[0]};
  types_[codes] = types_[value];
  held_[codes][order] = t;
}

void TfliteLowering::DefineTransposed(const std::string& source, const AxisOrder& order) {
  AxisOrder sorted = order;
  std::ranges::sort(sorted);
  Require(sorted == PlainOrder(RankOf(source)), "an order of other axes than its input");
  aliases_[result_] = {source, order};
}

void TfliteLowering::AddInputs() {
  for (const ValueInfo& input : CallerInputs(model_.graph)) {
    result_ = input.name;
    TfliteTensor made;
    made.name = input.name;
    made.dtype = TypeOf(input.name);
    made.shape = ShapeOf(input.name);
    const auto scale = scales_.find(input.name);
    const bool is_uint8 = made.dtype == DType::kUInt8;
    if (scale != scales_.end()) {
      made.scales = {scale->second.scale};
      made.zero_points = {scale->second.zero_point + (is_uint8 ? 128 : 0)};
    }
    int64_t t = builder_.AddTensor(made);
    inputs_.push_back({input.name, t});
    if (scale != scales_.end() && is_uint8) {
      t = EmitCodes("QUANTIZE", {t}, made.shape, scale->second);
    }
    held_[input.name][PlainOrder(std::ssize(made.shape))] = t;
  }
}

// Every output is a tensor of its own, and no input.
int64_t TfliteLowering::OutputTensor(const ValueInfo& output, std::set<int64_t>& taken) {
  int64_t t = Plain(output.name);
  const Shape shape = ShapeOf(output.name);
  if (HoldsCodes(output.name) && TypeOf(output.name) == DType::kUInt8) {
    TfliteTensor made = tensor(t);
    made.dtype = DType::kUInt8;
    made.zero_points[0] += 128;
    const int64_t bytes = builder_.AddTensor(std::move(made));
    builder_.AddOp("QUANTIZE", {t}, {bytes});
    t = bytes;
  } else if (taken.contains(t) || tensor(t).constant.defined()) {
    const int8_t same = *TfliteTypeNumber(tensor(t).dtype);
    t = HoldsCodes(output.name)
            ? Emit("QUANTIZE", {t}, shape, t)
            : Emit("CAST", {t}, shape, t, {TfliteOptionsKind::kCast, {{0, same}, {1, same}}});
  }
  taken.insert(t);
  builder_.Rename(t, output.name);
  return t;
}

std::string TfliteLowering::Finish() {
  node_ = nullptr;
  in_codes_ = false;
  std::set<int64_t> taken;
  for (const TfliteBuilder::Entry& input : inputs_) taken.insert(input.tensor);
  std::vector<TfliteBuilder::Entry> outputs;
  for (const ValueInfo& output : model_.graph.outputs) {
    result_ = output.name;
    outputs.push_back({output.name, OutputTensor(output, taken)});
  }
  return builder_.Finish(inputs_, outputs, model_.doc_string, model_.metadata);
}

}  // namespace pared
