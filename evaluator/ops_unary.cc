// Functions of one element. Each is a functor that reads its attributes when it is made.

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

#include "evaluator/op_checks.h"
#include "kernels/f32.h"

namespace pared {
namespace {

constexpr int64_t kGrain = 8192;  // elements a task

template <class T, class R, class F>
void Map(const Tensor& in, Tensor& out, Scratch& scratch, const F& f) {
  const T* x = in.data<T>().data();
  R* y = scratch.Allocate<R>(out, in.shape()).data();
  scratch.ParallelFor(in.count(), kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) y[i] = static_cast<R>(f(x[i]));
  });
}

template <class F>
Op PrepareFloat(const Node& node, const OpContext&) {
  CheckInputCount(node, 1, 1);
  return [f = F(node), label = NodeLabel(node)](std::span<const Tensor* const> inputs,
                                                std::span<Tensor> outputs, Scratch& scratch) {
    DispatchFloat(inputs[0]->dtype(), label,
                  [&]<class T>() { Map<T, T>(*inputs[0], outputs[0], scratch, f); });
  };
}

template <class F>
Op PrepareNumber(const Node& node, const OpContext&) {
  CheckInputCount(node, 1, 1);
  return [f = F(node), label = NodeLabel(node)](std::span<const Tensor* const> inputs,
                                                std::span<Tensor> outputs, Scratch& scratch) {
    DispatchNumber(inputs[0]->dtype(), label,
                   [&]<class T>() { Map<T, T>(*inputs[0], outputs[0], scratch, f); });
  };
}

// The same with a vector kernel for float32, applied in place to pieces that stay in the L1 cache.
template <class F>
Op PrepareActivation(const Node& node, const OpContext& context) {
  CheckInputCount(node, 1, 1);
  const F32Kernels& kernels = F32KernelsFor(context.isa);
  return [f = F(node), &kernels, label = NodeLabel(node)](
             std::span<const Tensor* const> inputs, std::span<Tensor> outputs, Scratch& scratch) {
    if (inputs[0]->dtype() != DType::kFloat32) {
      DispatchFloat(inputs[0]->dtype(), label,
                    [&]<class T>() { Map<T, T>(*inputs[0], outputs[0], scratch, f); });
      return;
    }
    constexpr int64_t kPiece = 2048;
    const ActivationF32 activation = f.activation();
    const float* x = inputs[0]->data<float>().data();
    float* y = scratch.Allocate<float>(outputs[0], inputs[0]->shape()).data();
    scratch.ParallelFor(inputs[0]->count(), kGrain, [&](int64_t begin, int64_t end) {
      for (int64_t at = begin; at < end; at += kPiece) {
        const int64_t count = std::min(kPiece, end - at);
        std::copy_n(x + at, count, y + at);
        kernels.activate(activation, y + at, count);
      }
    });
  };
}

// A claim about a float: IsNaN, IsInf.
template <class F>
Op PrepareClaim(const Node& node, const OpContext&) {
  CheckInputCount(node, 1, 1);
  return [f = F(node), label = NodeLabel(node)](std::span<const Tensor* const> inputs,
                                                std::span<Tensor> outputs, Scratch& scratch) {
    DispatchFloat(inputs[0]->dtype(), label,
                  [&]<class T>() { Map<T, bool>(*inputs[0], outputs[0], scratch, f); });
  };
}

// A function without attributes.
template <auto kFunction>
struct Plain {
  explicit Plain(const Node&) {}
  template <class T>
  T operator()(T x) const {
    return static_cast<T>(kFunction(x));
  }
};
template <auto kFunction, ActivationKind kKind>
struct PlainActivation : Plain<kFunction> {
  using Plain<kFunction>::Plain;
  ActivationF32 activation() const { return {kKind, 0, 0}; }
};
template <auto kFunction, ActivationKind kKind>
constexpr auto kActivation = PrepareActivation<PlainActivation<kFunction, kKind>>;
template <auto kFunction>
constexpr auto kFloat = PrepareFloat<Plain<kFunction>>;
template <auto kFunction>
constexpr auto kNumber = PrepareNumber<Plain<kFunction>>;

