// Operators that arrange elements anew: reshapes, pads, splits; and what computes shapes.

#include <algorithm>
#include <cmath>

#include "model/infer_context.h"

namespace pared {
namespace {

// The value, rank known or not, of which only the type is known.
void TypeOnly(InferContext& c) { c.Set(0, c.dtype(0), std::nullopt); }

void ShapeOf(InferContext& c) {
  const Dims* x = c.dims(0);
  if (x == nullptr) return c.Set(0, DType::kInt64, Dims{AnyDim()});
  const auto rank = static_cast<int64_t>(x->size());
  const auto clamp = [&](int64_t i) { return std::clamp<int64_t>(i < 0 ? i + rank : i, 0, rank); };
  const int64_t start = clamp(c.node.Int("start", 0));
  const int64_t end = std::max(start, clamp(c.node.Int("end", rank)));
  c.outputs[0].elements = Dims(x->begin() + start, x->begin() + end);
  c.Set(0, DType::kInt64, Dims{Number(end - start)});
}

void Size(InferContext& c) {
  c.Set(0, DType::kInt64, Dims());
  const Dims* x = c.dims(0);
  if (x == nullptr) return;
  Dim size = Number(1);
  for (const Dim& dim : *x) size = Times(size, dim);
  c.outputs[0].elements = Dims{size};
}

void Constant(InferContext& c) {
  const auto element_count = [&](size_t count) {
    return Dims{Number(static_cast<int64_t>(count))};
  };
  if (c.node.attributes.contains("value_int")) {
    c.Set(0, DType::kInt64, Dims());
    c.outputs[0].elements = Dims{Element(c.node.Int("value_int", 0))};
  } else if (c.node.attributes.contains("value_ints")) {
    const std::vector<int64_t> values = c.node.Ints("value_ints");
    c.Set(0, DType::kInt64, element_count(values.size()));
    Dims& elements = c.outputs[0].elements.emplace();
    for (const int64_t value : values) elements.push_back(Element(value));
  } else if (c.node.attributes.contains("value_float")) {
    c.Set(0, DType::kFloat32, Dims());
  } else if (c.node.attributes.contains("value_floats")) {
    c.Set(0, DType::kFloat32, element_count(c.node.Floats("value_floats").size()));
  } else if (c.node.attributes.contains("value_string")) {
    c.Set(0, DType::kString, Dims());
  } else if (c.node.attributes.contains("value_strings")) {
    c.Set(0, DType::kString, element_count(c.node.Strings("value_strings").size()));
  }
}

// A shape given as a value. nullopt: its rank is not known.
std::optional<Dims> ShapeFromValue(const InferContext& c, size_t i) {
  if (const Dims* elements = c.elements(i)) {
    Dims dims;
    for (const Dim& element : *elements) dims.push_back(DimOfElement(element));
    return dims;
  }
  const Dims* shape = c.dims(i);
  if (shape == nullptr || shape->size() != 1) return {};
  const int64_t rank = (*shape)[0].value;
  if (rank < 0 || rank > 64) return {};
  return Dims(static_cast<size_t>(rank));
}

void ConstantOfShape(InferContext& c) {
  const Tensor* value = c.node.TensorOf("value");
  c.Set(0, value == nullptr ? DType::kFloat32 : value->dtype(), ShapeFromValue(c, 0));
}

void Range(InferContext& c) {
  c.Set(0, c.dtype(0), Dims{AnyDim()});
  const auto start = c.numbers(0);
  const auto limit = c.numbers(1);
  const auto delta = c.numbers(2);
  if (!start || !limit || !delta || start->size() != 1 || limit->size() != 1 ||
      delta->size() != 1) {
    return;
  }
  if ((*delta)[0] == 0) c.Fail("a Range needs a step other than 0");
  const double count =
      std::ceil((static_cast<double>((*limit)[0]) - static_cast<double>((*start)[0])) /
                static_cast<double>((*delta)[0]));
  if (count < 1e15) c.Set(0, c.dtype(0), Dims{Number(static_cast<int64_t>(std::max(count, 0.0)))});
}

// The number of elements; nullopt: a dimension is no number.
std::optional<int64_t> CountOf(const Dims& dims) {
  Dim count = Number(1);
  for (const Dim& dim : dims) {
    if (!IsNumber(dim)) return {};
    count = Times(count, dim);
    if (!IsNumber(count)) return {};
  }
  return count.value;
}

// The dimension that -1 stands for. Symbols that stand on both sides cancel.
Dim FreeDim(const InferContext& c, Dims from, const Dims& to, size_t free) {
  Dims rest;
  for (size_t i = 0; i < to.size(); ++i) {
    if (i == free) continue;
    const auto match = std::find_if(from.begin(), from.end(), [&](const Dim& dim) {
      return !IsNumber(dim) && Same(dim, to[i]);
    });
    if (match == from.end()) {
      rest.push_back(to[i]);
    } else {
      from.erase(match);
    }
  }
  const auto divisor = CountOf(rest);
  if (!divisor.has_value() || *divisor == 0) return AnyDim();
  if (*divisor == 1 && from.size() == 1) return from[0];
  const auto count = CountOf(from);
  if (!count.has_value()) return AnyDim();
  if (*count % *divisor != 0) {
    c.Fail(std::to_string(*count) + " elements cannot be reshaped: " + std::to_string(*divisor) +
           " does not divide them");
  }
  return Number(*count / *divisor);
}

void Reshape(InferContext& c) {
  const Dims* x = c.dims(0);
  const Dims* elements = c.elements(1);
  if (elements == nullptr) return c.Set(0, c.dtype(0), ShapeFromValue(c, 1));
  const bool zero_is_zero = c.node.Int("allowzero", 0) != 0;
  Dims shape;
  std::optional<size_t> free;
  for (size_t i = 0; i < elements->size(); ++i) {
    const Dim& element = (*elements)[i];
    if (ElementNumber(element).value_or(0) < 0) {
      if (free.has_value() || element.value != -1) c.Fail("the target shape is not one");
      free = i;
      shape.push_back(AnyDim());
    } else if (element.value == 0 && !zero_is_zero) {
      shape.push_back(x != nullptr && i < x->size() ? (*x)[i] : AnyDim());
    } else {
      shape.push_back(element);
    }
  }
  if (x != nullptr && free.has_value()) shape[*free] = FreeDim(c, *x, shape, *free);
  if (x != nullptr && !free.has_value()) {
    const auto before = CountOf(*x);
    const auto after = CountOf(shape);
    if (before && after && *before != *after) {
      c.Fail(std::to_string(*before) + " elements cannot be reshaped to " + std::to_string(*after));
    }
  }
  c.Set(0, c.dtype(0), std::move(shape));
  // A list of one number reshaped to a scalar, or back, is the same list.
  if (const Dims* values = c.elements(0); values != nullptr && elements->size() <= 1) {
    c.outputs[0].elements = *values;
  }
}

void Flatten(InferContext& c) {
  const Dims* x = c.dims(0);
  if (x == nullptr) return c.Set(0, c.dtype(0), Dims(2));
  const auto rank = static_cast<int64_t>(x->size());
  int64_t axis = c.node.Int("axis", 1);
  if (axis < -rank || axis > rank) c.Fail("axis " + std::to_string(axis) + " is out of range");
  if (axis < 0) axis += rank;
  Dims shape = {Number(1), Number(1)};
  for (int64_t i = 0; i < rank; ++i) {
    Dim& side = shape[i < axis ? 0 : 1];
    side = Times(side, (*x)[static_cast<size_t>(i)]);
  }
  c.Set(0, c.dtype(0), std::move(shape));
}

void Transpose(InferContext& c) {
  const Dims* x = c.dims(0);
  if (x == nullptr) return TypeOnly(c);
  std::vector<int64_t> perm = c.node.Ints("perm");
  if (perm.empty()) {
    for (size_t i = x->size(); i > 0; --i) perm.push_back(static_cast<int64_t>(i) - 1);
  }
  if (perm.size() != x->size()) {
    c.Fail("perm has " + std::to_string(perm.size()) + " entries; the input's rank is " +
           std::to_string(x->size()));
  }
  Dims shape;
  std::vector<bool> used(x->size(), false);
  for (const int64_t axis : perm) {
    const size_t i = c.Axis(axis, x->size());
    if (used[i]) c.Fail("perm names an axis twice");
    used[i] = true;
    shape.push_back((*x)[i]);
  }
  c.Set(0, c.dtype(0), std::move(shape));
}

void Squeeze(InferContext& c) {
  const Dims* x = c.dims(0);
  const auto axes = c.Axes(1);
  if (x == nullptr || !axes.has_value()) return TypeOnly(c);
  std::vector<bool> drop(x->size(), false);
  for (const int64_t axis : *axes) drop[c.Axis(axis, x->size())] = true;
  Dims shape;
  for (size_t i = 0; i < x->size(); ++i) {
    const Dim& dim = (*x)[i];
    if (axes->empty() && !IsNumber(dim)) return TypeOnly(c);
    if (axes->empty() && dim.value == 1) continue;
    if (!drop[i]) shape.push_back(dim);
    if (drop[i] && dim.value > 1)
      c.Fail("a squeezed dimension has the size " + std::to_string(dim.value));
  }
  c.Set(0, c.dtype(0), std::move(shape));
  if (c.elements(0) != nullptr) c.outputs[0].elements = *c.elements(0);
}

void Unsqueeze(InferContext& c) {
  const Dims* x = c.dims(0);
  const auto axes = c.Axes(1);
  if (x == nullptr || !axes.has_value()) return TypeOnly(c);
  const size_t rank = x->size() + axes->size();
  std::vector<bool> added(rank, false);
  for (const int64_t axis : *axes) {
    const size_t i = c.Axis(axis, rank);
    if (added[i]) c.Fail("axes name an axis twice");
    added[i] = true;
  }
  Dims shape;
  auto next = x->begin();
  for (size_t i = 0; i < rank; ++i) shape.push_back(added[i] ? Number(1) : *next++);
  c.Set(0, c.dtype(0), std::move(shape));
  if (c.elements(0) != nullptr && rank == 1) c.outputs[0].elements = *c.elements(0);
}

void Concat(InferContext& c) {
  std::optional<Dims> shape;
  std::optional<Dims> elements = Dims();
  for (size_t i = 0; i < c.input_count(); ++i) {
    const Dims* x = c.dims(i);
    if (x == nullptr) return TypeOnly(c);
    const size_t axis = c.Axis(c.node.Int("axis", 0), x->size());
    const Dims* values = c.elements(i);
    if (values == nullptr || x->size() != 1) elements.reset();
    if (elements.has_value()) elements->insert(elements->end(), values->begin(), values->end());
    if (!shape.has_value()) {
      shape = *x;
      continue;
    }
    if (x->size() != shape->size()) c.Fail("the inputs have different ranks");
    for (size_t d = 0; d < x->size(); ++d) {
      Dim& dim = (*shape)[d];
      if (d == axis) {
        dim = Plus(dim, (*x)[d]);
      } else if (IsNumber(dim) && IsNumber((*x)[d]) && dim.value != (*x)[d].value) {
        c.Fail("the inputs differ in a dimension other than the axis");
      } else if (!IsNumber(dim)) {
        dim = (*x)[d];
      }
    }
  }
  c.Set(0, c.dtype(0), std::move(shape));
  c.outputs[0].elements = std::move(elements);
}

void Split(InferContext& c) {
  const Dims* x = c.dims(0);
  if (x == nullptr) {
    for (size_t i = 0; i < c.outputs.size(); ++i) c.Set(i, c.dtype(0), std::nullopt);
    return;
  }
  const size_t axis = c.Axis(c.node.Int("axis", 0), x->size());
  std::optional<std::vector<int64_t>> sizes;
  if (c.node.attributes.contains("split")) sizes = c.node.Ints("split");
  if (!sizes.has_value() && c.has_input(1)) sizes = c.numbers(1);
  if (sizes.has_value() && sizes->size() != c.outputs.size()) {
    c.Fail("split has another number of sizes than the node has outputs");
  }
  const auto count = static_cast<int64_t>(c.outputs.size());
  for (size_t i = 0; i < c.outputs.size(); ++i) {
    Dims shape = *x;
    Dim& dim = shape[axis];
    if (sizes.has_value()) {
      dim = Number((*sizes)[i]);
    } else if (c.has_input(1) || !IsNumber(dim)) {
      dim = AnyDim();
    } else {  // equal parts; since opset 18 the last may be smaller
      const int64_t part = (dim.value + count - 1) / count;
      dim = Number(std::clamp<int64_t>(dim.value - part * static_cast<int64_t>(i), 0, part));
    }
    c.Set(i, c.dtype(0), std::move(shape));
  }
}

void Expand(InferContext& c) {
  const Dims* x = c.dims(0);
  const std::optional<Dims> target = ShapeFromValue(c, 1);
  if (x == nullptr || !target.has_value()) return TypeOnly(c);
  c.Set(0, c.dtype(0), Broadcast(c, *x, *target));
}

void Tile(InferContext& c) {
  const Dims* x = c.dims(0);
  if (x == nullptr) return TypeOnly(c);
  const auto repeats = c.numbers(1);
  Dims shape(x->size());
  if (repeats.has_value() && repeats->size() != x->size())
    c.Fail("repeats has another rank than the input");
  for (size_t i = 0; i < x->size() && repeats.has_value(); ++i) {
    if ((*repeats)[i] < 0) c.Fail("repeats has a number below 0");
    shape[i] = Times((*x)[i], Number((*repeats)[i]));
  }
  c.Set(0, c.dtype(0), std::move(shape));
}

void Pad(InferContext& c) {
  const Dims* x = c.dims(0);
  if (x == nullptr) return TypeOnly(c);
  const auto pads = c.opset < 11 ? std::optional(c.node.Ints("pads")) : c.numbers(1);
  const auto axes = c.has_input(3) ? c.numbers(3) : std::optional(std::vector<int64_t>());
  if (!pads || !axes) return c.Set(0, c.dtype(0), Dims(x->size()));
  std::vector<int64_t> padded = *axes;
  for (size_t i = 0; !c.has_input(3) && i < x->size(); ++i)
    padded.push_back(static_cast<int64_t>(i));
  if (pads->size() != 2 * padded.size()) c.Fail("pads does not have two numbers an axis");
  Dims shape = *x;
  for (size_t i = 0; i < padded.size(); ++i) {
    Dim& dim = shape[c.Axis(padded[i], x->size())];
    const int64_t before = (*pads)[i];
    const int64_t after = (*pads)[padded.size() + i];
    if (before == 0 && after == 0) continue;
    int64_t size = dim.value;
    if (!IsNumber(dim) || __builtin_add_overflow(size, before, &size) ||
        __builtin_add_overflow(size, after, &size)) {
      dim = AnyDim();
      continue;
    }
    if (size < 0) c.Fail("the pads take away more than there is");
    dim = Number(size);
  }
  c.Set(0, c.dtype(0), std::move(shape));
}

// floor(size * scale), in float as the operator's reference has it.
Dim Scaled(const Dim& dim, float scale) {
  if (!IsNumber(dim)) return scale == 1 ? dim : AnyDim();
  const float size = std::floor(static_cast<float>(dim.value) * scale);
  return size >= 0 && size < 1e9F ? Number(static_cast<int64_t>(size)) : AnyDim();
}

std::optional<std::vector<float>> ScalesOf(const InferContext& c) {
  if (c.node.op_type == "Resize") return c.floats(c.opset < 11 ? 1 : 2);
  return c.opset < 9 ? std::optional(c.node.Floats("scales")) : c.floats(1);
}

void Resize(InferContext& c) {
  const Dims* x = c.dims(0);
  if (x == nullptr) return TypeOnly(c);
  const bool whole = !c.node.attributes.contains("axes") &&
                     c.node.String("keep_aspect_ratio_policy", "stretch") == "stretch";
  const Dims* sizes = c.opset < 11 ? nullptr : c.elements(3);
  const std::optional<std::vector<float>> scales = ScalesOf(c);
  Dims shape(x->size());
  if (whole && sizes != nullptr && sizes->size() == x->size()) {
    std::transform(sizes->begin(), sizes->end(), shape.begin(), DimOfElement);
  } else if (whole && !c.has_input(3) && scales.has_value() && scales->size() == x->size()) {
    std::transform(x->begin(), x->end(), scales->begin(), shape.begin(), Scaled);
  }
  c.Set(0, c.dtype(0), std::move(shape));
}

void DepthToSpace(InferContext& c) {
  const Dims* x = c.dims(0);
  if (x == nullptr) return TypeOnly(c);
  const int64_t block = c.node.Int("blocksize", 0);
  if (x->size() != 4) c.Fail("needs an input of rank 4");
  if (block < 1 || block > INT16_MAX) c.Fail("blocksize is out of range");
  const bool to_space = c.node.op_type == "DepthToSpace";
  const auto shrunk = [&](const Dim& dim, int64_t by) {
    if (!IsNumber(dim)) return AnyDim();
    if (dim.value % by != 0) c.Fail("blocksize does not divide the input");
    return Number(dim.value / by);
  };
  const int64_t area = block * block;
  Dims shape = {(*x)[0], to_space ? shrunk((*x)[1], area) : Times((*x)[1], Number(area))};
  for (size_t i = 2; i < 4; ++i) {
    shape.push_back(to_space ? Times((*x)[i], Number(block)) : shrunk((*x)[i], block));
  }
  c.Set(0, c.dtype(0), std::move(shape));
}

}  // namespace

const InferTable& LayoutInference() {
  static const InferTable kTable = {
      {"Shape", ShapeOf},
      {"Size", Size},
      {"Constant", Constant},
      {"ConstantOfShape", ConstantOfShape},
      {"Range", Range},
      {"Reshape", Reshape},
      {"Flatten", Flatten},
      {"Transpose", Transpose},
      {"Squeeze", Squeeze},
      {"Unsqueeze", Unsqueeze},
      {"Concat", Concat},
      {"Split", Split},
      {"Expand", Expand},
      {"Tile", Tile},
      {"Pad", Pad},
      {"Resize", Resize},
      {"Upsample", Resize},
      {"DepthToSpace", DepthToSpace},
      {"SpaceToDepth", DepthToSpace},
  };
  return kTable;
}

}  // namespace pared
