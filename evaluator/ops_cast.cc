// Cast and CastLike between all types of numbers. Half floats and smaller go by way of float32.

#include <cmath>
#include <limits>

#include "evaluator/half_floats.h"
#include "evaluator/op_checks.h"
#include "evaluator/small_formats.h"

namespace pared {
namespace {

constexpr int64_t kGrain = 16384;  // elements a task

// ONNX leaves floats beyond an integer's range open; here they saturate, and NaN is 0.
template <class R, class T>
R Convert(T value) {
  if constexpr (std::is_same_v<R, bool>) {
    return value != T{0};
  } else if constexpr (std::is_floating_point_v<T> && std::is_integral_v<R>) {
    // The limits as T: the upper may round up to one that does not fit any more.
    constexpr T kLow = static_cast<T>(std::numeric_limits<R>::min());
    constexpr T kHigh = static_cast<T>(std::numeric_limits<R>::max());
    if (value >= kHigh) return std::numeric_limits<R>::max();
    if (value <= kLow) return std::numeric_limits<R>::min();
    return value == value ? static_cast<R>(value) : R{0};
  } else {
    return static_cast<R>(value);
  }
}

template <class F>
void DispatchNumberOrBool(DType dtype, const std::string& label, F&& f) {
  if (dtype == DType::kBool) {
    f.template operator()<bool>();
  } else {
    DispatchNumber(dtype, label, std::forward<F>(f));
  }
}

Tensor CastNumbers(const Tensor& in, DType to, Scratch& scratch, const std::string& label) {
  Tensor out;
  DispatchNumberOrBool(in.dtype(), label, [&]<class T>() {
    const T* x = in.data<T>().data();
    DispatchNumberOrBool(to, label, [&]<class R>() {
      R* y = scratch.Allocate<R>(out, in.shape()).data();
      scratch.ParallelFor(in.count(), kGrain, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) y[i] = Convert<R>(x[i]);
      });
    });
  });
  return out;
}

Tensor CastTo(const Tensor& in, DType to, SmallRounding rounding, Scratch& scratch,
              const std::string& label) {
  if (in.dtype() == to) return in;
  if (in.dtype() == DType::kString || to == DType::kString) RefuseDType(DType::kString, label);
  if (IsHalfFloat(in.dtype())) {
    return CastTo(WidenHalf(in, scratch), to, rounding, scratch, label);
  }
  if (IsSmallFormat(in.dtype())) {
    const Tensor wide = Tensor::Make<float>(in.shape(), DecodeSmall(in));
    return CastTo(wide, to, rounding, scratch, label);
  }
  if (IsHalfFloat(to)) {
    return NarrowToHalf(CastTo(in, DType::kFloat32, rounding, scratch, label), to, scratch);
  }
  if (IsSmallFormat(to)) {
    const Tensor wide = CastTo(in, DType::kFloat32, rounding, scratch, label);
    Tensor out;
    std::byte* bytes = scratch.AllocateBytes(out, to, in.shape(), Layout::kRowMajor);
    EncodeSmall(wide.data<float>(), to, rounding, bytes);
    return out;
  }
  return CastNumbers(in, to, scratch, label);
}

SmallRounding RoundingOf(const Node& node) {
  SmallRounding rounding;
  rounding.saturates = node.Int("saturate", 1) != 0;
  const std::string mode = node.String("round_mode", "up");
  using Scale = SmallRounding::Scale;
  rounding.scale = mode == "down" ? Scale::kDown : mode == "up" ? Scale::kUp : Scale::kNearest;
  return rounding;
}

Op PrepareCast(const Node& node, const OpContext&) {
  CheckInputCount(node, 1, 1);
  const int64_t to = node.Int("to", 0);
  const std::string label = NodeLabel(node);
  if (to <= 0 || to > static_cast<int64_t>(DType::kInt2)) {
    RefuseNode("attribute \"to\" is " + std::to_string(to) + ", which is no element type", label);
  }
  const DType dtype = static_cast<DType>(to);
  if (dtype == DType::kString) RefuseDType(dtype, label);
  return [dtype, label, rounding = RoundingOf(node)](std::span<const Tensor* const> inputs,
                                                     std::span<Tensor> outputs, Scratch& scratch) {
    outputs[0] = CastTo(*inputs[0], dtype, rounding, scratch, label);
  };
}

Op PrepareCastLike(const Node& node, const OpContext&) {
  CheckInputCount(node, 2, 2);
  return [label = NodeLabel(node), rounding = RoundingOf(node)](
             std::span<const Tensor* const> inputs, std::span<Tensor> outputs, Scratch& scratch) {
    outputs[0] = CastTo(*inputs[0], inputs[1]->dtype(), rounding, scratch, label);
  };
}

constexpr OpInfo kOps[] = {
    {"Cast", "", PrepareCast, HalfFloats::kNative},
    {"CastLike", "", PrepareCastLike, HalfFloats::kNative},
};

}  // namespace

std::span<const OpInfo> CastOps() { return kOps; }

}  // namespace pared
