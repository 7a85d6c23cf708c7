// Functions of two elements and more, broadcast: arithmetic, comparison, logic, bits, Where, Clip.

#include <algorithm>
#include <cmath>
#include <limits>

#include "evaluator/broadcast.h"
#include "evaluator/op_checks.h"

namespace pared {
namespace {

// y[i] = f(a[i], b[i]); the loops are apart so that each is a plain one for the compiler.
template <class A, class B, class R, class F>
void Combine(const Tensor& a_tensor, const Tensor& b_tensor, Tensor& out, Scratch& scratch,
             const F& f, const std::string& label) {
  const Shape* shapes[] = {&a_tensor.shape(), &b_tensor.shape()};
  const Broadcast plan = PlanBroadcast(shapes, label);
  const A* a_begin = a_tensor.data<A>().data();
  const B* b_begin = b_tensor.data<B>().data();
  R* out_begin = scratch.Allocate<R>(out, plan.shape).data();
  ForEachRow(plan, scratch, [&](int64_t out_offset, const auto& offsets, int64_t count) {
    const A* a = a_begin + offsets[0];
    const B* b = b_begin + offsets[1];
    R* __restrict y = out_begin + out_offset;
    if (plan.column_stride[0] == 0) {
      const A left = *a;
      for (int64_t i = 0; i < count; ++i) y[i] = static_cast<R>(f(left, b[i]));
    } else if (plan.column_stride[1] == 0) {
      const B right = *b;
      for (int64_t i = 0; i < count; ++i) y[i] = static_cast<R>(f(a[i], right));
    } else {
      for (int64_t i = 0; i < count; ++i) y[i] = static_cast<R>(f(a[i], b[i]));
    }
  });
}

void CheckSameType(std::span<const Tensor* const> inputs, const std::string& label) {
  if (inputs[0]->dtype() != inputs[1]->dtype()) {
    RefuseNode(std::string("its inputs are of types ") + DTypeName(inputs[0]->dtype()) + " and " +
                   DTypeName(inputs[1]->dtype()),
               label);
  }
}

struct Add {
  template <class T>
  T operator()(T a, T b) const {
    return static_cast<T>(a + b);
  }
};
struct Sub {
  template <class T>
  T operator()(T a, T b) const {
    return static_cast<T>(a - b);
  }
};
struct Mul {
  template <class T>
  T operator()(T a, T b) const {
    return static_cast<T>(a * b);
  }
};
struct Div {
  template <class T>
  T operator()(T a, T b) const {
    if constexpr (std::is_integral_v<T>) {
      // ONNX leaves division by zero open; a trap would end the process.
      if (b == T{0}) return T{0};
      if constexpr (std::is_signed_v<T>) {
        if (b == T{-1}) return static_cast<T>(T{0} - static_cast<std::make_unsigned_t<T>>(a));
      }
    }
    return static_cast<T>(a / b);
  }
};
struct PRelu {
  template <class T>
  T operator()(T x, T slope) const {
    return x < T{0} ? static_cast<T>(x * slope) : x;
  }
};
struct Max {
  template <class T>
  T operator()(T a, T b) const {
    return a > b || a != a ? a : b;  // a NaN on either side stays one
  }
};
struct Min {
  template <class T>
  T operator()(T a, T b) const {
    return a < b || a != a ? a : b;
  }
};

// Signed integers wrap: computed as unsigned, where that is defined.
template <class F, class T>
T Wrapping(const F& f, T a, T b) {
  if constexpr (std::is_integral_v<T> && std::is_signed_v<T>) {
    using U = std::make_unsigned_t<T>;
    return static_cast<T>(f(static_cast<U>(a), static_cast<U>(b)));
  } else {
    return f(a, b);
  }
}
template <class F>
inline constexpr bool kWraps =
    std::is_same_v<F, Add> || std::is_same_v<F, Sub> || std::is_same_v<F, Mul>;

// ONNX before opset 7 broadcast the second operand from `axis` on; pared begins at opset 7.
template <class F>
Op PrepareArithmetic(const Node& node, const OpContext&) {
  CheckInputCount(node, 2, 2);
  return [label = NodeLabel(node)](std::span<const Tensor* const> inputs, std::span<Tensor> outputs,
                                   Scratch& scratch) {
    CheckSameType(inputs, label);
    DispatchNumber(inputs[0]->dtype(), label, [&]<class T>() {
      const auto f = [](T a, T b) {
        if constexpr (kWraps<F>) {
          return Wrapping(F(), a, b);
        } else {
          return F()(a, b);
        }
      };
      Combine<T, T, T>(*inputs[0], *inputs[1], outputs[0], scratch, f, label);
    });
  };
}

// Max, Min, Sum, Mean: any number of inputs, folded from the left.
template <class F>
Op PrepareVariadic(const Node& node, const OpContext&) {
  CheckInputCount(node, 1, SIZE_MAX);
  const bool divides = node.op_type == "Mean";
  return [label = NodeLabel(node), divides](std::span<const Tensor* const> inputs,
                                            std::span<Tensor> outputs, Scratch& scratch) {
    DispatchNumber(inputs[0]->dtype(), label, [&]<class T>() {
      Tensor sum = *inputs[0];
      for (size_t i = 1; i < inputs.size(); ++i) {
        const Tensor* pair[] = {&sum, inputs[i]};
        CheckSameType(pair, label);
        Tensor next;
        Combine<T, T, T>(sum, *inputs[i], next, scratch, F(), label);
        sum = std::move(next);
      }
      if (divides && inputs.size() > 1) {
        const T count = static_cast<T>(inputs.size());
        Tensor mean;
        Combine<T, T, T>(sum, Tensor::Scalar<T>(count), mean, scratch, Div(), label);
        sum = std::move(mean);
      }
      outputs[0] = std::move(sum);
    });
  };
}

template <class F>
Op PrepareCompare(const Node& node, const OpContext&) {
  CheckInputCount(node, 2, 2);
  return [label = NodeLabel(node)](std::span<const Tensor* const> inputs, std::span<Tensor> outputs,
                                   Scratch& scratch) {
    CheckSameType(inputs, label);
    if (inputs[0]->dtype() == DType::kBool) {
      Combine<bool, bool, bool>(*inputs[0], *inputs[1], outputs[0], scratch, F(), label);
      return;
    }
    DispatchNumber(inputs[0]->dtype(), label, [&]<class T>() {
      Combine<T, T, bool>(*inputs[0], *inputs[1], outputs[0], scratch, F(), label);
    });
  };
}

template <class F>
Op PrepareLogic(const Node& node, const OpContext&) {
  CheckInputCount(node, 2, 2);
  return [label = NodeLabel(node)](std::span<const Tensor* const> inputs, std::span<Tensor> outputs,
                                   Scratch& scratch) {
    CheckSameType(inputs, label);
    if (inputs[0]->dtype() != DType::kBool) RefuseDType(inputs[0]->dtype(), label);
    Combine<bool, bool, bool>(*inputs[0], *inputs[1], outputs[0], scratch, F(), label);
  };
}

template <class F>
Op PrepareBits(const Node& node, const OpContext&) {
  CheckInputCount(node, 2, 2);
  return [label = NodeLabel(node)](std::span<const Tensor* const> inputs, std::span<Tensor> outputs,
                                   Scratch& scratch) {
    CheckSameType(inputs, label);
    DispatchInteger(inputs[0]->dtype(), label, [&]<class T>() {
      Combine<T, T, T>(*inputs[0], *inputs[1], outputs[0], scratch, F(), label);
    });
  };
}

Op PrepareBitShift(const Node& node, const OpContext&) {
  CheckInputCount(node, 2, 2);
  const std::string direction = node.String("direction", "");
  if (direction != "LEFT" && direction != "RIGHT") {
    RefuseNode("direction must be LEFT or RIGHT, is \"" + direction + "\"", NodeLabel(node));
  }
  const bool is_left = direction == "LEFT";
  return [label = NodeLabel(node), is_left](std::span<const Tensor* const> inputs,
                                            std::span<Tensor> outputs, Scratch& scratch) {
    CheckSameType(inputs, label);
    DispatchInteger(inputs[0]->dtype(), label, [&]<class T>() {
      using Wide = std::conditional_t<std::is_signed_v<T>, int64_t, uint64_t>;
      const auto shift = [is_left](T x, T by) {
        constexpr uint64_t kBits = sizeof(T) * 8;
        const uint64_t steps = static_cast<uint64_t>(by);
        const uint64_t bits = static_cast<uint64_t>(x);  // keeps the sign
        if (is_left) return steps >= kBits ? T{0} : static_cast<T>(bits << steps);
        if (steps < kBits) return static_cast<T>(static_cast<Wide>(x) >> steps);
        return static_cast<T>(x < T{0} ? ~T{0} : T{0});
      };
      Combine<T, T, T>(*inputs[0], *inputs[1], outputs[0], scratch, shift, label);
    });
  };
}

template <class T, class U>
T Power(T base, U exponent) {
  if constexpr (std::is_integral_v<T> && std::is_integral_v<U>) {
    if (exponent < U{0}) return base == T{1} ? T{1} : T{0};
    uint64_t power = 1, square = static_cast<uint64_t>(base);
    for (uint64_t rest = static_cast<uint64_t>(exponent); rest != 0; rest >>= 1) {
      if ((rest & 1) != 0) power *= square;
      square *= square;
    }
    return static_cast<T>(power);
  } else if constexpr (std::is_same_v<T, float> && std::is_same_v<U, float>) {
    return std::pow(base, exponent);
  } else {
    return static_cast<T>(std::pow(static_cast<double>(base), static_cast<double>(exponent)));
  }
}

// The exponents that exporters spell: squares in LayerNormalization, cubes in GELU, roots in norms.
// False: it is another.
bool RaiseToKnown(const Tensor& x, const Tensor& exponent, Tensor& out, Scratch& scratch,
                  const std::string& label) {
  const auto run = [&](const auto& f) {
    Combine<float, float, float>(x, exponent, out, scratch, f, label);
    return true;
  };
  // As pow has it for -0 and -infinity.
  const auto root = [](float base) {
    constexpr float kInfinity = std::numeric_limits<float>::infinity();
    return base == -kInfinity ? kInfinity : std::sqrt(base + 0.0F);
  };
  const float number = exponent.data<float>()[0];
  if (number == 2) return run([](float base, float) { return base * base; });
  if (number == 3) return run([](float base, float) { return base * base * base; });
  if (number == 0.5F) return run([&](float base, float) { return root(base); });
  if (number == -0.5F) return run([&](float base, float) { return 1 / root(base); });
  return false;
}

Op PreparePow(const Node& node, const OpContext&) {
  CheckInputCount(node, 2, 2);
  return [label = NodeLabel(node)](std::span<const Tensor* const> inputs, std::span<Tensor> outputs,
                                   Scratch& scratch) {
    const Tensor& exponent = *inputs[1];
    DispatchNumber(inputs[0]->dtype(), label, [&]<class T>() {
      if constexpr (std::is_same_v<T, float>) {
        const bool is_number = exponent.count() == 1 && exponent.dtype() == DType::kFloat32;
        if (is_number && RaiseToKnown(*inputs[0], exponent, outputs[0], scratch, label)) return;
      }
      DispatchNumber(exponent.dtype(), label, [&]<class U>() {
        Combine<T, U, T>(*inputs[0], exponent, outputs[0], scratch, Power<T, U>, label);
      });
    });
  };
}

// fmod = 1: the sign of the dividend; 0: integers only, the sign of the divisor.
Op PrepareMod(const Node& node, const OpContext&) {
  CheckInputCount(node, 2, 2);
  const bool is_fmod = node.Int("fmod", 0) != 0;
  return [label = NodeLabel(node), is_fmod](std::span<const Tensor* const> inputs,
                                            std::span<Tensor> outputs, Scratch& scratch) {
    CheckSameType(inputs, label);
    DispatchNumber(inputs[0]->dtype(), label, [&]<class T>() {
      const auto mod = [is_fmod](T a, T b) {
        if constexpr (std::is_floating_point_v<T>) {
          const T rest = std::fmod(a, b);
          return !is_fmod && rest != T{0} && (rest < T{0}) != (b < T{0}) ? rest + b : rest;
        } else {
          if (b == T{0} || (std::is_signed_v<T> && b == static_cast<T>(-1))) return T{0};
          const T rest = static_cast<T>(a % b);
          if (is_fmod || rest == T{0} || (rest < T{0}) == (b < T{0})) return rest;
          return static_cast<T>(rest + b);
        }
      };
      Combine<T, T, T>(*inputs[0], *inputs[1], outputs[0], scratch, mod, label);
    });
  };
}

// Where: elements of any type, moved.
Op PrepareWhere(const Node& node, const OpContext&) {
  CheckInputCount(node, 3, 3);
  return [label = NodeLabel(node)](std::span<const Tensor* const> inputs, std::span<Tensor> outputs,
                                   Scratch& scratch) {
    CheckSameType(inputs.subspan(1), label);
    if (inputs[0]->dtype() != DType::kBool) RefuseDType(inputs[0]->dtype(), label);
    const Shape* shapes[] = {&inputs[0]->shape(), &inputs[1]->shape(), &inputs[2]->shape()};
    const Broadcast plan = PlanBroadcast(shapes, label);
    const bool* condition = inputs[0]->data<bool>().data();
    DispatchWidth(inputs[1]->dtype(), label, [&]<class T>() {
      const T* a = Elements<T>(*inputs[1]);
      const T* b = Elements<T>(*inputs[2]);
      T* y = AllocateLike<T>(outputs[0], inputs[1]->dtype(), plan.shape, scratch);
      ForEachRow(plan, scratch, [&](int64_t out_offset, const auto& offsets, int64_t count) {
        const auto [c_step, a_step, b_step] = plan.column_stride;
        for (int64_t i = 0; i < count; ++i) {
          y[out_offset + i] = condition[offsets[0] + i * c_step] ? a[offsets[1] + i * a_step]
                                                                 : b[offsets[2] + i * b_step];
        }
      });
    });
  };
}

template <class T>
void Clip(const Tensor& in, T low, T high, Tensor& out, Scratch& scratch) {
  const T* x = in.data<T>().data();
  T* __restrict y = scratch.Allocate<T>(out, in.shape()).data();
  scratch.ParallelFor(in.count(), 16384, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const T floored = x[i] < low ? low : x[i];  // in this order min > max gives max
      y[i] = high < floored ? high : floored;
    }
  });
}

