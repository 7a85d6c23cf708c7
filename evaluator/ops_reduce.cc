// Reductions over axes, ArgMax and ArgMin, CumSum, TopK.

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <string>
#include <type_traits>
#include <vector>

#include "evaluator/op_checks.h"
#include "evaluator/ops.h"
#include "evaluator/reduce_lines.h"
#include "kernels/f32.h"

namespace pared {
namespace {

enum class ReduceKind { kL1, kL2, kLogSum, kLogSumExp, kMax, kMean, kMin, kProd, kSum, kSumSquare };

// Wide enough that the order of a sum does not show, or wraps as the type itself would.
template <class T>
using Accumulator = std::conditional_t<std::is_floating_point_v<T>, double,
                                       std::conditional_t<std::is_signed_v<T>, int64_t, uint64_t>>;

template <ReduceKind kKind, class T>
constexpr Accumulator<T> Initial() {
  using A = Accumulator<T>;
  if constexpr (kKind == ReduceKind::kProd) return A{1};
  if constexpr (kKind == ReduceKind::kMax || kKind == ReduceKind::kMin) {
    constexpr bool kIsMax = kKind == ReduceKind::kMax;
    if constexpr (std::is_floating_point_v<T>) {
      return kIsMax ? -std::numeric_limits<A>::infinity() : std::numeric_limits<A>::infinity();
    } else {
      return static_cast<A>(kIsMax ? std::numeric_limits<T>::lowest()
                                   : std::numeric_limits<T>::max());
    }
  }
  return A{0};
}

template <ReduceKind kKind, class A>
A Step(A sum, A value) {
  if constexpr (kKind == ReduceKind::kProd) return sum * value;
  if constexpr (kKind == ReduceKind::kMax) return sum < value || value != value ? value : sum;
  if constexpr (kKind == ReduceKind::kMin) return value < sum || value != value ? value : sum;
  if constexpr (kKind == ReduceKind::kL1) {
    if constexpr (std::is_unsigned_v<A>) return sum + value;
    if constexpr (!std::is_unsigned_v<A>) return sum + (value < 0 ? -value : value);
  }
  if constexpr (kKind == ReduceKind::kL2 || kKind == ReduceKind::kSumSquare) {
    return sum + value * value;
  }
  return sum + value;
}

template <ReduceKind kKind, class T>
T Finish(Accumulator<T> sum, int64_t count) {
  if constexpr (kKind == ReduceKind::kMean) {
    if constexpr (std::is_floating_point_v<T>)
      return static_cast<T>(sum / static_cast<double>(count));
    return count == 0 ? T{} : static_cast<T>(sum / static_cast<Accumulator<T>>(count));
  }
  if constexpr (kKind == ReduceKind::kL2) {
    return static_cast<T>(std::sqrt(static_cast<double>(sum)));
  }
  if constexpr (kKind == ReduceKind::kLogSum) {
    return static_cast<T>(std::log(static_cast<double>(sum)));
  }
  return static_cast<T>(sum);
}

// log(sum(exp(x))) about the largest x, so that nothing overflows.
template <class T>
T LogSumExp(const T* x, const std::vector<int64_t>& offsets) {
  double largest = -std::numeric_limits<double>::infinity();
  for (const int64_t at : offsets) largest = std::max(largest, static_cast<double>(x[at]));
  if (std::isinf(largest)) return static_cast<T>(largest);
  double sum = 0;
  for (const int64_t at : offsets) sum += std::exp(static_cast<double>(x[at]) - largest);
  return static_cast<T>(largest + std::log(sum));
}

template <ReduceKind kKind, class T>
T ReduceOne(const T* x, const std::vector<int64_t>& offsets) {
  if constexpr (kKind == ReduceKind::kLogSumExp) return LogSumExp(x, offsets);
  Accumulator<T> sum = Initial<kKind, T>();
  for (const int64_t at : offsets) {
    sum = Step<kKind, Accumulator<T>>(sum, static_cast<Accumulator<T>>(x[at]));
  }
  return Finish<kKind, T>(sum, static_cast<int64_t>(offsets.size()));
}

struct ReduceNode {
  std::string label;
  std::vector<int64_t> axes;
  bool keeps_dims = true, noop_with_empty_axes = false;
  const F32Kernels* kernels = nullptr;
};

template <ReduceKind kKind, class T>
void RunReduce(const ReduceNode& node, const ReducePlan& plan, const Tensor& x, Tensor& output,
               Scratch& scratch) {
  const std::span<T> y = scratch.Allocate<T>(output, plan.output);
  const T* values = x.data<T>().data();
  const int64_t count = static_cast<int64_t>(plan.offsets.size());
  const int64_t grain = std::max<int64_t>(1, 8192 / std::max<int64_t>(1, count));
  scratch.ParallelFor(static_cast<int64_t>(y.size()), grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const T* from = values + plan.StartOf(i);
      if constexpr (std::is_same_v<T, float> &&
                    (kKind == ReduceKind::kSum || kKind == ReduceKind::kMean)) {
        if (plan.is_contiguous) {
          const float sum = node.kernels->sum(from, count);
          y[Sz(i)] = kKind == ReduceKind::kMean ? sum / static_cast<float>(count) : sum;
          continue;
        }
      }
      y[Sz(i)] = ReduceOne<kKind, T>(from, plan.offsets);
    }
  });
}

