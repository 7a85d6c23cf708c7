// NumPy broadcasting of up to three operands, as rows: runs along the innermost axis in which every
// operand either advances by one element or stays.

#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "evaluator/ops.h"
#include "model/tensor.h"

namespace pared {

struct Broadcast {
  static constexpr size_t kOperands = 3;

  Shape shape;                                   // of the result
  int64_t rows = 1, columns = 1;                 // their product is the result's element count
  std::array<int64_t, kOperands> column_stride;  // 0 or 1
  // Outer axes, axes that lie together merged; strides in elements.
  std::vector<int64_t> dims;
  std::vector<std::array<int64_t, kOperands>> strides;

  // Where row `row` of each operand begins.
  std::array<int64_t, kOperands> RowStart(int64_t row) const;
};

// Throws kInvalidArgument naming both shapes where they do not fit.
Broadcast PlanBroadcast(std::span<const Shape* const> operands, const std::string& label);

// Calls body(out_offset, operand_offsets, count) for pieces of rows, in parallel where that pays.
template <class Body>
void ForEachRow(const Broadcast& plan, const Scratch& scratch, const Body& body) {
  constexpr int64_t kGrain = 16384;  // elements a task
  if (plan.rows == 1) {
    scratch.ParallelFor(plan.columns, kGrain, [&](int64_t begin, int64_t end) {
      std::array<int64_t, Broadcast::kOperands> offsets{};
      for (size_t i = 0; i < offsets.size(); ++i) offsets[i] = begin * plan.column_stride[i];
      body(begin, offsets, end - begin);
    });
    return;
  }
  const int64_t grain = std::max<int64_t>(1, kGrain / std::max<int64_t>(1, plan.columns));
  scratch.ParallelFor(plan.rows, grain, [&](int64_t begin, int64_t end) {
    std::vector<int64_t> index(plan.dims.size());
    for (size_t axis = plan.dims.size(), rest = static_cast<size_t>(begin); axis-- > 0;) {
      index[axis] = static_cast<int64_t>(rest % static_cast<size_t>(plan.dims[axis]));
      rest /= static_cast<size_t>(plan.dims[axis]);
    }
    std::array<int64_t, Broadcast::kOperands> offsets = plan.RowStart(begin);
    for (int64_t row = begin; row < end; ++row) {
      body(row * plan.columns, offsets, plan.columns);
      for (size_t axis = plan.dims.size(); axis-- > 0;) {
        const bool wraps = ++index[axis] == plan.dims[axis];
        const int64_t step = wraps ? 1 - plan.dims[axis] : 1;
        for (size_t i = 0; i < offsets.size(); ++i) offsets[i] += step * plan.strides[axis][i];
        if (!wraps) break;
        index[axis] = 0;
      }
    }
  });
}

}  // namespace pared