// Bounds are attributes before opset 11.
Op PrepareClip(const Node& node, const OpContext& context) {
  CheckInputCount(node, 1, 3);
  const bool has_attributes = context.opset < 11 && context.opset > 0;
  const float low_attribute = node.Float("min", std::numeric_limits<float>::lowest());
  const float high_attribute = node.Float("max", std::numeric_limits<float>::max());
  return [=, label = NodeLabel(node)](std::span<const Tensor* const> inputs,
                                      std::span<Tensor> outputs, Scratch& scratch) {
    DispatchNumber(inputs[0]->dtype(), label, [&]<class T>() {
      T low = std::numeric_limits<T>::lowest();
      T high = std::numeric_limits<T>::max();
      if constexpr (std::is_floating_point_v<T>) {
        low = -std::numeric_limits<T>::infinity();
        high = std::numeric_limits<T>::infinity();
        if (has_attributes) {
          low = static_cast<T>(low_attribute);
          high = static_cast<T>(high_attribute);
        }
      }
      for (size_t i = 1; i < inputs.size(); ++i) {
        if (inputs[i] == nullptr) continue;
        if (inputs[i]->dtype() != inputs[0]->dtype() || inputs[i]->count() != 1) {
          RefuseNode("bounds must be single elements of the input's type", label);
        }
        (i == 1 ? low : high) = inputs[i]->data<T>()[0];
      }
      Clip<T>(*inputs[0], low, high, outputs[0], scratch);
    });
  };
}

