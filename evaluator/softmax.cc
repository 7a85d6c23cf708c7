#include "evaluator/softmax.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "evaluator/op_checks.h"
#include "kernels/f32.h"

namespace pared {
namespace {

enum class SoftmaxKind { kSoft, kLog, kHard };

// A tensor as [outer][count][inner], normalized over `count`.
struct SoftmaxView {
  int64_t outer, count, inner;
};

// Before opset 13 the input is a matrix: all axes from `axis` on are normalized together.
SoftmaxView ViewOf(const Shape& shape, int64_t axis, int64_t opset, const std::string& label) {
  const int64_t rank = static_cast<int64_t>(shape.size());
  if (rank == 0) return {1, 1, 1};
  const int64_t at = NormalizeAxis(axis, rank, label);
  if (opset < 13) return {Extent(shape, 0, at), Extent(shape, at, rank), 1};
  return {Extent(shape, 0, at), shape[Sz(at)], Extent(shape, at + 1, rank)};
}

// One line of elements `step` apart.
template <SoftmaxKind kKind, class T>
void SoftmaxLine(const T* x, T* y, int64_t count, int64_t step) {
  T largest = x[0];
  int64_t arg = 0;
  for (int64_t i = 1; i < count; ++i) {
    if (x[i * step] > largest) {
      largest = x[i * step];
      arg = i;
    }
  }
  if constexpr (kKind == SoftmaxKind::kHard) {
    for (int64_t i = 0; i < count; ++i) y[i * step] = i == arg ? T{1} : T{0};
    return;
  }
  double sum = 0;
  for (int64_t i = 0; i < count; ++i) {
    const T e = std::exp(x[i * step] - largest);
    if constexpr (kKind == SoftmaxKind::kSoft) y[i * step] = e;
    sum += static_cast<double>(e);
  }
  const T log_sum = static_cast<T>(std::log(sum));
  for (int64_t i = 0; i < count; ++i) {
    if constexpr (kKind == SoftmaxKind::kSoft) {
      y[i * step] = static_cast<T>(static_cast<double>(y[i * step]) / sum);
    } else {
      y[i * step] = x[i * step] - largest - log_sum;
    }
  }
}

template <SoftmaxKind kKind>
Op Prepare(const Node& node, const OpContext& context) {
  CheckInputCount(node, 1, 1);
  const std::string label = NodeLabel(node);
  const int64_t opset = context.opset;
  const int64_t axis = node.Int("axis", opset < 13 ? 1 : -1);
  const F32Kernels& kernels = F32KernelsFor(context.isa);
  return [label, opset, axis, &kernels](std::span<const Tensor* const> inputs,
                                        std::span<Tensor> outputs, Scratch& scratch) {
    const Tensor& x = *inputs[0];
    const SoftmaxView view = ViewOf(x.shape(), axis, opset, label);
    DispatchFloat(x.dtype(), label, [&]<class T>() {
      const T* values = x.data<T>().data();
      T* y = scratch.Allocate<T>(outputs[0], x.shape()).data();
      if (x.count() == 0) return;
      const int64_t grain = std::max<int64_t>(1, 4096 / view.count);
      scratch.ParallelFor(view.outer * view.inner, grain, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
          const int64_t at = i / view.inner * view.count * view.inner + i % view.inner;
          if constexpr (std::is_same_v<T, float> && kKind == SoftmaxKind::kSoft) {
            if (view.inner == 1) {
              kernels.softmax(values + at, y + at, view.count);
              continue;
            }
          }
          SoftmaxLine<kKind>(values + at, y + at, view.count, view.inner);
        }
      });
    });
  };
}

}  // namespace

Op PrepareSoftmax(const Node& node, const OpContext& context) {
  return Prepare<SoftmaxKind::kSoft>(node, context);
}
Op PrepareLogSoftmax(const Node& node, const OpContext& context) {
  return Prepare<SoftmaxKind::kLog>(node, context);
}
Op PrepareHardmax(const Node& node, const OpContext& context) {
  return Prepare<SoftmaxKind::kHard>(node, context);
}

}  // namespace pared