ReduceNode ReadReduce(const Node& node, const OpContext& context) {
  CheckInputCount(node, 1, 2);
  ReduceNode reduce;
  reduce.label = NodeLabel(node);
  reduce.axes = node.Ints("axes");
  reduce.keeps_dims = node.Int("keepdims", 1) != 0;
  reduce.noop_with_empty_axes = node.Int("noop_with_empty_axes", 0) != 0;
  reduce.kernels = &F32KernelsFor(context.isa);
  return reduce;
}

template <ReduceKind kKind>
Op PrepareReduce(const Node& node, const OpContext& context) {
  return [reduce = ReadReduce(node, context)](std::span<const Tensor* const> inputs,
                                              std::span<Tensor> outputs, Scratch& scratch) {
    const Tensor& x = *inputs[0];
    std::vector<int64_t> axes = reduce.axes;
    if (inputs.size() > 1 && inputs[1] != nullptr) axes = IntegersOf(*inputs[1], reduce.label);
    std::vector<bool> reduced(x.shape().size(), axes.empty() && !reduce.noop_with_empty_axes);
    for (const int64_t axis : axes) reduced[Sz(NormalizeAxis(axis, x.rank(), reduce.label))] = true;
    const ReducePlan plan = PlanReduce(x.shape(), reduced, reduce.keeps_dims);
    constexpr bool kOrders = kKind == ReduceKind::kMax || kKind == ReduceKind::kMin;
    if (kOrders && x.dtype() == DType::kBool) {
      bool* y = scratch.Allocate<bool>(outputs[0], plan.output).data();
      for (int64_t i = 0; i < ElementCount(plan.output); ++i) {
        const bool* from = x.data<bool>().data() + plan.StartOf(i);
        bool any = false;
        bool all = true;
        for (const int64_t at : plan.offsets) {
          any = any || from[at];
          all = all && from[at];
        }
        y[i] = kKind == ReduceKind::kMax ? any : all;
      }
      return;
    }
    DispatchNumber(x.dtype(), reduce.label,
                   [&]<class T>() { RunReduce<kKind, T>(reduce, plan, x, outputs[0], scratch); });
  };
}

enum class ArgKind { kMax, kMin };

template <ArgKind kKind>
Op PrepareArg(const Node& node, const OpContext& /*context*/) {
  CheckInputCount(node, 1, 1);
  const std::string label = NodeLabel(node);
  const int64_t axis = node.Int("axis", 0);
  const bool keeps_dims = node.Int("keepdims", 1) != 0;
  const bool takes_last = node.Int("select_last_index", 0) != 0;
  return [=](std::span<const Tensor* const> inputs, std::span<Tensor> outputs, Scratch& scratch) {
    const Tensor& x = *inputs[0];
    std::vector<bool> reduced(x.shape().size());
    reduced[Sz(NormalizeAxis(axis, x.rank(), label))] = true;
    const ReducePlan plan = PlanReduce(x.shape(), reduced, keeps_dims);
    const std::span<int64_t> y = scratch.Allocate<int64_t>(outputs[0], plan.output);
    if (plan.offsets.empty() && !y.empty()) RefuseNode("the axis has no elements", label);
    DispatchNumber(x.dtype(), label, [&]<class T>() {
      const T* values = x.data<T>().data();
      scratch.ParallelFor(static_cast<int64_t>(y.size()), 64, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
          const T* from = values + plan.StartOf(i);
          size_t best = 0;
          for (size_t j = 1; j < plan.offsets.size(); ++j) {
            const T value = from[plan.offsets[j]];
            const T held = from[plan.offsets[best]];
            const bool is_better = kKind == ArgKind::kMax ? value > held : value < held;
            if (is_better || (takes_last && value == held)) best = j;
          }
          y[Sz(i)] = static_cast<int64_t>(best);
        }
      });
    });
  };
}

enum class CumulativeKind { kSum, kProd };

template <CumulativeKind kKind>
Op PrepareCumulative(const Node& node, const OpContext& /*context*/) {
  CheckInputCount(node, 2, 2);
  const std::string label = NodeLabel(node);
  const bool excludes_self = node.Int("exclusive", 0) != 0;
  const bool is_reverse = node.Int("reverse", 0) != 0;
  return [=](std::span<const Tensor* const> inputs, std::span<Tensor> outputs, Scratch& scratch) {
    const Tensor& x = *inputs[0];
    const std::vector<int64_t> axes = IntegersOf(*inputs[1], label);
    if (axes.size() != 1) RefuseNode("axis must be one number", label);
    const Line line = LineOf(x.shape(), NormalizeAxis(axes[0], x.rank(), label));
    DispatchNumber(x.dtype(), label, [&]<class T>() {
      const T* values = x.data<T>().data();
      T* y = scratch.Allocate<T>(outputs[0], x.shape()).data();
      scratch.ParallelFor(line.lines, 64, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
          T sum = kKind == CumulativeKind::kSum ? T{0} : T{1};
          for (int64_t j = 0; j < line.count; ++j) {
            const int64_t at = line.Begin(i) + (is_reverse ? line.count - 1 - j : j) * line.step;
            const T value = values[at];
            const T next =
                static_cast<T>(kKind == CumulativeKind::kSum ? sum + value : sum * value);
            y[at] = excludes_self ? sum : next;
            sum = next;
          }
        }
      });
    });
  };
}

