#include "evaluator/sample_tensor.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <optional>
#include <type_traits>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/error.h"
#include "evaluator/half_floats.h"
#include "evaluator/op_checks.h"

namespace pared {
namespace {

// Calls visit(elements) with the elements of a numeric tensor. False: no type that widens.
template <class Visit>
bool VisitNumbers(const Tensor& tensor, const Visit& visit) {
  switch (tensor.dtype()) {
    case DType::kFloat32:
      visit(tensor.data<float>());
      return true;
    case DType::kFloat64:
      visit(tensor.data<double>());
      return true;
    case DType::kFloat16:
      visit(tensor.data<Float16>());
      return true;
    case DType::kBFloat16:
      visit(tensor.data<BFloat16>());
      return true;
    case DType::kUInt8:
      visit(tensor.data<uint8_t>());
      return true;
    case DType::kInt8:
      visit(tensor.data<int8_t>());
      return true;
    case DType::kUInt16:
      visit(tensor.data<uint16_t>());
      return true;
    case DType::kInt16:
      visit(tensor.data<int16_t>());
      return true;
    case DType::kInt32:
      visit(tensor.data<int32_t>());
      return true;
    case DType::kInt64:
      visit(tensor.data<int64_t>());
      return true;
    default:
      return false;
  }
}

template <class T>
constexpr bool kIsHalf = std::is_same_v<T, Float16> || std::is_same_v<T, BFloat16>;

template <class To, class From>
To Number(From from) {
  if constexpr (kIsHalf<From>) {
    return Number<To>(ToFloat(from));
  } else if constexpr (std::is_same_v<To, Float16>) {
    return ToFloat16(static_cast<float>(from));
  } else if constexpr (std::is_same_v<To, BFloat16>) {
    return ToBFloat16(static_cast<float>(from));
  } else {
    return static_cast<To>(from);
  }
}

template <class To>
Tensor Converted(const Tensor& from) {
  std::vector<To> values;
  values.reserve(static_cast<size_t>(from.count()));
  const bool numeric = VisitNumbers(from, [&](auto elements) {
    for (const auto element : elements) values.push_back(Number<To>(element));
  });
  PARED_CHECK(numeric);
  return Tensor::Make<To>(from.shape(), std::move(values));
}

}  // namespace

bool IsFloat(DType dtype) { return dtype == DType::kFloat32 || dtype == DType::kFloat64; }

bool IsNumber(DType dtype) {
  return IsFloat(dtype) || (dtype >= DType::kUInt8 && dtype <= DType::kInt64);
}

Tensor ToInt64(const Tensor& array) {
  PARED_CHECK(!IsFloat(array.dtype()));
  return Converted<int64_t>(array);
}

Tensor Widened(Tensor tensor, DType dtype, const std::string& input) {
  const DType from = tensor.dtype();
  if (from == dtype || dtype == DType::kUndefined) return tensor;
  const bool is_number = IsNumber(from) || IsHalfFloat(from);
  if (is_number && dtype == DType::kFloat32) return Converted<float>(tensor);
  if (is_number && dtype == DType::kFloat16) return Converted<Float16>(tensor);
  if (is_number && dtype == DType::kBFloat16) return Converted<BFloat16>(tensor);
  if (IsNumber(from) && dtype == DType::kFloat64) return Converted<double>(tensor);
  const bool is_integer = IsNumber(from) && !IsFloat(from);
  if (is_integer && dtype == DType::kInt64) return Converted<int64_t>(tensor);
  if (is_integer && from != DType::kInt64 && dtype == DType::kInt32) {
    return Converted<int32_t>(tensor);
  }
  throw Error(
      ErrorCode::kInvalidArgument,
      std::string("the dataset has ") + DTypeName(from) + ", the model wants " + DTypeName(dtype),
      "input " + input);
}

Tensor Slice(const Tensor& array, int64_t sample) {
  Shape shape(array.shape().begin() + 1, array.shape().end());
  const size_t bytes = array.bytes().size() / static_cast<size_t>(array.shape()[0]);
  const auto owner = std::make_shared<const Tensor>(array);
  return Tensor::View(array.dtype(), std::move(shape),
                      array.bytes().subspan(static_cast<size_t>(sample) * bytes, bytes), owner);
}

Shape BatchShape(const Shape& sample, const ValueInfo& input) {
  Shape shape = sample;
  if (!input.shape || input.shape->size() == sample.size() + 1) shape.insert(shape.begin(), 1);
  if (!input.shape) return shape;
  const std::vector<Dim>& wanted = *input.shape;
  if (wanted.size() != shape.size()) {
    throw Error(ErrorCode::kInvalidArgument,
                "a sample has the shape " + ShapeText(sample) + ", the model wants rank " +
                    std::to_string(wanted.size()),
                "input " + input.name);
  }
  const bool is_added = shape.size() > sample.size();
  for (size_t axis = is_added && wanted[0].value > 0 ? 1 : 0; axis < shape.size(); ++axis) {
    if (wanted[axis].value >= 0 && wanted[axis].value != shape[axis]) {
      throw Error(ErrorCode::kInvalidArgument,
                  "axis " + std::to_string(axis) + ": the dataset has " +
                      std::to_string(shape[axis]) + ", the model wants " +
                      std::to_string(wanted[axis].value),
                  "input " + input.name);
    }
  }
  return shape;
}

Tensor Repeated(const Tensor& sample, const ValueInfo& input) {
  constexpr int64_t kBytesMax = int64_t{1} << 30;
  const int64_t wanted = !input.shape || input.shape->empty() ? -1 : input.shape->front().value;
  if (wanted <= 1 || sample.rank() == 0 || sample.shape()[0] != 1) return sample;
  const std::span<const std::byte> one = sample.bytes();
  if (wanted > kBytesMax / std::max<int64_t>(1, std::ssize(one))) {
    throw Error(ErrorCode::kInvalidArgument,
                "the model takes batches of " + std::to_string(wanted) +
                    ", more than a GiB of one sample; export it with a batch of 1, or a free one",
                "input " + input.name);
  }
  auto bytes = std::make_shared<std::vector<std::byte>>();
  bytes->reserve(one.size() * static_cast<size_t>(wanted));
  for (int64_t i = 0; i < wanted; ++i) bytes->insert(bytes->end(), one.begin(), one.end());
  Shape shape = sample.shape();
  shape[0] = wanted;
  return Tensor::View(sample.dtype(), std::move(shape), *bytes, bytes);
}

Tensor CutLastAxis(const Tensor& sample, int64_t length) {
  PARED_CHECK(sample.rank() >= 1);
  Shape shape = sample.shape();
  PARED_CHECK(length >= 0 && length <= shape.back());
  if (length == shape.back()) return sample;
  const auto rows = static_cast<size_t>(sample.count() / std::max<int64_t>(1, shape.back()));
  const size_t row_bytes = sample.bytes().size() / std::max<size_t>(1, rows);
  const size_t kept_bytes =
      row_bytes / static_cast<size_t>(shape.back()) * static_cast<size_t>(length);
  auto bytes = std::make_shared<std::vector<std::byte>>(rows * kept_bytes);
  for (size_t row = 0; row < rows && kept_bytes > 0; ++row) {
    std::memcpy(bytes->data() + row * kept_bytes, sample.bytes().data() + row * row_bytes,
                kept_bytes);
  }
  shape.back() = length;
  return Tensor::View(sample.dtype(), std::move(shape), *bytes, bytes);
}

Tensor ConstantFor(const ValueInfo& input, double value) {
  Shape shape;
  if (input.shape) {
    for (const Dim& dim : *input.shape) shape.push_back(std::max<int64_t>(dim.value, 1));
  }
  for (size_t axis = 0; input.shape && axis < shape.size(); ++axis) {
    if ((*input.shape)[axis].value == 0) shape[axis] = 0;
  }
  const auto count = static_cast<size_t>(ElementCount(shape));
  const auto whole = static_cast<int64_t>(value);
  const bool is_whole = static_cast<double>(whole) == value;
  std::optional<Tensor> filled;
  const auto fill = [&]<class T>(T element) {
    filled = Tensor::Make<T>(shape, std::vector<T>(count, element));
  };
  const auto number = static_cast<float>(value);
  if (input.dtype == DType::kFloat32) {
    fill(number);
  } else if (input.dtype == DType::kFloat64) {
    fill(value);
  } else if (input.dtype == DType::kFloat16) {
    fill(ToFloat16(number));
  } else if (input.dtype == DType::kBFloat16) {
    fill(ToBFloat16(number));
  } else if (input.dtype == DType::kBool) {
    if (value == 0 || value == 1) fill(value != 0);
  } else if (is_whole && (IsNumber(input.dtype) || input.dtype == DType::kUInt32 ||
                          input.dtype == DType::kUInt64)) {
    DispatchInteger(input.dtype, "input " + input.name, [&]<class T>() {
      if (std::in_range<T>(whole)) fill(static_cast<T>(whole));
    });
  }
  if (filled) return *filled;
  throw Error(ErrorCode::kInvalidArgument,
              "the number " + std::to_string(value) + " is no value of " + DTypeName(input.dtype),
              "input " + input.name);
}

}  // namespace pared
