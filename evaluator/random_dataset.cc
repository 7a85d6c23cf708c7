// Dataset::Random: values where no data is given.

#include <random>
#include <utility>

#include "base/check.h"
#include "base/error.h"
#include "evaluator/dataset.h"
#include "evaluator/half_floats.h"

namespace pared {
namespace {

constexpr int64_t kUnknownImageSide = 224;

bool IsImageSide(const ValueInfo& input, size_t axis) {
  const bool is_float = input.dtype == DType::kFloat32 || input.dtype == DType::kFloat16;
  if (!is_float || input.shape->size() != 4) return false;
  // Channels first unless the last axis alone looks like colours.
  const int64_t last = (*input.shape)[3].value;
  const bool channels_last = last == 1 || last == 3 || last == 4;
  return channels_last ? axis == 1 || axis == 2 : axis >= 2;
}

// The shape of `samples` random samples of an input, its leading axis replaced by `samples` where
// it is a batch axis of 1, else put before it.
Shape RandomShape(const ValueInfo& input, int64_t samples) {
  Shape shape = {samples};
  if (!input.shape) return {samples, 1};
  for (size_t axis = 0; axis < input.shape->size(); ++axis) {
    const int64_t size = (*input.shape)[axis].value;
    shape.push_back(size >= 0 ? size : IsImageSide(input, axis) ? kUnknownImageSide : 1);
  }
  return shape;
}

Tensor RandomTensor(const ValueInfo& input, const Shape& shape, std::mt19937_64& random) {
  const size_t count = static_cast<size_t>(ElementCount(shape));
  const auto bits = [&]<class T>(T) {
    std::vector<T> values(count);
    for (T& value : values) value = static_cast<T>(random() & 1);
    return Tensor::Make<T>(shape, std::move(values));
  };
  const auto normal = [&]<class T>(T, const auto& as) {
    std::normal_distribution<float> distribution;
    std::vector<T> values(count);
    for (T& value : values) value = as(distribution(random));
    return Tensor::Make<T>(shape, std::move(values));
  };
  switch (input.dtype) {
    case DType::kFloat32:
      return normal(float{}, [](float value) { return value; });
    case DType::kFloat16:
      return normal(Float16{}, ToFloat16);
    case DType::kFloat64:
      return normal(double{}, [](float value) { return static_cast<double>(value); });
    case DType::kInt64:
      return bits(int64_t{});
    case DType::kInt32:
      return bits(int32_t{});
    case DType::kUInt8:
      return bits(uint8_t{});
    case DType::kInt8:
      return bits(int8_t{});
    case DType::kBool: {
      std::vector<bool> values(count);
      for (size_t i = 0; i < count; ++i) values[i] = (random() & 1) != 0;
      return Tensor::Make<bool>(shape, std::move(values));
    }
    default:
      throw Error(ErrorCode::kUnsupported,
                  std::string("no values of type ") + DTypeName(input.dtype) +
                      " can be made up; datasets hold numbers only",
                  "input " + input.name);
  }
}

}  // namespace

Dataset Dataset::Random(const std::vector<ValueInfo>& inputs, int64_t samples, int64_t seed) {
  PARED_CHECK(samples > 0);
  Dataset dataset;
  dataset.name_ = "random";
  dataset.sample_count_ = samples;
  std::mt19937_64 random(static_cast<uint64_t>(seed));
  for (const ValueInfo& input : inputs) {
    dataset.inputs_.emplace(input.name, RandomTensor(input, RandomShape(input, samples), random));
  }
  return dataset;
}

}  // namespace pared
