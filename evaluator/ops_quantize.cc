// QuantizeLinear, DequantizeLinear and DynamicQuantizeLinear as ONNX defines them: per tensor, per
// axis and in blocks, for all integer types and float8.
//
//   quantize:    y = saturate(round_even(x / scale) + zero_point)
//   dequantize:  y = (x - zero_point) * scale

#include <algorithm>
#include <array>
#include <cmath>

#include "evaluator/op_checks.h"
#include "evaluator/quantize.h"
#include "evaluator/small_formats.h"
#include "kernels/elementwise.h"

namespace pared {

float RoundEven(float value) {
  // Adding 1.5 * 2^23 leaves no room for a fraction; the adder rounds to even.
  constexpr float kShift = 12582912.0F;
  return std::abs(value) < 4194304.0F ? (value + kShift) - kShift : std::nearbyint(value);
}

std::vector<float> ZeroPoints(const Tensor* zero_point, int64_t count, const std::string& label) {
  if (zero_point == nullptr) return std::vector<float>(Sz(count), 0.0F);
  std::vector<float> values;
  if (IsSmallFormat(zero_point->dtype())) {
    values = DecodeSmall(*zero_point);
  } else {
    DispatchInteger(zero_point->dtype(), label, [&]<class T>() {
      for (const T value : zero_point->data<T>()) values.push_back(static_cast<float>(value));
    });
  }
  if (static_cast<int64_t>(values.size()) != count) {
    RefuseNode("zero point and scale must have as many elements", label);
  }
  return values;
}

namespace {

constexpr int64_t kGrain = 16384;  // elements a task

// Which parameter belongs to which element: x is [outer][axis][inner], the parameters are
// [outer][axis / block][inner] in blocks, else one for each place of the axis, or one in all.
struct ParameterMap {
  int64_t outer = 1, axis = 1, inner = 1;
  int64_t block = 0;  // 0: not in blocks
  int64_t count = 1;  // of parameters
  bool per_tensor = true;

  // Row r is x[r * inner .. (r + 1) * inner). Its parameters begin at the result and advance by
  // parameter_step().
  int64_t RowParameter(int64_t row) const {
    if (per_tensor) return 0;
    if (block == 0) return row % axis;
    const int64_t blocks = (axis + block - 1) / block;
    return (row / axis * blocks + row % axis / block) * inner;
  }
  int64_t parameter_step() const { return block == 0 ? 0 : 1; }
};

ParameterMap MapParameters(const Tensor& x, const Tensor& scale, int64_t axis_given, int64_t block,
                           const std::string& label) {
  ParameterMap map;
  map.count = scale.count();
  if (scale.count() == 1 && block == 0) {
    map.inner = x.count();
    return map;
  }
  map.per_tensor = false;
  const int64_t axis = NormalizeAxis(axis_given, x.rank(), label);
  map.outer = Extent(x.shape(), 0, axis);
  map.axis = x.shape()[Sz(axis)];
  map.inner = Extent(x.shape(), axis + 1, x.rank());
  map.block = block;
  const int64_t places = block == 0 ? map.axis : (map.axis + block - 1) / block;
  const int64_t wanted = block == 0 ? places : map.outer * places * map.inner;
  if (block < 0 || scale.count() != wanted) {
    RefuseNode("needs " + std::to_string(wanted) + " scales for " + ShapeText(x.shape()) +
                   ", has " + std::to_string(scale.count()),
               label);
  }
  return map;
}

// Calls body(element, count, parameter) for runs of elements along a row.
template <class Body>
void ForEachRun(const ParameterMap& map, const Scratch& scratch, const Body& body) {
  if (map.per_tensor) {
    scratch.ParallelFor(map.inner, kGrain,
                        [&](int64_t begin, int64_t end) { body(begin, end - begin, 0); });
    return;
  }
  const int64_t grain = std::max<int64_t>(1, kGrain / std::max<int64_t>(1, map.inner));
  scratch.ParallelFor(map.outer * map.axis, grain, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      body(row * map.inner, map.inner, map.RowParameter(row));
    }
  });
}

std::vector<float> FloatsOf(const Tensor& x, const std::string& label) {
  std::vector<float> values;
  values.reserve(Sz(x.count()));
  if (IsSmallFormat(x.dtype())) return DecodeSmall(x);
  DispatchNumber(x.dtype(), label, [&]<class T>() {
    for (const T value : x.data<T>()) values.push_back(static_cast<float>(value));
  });
  return values;
}

