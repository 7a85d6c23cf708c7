// Operators that pick elements by index: slices, gathers, the largest, the non-zero.

#include <algorithm>

#include "model/infer_context.h"

namespace pared {
namespace {

void TypeOnly(InferContext& c) { c.Set(0, c.dtype(0), std::nullopt); }

struct SliceRange {
  int64_t start, end, step;
};

// Elements of one axis; start and end as ONNX has them: negative from the back, clamped.
std::vector<int64_t> SliceIndices(const SliceRange& range, int64_t size) {
  if (size == 0) return {0, 0};
  int64_t start = range.start < 0 ? range.start + size : range.start;
  int64_t end = range.end < 0 ? range.end + size : range.end;
  const bool forward = range.step > 0;
  start = std::clamp<int64_t>(start, 0, forward ? size : size - 1);
  end = std::clamp<int64_t>(end, forward ? 0 : -1, size);
  std::vector<int64_t> first_and_count = {start, 0};
  const int64_t span = forward ? end - start : start - end;
  const int64_t stride = forward ? range.step : -range.step;
  if (span > 0) first_and_count[1] = (span - 1) / stride + 1;
  return first_and_count;
}

// The ranges and axes of a Slice; nullopt: not known.
std::optional<std::vector<std::pair<int64_t, SliceRange>>> SlicesOf(const InferContext& c) {
  const bool by_attribute = c.opset < 10;
  const auto starts = by_attribute ? c.node.Ints("starts") : c.numbers(1);
  const auto ends = by_attribute ? c.node.Ints("ends") : c.numbers(2);
  if (!starts || !ends) return {};
  auto axes = by_attribute ? std::optional(c.node.Ints("axes")) : c.Axes(3);
  auto steps = c.has_input(4) ? c.numbers(4) : std::optional(std::vector<int64_t>());
  if (!axes || !steps) return {};
  for (size_t i = 0; axes->size() < starts->size(); ++i) axes->push_back(static_cast<int64_t>(i));
  steps->resize(std::max(steps->size(), starts->size()), 1);
  if (ends->size() != starts->size() || axes->size() != starts->size()) {
    c.Fail("starts, ends and axes have different lengths");
  }
  std::vector<std::pair<int64_t, SliceRange>> slices;
  for (size_t i = 0; i < starts->size(); ++i) {
    if ((*steps)[i] == 0 || (*steps)[i] == INT64_MIN) c.Fail("a step of a Slice cannot be 0");
    slices.emplace_back((*axes)[i], SliceRange{(*starts)[i], (*ends)[i], (*steps)[i]});
  }
  return slices;
}

void Slice(InferContext& c) {
  const Dims* x = c.dims(0);
  if (x == nullptr) return TypeOnly(c);
  const auto slices = SlicesOf(c);
  if (!slices.has_value()) {
    // Only the axes may change: with axes unknown, every dimension may.
    Dims shape = *x;
    const auto axes = c.has_input(3) ? c.numbers(3) : std::nullopt;
    for (size_t i = 0; i < shape.size() && !axes; ++i) shape[i] = AnyDim();
    for (const int64_t axis : axes.value_or(std::vector<int64_t>())) {
      shape[c.Axis(axis, shape.size())] = AnyDim();
    }
    return c.Set(0, c.dtype(0), std::move(shape));
  }
  Dims shape = *x;
  for (const auto& [axis, range] : *slices) {
    Dim& dim = shape[c.Axis(axis, shape.size())];
    const bool is_all = range.start == 0 && range.end >= INT32_MAX && range.step == 1;
    if (IsNumber(dim)) {
      dim = Number(SliceIndices(range, dim.value)[1]);
    } else if (!is_all) {
      dim = AnyDim();
    }
  }
  const Dims* elements = c.elements(0);
  if (elements != nullptr && x->size() == 1 && slices->size() == 1) {
    const SliceRange& range = (*slices)[0].second;
    const auto indices = SliceIndices(range, static_cast<int64_t>(elements->size()));
    Dims& sliced = c.outputs[0].elements.emplace();
    for (int64_t i = 0; i < indices[1]; ++i) {
      sliced.push_back((*elements)[static_cast<size_t>(indices[0] + i * range.step)]);
    }
  }
  c.Set(0, c.dtype(0), std::move(shape));
}

void Gather(InferContext& c) {
  const Dims* x = c.dims(0);
  const Dims* indices = c.dims(1);
  if (x == nullptr) return TypeOnly(c);
  const size_t axis = c.Axis(c.node.Int("axis", 0), x->size());
  if (indices == nullptr) return TypeOnly(c);
  Dims shape(x->begin(), x->begin() + static_cast<int64_t>(axis));
  shape.insert(shape.end(), indices->begin(), indices->end());
  shape.insert(shape.end(), x->begin() + static_cast<int64_t>(axis) + 1, x->end());
  c.Set(0, c.dtype(0), std::move(shape));
  const Dims* elements = c.elements(0);
  const auto numbers = c.numbers(1);
  if (elements == nullptr || !numbers.has_value() || x->size() != 1) return;
  Dims& gathered = c.outputs[0].elements.emplace();
  for (const int64_t index : *numbers)
    gathered.push_back((*elements)[c.Axis(index, elements->size())]);
}

void GatherElements(InferContext& c) {
  if (const Dims* x = c.dims(0)) c.Axis(c.node.Int("axis", 0), x->size());
  c.Set(0, c.dtype(0), c.dims(1) == nullptr ? std::nullopt : std::optional<Dims>(*c.dims(1)));
}

void GatherND(InferContext& c) {
  const Dims* x = c.dims(0);
  const Dims* indices = c.dims(1);
  if (x == nullptr || indices == nullptr) return TypeOnly(c);
  if (indices->empty()) c.Fail("the indices have rank 0");
  const int64_t depth = indices->back().value;
  const int64_t batch = c.node.Int("batch_dims", 0);
  if (depth < 0 || batch < 0) return TypeOnly(c);
  if (depth > static_cast<int64_t>(x->size()) - batch)
    c.Fail("the indices are deeper than the data");
  Dims shape(indices->begin(), indices->end() - 1);
  shape.insert(shape.end(), x->begin() + batch + depth, x->end());
  c.Set(0, c.dtype(0), std::move(shape));
}

void NonZero(InferContext& c) {
  const Dims* x = c.dims(0);
  // A scalar counts as a list of one.
  const auto rank =
      x == nullptr ? AnyDim() : Number(std::max<int64_t>(1, static_cast<int64_t>(x->size())));
  c.Set(0, DType::kInt64, Dims{rank, AnyDim()});
}

void OneHot(InferContext& c) {
  const Dims* indices = c.dims(0);
  if (indices == nullptr) return c.Set(0, c.dtype(2), std::nullopt);
  const auto depth = c.numbers(1);
  const size_t axis = c.Axis(c.node.Int("axis", -1), indices->size() + 1);
  Dims shape = *indices;
  const bool is_known = depth.has_value() && depth->size() == 1 && (*depth)[0] >= 0;
  shape.insert(shape.begin() + static_cast<int64_t>(axis),
               is_known ? Number((*depth)[0]) : AnyDim());
  c.Set(0, c.dtype(2), std::move(shape));
}

void TopK(InferContext& c) {
  const Dims* x = c.dims(0);
  if (x == nullptr) {
    TypeOnly(c);
    return c.Set(1, DType::kInt64, std::nullopt);
  }
  const auto k =
      c.opset < 10 ? std::optional(std::vector<int64_t>{c.node.Int("k", -1)}) : c.numbers(1);
  Dims shape = *x;
  const bool is_known = k.has_value() && k->size() == 1 && (*k)[0] >= 0;
  shape[c.Axis(c.node.Int("axis", -1), x->size())] = is_known ? Number((*k)[0]) : AnyDim();
  c.Set(0, c.dtype(0), shape);
  c.Set(1, DType::kInt64, std::move(shape));
}

// The elements, or the slices along `axis`, that differ; then three lists of indices.
void Unique(InferContext& c) {
  const Dims* x = c.dims(0);
  const bool is_flat = !c.node.attributes.contains("axis");
  std::optional<Dims> shape;
  if (is_flat) {
    shape = Dims{AnyDim()};
  } else if (x != nullptr) {
    shape = *x;
    (*shape)[c.Axis(c.node.Int("axis", 0), x->size())] = AnyDim();
  }
  c.Set(0, c.dtype(0), std::move(shape));
  for (size_t i = 1; i < c.outputs.size(); ++i) c.Set(i, DType::kInt64, Dims{AnyDim()});
}

void NonMaxSuppression(InferContext& c) { c.Set(0, DType::kInt64, Dims{AnyDim(), Number(3)}); }

}  // namespace

const InferTable& IndexingInference() {
  static const InferTable kTable = {
      {"Slice", Slice},
      {"Gather", Gather},
      {"GatherElements", GatherElements},
      {"GatherND", GatherND},
      {"NonZero", NonZero},
      {"OneHot", OneHot},
      {"TopK", TopK},
      {"Unique", Unique},
      {"Compress", TypeOnly},
      {"Einsum", TypeOnly},
      {"NonMaxSuppression", NonMaxSuppression},
  };
  return kTable;
}

}  // namespace pared