template <class T>
T Mish(T x) {
  // tanh(log(1 + e)) = (e^2 + 2e) / (e^2 + 2e + 2) with e = exp(x); 1 where e is large.
  if (x > T{20}) return x;
  const T e = std::exp(x);
  const T n = e * (e + T{2});
  return x * (n / (n + T{2}));
}

template <class T>
T Abs(T x) {
  if constexpr (std::is_floating_point_v<T>) {
    return std::abs(x);
  } else {
    return x < T{0} ? static_cast<T>(T{0} - x) : x;
  }
}

template <class T>
T Sign(T x) {
  if (x == T{0}) return T{0};
  return x > T{0} ? T{1} : static_cast<T>(x < T{0} ? T{0} - T{1} : x);  // a NaN stays one
}

// The activations with attributes, named as in ONNX.
struct Elu {
  explicit Elu(const Node& node) : alpha(node.Float("alpha", 1.0F)) {}
  template <class T>
  T operator()(T x) const {
    return x < T{0} ? T{alpha} * std::expm1(x) : x;
  }
  float alpha;
};

struct Celu {
  explicit Celu(const Node& node) : alpha(node.Float("alpha", 1.0F)) {}
  template <class T>
  T operator()(T x) const {
    return std::max(T{0}, x) + std::min(T{0}, T{alpha} * std::expm1(x / T{alpha}));
  }
  float alpha;
};

struct Selu {
  explicit Selu(const Node& node)
      : alpha(node.Float("alpha", 1.67326319217681884765625F)),
        gamma(node.Float("gamma", 1.05070102214813232421875F)) {}
  template <class T>
  T operator()(T x) const {
    return T{gamma} * (x > T{0} ? x : T{alpha} * std::expm1(x));
  }
  float alpha, gamma;
};

struct LeakyRelu {
  explicit LeakyRelu(const Node& node) : alpha(node.Float("alpha", 0.01F)) {}
  template <class T>
  T operator()(T x) const {
    return x < T{0} ? T{alpha} * x : x;
  }
  ActivationF32 activation() const { return {ActivationKind::kLeakyRelu, alpha, 0}; }
  float alpha;
};

struct ThresholdedRelu {
  explicit ThresholdedRelu(const Node& node) : alpha(node.Float("alpha", 1.0F)) {}
  template <class T>
  T operator()(T x) const {
    return x > T{alpha} ? x : T{0};
  }
  float alpha;
};

struct HardSigmoid {
  explicit HardSigmoid(const Node& node)
      : alpha(node.Float("alpha", 0.2F)), beta(node.Float("beta", 0.5F)) {}
  template <class T>
  T operator()(T x) const {
    return std::max(T{0}, std::min(T{1}, T{alpha} * x + T{beta}));
  }
  ActivationF32 activation() const { return {ActivationKind::kHardSigmoid, alpha, beta}; }
  float alpha, beta;
};

// x * sigmoid(alpha * x): Swish of opset 24, QuickGelu of com.microsoft.
struct Swish {
  explicit Swish(const Node& node)
      : alpha(node.Float("alpha", node.op_type == "QuickGelu" ? 1.702F : 1.0F)) {}
  template <class T>
  T operator()(T x) const {
    return x / (T{1} + std::exp(-T{alpha} * x));
  }
  ActivationF32 activation() const { return {ActivationKind::kSilu, alpha, 0}; }
  float alpha;
};

struct Gelu {
  explicit Gelu(const Node& node) : is_tanh(node.String("approximate", "none") == "tanh") {}
  template <class T>
  T operator()(T x) const {
    if (is_tanh) {
      const T inner =
          static_cast<T>(0.7978845608028654) * (x + static_cast<T>(0.044715) * x * x * x);
      return T{0.5} * x * (T{1} + std::tanh(inner));
    }
    return T{0.5} * x * (T{1} + std::erf(x * static_cast<T>(1.0 / std::numbers::sqrt2)));
  }
  ActivationF32 activation() const {
    return {is_tanh ? ActivationKind::kGeluTanh : ActivationKind::kGelu, 0, 0};
  }
  bool is_tanh;
};

