// What float16 does to constants and to the values of a running model.

#include <cmath>

#include "base/error.h"
#include "evaluator/executor.h"
#include "evaluator/half_floats.h"
#include "passes/calibrate.h"
#include "passes/float_elements.h"
#include "passes/fp16_nodes.h"
#include "passes/shared_statistics.h"

namespace pared {
namespace {

constexpr double kHalfRounding = 1.0 / 2048;  // 2^-11

struct Squares {
  double error = 0, energy = 0;
};

// Of the finite elements: float16 has infinity and NaN too.
Squares AddLoss(const Tensor& tensor, HalfLoss& loss) {
  Squares squares;
  const FloatElements elements(tensor);
  for (const float value : elements.get()) {
    if (!std::isfinite(value)) continue;
    const float half = ToFloat(ToFloat16(value));
    loss.overflow += std::isinf(half) ? 1 : 0;
    loss.underflow += half == 0 && value != 0 ? 1 : 0;
    loss.subnormal += half != 0 && std::fabs(half) < 0x1p-14f ? 1 : 0;
    if (std::isinf(half)) continue;
    const double difference = static_cast<double>(half) - static_cast<double>(value);
    squares.error += difference * difference;
    squares.energy += static_cast<double>(value) * static_cast<double>(value);
  }
  return squares;
}

void RunSamples(const Executor& executor, const Observer& observer, PassContext& context) {
  const int64_t count = CalibrationCount(context);
  for (int64_t sample = 0; sample < count; ++sample) {
    if (context.cancelled()) throw Error(ErrorCode::kCancelled, "cancelled while calibrating");
    executor.Run(context.calibration->Sample(sample, executor.inputs()), &observer);
    context.progress(static_cast<double>(sample + 1) / static_cast<double>(count));
  }
}

bool IsFinite(const Tensor& tensor) {
  if (tensor.dtype() == DType::kFloat16) {
    for (const Float16 value : tensor.data<Float16>()) {
      if (!std::isfinite(ToFloat(value))) return false;
    }
  }
  if (tensor.dtype() == DType::kFloat32) {
    for (const float value : tensor.data<float>()) {
      if (!std::isfinite(value)) return false;
    }
  }
  return true;
}

}  // namespace

HalfLoss LossOf(const Tensor& tensor) {
  HalfLoss loss;
  const Squares squares = AddLoss(tensor, loss);
  tensor.DropPages();
  loss.relative_error = squares.energy == 0 ? 0 : std::sqrt(squares.error / squares.energy);
  return loss;
}

bool FitsHalf(const HalfLoss& loss) {
  return loss.overflow == 0 && loss.relative_error <= kHalfRounding;
}

static HalfRanges Measure(const Model& model, PassContext& context) {
  HalfRanges ranges;
  const Executor executor(model, {.threads = context.threads, .fuse = false, .seed = context.seed});
  const Observer observer = [&](const std::string& value, const Tensor& tensor) {
    if (tensor.dtype() != DType::kFloat32) return;
    HalfRange& range = ranges[value];
    for (const float element : tensor.data<float>()) {
      const double magnitude = std::fabs(static_cast<double>(element));
      if (std::isfinite(magnitude)) range.largest = std::max(range.largest, magnitude);
      range.is_finite = range.is_finite && std::isfinite(magnitude);
    }
    const Squares squares = AddLoss(tensor, range.loss);
    range.count += tensor.count();
    range.error += squares.error;
    range.energy += squares.energy;
  };
  RunSamples(executor, observer, context);
  return ranges;
}

HalfRanges MeasureRanges(const Model& model, PassContext& context) {
  if (context.calibration == nullptr) return {};
  return *Shared(
      {"ranges", model}, context, [&] { return Measure(model, context); },
      [](const HalfRanges& ranges) {
        return static_cast<int64_t>(ranges.size() * sizeof(HalfRanges::value_type));
      });
}

std::unordered_set<std::string> FindNotFinite(const Model& half, const HalfRanges& ranges,
                                              PassContext& context) {
  std::unordered_set<std::string> found;
  const Executor executor(half, {.threads = context.threads, .fuse = false, .seed = context.seed});
  const Observer observer = [&](const std::string& value, const Tensor& tensor) {
    const auto range = ranges.find(value);
    const bool is_finite = range != ranges.end() && range->second.is_finite;
    if (is_finite && !found.contains(value) && !IsFinite(tensor)) found.insert(value);
  };
  RunSamples(executor, observer, context);
  return found;
}

}  // namespace pared
