// How a tensor is walked along some of its axes.

#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "evaluator/op_checks.h"
#include "model/tensor.h"

namespace pared {

// The runs of elements along one axis.
struct Line {
  int64_t lines = 1, count = 1, step = 1;
  int64_t Begin(int64_t line) const { return line / step * count * step + line % step; }
};

inline Line LineOf(const Shape& shape, int64_t axis) {
  const int64_t rank = static_cast<int64_t>(shape.size());
  const int64_t inner = Extent(shape, axis + 1, rank);
  return {Extent(shape, 0, axis) * inner, shape[Sz(axis)], inner};
}

// Which elements make one element of a reduction's result.
struct ReducePlan {
  Shape output;
  std::vector<int64_t> offsets;  // of the reduced elements, from the first
  bool is_contiguous = true;     // offsets are 0, 1, 2, ...
  Shape kept, steps;             // extents and strides of the axes that stay

  int64_t StartOf(int64_t out) const {
    int64_t start = 0;
    for (size_t d = kept.size(); d-- > 0; out /= kept[d]) start += out % kept[d] * steps[d];
    return start;
  }
};

inline ReducePlan PlanReduce(const Shape& shape, const std::vector<bool>& reduced,
                             bool keeps_dims) {
  ReducePlan plan;
  const Shape strides = StridesOf(shape);
  plan.offsets = {0};
  for (size_t d = 0; d < shape.size(); ++d) {
    if (!reduced[d]) {
      plan.output.push_back(shape[d]);
      plan.kept.push_back(shape[d]);
      plan.steps.push_back(strides[d]);
      continue;
    }
    if (keeps_dims) plan.output.push_back(1);
    std::vector<int64_t> wider;
    wider.reserve(plan.offsets.size() * Sz(shape[d]));
    for (const int64_t offset : plan.offsets) {
      for (int64_t i = 0; i < shape[d]; ++i) wider.push_back(offset + i * strides[d]);
    }
    plan.offsets = std::move(wider);
  }
  for (size_t i = 0; i < plan.offsets.size() && plan.is_contiguous; ++i) {
    plan.is_contiguous = plan.offsets[i] == static_cast<int64_t>(i);
  }
  return plan;
}

}  // namespace pared