struct TopKNode {
  std::string label;
  int64_t axis = -1, k = -1;  // k: an attribute before opset 10
  bool largest = true;
};

template <class T>
void RunTopK(const TopKNode& node, int64_t k, const Tensor& x, std::span<Tensor> outputs,
             Scratch& scratch) {
  const int64_t axis = NormalizeAxis(node.axis, x.rank(), node.label);
  const Line line = LineOf(x.shape(), axis);
  if (k < 0 || k > line.count) {
    RefuseNode("k = " + std::to_string(k) + " of " + std::to_string(line.count) + " elements",
               node.label);
  }
  Shape shape = x.shape();
  shape[Sz(axis)] = k;
  const Line out = LineOf(shape, axis);
  T* y = scratch.Allocate<T>(outputs[0], shape).data();
  Tensor unused;
  Tensor& second = outputs.size() > 1 ? outputs[1] : unused;
  int64_t* indices = scratch.Allocate<int64_t>(second, shape).data();
  const T* values = x.data<T>().data();
  scratch.ParallelFor(line.lines, 1, [&](int64_t begin, int64_t end) {
    std::vector<int64_t> order(Sz(line.count));
    for (int64_t i = begin; i < end; ++i) {
      const T* from = values + line.Begin(i);
      for (size_t j = 0; j < order.size(); ++j) order[j] = static_cast<int64_t>(j);
      // The lower index first among equals.
      std::partial_sort(order.begin(), order.begin() + k, order.end(), [&](int64_t a, int64_t b) {
        const T left = from[a * line.step];
        const T right = from[b * line.step];
        if (left != right) return node.largest ? left > right : left < right;
        return a < b;
      });
      for (int64_t j = 0; j < k; ++j) {
        const int64_t at = out.Begin(i) + j * out.step;
        indices[at] = order[Sz(j)];
        y[at] = from[order[Sz(j)] * line.step];
      }
    }
  });
}

Op PrepareTopK(const Node& node, const OpContext& context) {
  CheckInputCount(node, context.opset < 10 ? 1 : 2, 2);
  TopKNode top;
  top.label = NodeLabel(node);
  top.axis = node.Int("axis", -1);
  top.k = node.Int("k", -1);
  top.largest = node.Int("largest", 1) != 0;
  return [top](std::span<const Tensor* const> inputs, std::span<Tensor> outputs, Scratch& scratch) {
    int64_t k = top.k;
    if (inputs.size() > 1) {
      const std::vector<int64_t> values = IntegersOf(*inputs[1], top.label);
      if (values.size() != 1) RefuseNode("K must be one number", top.label);
      k = values[0];
    }
    DispatchNumber(inputs[0]->dtype(), top.label,
                   [&]<class T>() { RunTopK<T>(top, k, *inputs[0], outputs, scratch); });
  };
}

constexpr std::array kOps = {
    OpInfo{"ReduceL1", "", PrepareReduce<ReduceKind::kL1>},
    OpInfo{"ReduceL2", "", PrepareReduce<ReduceKind::kL2>},
    OpInfo{"ReduceLogSum", "", PrepareReduce<ReduceKind::kLogSum>},
    OpInfo{"ReduceLogSumExp", "", PrepareReduce<ReduceKind::kLogSumExp>},
    OpInfo{"ReduceMax", "", PrepareReduce<ReduceKind::kMax>},
    OpInfo{"ReduceMean", "", PrepareReduce<ReduceKind::kMean>},
    OpInfo{"ReduceMin", "", PrepareReduce<ReduceKind::kMin>},
    OpInfo{"ReduceProd", "", PrepareReduce<ReduceKind::kProd>},
    OpInfo{"ReduceSum", "", PrepareReduce<ReduceKind::kSum>},
    OpInfo{"ReduceSumSquare", "", PrepareReduce<ReduceKind::kSumSquare>},
    OpInfo{"ArgMax", "", PrepareArg<ArgKind::kMax>},
    OpInfo{"ArgMin", "", PrepareArg<ArgKind::kMin>},
    OpInfo{"CumSum", "", PrepareCumulative<CumulativeKind::kSum>},
    OpInfo{"CumProd", "", PrepareCumulative<CumulativeKind::kProd>},
    OpInfo{"TopK", "", PrepareTopK},
};

}  // namespace

std::span<const OpInfo> ReduceOps() { return kOps; }

}  // namespace pared
