#include "evaluator/broadcast.h"

#include <algorithm>

#include "evaluator/op_checks.h"

namespace pared {
namespace {

Shape BroadcastShape(std::span<const Shape* const> operands, const std::string& label) {
  Shape shape;
  for (const Shape* operand : operands) {
    if (operand->size() > shape.size()) {
      shape.insert(shape.begin(), operand->size() - shape.size(), 1);
    }
    const size_t shift = shape.size() - operand->size();
    for (size_t axis = 0; axis < operand->size(); ++axis) {
      int64_t& dim = shape[shift + axis];
      const int64_t other = (*operand)[axis];
      if (dim == 1) {
        dim = other;
      } else if (other != 1 && other != dim) {
        RefuseNode("shapes " + ShapeText(*operands[0]) + " and " + ShapeText(*operand) +
                       " do not broadcast",
                   label);
      }
    }
  }
  return shape;
}

}  // namespace

std::array<int64_t, Broadcast::kOperands> Broadcast::RowStart(int64_t row) const {
  std::array<int64_t, kOperands> offsets{};
  for (size_t axis = dims.size(); axis-- > 0;) {
    for (size_t i = 0; i < kOperands; ++i) offsets[i] += row % dims[axis] * strides[axis][i];
    row /= dims[axis];
  }
  return offsets;
}

Broadcast PlanBroadcast(std::span<const Shape* const> operands, const std::string& label) {
  Broadcast plan;
  plan.shape = BroadcastShape(operands, label);
  std::array<Shape, Broadcast::kOperands> element_strides;
  for (size_t i = 0; i < operands.size(); ++i) element_strides[i] = StridesOf(*operands[i]);
  // From the back: an axis merges into the one behind it where, for every operand, stepping along
  // it is the same as running off the end of that one.
  std::vector<int64_t> dims;
  std::vector<std::array<int64_t, Broadcast::kOperands>> strides;
  for (size_t axis = plan.shape.size(); axis-- > 0;) {
    const int64_t dim = plan.shape[axis];
    if (dim == 1) continue;
    std::array<int64_t, Broadcast::kOperands> step{};
    for (size_t i = 0; i < operands.size(); ++i) {
      const size_t missing = plan.shape.size() - operands[i]->size();
      if (axis < missing || (*operands[i])[axis - missing] == 1) continue;
      step[i] = element_strides[i][axis - missing];
    }
    bool merges = !dims.empty();
    for (size_t i = 0; merges && i < step.size(); ++i) {
      merges = step[i] == strides.back()[i] * dims.back();
    }
    if (merges) {
      dims.back() *= dim;
    } else {
      dims.push_back(dim);
      strides.push_back(step);
    }
  }
  if (dims.empty()) {
    dims.push_back(1);
    strides.push_back({});
  }
  plan.columns = dims[0];
  plan.column_stride = strides[0];
  plan.dims.assign(dims.rbegin(), dims.rend() - 1);
  plan.strides.assign(strides.rbegin(), strides.rend() - 1);
  for (const int64_t dim : plan.dims) plan.rows *= dim;
  return plan;
}

}  // namespace pared