template <class T>
void QuantizeTo(std::span<const float> x, std::span<const float> scales,
                std::span<const float> zero_points, const ParameterMap& map, T* y,
                const Scratch& scratch) {
  constexpr float kLow = static_cast<float>(std::numeric_limits<T>::min());
  constexpr float kHigh = static_cast<float>(std::numeric_limits<T>::max());
  const int64_t step = map.parameter_step();
  ForEachRun(map, scratch, [&](int64_t begin, int64_t count, int64_t parameter) {
    for (int64_t i = 0; i < count; ++i) {
      const size_t p = Sz(parameter + i * step);
      const float scaled = x[Sz(begin + i)] / scales[p];
      const float value = RoundEven(scaled) + zero_points[p];
      y[begin + i] = static_cast<T>(value > kLow ? (value < kHigh ? value : kHigh) : kLow);
    }
  });
}

// One scale, to bytes: what nearly all models have, by the vector kernel. An int8 code is the uint8
// code of a zero point 128 higher with its highest bit flipped; NaN becomes the least code in both.
void QuantizeToBytes(std::span<const float> x, QuantParams q, std::span<uint8_t> y, bool is_signed,
                     const std::pair<Isa, const Scratch*>& with) {
  if (is_signed) q.zero_point += 128;
  with.second->ParallelFor(std::ssize(x), kGrain, [&](int64_t begin, int64_t end) {
    const std::span<uint8_t> out = y.subspan(Sz(begin), Sz(end - begin));
    Quantize(x.subspan(Sz(begin), Sz(end - begin)), q, out.data(), with.first);
    if (!is_signed) return;
    for (uint8_t& code : out) code ^= 0x80U;
  });
}

// The same for types of less than a byte and for float8, which does not round to whole numbers.
void QuantizeSmall(std::span<const float> x, std::span<const float> scales,
                   std::span<const float> zero_points, const ParameterMap& map,
                   std::pair<DType, SmallRounding> format, std::byte* y) {
  const bool is_integer = IsSmallInteger(format.first);
  const IntegerRange range = RangeOf(format.first);
  const float low = static_cast<float>(range.low), high = static_cast<float>(range.high);
  std::vector<float> values(x.size());
  const int64_t step = map.parameter_step();
  for (int64_t row = 0; row < map.outer * map.axis; ++row) {
    for (int64_t i = 0; i < map.inner; ++i) {
      const size_t p = Sz(map.RowParameter(row) + i * step);
      const size_t at = Sz(row * map.inner + i);
      const float scaled = x[at] / scales[p];
      values[at] = is_integer ? std::clamp(RoundEven(scaled) + zero_points[p], low, high)
                              : scaled + zero_points[p];
    }
  }
  EncodeSmall(values, format.first, format.second, y);
}

Op PrepareQuantize(const Node& node, const OpContext& context) {
  CheckInputCount(node, 2, 3);
  SmallRounding rounding;
  rounding.saturates = node.Int("saturate", 1) != 0;
  const DType given = static_cast<DType>(node.Int("output_dtype", 0));
  return [rounding, given, isa = context.isa, axis = node.Int("axis", 1),
          block = node.Int("block_size", 0), label = NodeLabel(node)](
             std::span<const Tensor* const> inputs, std::span<Tensor> outputs, Scratch& scratch) {
    const Tensor& x = *inputs[0];
    const Tensor* zero_point = inputs.size() > 2 ? inputs[2] : nullptr;
    DType dtype = given == DType::kUndefined ? DType::kUInt8 : given;
    if (zero_point != nullptr) dtype = zero_point->dtype();
    const ParameterMap map = MapParameters(x, *inputs[1], axis, block, label);
    const std::vector<float> scales = FloatsOf(*inputs[1], label);
    const std::vector<float> zero_points = ZeroPoints(zero_point, map.count, label);
    std::vector<float> converted;
    if (x.dtype() != DType::kFloat32) converted = FloatsOf(x, label);
    const std::span<const float> floats = converted.empty() && x.dtype() == DType::kFloat32
                                              ? x.data<float>()
                                              : std::span<const float>(converted);
    if (IsSmallFormat(dtype)) {
      std::byte* y = scratch.AllocateBytes(outputs[0], dtype, x.shape(), Layout::kRowMajor);
      QuantizeSmall(floats, scales, zero_points, map, {dtype, rounding}, y);
      return;
    }
    if (ElementBits(dtype) > 16) RefuseDType(dtype, label);
    if (map.per_tensor && (dtype == DType::kUInt8 || dtype == DType::kInt8)) {
      auto* y = reinterpret_cast<uint8_t*>(
          scratch.AllocateBytes(outputs[0], dtype, x.shape(), Layout::kRowMajor));
      QuantizeToBytes(floats, {scales[0], static_cast<int32_t>(zero_points[0])}, {y, floats.size()},
                      dtype == DType::kInt8, {isa, &scratch});
      return;
    }
    DispatchInteger(dtype, label, [&]<class T>() {
      T* y = scratch.Allocate<T>(outputs[0], x.shape()).data();
      QuantizeTo<T>(floats, scales, zero_points, map, y, scratch);
    });
  };
}

