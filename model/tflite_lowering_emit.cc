// The operators and tensors that a lowering adds.

#include <algorithm>

#include "model/tflite_lowering.h"

namespace pared {
namespace {

// Rank of the largest tensors that TensorFlow Lite transposes.
constexpr int64_t kRankMax = 6;

}  // namespace

int32_t Narrow(int64_t number) {
  return static_cast<int32_t>(std::clamp<int64_t>(number, INT32_MIN, INT32_MAX));
}

int64_t TfliteLowering::Transposed(int64_t t, const AxisOrder& order) {
  if (order == PlainOrder(std::ssize(order))) return t;
  Require(std::ssize(order) <= kRankMax, "a value of more than 6 axes is transposed");
  const Shape shape = Permuted(tensor(t).shape, order);
  // Where only axes of length 1 move, the elements stay.
  AxisOrder moved = order;
  std::erase_if(moved,
                [&](int64_t axis) { return tensor(t).shape[static_cast<size_t>(axis)] == 1; });
  if (std::ranges::is_sorted(moved) && std::ranges::count(shape, -1) <= 1)
    return Reshaped(t, shape);
  return Emit("TRANSPOSE", {t, AddInts(order)}, shape, t);
}

int64_t TfliteLowering::Reshaped(int64_t t, const Shape& shape) {
  if (tensor(t).shape == shape && std::ranges::count(shape, -1) == 0) return t;
  Require(std::ranges::count(shape, -1) <= 1, "a shape with several open dimensions");
  return Emit("RESHAPE", {t, AddInts(shape)}, shape, t);
}

int64_t TfliteLowering::AddConstant(const std::string& name, Tensor tensor) {
  TfliteTensor made;
  made.name = name;
  made.dtype = tensor.dtype();
  made.shape = tensor.shape();
  made.constant = std::move(tensor);
  return builder_.AddTensor(std::move(made));
}

int64_t TfliteLowering::AddInts(const std::vector<int64_t>& values) {
  std::vector<int32_t> narrow;
  for (const int64_t value : values) {
    narrow.push_back(static_cast<int32_t>(std::clamp<int64_t>(value, INT32_MIN, INT32_MAX)));
  }
  return AddConstant(result_ + "/numbers",
                     Tensor::Make<int32_t>({std::ssize(values)}, std::move(narrow)));
}

int64_t TfliteLowering::AddInt(const std::string& what, int64_t value) {
  return AddConstant(result_ + "/" + what, Tensor::Scalar<int32_t>(Narrow(value)));
}

int64_t TfliteLowering::AddFloat(float value) {
  return AddConstant(result_ + "/number", Tensor::Scalar<float>(value));
}

int64_t TfliteLowering::AddMade(const std::string& type, Shape shape, DType dtype,
                                const std::optional<CodeScale>& scale) {
  TfliteTensor made;
  made.name = result_ + "/" + type;
  made.dtype = dtype;
  made.shape = std::move(shape);
  if (scale) {
    made.scales = {scale->scale};
    made.zero_points = {scale->zero_point};
  }
  Require(dtype != DType::kFloat64 && ElementBits(dtype) >= 8,
          std::string("values of ") + DTypeName(dtype));
  return builder_.AddTensor(std::move(made));
}

int64_t TfliteLowering::Emit(const std::string& type, std::vector<int64_t> inputs, Shape shape,
                             int64_t like, TfliteOptions options) {
  const int64_t output = AddLike(std::move(shape), like);
  builder_.Rename(output, result_ + "/" + type);
  builder_.AddOp(type, std::move(inputs), {output}, std::move(options));
  return output;
}

int64_t TfliteLowering::AddLike(Shape shape, int64_t like) {
  TfliteTensor made = tensor(like);
  made.constant = {};
  made.shape = std::move(shape);
  return builder_.AddTensor(std::move(made));
}

int64_t TfliteLowering::EmitTyped(const std::string& type, std::vector<int64_t> inputs, Shape shape,
                                  DType dtype, TfliteOptions options) {
  const int64_t output = AddMade(type, std::move(shape), dtype, std::nullopt);
  builder_.AddOp(type, std::move(inputs), {output}, std::move(options));
  return output;
}

int64_t TfliteLowering::EmitCodes(const std::string& type, std::vector<int64_t> inputs, Shape shape,
                                  CodeScale scale, TfliteOptions options) {
  const int64_t output = AddMade(type, std::move(shape), DType::kInt8, scale);
  builder_.AddOp(type, std::move(inputs), {output}, std::move(options));
  return output;
}

void TfliteLowering::EmitSeveral(const std::string& type, std::vector<int64_t> inputs,
                                 const std::vector<int64_t>& outputs, TfliteOptions options) {
  builder_.AddOp(type, std::move(inputs), outputs, std::move(options));
}

int64_t TfliteLowering::EmitResult(const std::string& type, std::vector<int64_t> inputs,
                                   const AxisOrder& order, TfliteOptions options) {
  const Shape shape = Permuted(ShapeOf(node_->outputs[0]), order);
  int64_t made = -1;
  if (!in_codes_) {
    made = EmitTyped(type, std::move(inputs), shape, TypeOf(node_->outputs[0]), std::move(options));
  } else if (codes_ == Codes::kComputed) {
    made = EmitCodes(type, std::move(inputs), shape, *result_scale_, std::move(options));
  } else {
    const int64_t like = inputs[0];
    made = Emit(type, std::move(inputs), shape, like, std::move(options));
  }
  builder_.Rename(made, result_);
  return made;
}

int64_t TfliteLowering::Float(const std::string& type, std::vector<int64_t> inputs,
                              TfliteOptions options) {
  const Shape shape = tensor(inputs[0]).shape;
  return EmitTyped(type, std::move(inputs), shape, DType::kFloat32, std::move(options));
}

int64_t TfliteLowering::ShapeTensor(int64_t t) {
  const TfliteOptions options = {TfliteOptionsKind::kShape,
                                 {{0, *TfliteTypeNumber(DType::kInt32)}}};
  return EmitTyped("SHAPE", {t}, {std::ssize(tensor(t).shape)}, DType::kInt32, options);
}

int64_t TfliteLowering::Cast(int64_t t, DType to) {
  const DType from = tensor(t).dtype;
  if (from == to) return t;
  return EmitTyped(
      "CAST", {t}, tensor(t).shape, to,
      {TfliteOptionsKind::kCast, {{0, *TfliteTypeNumber(from)}, {1, *TfliteTypeNumber(to)}}});
}

int64_t TfliteLowering::Part32(int64_t list, int64_t begin, int64_t count) {
  return EmitTyped("SLICE", {list, AddInts({begin}), AddInts({count})}, {count}, DType::kInt32);
}

int64_t TfliteLowering::Joined32(std::vector<int64_t> lists, int64_t count) {
  return EmitTyped("CONCATENATION", std::move(lists), {count}, DType::kInt32,
                   {TfliteOptionsKind::kConcatenation, {{0, int32_t{0}}}});
}

}  // namespace pared