struct Shrink {
  explicit Shrink(const Node& node)
      : lambd(node.Float("lambd", 0.5F)), bias(node.Float("bias", 0.0F)) {}
  template <class T>
  T operator()(T x) const {
    const double value = static_cast<double>(x);
    if (value < -double{lambd}) return static_cast<T>(value + double{bias});
    if (value > double{lambd}) return static_cast<T>(value - double{bias});
    return T{0};
  }
  float lambd, bias;
};

struct IsNaN {
  explicit IsNaN(const Node&) {}
  bool operator()(auto x) const { return std::isnan(x); }
};

struct IsInf {
  explicit IsInf(const Node& node)
      : positive(node.Int("detect_positive", 1) != 0),
        negative(node.Int("detect_negative", 1) != 0) {}
  template <class T>
  bool operator()(T x) const {
    return std::isinf(x) && (x > T{0} ? positive : negative);
  }
  bool positive, negative;
};

Op PrepareNot(const Node& node, const OpContext&) {
  CheckInputCount(node, 1, 1);
  return [label = NodeLabel(node)](std::span<const Tensor* const> inputs, std::span<Tensor> outputs,
                                   Scratch& scratch) {
    if (inputs[0]->dtype() != DType::kBool) RefuseDType(inputs[0]->dtype(), label);
    Map<bool, bool>(*inputs[0], outputs[0], scratch, [](bool x) { return !x; });
  };
}

Op PrepareBitwiseNot(const Node& node, const OpContext&) {
  CheckInputCount(node, 1, 1);
  return [label = NodeLabel(node)](std::span<const Tensor* const> inputs, std::span<Tensor> outputs,
                                   Scratch& scratch) {
    DispatchInteger(inputs[0]->dtype(), label, [&]<class T>() {
      Map<T, T>(*inputs[0], outputs[0], scratch, [](T x) { return static_cast<T>(~x); });
    });
  };
}

// FastGelu of com.microsoft: the tanh form, of x + bias along the last axis.
Op PrepareFastGelu(const Node& node, const OpContext&) {
  CheckInputCount(node, 1, 2);
  Node with_tanh = node;
  with_tanh.attributes.set(
      "approximate",
      Attribute{.type = 3, .value = std::string("tanh"), .ref_name = {}, .unknown = {}});
  return [f = Gelu(with_tanh), label = NodeLabel(node)](
             std::span<const Tensor* const> inputs, std::span<Tensor> outputs, Scratch& scratch) {
    DispatchFloat(inputs[0]->dtype(), label, [&]<class T>() {
      if (inputs.size() < 2 || inputs[1] == nullptr) {
        Map<T, T>(*inputs[0], outputs[0], scratch, f);
        return;
      }
      const std::span<const T> x = inputs[0]->data<T>();
      const std::span<const T> bias = inputs[1]->data<T>();
      if (inputs[0]->rank() == 0 || inputs[0]->shape().back() != inputs[1]->count()) {
        RefuseNode("bias must be as long as the last axis of its input", label);
      }
      const std::span<T> y = scratch.Allocate<T>(outputs[0], inputs[0]->shape());
      scratch.ParallelFor(inputs[0]->count(), kGrain, [&](int64_t begin, int64_t end) {
        for (size_t i = Sz(begin); i < Sz(end); ++i) y[i] = f(x[i] + bias[i % bias.size()]);
      });
    });
  };
}