struct Equal {
  bool operator()(auto a, auto b) const { return a == b; }
};
struct Less {
  bool operator()(auto a, auto b) const { return a < b; }
};
struct LessOrEqual {
  bool operator()(auto a, auto b) const { return a <= b; }
};
struct Greater {
  bool operator()(auto a, auto b) const { return a > b; }
};
struct GreaterOrEqual {
  bool operator()(auto a, auto b) const { return a >= b; }
};
struct And {
  template <class T>
  T operator()(T a, T b) const {
    return static_cast<T>(a & b);
  }
};
struct Or {
  template <class T>
  T operator()(T a, T b) const {
    return static_cast<T>(a | b);
  }
};
struct Xor {
  template <class T>
  T operator()(T a, T b) const {
    return static_cast<T>(a ^ b);
  }
};

constexpr OpInfo kOps[] = {
    {"Add", "", PrepareArithmetic<Add>},
    {"And", "", PrepareLogic<And>},
    {"BitShift", "", PrepareBitShift},
    {"BitwiseAnd", "", PrepareBits<And>},
    {"BitwiseOr", "", PrepareBits<Or>},
    {"BitwiseXor", "", PrepareBits<Xor>},
    {"Clip", "", PrepareClip},
    {"Div", "", PrepareArithmetic<Div>},
    {"Equal", "", PrepareCompare<Equal>},
    {"Greater", "", PrepareCompare<Greater>},
    {"GreaterOrEqual", "", PrepareCompare<GreaterOrEqual>},
    {"Less", "", PrepareCompare<Less>},
    {"LessOrEqual", "", PrepareCompare<LessOrEqual>},
    {"Max", "", PrepareVariadic<Max>},
    {"Mean", "", PrepareVariadic<Add>},
    {"Min", "", PrepareVariadic<Min>},
    {"Mod", "", PrepareMod},
    {"Mul", "", PrepareArithmetic<Mul>},
    {"Or", "", PrepareLogic<Or>},
    {"PRelu", "", PrepareArithmetic<PRelu>},
    {"Pow", "", PreparePow},
    {"Sub", "", PrepareArithmetic<Sub>},
    {"Sum", "", PrepareVariadic<Add>},
    {"Where", "", PrepareWhere, HalfFloats::kNative},
    {"Xor", "", PrepareLogic<Xor>},
};

}  // namespace

std::span<const OpInfo> BinaryOps() { return kOps; }

}  // namespace pared
