// Codes of 8 bits and their scales.

#include <algorithm>
#include <cmath>

#include "model/domain.h"
#include "model/permute.h"
#include "model/tflite_lowering.h"

namespace pared {
namespace {

constexpr int64_t kByteShift = 128;  // from uint8 to int8

std::vector<int64_t> ZeroPoints(const Tensor& tensor) {
  std::vector<int64_t> points;
  if (tensor.dtype() == DType::kUInt8) {
    for (const uint8_t code : tensor.data<uint8_t>()) points.push_back(code - kByteShift);
  } else if (tensor.dtype() == DType::kInt8) {
    for (const int8_t code : tensor.data<int8_t>()) points.push_back(code);
  } else if (tensor.dtype() == DType::kInt32) {
    for (const int32_t code : tensor.data<int32_t>()) points.push_back(code);
  }
  return points;
}

int8_t Nibble(std::span<const std::byte> bytes, size_t i) {
  const auto pair = static_cast<uint8_t>(bytes[i / 2]);
  return static_cast<int8_t>(i % 2 == 0 ? pair & 15 : pair >> 4);
}

// Codes of 8 and 4 bits as int8: zero points move along. Undefined: other types.
Tensor AsInt8(const Tensor& codes) {
  if (codes.dtype() == DType::kInt8 || codes.dtype() == DType::kInt32) return codes;
  std::vector<int8_t> moved;
  moved.reserve(static_cast<size_t>(codes.count()));
  if (codes.dtype() == DType::kUInt8) {
    for (const uint8_t code : codes.data<uint8_t>()) {
      moved.push_back(static_cast<int8_t>(code - kByteShift));
    }
  } else if (codes.dtype() == DType::kInt4) {
    for (size_t i = 0; i < static_cast<size_t>(codes.count()); ++i) {
      const int8_t nibble = Nibble(codes.bytes(), i);
      moved.push_back(static_cast<int8_t>(nibble < 8 ? nibble : nibble - 16));
    }
  } else {
    return {};
  }
  return Tensor::Make(codes.shape(), std::move(moved));
}

}  // namespace

// Of QuantizeLinear and DequantizeLinear: one scale, constant, and codes of 8 bits.
std::optional<CodeScale> TfliteLowering::ScaleOfNode(const Node& node) const {
  const bool is_quantizer = node.op_type == "QuantizeLinear";
  const DType dtype = TypeOf(is_quantizer ? node.outputs[0] : node.inputs[0]);
  const std::optional<float> scale = Number(node.inputs[1]);
  if (!scale || (dtype != DType::kUInt8 && dtype != DType::kInt8)) return std::nullopt;
  CodeScale found = {*scale, dtype == DType::kUInt8 ? -kByteShift : 0};
  if (node.inputs.size() > 2 && !node.inputs[2].empty()) {
    const Tensor* zero_point = Constant(node.inputs[2]);
    if (zero_point == nullptr || zero_point->count() != 1) return std::nullopt;
    found.zero_point = ZeroPoints(*zero_point).at(0);
  }
  return found;
}

void TfliteLowering::ReadScales() {
  for (const Node& node : model_.graph.nodes) {
    if (!IsDefaultDomain(node.domain)) continue;
    const bool is_dequantizer = node.op_type == "DequantizeLinear";
    if (!is_dequantizer && node.op_type != "QuantizeLinear") continue;
    node_ = &node;
    const std::string& codes = is_dequantizer ? node.inputs[0] : node.outputs[0];
    if (is_dequantizer && Constant(codes) != nullptr) continue;
    const std::optional<CodeScale> scale = ScaleOfNode(node);
    if (!scale) continue;
    const auto [found, is_new] = scales_.emplace(codes, *scale);
    Require(found->second == *scale, "the codes " + codes + " have different scales");
    if (is_dequantizer) dequantized_[node.outputs[0]] = codes;
  }
  node_ = nullptr;
}

std::optional<TfliteLowering::Stored> TfliteLowering::StoredCodes(const std::string& value) const {
  const Alias alias = Resolve(value, false);
  const Node* node = index_.producer(alias.source);
  if (node == nullptr || !IsDefaultDomain(node->domain)) return std::nullopt;
  if (node->op_type != "Cast" && node->op_type != "DequantizeLinear") return std::nullopt;
  const Tensor* tensor = Constant(node->inputs[0]);
  if (tensor == nullptr) return std::nullopt;
  if (node->op_type == "Cast" && tensor->dtype() == DType::kFloat16 &&
      TypeOf(alias.source) == DType::kFloat32 && tensor->rank() == std::ssize(alias.order)) {
    return Stored{Permuted(*tensor, alias.order), {}, {}, 0};
  }
  if (node->op_type == "Cast" || node->Int("block_size", 0) != 0) return std::nullopt;
  const bool has_points = node->inputs.size() > 2 && !node->inputs[2].empty();
  std::optional<Stored> stored =
      MakeStored(*tensor, node->inputs[1], has_points ? node->inputs[2] : "", node->Int("axis", 1));
  if (!stored || stored->tensor.rank() != std::ssize(alias.order)) return std::nullopt;
  stored->tensor = Permuted(stored->tensor, alias.order);
  if (stored->scales.size() > 1) stored->axis = PlaceOf(alias.order, stored->axis);
  return stored;
}

std::optional<TfliteLowering::Stored> TfliteLowering::MakeStored(const Tensor& tensor,
                                                                 const std::string& scale,
                                                                 const std::string& zero_point,
                                                                 int64_t axis) const {
  const Tensor* scales = Constant(scale);
  const Tensor codes = AsInt8(tensor);
  if (scales == nullptr || scales->dtype() != DType::kFloat32 || !codes.defined()) return {};
  Stored stored;
  stored.tensor = codes;
  stored.scales.assign(scales->data<float>().begin(), scales->data<float>().end());
  const bool is_along = scales->rank() == 1 && codes.rank() > 0 && scales->count() > 1;
  if (scales->rank() > 1 || (!is_along && scales->count() != 1)) return std::nullopt;
  if (is_along) {
    stored.axis = Axis(axis, codes.rank());
    if (scales->count() != codes.shape()[static_cast<size_t>(stored.axis)]) return std::nullopt;
  }
  const int64_t shift = tensor.dtype() == DType::kUInt8 ? -kByteShift : 0;
  stored.zero_points.assign(stored.scales.size(), shift);
  if (zero_point.empty()) return stored;
  const Tensor* points = Constant(zero_point);
  if (points == nullptr) return std::nullopt;
  const bool is_int4 = points->dtype() == DType::kInt4;
  const std::vector<int64_t> given = ZeroPoints(is_int4 ? AsInt8(*points) : *points);
  if (given.size() != 1 && given.size() != stored.scales.size()) return std::nullopt;
  for (size_t i = 0; i < stored.scales.size(); ++i) {
    stored.zero_points[i] = given[given.size() == 1 ? 0 : i];
  }
  return stored;
}

const std::string* TfliteLowering::CodesOf(const std::string& value) const {
  const auto found = dequantized_.find(Resolve(value, false).source);
  return found == dequantized_.end() ? nullptr : &found->second;
}

CodeScale TfliteLowering::ScaleOf(const std::string& codes) const { return scales_.at(codes); }

bool TfliteLowering::HasCodes(const std::string& value) const {
  if (CodesOf(value) != nullptr || Number(value)) return true;
  const std::optional<Stored> stored = StoredCodes(value);
  return stored && stored->scales.size() == 1 && stored->tensor.dtype() == DType::kInt8;
}

// What is computed has codes; constants may have some.
bool TfliteLowering::ReadsCodes() const {
  bool reads = false;
  for (const std::string& input : node_->inputs) {
    if (input.empty() || Constant(input) != nullptr || StoredCodes(input)) continue;
    const bool is_code = codes_ == Codes::kMoved && HoldsCodes(input);
    if (CodesOf(input) == nullptr && !is_code) return false;
    reads = true;
  }
  return reads;
}

int64_t TfliteLowering::Codes8(const std::string& value, const AxisOrder& order) {
  const int64_t rank = std::ssize(order);
  if (const std::optional<float> number = Number(value)) {
    // Its own scale says the number exactly.
    const float scale = *number == 0 ? 1 : std::abs(*number) / 127;
    const auto code = static_cast<int8_t>(*number == 0 ? 0 : *number > 0 ? 127 : -127);
    const Shape shape(Constant(value)->rank() == 0 ? 0 : static_cast<size_t>(rank), 1);
    return AddCodes(value, {Tensor::Make<int8_t>(shape, {code}), {scale}, {0}, 0});
  }
  if (CodesOf(value) != nullptr) return AlignedTo(value, order, true);
  Stored stored = *StoredCodes(value);
  Require(stored.tensor.rank() <= rank, value + " has more axes than the result");
  Shape shape = stored.tensor.shape();
  shape.insert(shape.begin(), static_cast<size_t>(rank) - shape.size(), 1);
  stored.tensor = Permuted(stored.tensor.Reshaped(shape), order);
  return AddCodes(value, stored);
}

int64_t TfliteLowering::AddCodes(const std::string& name, const Stored& stored) {
  TfliteTensor made;
  made.name = name;
  made.dtype = stored.tensor.dtype();
  made.shape = stored.tensor.shape();
  made.constant = stored.tensor;
  made.scales = stored.scales;
  made.zero_points = stored.zero_points;
  made.axis = stored.axis;
  return builder_.AddTensor(std::move(made));
}

int64_t TfliteLowering::Requantized(int64_t t, CodeScale scale) {
  const TfliteTensor& from = tensor(t);
  if (CodeScale{from.scales[0], from.zero_points[0]} == scale) return t;
  return EmitCodes("QUANTIZE", {t}, from.shape, scale);
}

int64_t TfliteLowering::Dequantized(int64_t t) {
  return EmitTyped("DEQUANTIZE", {t}, tensor(t).shape, DType::kFloat32);
}

void TfliteLowering::Quantize(const Node& node) {
  if (IsDone(node)) return;
  Begin(node, Codes::kNever, false);
  const std::string& x = node.inputs[0];
  const auto scale = scales_.find(result_);
  Require(scale != scales_.end(), "codes of other types than 8 bits, or with several scales");
  if (CodesOf(x) != nullptr) {
    const Alias codes = Resolve(x, true);
    if (ScaleOf(codes.source) == scale->second) {
      aliases_[result_] = codes;
      return;
    }
  }
  const std::vector<AxisOrder> orders = OrdersOf(x);
  const AxisOrder order = orders.empty() ? PlainOrder(RankOf(x)) : orders.front();
  const int64_t from = GetResolved(x, order, CodesOf(x) != nullptr);
  held_[result_][order] = EmitCodes("QUANTIZE", {from}, tensor(from).shape, scale->second);
}

void TfliteLowering::Dequantize(const Node& node) {
  Begin(node, Codes::kNever, false);
  Require(dequantized_.contains(result_) || StoredCodes(result_),
          "codes with several scales along an axis that is computed, of weights in blocks, or of "
          "other types than 8 bits");
}

}  // namespace pared