constexpr OpInfo kOps[] = {
    {"Abs", "", kNumber<[](auto x) { return Abs(x); }>},
    {"Acos", "", kFloat<[]<class T>(T x) { return std::acos(x); }>},
    {"Acosh", "", kFloat<[]<class T>(T x) { return std::acosh(x); }>},
    {"Asin", "", kFloat<[]<class T>(T x) { return std::asin(x); }>},
    {"Asinh", "", kFloat<[]<class T>(T x) { return std::asinh(x); }>},
    {"Atan", "", kFloat<[]<class T>(T x) { return std::atan(x); }>},
    {"Atanh", "", kFloat<[]<class T>(T x) { return std::atanh(x); }>},
    {"BitwiseNot", "", PrepareBitwiseNot},
    {"Ceil", "", kFloat<[]<class T>(T x) { return std::ceil(x); }>},
    {"Celu", "", PrepareFloat<Celu>},
    {"Cos", "", kFloat<[]<class T>(T x) { return std::cos(x); }>},
    {"Cosh", "", kFloat<[]<class T>(T x) { return std::cosh(x); }>},
    {"Elu", "", PrepareFloat<Elu>},
    {"Erf", "", kActivation<[]<class T>(T x) { return std::erf(x); }, ActivationKind::kErf>},
    {"Exp", "", kActivation<[]<class T>(T x) { return std::exp(x); }, ActivationKind::kExp>},
    {"Floor", "", kFloat<[]<class T>(T x) { return std::floor(x); }>},
    {"Gelu", "", PrepareActivation<Gelu>},
    {"HardSigmoid", "", PrepareActivation<HardSigmoid>},
    {"HardSwish", "",
     kActivation<[]<class T>(T x) { return x * std::min(T{1}, std::max(T{0}, x / T{6} + T{0.5})); },
                 ActivationKind::kHardSwish>},
    {"IsInf", "", PrepareClaim<IsInf>},
    {"IsNaN", "", PrepareClaim<IsNaN>},
    {"LeakyRelu", "", PrepareActivation<LeakyRelu>},
    {"Log", "", kFloat<[]<class T>(T x) { return std::log(x); }>},
    {"Mish", "", kFloat<[](auto x) { return Mish(x); }>},
    {"Neg", "", kNumber<[]<class T>(T x) { return T{0} - x; }>},
    {"Not", "", PrepareNot},
    {"Reciprocal", "", kFloat<[]<class T>(T x) { return T{1} / x; }>},
    {"Relu", "", kNumber<[]<class T>(T x) { return x < T{0} ? T{0} : x; }>},
    {"Round", "", kFloat<[]<class T>(T x) { return std::nearbyint(x); }>},
    {"Selu", "", PrepareFloat<Selu>},
    {"Shrink", "", PrepareNumber<Shrink>},
    {"Sigmoid", "",
     kActivation<[]<class T>(T x) { return T{1} / (T{1} + std::exp(-x)); },
                 ActivationKind::kSigmoid>},
    {"Sign", "", kNumber<[](auto x) { return Sign(x); }>},
    {"Sin", "", kFloat<[]<class T>(T x) { return std::sin(x); }>},
    {"Sinh", "", kFloat<[]<class T>(T x) { return std::sinh(x); }>},
    {"Softplus", "", kFloat<[]<class T>(T x) {
       return (x > T{0}) ? x + std::log1p(std::exp(-x)) : std::log1p(std::exp(x));
     }>},
    {"Softsign", "", kFloat<[]<class T>(T x) { return x / (T{1} + std::abs(x)); }>},
    {"Sqrt", "", kFloat<[]<class T>(T x) { return std::sqrt(x); }>},
    {"Swish", "", PrepareActivation<Swish>},
    {"Tan", "", kFloat<[]<class T>(T x) { return std::tan(x); }>},
    {"Tanh", "", kActivation<[]<class T>(T x) { return std::tanh(x); }, ActivationKind::kTanh>},
    {"ThresholdedRelu", "", PrepareFloat<ThresholdedRelu>},
    {"FastGelu", "com.microsoft", PrepareFastGelu},
    {"Gelu", "com.microsoft", PrepareActivation<Gelu>},
    {"QuickGelu", "com.microsoft", PrepareActivation<Swish>},
};

}  // namespace

std::span<const OpInfo> UnaryOps() { return kOps; }

}  // namespace pared
