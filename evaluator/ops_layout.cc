// Elements moved to other places by a rule of their position: Transpose, Concat, Slice, Pad, ...

#include <algorithm>
#include <cstring>
#include <numeric>

#include "evaluator/op_checks.h"
#include "evaluator/strided.h"

namespace pared {

StridedView Merged(const StridedView& view) {
  StridedView merged{.dims = {}, .strides = {}, .offset = view.offset};
  for (size_t axis = 0; axis < view.dims.size(); ++axis) {
    if (view.dims[axis] == 1) continue;
    const bool continues =
        !merged.dims.empty() && merged.strides.back() == view.strides[axis] * view.dims[axis];
    if (continues) {
      merged.dims.back() *= view.dims[axis];
      merged.strides.back() = view.strides[axis];
    } else {
      merged.dims.push_back(view.dims[axis]);
      merged.strides.push_back(view.strides[axis]);
    }
  }
  if (merged.dims.empty()) {
    merged.dims.push_back(1);
    merged.strides.push_back(1);
  }
  return merged;
}

namespace {

void CopyView(const Tensor& in, const StridedView& view, const Shape& shape, Tensor& out,
              Scratch& scratch, const std::string& label) {
  DispatchWidth(in.dtype(), label, [&]<class T>() {
    T* y = AllocateLike<T>(out, in.dtype(), shape, scratch);
    CopyStrided(Elements<T>(in), view, y, scratch);
  });
}

Op PrepareTranspose(const Node& node, const OpContext&) {
  CheckInputCount(node, 1, 1);
  return [perm = node.Ints("perm"), label = NodeLabel(node)](
             std::span<const Tensor* const> inputs, std::span<Tensor> outputs, Scratch& scratch) {
    const Shape& from = inputs[0]->shape();
    std::vector<int64_t> order = perm;
    if (order.empty()) {
      for (size_t axis = from.size(); axis-- > 0;) order.push_back(static_cast<int64_t>(axis));
    }
    std::vector<bool> seen(from.size());
    if (order.size() != from.size()) RefuseNode("perm does not fit " + ShapeText(from), label);
    const Shape strides = StridesOf(from);
    StridedView view;
    for (const int64_t entry : order) {
      const size_t axis = Sz(NormalizeAxis(entry, inputs[0]->rank(), label));
      if (seen[axis]) RefuseNode("perm names an axis twice", label);
      seen[axis] = true;
      view.dims.push_back(from[axis]);
      view.strides.push_back(strides[axis]);
    }
    const Shape shape = view.dims;
    if (Merged(view).dims.size() == 1 && Merged(view).strides[0] == 1) {
      outputs[0] = inputs[0]->Reshaped(shape);  // nothing moves
      return;
    }
    CopyView(*inputs[0], view, shape, outputs[0], scratch, label);
  };
}

Op PrepareConcat(const Node& node, const OpContext&) {
  CheckInputCount(node, 1, SIZE_MAX);
  return [axis_given = node.Int("axis", 0), label = NodeLabel(node)](
             std::span<const Tensor* const> inputs, std::span<Tensor> outputs, Scratch& scratch) {
    const int64_t axis = NormalizeAxis(axis_given, inputs[0]->rank(), label);
    Shape shape = inputs[0]->shape();
    shape[Sz(axis)] = 0;
    for (const Tensor* input : inputs) {
      Shape other = input->shape();
      const bool ranks_fit = other.size() == shape.size();
      const int64_t dim = ranks_fit ? std::exchange(other[Sz(axis)], shape[Sz(axis)]) : 0;
      if (other != shape || input->dtype() != inputs[0]->dtype()) {
        RefuseNode("inputs of " + ShapeText(inputs[0]->shape()) + " and " +
                       ShapeText(input->shape()) + " do not concatenate",
                   label);
      }
      shape[Sz(axis)] += dim;
    }
    DispatchWidth(inputs[0]->dtype(), label, [&]<class T>() {
      T* y = AllocateLike<T>(outputs[0], inputs[0]->dtype(), shape, scratch);
      const int64_t outer = Extent(shape, 0, axis);
      const int64_t row = Extent(shape, axis, static_cast<int64_t>(shape.size()));
      int64_t at = 0;
      for (const Tensor* input : inputs) {
        const int64_t piece = input->count() / std::max<int64_t>(1, outer);
        const T* x = Elements<T>(*input);
        const int64_t grain = std::max<int64_t>(1, kCopyGrain / std::max<int64_t>(1, piece));
        scratch.ParallelFor(piece == 0 ? 0 : outer, grain, [&](int64_t begin, int64_t end) {
          for (int64_t i = begin; i < end; ++i) {
            std::memcpy(y + i * row + at, x + i * piece, Sz(piece) * sizeof(T));
          }
        });
        at += piece;
      }
    });
  };
}

// Sizes: an attribute before opset 13, an input since; none: equal, the last one smaller.
std::vector<int64_t> SplitSizes(int64_t dim, size_t parts, std::vector<int64_t> sizes,
                                const std::string& label) {
  if (sizes.empty()) {
    const int64_t count = static_cast<int64_t>(parts);
    const int64_t size = (dim + count - 1) / count;
    for (int64_t i = 0; i < count; ++i)
      sizes.push_back(std::clamp<int64_t>(dim - i * size, 0, size));
  }
  const bool has_negative = std::ranges::any_of(sizes, [](int64_t size) { return size < 0; });
  const int64_t sum = std::accumulate(sizes.begin(), sizes.end(), int64_t{0});
  if (sizes.size() != parts || has_negative || sum != dim) {
    RefuseNode("cannot split an axis of " + std::to_string(dim) + " into " + ShapeText(sizes),
               label);
  }
  return sizes;
}

Op PrepareSplit(const Node& node, const OpContext&) {
  CheckInputCount(node, 1, 2);
  return [axis_given = node.Int("axis", 0), attribute = node.Ints("split"),
          label = NodeLabel(node)](std::span<const Tensor* const> inputs, std::span<Tensor> outputs,
                                   Scratch& scratch) {
    const Tensor& in = *inputs[0];
    const int64_t axis = NormalizeAxis(axis_given, in.rank(), label);
    const bool is_given = inputs.size() > 1 && inputs[1] != nullptr;
    const std::vector<int64_t> sizes =
        SplitSizes(in.shape()[Sz(axis)], outputs.size(),
                   is_given ? IntegersOf(*inputs[1], label) : attribute, label);
    const Shape strides = StridesOf(in.shape());
    int64_t at = 0;
    for (size_t part = 0; part < outputs.size(); ++part) {
      Shape shape = in.shape();
      shape[Sz(axis)] = sizes[part];
      const StridedView view{.dims = shape, .strides = strides, .offset = at * strides[Sz(axis)]};
      CopyView(in, view, shape, outputs[part], scratch, label);
      at += sizes[part];
    }
  };
}

// Slice's starts, ends, axes and steps: attributes before opset 10, inputs since.
struct SliceArguments {
  std::vector<int64_t> starts, ends, axes, steps;
};

StridedView SliceView(const Shape& shape, const SliceArguments& slice, const std::string& label) {
  StridedView view{.dims = shape, .strides = StridesOf(shape)};
  const int64_t rank = static_cast<int64_t>(shape.size());
  const Shape strides = view.strides;
  for (size_t i = 0; i < slice.starts.size(); ++i) {
    const size_t axis = slice.axes.empty() ? i : Sz(NormalizeAxis(slice.axes[i], rank, label));
    const int64_t step = slice.steps.empty() ? 1 : slice.steps[i];
    if (axis >= shape.size()) RefuseNode("slices more axes than its input has", label);
    if (step == 0) RefuseNode("a step must not be 0", label);
    const int64_t dim = shape[axis];
    // Clamped to the last place a walk in this direction may start from and end before.
    const int64_t low = step > 0 ? 0 : -1, high = step > 0 ? dim : dim - 1;
    const auto clamp = [&](int64_t place) {
      return std::clamp<int64_t>(place < 0 ? place + dim : place, low, high);
    };
    const int64_t start =
        slice.starts[i] < -dim ? low + (step < 0 ? 1 : 0) : clamp(slice.starts[i]);
    const int64_t end = slice.ends[i] < -dim ? low : clamp(slice.ends[i]);
    const int64_t magnitude = step > 0 ? step : step == INT64_MIN ? INT64_MAX : -step;
    const int64_t distance = dim == 0 ? 0 : step > 0 ? end - start : start - end;
    view.dims[axis] = distance <= 0 ? 0 : (distance - 1) / magnitude + 1;
    view.offset += view.dims[axis] == 0 ? 0 : start * strides[axis];
    view.strides[axis] = view.dims[axis] <= 1 ? strides[axis] : strides[axis] * step;
  }
  return view;
}

Op PrepareSlice(const Node& node, const OpContext&) {
  CheckInputCount(node, 1, 5);
  const SliceArguments attributes{node.Ints("starts"), node.Ints("ends"), node.Ints("axes"), {}};
  return [attributes, label = NodeLabel(node)](std::span<const Tensor* const> inputs,
                                               std::span<Tensor> outputs, Scratch& scratch) {
    SliceArguments slice = attributes;
    std::vector<int64_t>* const given[] = {&slice.starts, &slice.ends, &slice.axes, &slice.steps};
    for (size_t i = 1; i < inputs.size(); ++i) {
      if (inputs[i] != nullptr) *given[i - 1] = IntegersOf(*inputs[i], label);
    }
    const size_t count = slice.starts.size();
    const bool fits = slice.ends.size() == count &&
                      (slice.axes.empty() || slice.axes.size() == count) &&
                      (slice.steps.empty() || slice.steps.size() == count);
    if (!fits) RefuseNode("starts, ends, axes and steps must be of one length", label);
    const StridedView view = SliceView(inputs[0]->shape(), slice, label);
    if (view.dims == inputs[0]->shape() && view.strides == StridesOf(view.dims)) {
      outputs[0] = *inputs[0];
      return;
    }
    CopyView(*inputs[0], view, view.dims, outputs[0], scratch, label);
  };
}

Op PrepareExpand(const Node& node, const OpContext&) {
  CheckInputCount(node, 2, 2);
  return [label = NodeLabel(node)](std::span<const Tensor* const> inputs, std::span<Tensor> outputs,
                                   Scratch& scratch) {
    const Shape& from = inputs[0]->shape();
    Shape shape = IntegersOf(*inputs[1], label);
    if (shape.size() < from.size()) shape.insert(shape.begin(), from.size() - shape.size(), 1);
    const size_t shift = shape.size() - from.size();
    const Shape strides = StridesOf(from);
    StridedView view{.dims = {}, .strides = Shape(shape.size(), 0)};
    for (size_t axis = 0; axis < from.size(); ++axis) {
      int64_t& dim = shape[shift + axis];
      if (dim == 1) dim = from[axis];
      if (from[axis] == 1) continue;
      if (from[axis] != dim) {
        RefuseNode("cannot expand " + ShapeText(from) + " to " + ShapeText(shape), label);
      }
      view.strides[shift + axis] = strides[axis];
    }
    view.dims = shape;
    if (ElementCount(shape) == inputs[0]->count()) {
      outputs[0] = inputs[0]->Reshaped(shape);
      return;
    }
    CopyView(*inputs[0], view, shape, outputs[0], scratch, label);
  };
}

Op PrepareTile(const Node& node, const OpContext&) {
  CheckInputCount(node, 2, 2);
  return [label = NodeLabel(node)](std::span<const Tensor* const> inputs, std::span<Tensor> outputs,
                                   Scratch& scratch) {
    Shape shape = inputs[0]->shape();
    const Shape strides = StridesOf(shape);
    const std::vector<int64_t> repeats = IntegersOf(*inputs[1], label);
    if (repeats.size() != shape.size()) RefuseNode("needs one repeat for each axis", label);
    StridedView view;
    for (size_t axis = 0; axis < shape.size(); ++axis) {
      if (repeats[axis] < 0) RefuseNode("a repeat must not be negative", label);
      view.dims.insert(view.dims.end(), {repeats[axis], shape[axis]});
      view.strides.insert(view.strides.end(), {0, strides[axis]});
      shape[axis] *= repeats[axis];
    }
    CopyView(*inputs[0], view, shape, outputs[0], scratch, label);
  };
}

Op PrepareTrilu(const Node& node, const OpContext&) {
  CheckInputCount(node, 1, 2);
  return [is_upper = node.Int("upper", 1) != 0, label = NodeLabel(node)](
             std::span<const Tensor* const> inputs, std::span<Tensor> outputs, Scratch& scratch) {
    const Shape& shape = inputs[0]->shape();
    if (shape.size() < 2) RefuseNode("its input must have at least 2 axes", label);
    const bool has_shift = inputs.size() > 1 && inputs[1] != nullptr && inputs[1]->count() == 1;
    const int64_t shift = has_shift ? IntegersOf(*inputs[1], label)[0] : 0;
    const int64_t columns = shape.back(), rows = shape[shape.size() - 2];
    DispatchWidth(inputs[0]->dtype(), label, [&]<class T>() {
      const T* x = Elements<T>(*inputs[0]);
      T* y = AllocateLike<T>(outputs[0], inputs[0]->dtype(), shape, scratch);
      for (int64_t i = 0; i < inputs[0]->count(); ++i) {
        const int64_t column = i % columns, row = i / columns % rows;
        const bool keeps = is_upper ? column - row >= shift : column - row <= shift;
        y[i] = keeps ? x[i] : T{};
      }
    });
  };
}

Op PrepareReverseSequence(const Node& node, const OpContext&) {
  CheckInputCount(node, 2, 2);
  const int64_t batch_axis = node.Int("batch_axis", 1), time_axis = node.Int("time_axis", 0);
  const std::string label = NodeLabel(node);
  if (batch_axis + time_axis != 1 || batch_axis < 0 || batch_axis > 1) {
    RefuseNode("batch_axis and time_axis must be 0 and 1", label);
  }
  return [batch_axis, label](std::span<const Tensor* const> inputs, std::span<Tensor> outputs,
                             Scratch& scratch) {
    const Shape& shape = inputs[0]->shape();
    const std::vector<int64_t> lengths = IntegersOf(*inputs[1], label);
    if (shape.size() < 2 || static_cast<int64_t>(lengths.size()) != shape[Sz(batch_axis)]) {
      RefuseNode("needs one length for each sequence", label);
    }
    const int64_t inner = Extent(shape, 2, static_cast<int64_t>(shape.size()));
    DispatchWidth(inputs[0]->dtype(), label, [&]<class T>() {
      const T* x = Elements<T>(*inputs[0]);
      T* y = AllocateLike<T>(outputs[0], inputs[0]->dtype(), shape, scratch);
      for (int64_t i = 0; i < shape[0]; ++i) {
        for (int64_t j = 0; j < shape[1]; ++j) {
          const int64_t time = batch_axis == 0 ? j : i, batch = batch_axis == 0 ? i : j;
          const int64_t length = lengths[Sz(batch)];
          if (length < 0 || length > shape[Sz(1 - batch_axis)]) {
            RefuseNode("a length is out of range", label);
          }
          const int64_t source = time < length ? length - 1 - time : time;
          const int64_t from =
              batch_axis == 0 ? batch * shape[1] + source : source * shape[1] + batch;
          std::copy_n(x + from * inner, inner, y + (i * shape[1] + j) * inner);
        }
      }
    });
  };
}

constexpr OpInfo kOps[] = {
    {"Concat", "", PrepareConcat, HalfFloats::kNative},
    {"Expand", "", PrepareExpand, HalfFloats::kNative},
    {"ReverseSequence", "", PrepareReverseSequence, HalfFloats::kNative},
    {"Slice", "", PrepareSlice, HalfFloats::kNative},
    {"Split", "", PrepareSplit, HalfFloats::kNative},
    {"Tile", "", PrepareTile, HalfFloats::kNative},
    {"Transpose", "", PrepareTranspose, HalfFloats::kNative},
    {"Trilu", "", PrepareTrilu, HalfFloats::kNative},
};

}  // namespace

std::span<const OpInfo> LayoutOps() { return kOps; }

}  // namespace pared