template <class T>
void DequantizeFrom(const T* x, std::span<const float> scales, std::span<const float> zero_points,
                    const ParameterMap& map, float* y, const Scratch& scratch) {
  const int64_t step = map.parameter_step();
  ForEachRun(map, scratch, [&](int64_t begin, int64_t count, int64_t parameter) {
    if (step == 0) {
      const float scale = scales[Sz(parameter)], zero_point = zero_points[Sz(parameter)];
      for (int64_t i = begin; i < begin + count; ++i) {
        y[i] = (static_cast<float>(x[i]) - zero_point) * scale;
      }
      return;
    }
    for (int64_t i = 0; i < count; ++i) {
      const size_t p = Sz(parameter + i);
      y[begin + i] = (static_cast<float>(x[begin + i]) - zero_points[p]) * scales[p];
    }
  });
}

Op PrepareDequantize(const Node& node, const OpContext&) {
  CheckInputCount(node, 2, 3);
  return [axis = node.Int("axis", 1), block = node.Int("block_size", 0), label = NodeLabel(node)](
             std::span<const Tensor* const> inputs, std::span<Tensor> outputs, Scratch& scratch) {
    const Tensor& x = *inputs[0];
    const ParameterMap map = MapParameters(x, *inputs[1], axis, block, label);
    const std::vector<float> scales = FloatsOf(*inputs[1], label);
    const std::vector<float> zero_points =
        ZeroPoints(inputs.size() > 2 ? inputs[2] : nullptr, map.count, label);
    float* y = scratch.Allocate<float>(outputs[0], x.shape()).data();
    if (IsSmallFormat(x.dtype())) {
      const std::vector<float> decoded = DecodeSmall(x);
      DequantizeFrom(decoded.data(), scales, zero_points, map, y, scratch);
      return;
    }
    DispatchInteger(x.dtype(), label, [&]<class T>() {
      DequantizeFrom(x.data<T>().data(), scales, zero_points, map, y, scratch);
    });
  };
}

DynamicScale ChooseDynamicScale(std::span<const float> values) {
  // Sixteen ranges side by side: one alone waits for each comparison. All hold 0, none takes NaN.
  std::array<float, 16> lows{}, highs{};
  const size_t whole = values.size() / lows.size() * lows.size();
  for (size_t i = 0; i < whole; i += lows.size()) {
    for (size_t j = 0; j < lows.size(); ++j) {
      const float value = values[i + j];
      lows[j] = value < lows[j] ? value : lows[j];
      highs[j] = value > highs[j] ? value : highs[j];
    }
  }
  float low = *std::min_element(lows.begin(), lows.end());
  float high = *std::max_element(highs.begin(), highs.end());
  for (const float value : values.subspan(whole)) {
    low = value < low ? value : low;
    high = value > high ? value : high;
  }
  const float scale = low == high ? 1.0F : (high - low) / 255.0F;
  const float zero_point = RoundEven(std::clamp(0.0F - low / scale, 0.0F, 255.0F));
  return {scale, static_cast<uint8_t>(zero_point)};
}

Op PrepareDynamicQuantize(const Node& node, const OpContext& context) {
  CheckInputCount(node, 1, 1);
  return [isa = context.isa, label = NodeLabel(node)](std::span<const Tensor* const> inputs,
                                                      std::span<Tensor> outputs, Scratch& scratch) {
    if (inputs[0]->dtype() != DType::kFloat32) RefuseDType(inputs[0]->dtype(), label);
    const DynamicScale chosen = QuantizeDynamically(
        inputs[0]->data<float>(), scratch.Allocate<uint8_t>(outputs[0], inputs[0]->shape()), isa,
        scratch);
    if (outputs.size() > 1) outputs[1] = Tensor::Scalar<float>(chosen.scale);
    if (outputs.size() > 2) outputs[2] = Tensor::Scalar<uint8_t>(chosen.zero_point);
  };
}

constexpr OpInfo kOps[] = {
    {"DequantizeLinear", "", PrepareDequantize},
    {"DynamicQuantizeLinear", "", PrepareDynamicQuantize},
    {"QuantizeLinear", "", PrepareQuantize},
    {"DequantizeLinear", "com.microsoft", PrepareDequantize},
    {"QuantizeLinear", "com.microsoft", PrepareQuantize},
};

}  // namespace

DynamicScale QuantizeDynamically(std::span<const float> values, std::span<uint8_t> codes, Isa isa,
                                 const Scratch& scratch) {
  const DynamicScale chosen = ChooseDynamicScale(values);
  QuantizeToBytes(values, {chosen.scale, chosen.zero_point}, codes, false, {isa, &scratch});
  return chosen;
}

std::span<const OpInfo> QuantizeOps() { return kOps; }

}  // namespace pared
