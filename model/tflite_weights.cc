#include "model/tflite_weights.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "model/permute.h"

namespace pared {
namespace {

// With its axes in the order, then in the shape.
int64_t FloatWeight(TfliteLowering& l, const std::string& value, const AxisOrder& order,
                    const Shape& shape) {
  if (const Tensor* constant = l.Constant(value)) {
    const Tensor moved = Permuted(*constant, order);
    if (moved.dtype() == DType::kFloat32) return l.AddConstant(value, moved.Reshaped(shape));
  }
  if (auto stored = l.StoredCodes(value); stored && stored->tensor.rank() != std::ssize(shape)) {
    l.Require(stored->tensor.count() == ElementCount(shape), "codes of another shape");
    // The axis of the scales is the first or the last one, which stays so.
    const bool is_last = PlaceOf(order, stored->axis) + 1 == std::ssize(order);
    stored->tensor = Permuted(stored->tensor, order).Reshaped(shape);
    stored->axis = is_last ? std::ssize(shape) - 1 : 0;
    const int64_t codes = l.AddCodes(value, *stored);
    return stored->scales.empty() ? l.EmitTyped("DEQUANTIZE", {codes}, shape, DType::kFloat32)
                                  : l.Dequantized(codes);
  }
  return l.Reshaped(l.Get(value, order), shape);
}

// The bias in units of the products, real = code * scale; empty: it does not fit 32 bits.
std::vector<int32_t> BiasCodes(const std::vector<float>& bias, const std::vector<float>& scales) {
  std::vector<int32_t> codes;
  for (size_t i = 0; i < bias.size(); ++i) {
    const double scale = scales[scales.size() == 1 ? 0 : i];
    const double code = std::nearbyint(static_cast<double>(bias[i]) / scale);
    if (!(std::abs(code) <= std::numeric_limits<int32_t>::max())) return {};
    codes.push_back(static_cast<int32_t>(code));
  }
  return codes;
}

}  // namespace

bool SuitsCodes(const std::optional<TfliteLowering::Stored>& stored, int64_t axis) {
  return stored && stored->tensor.dtype() == DType::kInt8 && !stored->scales.empty() &&
         (stored->scales.size() == 1 || stored->axis == axis) &&
         std::ranges::all_of(stored->zero_points, [](int64_t point) { return point == 0; });
}

std::optional<std::vector<float>> BiasFloats(const TfliteLowering& l, const std::string& value,
                                             int64_t count) {
  if (value.empty()) return std::vector<float>(static_cast<size_t>(count), 0.0f);
  std::vector<float> floats;
  if (const Tensor* constant = l.Constant(value)) {
    if (constant->dtype() != DType::kFloat32) return std::nullopt;
    floats.assign(constant->data<float>().begin(), constant->data<float>().end());
  } else if (const auto stored = l.StoredCodes(value); stored && !stored->scales.empty()) {
    const bool is_wide = stored->tensor.dtype() == DType::kInt32;
    for (int64_t i = 0; i < stored->tensor.count(); ++i) {
      const auto at = static_cast<size_t>(i);
      const size_t scale = stored->scales.size() == 1 ? 0 : at;
      const int64_t code =
          is_wide ? stored->tensor.data<int32_t>()[at] : stored->tensor.data<int8_t>()[at];
      floats.push_back(static_cast<float>(static_cast<double>(code - stored->zero_points[scale]) *
                                          static_cast<double>(stored->scales[scale])));
    }
  } else {
    return std::nullopt;
  }
  if (std::ssize(floats) == 1 && count > 1) floats.assign(static_cast<size_t>(count), floats[0]);
  if (std::ssize(floats) != count) return std::nullopt;
  return floats;
}

TfliteWeights MakeWeights(TfliteLowering& l, const std::string& weight, const std::string& bias,
                          int64_t outputs, const AxisOrder& order, const Shape& shape) {
  const Shape own = l.ShapeOf(weight);
  l.Require(std::ranges::count(own, -1) == 0 && ElementCount(own) == ElementCount(shape),
            "a weight of unknown shape");
  const int64_t count = own[static_cast<size_t>(outputs)] *
                        (l.node().op_type == "ConvTranspose" ? l.node().Int("group", 1) : 1);
  const std::optional<std::vector<float>> floats = BiasFloats(l, bias, count);
  std::optional<TfliteLowering::Stored> stored;
  std::vector<int32_t> codes;
  std::vector<float> scales;
  if (l.in_codes()) stored = l.StoredCodes(weight);
  if (floats && SuitsCodes(stored, outputs) && stored->tensor.shape() == own) {
    const float input = l.ScaleOf(*l.CodesOf(l.Input(0))).scale;
    for (const float scale : stored->scales) scales.push_back(input * scale);
    codes = BiasCodes(*floats, scales);
  }
  if (codes.empty()) {
    l.LeaveCodes();
    TfliteWeights made = {FloatWeight(l, weight, order, shape), -1};
    made.bias = floats ? l.AddConstant(l.result() + "/bias", Tensor::Make<float>({count}, *floats))
                       : l.Reshaped(l.Plain(bias), {count});
    return made;
  }
  stored->tensor = Permuted(stored->tensor, order).Reshaped(shape);
  stored->axis = std::ssize(shape) == 4 && order.back() == outputs ? 3 : 0;
  const std::vector<int64_t> zeros(scales.size(), 0);
  return {l.AddCodes(weight, *stored),
          l.AddCodes(l.result() + "/bias",
                     {Tensor::Make<int32_t>({count}, std::move(codes)), scales, zeros, 0})};
}

}  // namespace pared
