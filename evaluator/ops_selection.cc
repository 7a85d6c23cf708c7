// Operators whose output size depends on values: NonZero, Unique, NonMaxSuppression.

#include <algorithm>
#include <cmath>
#include <numeric>

#include "evaluator/op_checks.h"

namespace pared {
namespace {

Op PrepareNonZero(const Node& node, const OpContext&) {
  CheckInputCount(node, 1, 1);
  return [label = NodeLabel(node)](std::span<const Tensor* const> inputs, std::span<Tensor> outputs,
                                   Scratch& scratch) {
    std::vector<int64_t> found;
    const auto collect = [&]<class T>() {
      const std::span<const T> x = inputs[0]->data<T>();
      for (size_t i = 0; i < x.size(); ++i) {
        if (x[i] != T{}) found.push_back(static_cast<int64_t>(i));
      }
    };
    if (inputs[0]->dtype() == DType::kBool) {
      collect.operator()<bool>();
    } else {
      DispatchNumber(inputs[0]->dtype(), label, collect);
    }
    const Shape& shape = inputs[0]->shape();
    const Shape strides = StridesOf(shape);
    const int64_t count = static_cast<int64_t>(found.size());
    const std::span<int64_t> y = scratch.Allocate<int64_t>(outputs[0], {inputs[0]->rank(), count});
    for (size_t axis = 0; axis < shape.size(); ++axis) {
      for (size_t i = 0; i < found.size(); ++i) {
        y[axis * found.size() + i] = found[i] / strides[axis] % shape[axis];
      }
    }
  };
}

// The distinct slices along one axis (elements where the input is flat), as numbers of slices.
struct Distinct {
  std::vector<int64_t> first;    // of each distinct slice: where it stands first
  std::vector<int64_t> inverse;  // of each slice: which distinct one it is
  std::vector<int64_t> counts;
};

template <class Less>
Distinct FindDistinct(int64_t slices, bool is_sorted, const Less& less) {
  std::vector<int64_t> order(Sz(slices));
  std::iota(order.begin(), order.end(), 0);
  std::ranges::stable_sort(order, less);
  Distinct distinct;
  distinct.inverse.resize(Sz(slices));
  for (size_t i = 0; i < order.size(); ++i) {
    if (i == 0 || less(order[i - 1], order[i])) {
      distinct.first.push_back(order[i]);
      distinct.counts.push_back(0);
    }
    ++distinct.counts.back();
    distinct.inverse[Sz(order[i])] = static_cast<int64_t>(distinct.first.size()) - 1;
  }
  if (is_sorted) return distinct;
  std::vector<size_t> by_first(distinct.first.size());
  std::iota(by_first.begin(), by_first.end(), size_t{0});
  std::ranges::sort(by_first, {}, [&](size_t i) { return distinct.first[i]; });
  Distinct in_order = distinct;
  std::vector<int64_t> new_number(by_first.size());
  for (size_t i = 0; i < by_first.size(); ++i) {
    in_order.first[i] = distinct.first[by_first[i]];
    in_order.counts[i] = distinct.counts[by_first[i]];
    new_number[by_first[i]] = static_cast<int64_t>(i);
  }
  for (int64_t& number : in_order.inverse) number = new_number[Sz(number)];
  return in_order;
}

Op PrepareUnique(const Node& node, const OpContext&) {
  CheckInputCount(node, 1, 1);
  const bool is_flat = !node.attributes.contains("axis");
  return [is_flat, axis_given = node.Int("axis", 0), is_sorted = node.Int("sorted", 1) != 0,
          label = NodeLabel(node)](std::span<const Tensor* const> inputs, std::span<Tensor> outputs,
                                   Scratch& scratch) {
    Shape shape = is_flat ? Shape{inputs[0]->count()} : inputs[0]->shape();
    const int64_t rank = static_cast<int64_t>(shape.size());
    const int64_t axis = is_flat ? 0 : NormalizeAxis(axis_given, rank, label);
    const int64_t dim = shape[Sz(axis)];
    const int64_t outer = Extent(shape, 0, axis), inner = Extent(shape, axis + 1, rank);
    Distinct distinct;
    DispatchNumber(inputs[0]->dtype(), label, [&]<class T>() {
      const std::span<const T> x = inputs[0]->data<T>();
      const auto less = [&](int64_t a, int64_t b) {
        for (int64_t i = 0; i < outer * inner; ++i) {
          const int64_t row = i / inner * dim, column = i % inner;
          const T left = x[Sz((row + a) * inner + column)];
          const T right = x[Sz((row + b) * inner + column)];
          if (left != right) return left < right;
        }
        return false;
      };
      distinct = FindDistinct(dim, is_sorted, less);
      shape[Sz(axis)] = static_cast<int64_t>(distinct.first.size());
      T* y = scratch.Allocate<T>(outputs[0], shape).data();
      for (int64_t i = 0; i < outer; ++i) {
        for (const int64_t slice : distinct.first) {
          y = std::copy_n(x.data() + (i * dim + slice) * inner, inner, y);
        }
      }
    });
    std::vector<int64_t>* const more[] = {&distinct.first, &distinct.inverse, &distinct.counts};
    for (size_t i = 1; i < outputs.size(); ++i) {
      const int64_t count = static_cast<int64_t>(more[i - 1]->size());
      outputs[i] = Tensor::Make<int64_t>({count}, std::move(*more[i - 1]));
    }
  };
}

struct Box {
  float y0, x0, y1, x1;
  float area() const { return (y1 - y0) * (x1 - x0); }
};

Box BoxAt(const float* corners, bool is_center) {
  if (is_center) {
    const float half_width = corners[2] / 2, half_height = corners[3] / 2;
    return {corners[1] - half_height, corners[0] - half_width, corners[1] + half_height,
            corners[0] + half_width};
  }
  return {std::min(corners[0], corners[2]), std::min(corners[1], corners[3]),
          std::max(corners[0], corners[2]), std::max(corners[1], corners[3])};
}

bool Overlaps(const Box& a, const Box& b, float threshold) {
  const float height = std::min(a.y1, b.y1) - std::max(a.y0, b.y0);
  const float width = std::min(a.x1, b.x1) - std::max(a.x0, b.x0);
  if (height <= 0 || width <= 0) return false;
  const float shared = height * width;
  return shared / (a.area() + b.area() - shared) > threshold;
}

struct NmsLimits {
  int64_t boxes_max = 0;  // of each class
  float iou = 0;
  const float* score = nullptr;  // null: every box counts
  bool is_center = false;
};

// The boxes kept for one class, best first.
std::vector<int64_t> KeepBoxes(std::span<const float> boxes, std::span<const float> scores,
                               const NmsLimits& limits) {
  std::vector<int64_t> order;
  for (size_t i = 0; i < scores.size(); ++i) {
    if (limits.score == nullptr || scores[i] > *limits.score) {
      order.push_back(static_cast<int64_t>(i));
    }
  }
  std::ranges::stable_sort(order, std::greater(), [&](int64_t i) { return scores[Sz(i)]; });
  std::vector<int64_t> kept;
  std::vector<Box> kept_boxes;
  for (const int64_t i : order) {
    if (static_cast<int64_t>(kept.size()) >= limits.boxes_max) break;
    const Box box = BoxAt(&boxes[Sz(i) * 4], limits.is_center);
    const bool is_covered = std::ranges::any_of(
        kept_boxes, [&](const Box& other) { return Overlaps(box, other, limits.iou); });
    if (is_covered) continue;
    kept.push_back(i);
    kept_boxes.push_back(box);
  }
  return kept;
}

Op PrepareNonMaxSuppression(const Node& node, const OpContext&) {
  CheckInputCount(node, 2, 5);
  return [is_center = node.Int("center_point_box", 0) != 0, label = NodeLabel(node)](
             std::span<const Tensor* const> inputs, std::span<Tensor> outputs, Scratch&) {
    const auto given = [&](size_t i) -> const Tensor* {
      return i < inputs.size() && inputs[i] != nullptr && inputs[i]->count() == 1 ? inputs[i]
                                                                                  : nullptr;
    };
    const Shape& box_shape = inputs[0]->shape();
    const Shape& score_shape = inputs[1]->shape();
    const bool fits = box_shape.size() == 3 && score_shape.size() == 3 && box_shape[2] == 4 &&
                      box_shape[0] == score_shape[0] && box_shape[1] == score_shape[2];
    if (!fits) {
      RefuseNode(
          "boxes " + ShapeText(box_shape) + " and scores " + ShapeText(score_shape) + " do not fit",
          label);
    }
    NmsLimits limits{.is_center = is_center};
    if (given(2) != nullptr) limits.boxes_max = IntegersOf(*given(2), label)[0];
    if (given(3) != nullptr) limits.iou = given(3)->data<float>()[0];
    if (given(4) != nullptr) limits.score = given(4)->data<float>().data();
    std::vector<int64_t> rows;
    const int64_t boxes = box_shape[1];
    for (int64_t batch = 0; batch < score_shape[0]; ++batch) {
      for (int64_t label_class = 0; label_class < score_shape[1]; ++label_class) {
        const int64_t at = (batch * score_shape[1] + label_class) * boxes;
        const std::vector<int64_t> kept =
            KeepBoxes(inputs[0]->data<float>().subspan(Sz(batch * boxes * 4), Sz(boxes * 4)),
                      inputs[1]->data<float>().subspan(Sz(at), Sz(boxes)), limits);
        for (const int64_t box : kept) rows.insert(rows.end(), {batch, label_class, box});
      }
    }
    const int64_t count = static_cast<int64_t>(rows.size()) / 3;
    outputs[0] = Tensor::Make<int64_t>({count, 3}, std::move(rows));
  };
}

constexpr OpInfo kOps[] = {
    {"NonMaxSuppression", "", PrepareNonMaxSuppression},
    {"NonZero", "", PrepareNonZero},
    {"Unique", "", PrepareUnique},
};

}  // namespace

std::span<const OpInfo> SelectionOps() { return kOps; }

}  // namespace pared
