// Elements picked or placed by index tensors: Gather, Scatter and their kin, OneHot, Compress.

#include <algorithm>
#include <cstring>

#include "evaluator/op_checks.h"

namespace pared {
namespace {

constexpr int64_t kGrain = 16384;  // elements a task

// Indices counted from the front. Throws kInvalidArgument where one is outside of [-dim, dim).
std::vector<int64_t> IndicesInto(int64_t dim, const Tensor& indices, const std::string& label) {
  std::vector<int64_t> places = IntegersOf(indices, label);
  for (int64_t& place : places) {
    if (place < -dim || place >= dim) {
      RefuseNode("index " + std::to_string(place) + " is out of an axis of " + std::to_string(dim),
                 label);
    }
    if (place < 0) place += dim;
  }
  return places;
}

Op PrepareGather(const Node& node, const OpContext&) {
  CheckInputCount(node, 2, 2);
  return [axis_given = node.Int("axis", 0), label = NodeLabel(node)](
             std::span<const Tensor* const> inputs, std::span<Tensor> outputs, Scratch& scratch) {
    const Shape& from = inputs[0]->shape();
    const int64_t axis = NormalizeAxis(axis_given, inputs[0]->rank(), label);
    const int64_t dim = from[Sz(axis)];
    const std::vector<int64_t> places = IndicesInto(dim, *inputs[1], label);
    Shape shape(from.begin(), from.begin() + axis);
    shape.insert(shape.end(), inputs[1]->shape().begin(), inputs[1]->shape().end());
    shape.insert(shape.end(), from.begin() + axis + 1, from.end());
    const int64_t inner = Extent(from, axis + 1, inputs[0]->rank());
    const int64_t count = static_cast<int64_t>(places.size());
    const int64_t rows = Extent(from, 0, axis) * count;
    DispatchWidth(inputs[0]->dtype(), label, [&]<class T>() {
      const T* x = Elements<T>(*inputs[0]);
      T* y = AllocateLike<T>(outputs[0], inputs[0]->dtype(), shape, scratch);
      const int64_t grain = std::max<int64_t>(1, kGrain / std::max<int64_t>(1, inner));
      scratch.ParallelFor(rows, grain, [&](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; ++row) {
          const int64_t source = row / count * dim + places[Sz(row % count)];
          std::copy_n(x + source * inner, inner, y + row * inner);
        }
      });
    });
  };
}

// For each element of `shape` in order: body(flat, offset), where offset is that of the element in
// a tensor of `strides` whose place along `axis` is 0.
template <class Body>
void ForEachElement(const Shape& shape, const Shape& strides, int64_t axis, const Body& body) {
  const int64_t count = ElementCount(shape);
  std::vector<int64_t> index(shape.size());
  int64_t offset = 0;
  for (int64_t flat = 0; flat < count; ++flat) {
    body(flat, offset);
    for (size_t i = shape.size(); i-- > 0;) {
      const int64_t stride = static_cast<int64_t>(i) == axis ? 0 : strides[i];
      offset += stride;
      if (++index[i] < shape[i]) break;
      offset -= stride * shape[i];
      index[i] = 0;
    }
  }
}

void CheckElementIndices(const Tensor& data, const Tensor& indices, int64_t axis,
                         const std::string& label) {
  bool fits = data.rank() == indices.rank();
  for (int64_t i = 0; fits && i < data.rank(); ++i) {
    fits = i == axis || indices.shape()[Sz(i)] <= data.shape()[Sz(i)];
  }
  if (!fits) {
    RefuseNode("indices of shape " + ShapeText(indices.shape()) + " do not fit into " +
                   ShapeText(data.shape()),
               label);
  }
}

Op PrepareGatherElements(const Node& node, const OpContext&) {
  CheckInputCount(node, 2, 2);
  return [axis_given = node.Int("axis", 0), label = NodeLabel(node)](
             std::span<const Tensor* const> inputs, std::span<Tensor> outputs, Scratch& scratch) {
    const Tensor& data = *inputs[0];
    const int64_t axis = NormalizeAxis(axis_given, data.rank(), label);
    CheckElementIndices(data, *inputs[1], axis, label);
    const std::vector<int64_t> places = IndicesInto(data.shape()[Sz(axis)], *inputs[1], label);
    const Shape strides = StridesOf(data.shape());
    DispatchWidth(data.dtype(), label, [&]<class T>() {
      const T* x = Elements<T>(data);
      T* y = AllocateLike<T>(outputs[0], data.dtype(), inputs[1]->shape(), scratch);
      ForEachElement(inputs[1]->shape(), strides, axis, [&](int64_t flat, int64_t offset) {
        y[flat] = x[offset + places[Sz(flat)] * strides[Sz(axis)]];
      });
    });
  };
}

enum class Reduction { kNone, kAdd, kMul, kMax, kMin };

Reduction ReductionOf(const Node& node) {
  const std::string name = node.String("reduction", "none");
  if (name == "none") return Reduction::kNone;
  if (name == "add") return Reduction::kAdd;
  if (name == "mul") return Reduction::kMul;
  if (name == "max") return Reduction::kMax;
  if (name == "min") return Reduction::kMin;
  RefuseNode("reduction must be none, add, mul, max or min, is \"" + name + "\"", NodeLabel(node));
}

template <class T>
void Accumulate(T& to, T value, Reduction reduction) {
  switch (reduction) {
    case Reduction::kNone:
      to = value;
      return;
    case Reduction::kAdd:
      to = static_cast<T>(to + value);
      return;
    case Reduction::kMul:
      to = static_cast<T>(to * value);
      return;
    case Reduction::kMax:
      to = std::max(to, value);
      return;
    case Reduction::kMin:
      to = std::min(to, value);
      return;
  }
}

// Copies `data` and calls place(T* elements, const T* updates, Reduction) on the copy.
template <class Place>
void ScatterInto(const Tensor& data, const Tensor& updates, Reduction reduction, Tensor& out,
                 Scratch& scratch, const std::string& label, const Place& place) {
  if (updates.dtype() != data.dtype()) RefuseNode("updates must have the type of data", label);
  const auto run = [&]<class T>() {
    T* y = AllocateLike<T>(out, data.dtype(), data.shape(), scratch);
    std::copy_n(Elements<T>(data), data.count(), y);
    place(y, Elements<T>(updates));
  };
  if (reduction == Reduction::kNone) {
    DispatchWidth(data.dtype(), label, run);
  } else {
    DispatchNumber(data.dtype(), label, run);
  }
}

template <class T>
void Put(T* elements, int64_t at, T value, Reduction reduction) {
  if constexpr (std::is_arithmetic_v<T>) {
    Accumulate(elements[at], value, reduction);
  } else {
    elements[at] = value;
  }
}

Op PrepareScatterElements(const Node& node, const OpContext&) {
  CheckInputCount(node, 3, 3);
  return [axis_given = node.Int("axis", 0), reduction = ReductionOf(node), label = NodeLabel(node)](
             std::span<const Tensor* const> inputs, std::span<Tensor> outputs, Scratch& scratch) {
    const Tensor& data = *inputs[0];
    const int64_t axis = NormalizeAxis(axis_given, data.rank(), label);
    CheckElementIndices(data, *inputs[1], axis, label);
    if (inputs[2]->shape() != inputs[1]->shape()) {
      RefuseNode("updates must have the shape of indices", label);
    }
    const std::vector<int64_t> places = IndicesInto(data.shape()[Sz(axis)], *inputs[1], label);
    const Shape strides = StridesOf(data.shape());
    ScatterInto(data, *inputs[2], reduction, outputs[0], scratch, label,
                [&]<class T>(T* y, const T* updates) {
                  ForEachElement(inputs[1]->shape(), strides, axis, [&](int64_t i, int64_t offset) {
                    Put(y, offset + places[Sz(i)] * strides[Sz(axis)], updates[i], reduction);
                  });
                });
  };
}

// The offsets of the slices that GatherND and ScatterND name: the last axis of `indices` holds the
// first coordinates after `batch_dims` of a slice.
std::vector<int64_t> SliceOffsets(const Shape& shape, const Tensor& indices, int64_t batch_dims,
                                  const std::string& label) {
  const int64_t width = indices.rank() == 0 ? -1 : indices.shape().back();
  const int64_t rank = static_cast<int64_t>(shape.size());
  const bool fits = batch_dims >= 0 && batch_dims < std::min(rank, indices.rank()) + 1 &&
                    width >= 0 && batch_dims + width <= rank;
  if (!fits) {
    RefuseNode(
        "indices of shape " + ShapeText(indices.shape()) + " do not fit into " + ShapeText(shape),
        label);
  }
  const std::vector<int64_t> values = IntegersOf(indices, label);
  const Shape strides = StridesOf(shape);
  const int64_t batches = Extent(shape, 0, batch_dims);
  const int64_t batch_stride = Extent(shape, batch_dims, rank);
  const int64_t slices = width == 0 ? Extent(indices.shape(), 0, indices.rank() - 1)
                                    : static_cast<int64_t>(values.size()) / width;
  if (batches > 0 && slices % batches != 0) RefuseNode("its batch axes differ", label);
  std::vector<int64_t> offsets;
  for (int64_t slice = 0; slice < slices; ++slice) {
    int64_t offset = slice / std::max<int64_t>(1, slices / batches) * batch_stride;
    for (int64_t i = 0; i < width; ++i) {
      const int64_t dim = shape[Sz(batch_dims + i)];
      const int64_t index = values[Sz(slice * width + i)];
      if (index < -dim || index >= dim) {
        RefuseNode(
            "index " + std::to_string(index) + " is out of an axis of " + std::to_string(dim),
            label);
      }
      offset += (index < 0 ? index + dim : index) * strides[Sz(batch_dims + i)];
    }
    offsets.push_back(offset);
  }
  return offsets;
}

Op PrepareGatherND(const Node& node, const OpContext&) {
  CheckInputCount(node, 2, 2);
  return [batch_dims = node.Int("batch_dims", 0), label = NodeLabel(node)](
             std::span<const Tensor* const> inputs, std::span<Tensor> outputs, Scratch& scratch) {
    const Shape& from = inputs[0]->shape();
    const Shape& index_shape = inputs[1]->shape();
    const std::vector<int64_t> offsets = SliceOffsets(from, *inputs[1], batch_dims, label);
    const int64_t first_kept = batch_dims + index_shape.back();
    Shape shape(index_shape.begin(), index_shape.end() - 1);
    shape.insert(shape.end(), from.begin() + first_kept, from.end());
    const int64_t slice = Extent(from, first_kept, inputs[0]->rank());
    DispatchWidth(inputs[0]->dtype(), label, [&]<class T>() {
      const T* x = Elements<T>(*inputs[0]);
      T* y = AllocateLike<T>(outputs[0], inputs[0]->dtype(), shape, scratch);
      for (size_t i = 0; i < offsets.size(); ++i) {
        std::copy_n(x + offsets[i], slice, y + static_cast<int64_t>(i) * slice);
      }
    });
  };
}

Op PrepareScatterND(const Node& node, const OpContext&) {
  CheckInputCount(node, 3, 3);
  return [reduction = ReductionOf(node), label = NodeLabel(node)](
             std::span<const Tensor* const> inputs, std::span<Tensor> outputs, Scratch& scratch) {
    const Tensor& data = *inputs[0];
    const std::vector<int64_t> offsets = SliceOffsets(data.shape(), *inputs[1], 0, label);
    const int64_t slice = Extent(data.shape(), inputs[1]->shape().back(), data.rank());
    if (inputs[2]->count() != slice * static_cast<int64_t>(offsets.size())) {
      RefuseNode("updates of shape " + ShapeText(inputs[2]->shape()) + " do not fit its indices",
                 label);
    }
    ScatterInto(data, *inputs[2], reduction, outputs[0], scratch, label,
                [&]<class T>(T* y, const T* updates) {
                  for (const int64_t offset : offsets) {
                    for (int64_t i = 0; i < slice; ++i) Put(y, offset + i, *updates++, reduction);
                  }
                });
  };
}

Op PrepareOneHot(const Node& node, const OpContext&) {
  CheckInputCount(node, 3, 3);
  return [axis_given = node.Int("axis", -1), label = NodeLabel(node)](
             std::span<const Tensor* const> inputs, std::span<Tensor> outputs, Scratch& scratch) {
    const auto whole = [&](const Tensor& tensor) {
      std::vector<int64_t> values;
      DispatchNumber(tensor.dtype(), label, [&]<class T>() {
        for (const T value : tensor.data<T>()) values.push_back(static_cast<int64_t>(value));
      });
      return values;
    };
    const std::vector<int64_t> depths = whole(*inputs[1]);
    if (depths.size() != 1 || depths[0] < 0 || inputs[2]->count() != 2) {
      RefuseNode("needs one depth and two values", label);
    }
    const int64_t depth = depths[0];
    const int64_t axis = NormalizeAxis(axis_given, inputs[0]->rank() + 1, label);
    Shape shape = inputs[0]->shape();
    shape.insert(shape.begin() + axis, depth);
    const int64_t inner = Extent(shape, axis + 1, static_cast<int64_t>(shape.size()));
    const std::vector<int64_t> hot = whole(*inputs[0]);
    DispatchWidth(inputs[2]->dtype(), label, [&]<class T>() {
      const T* values = Elements<T>(*inputs[2]);  // off, on
      T* y = AllocateLike<T>(outputs[0], inputs[2]->dtype(), shape, scratch);
      std::fill_n(y, outputs[0].count(), values[0]);
      for (int64_t i = 0; i < static_cast<int64_t>(hot.size()); ++i) {
        const int64_t place = hot[Sz(i)] < 0 ? hot[Sz(i)] + depth : hot[Sz(i)];
        if (place < 0 || place >= depth) continue;  // ONNX: no element is on then
        y[(i / inner * depth + place) * inner + i % inner] = values[1];
      }
    });
  };
}

Op PrepareCompress(const Node& node, const OpContext&) {
  CheckInputCount(node, 2, 2);
  const bool is_flat = !node.attributes.contains("axis");
  return [is_flat, axis_given = node.Int("axis", 0), label = NodeLabel(node)](
             std::span<const Tensor* const> inputs, std::span<Tensor> outputs, Scratch& scratch) {
    if (inputs[1]->dtype() != DType::kBool) RefuseDType(inputs[1]->dtype(), label);
    Shape shape = is_flat ? Shape{inputs[0]->count()} : inputs[0]->shape();
    const int64_t rank = static_cast<int64_t>(shape.size());
    const int64_t axis = is_flat ? 0 : NormalizeAxis(axis_given, rank, label);
    const int64_t dim = shape[Sz(axis)];
    const std::span<const bool> keeps = inputs[1]->data<bool>();
    std::vector<int64_t> kept;
    for (int64_t i = 0; i < std::min(dim, inputs[1]->count()); ++i) {
      if (keeps[Sz(i)]) kept.push_back(i);
    }
    const int64_t outer = Extent(shape, 0, axis), inner = Extent(shape, axis + 1, rank);
    shape[Sz(axis)] = static_cast<int64_t>(kept.size());
    DispatchWidth(inputs[0]->dtype(), label, [&]<class T>() {
      const T* x = Elements<T>(*inputs[0]);
      T* y = AllocateLike<T>(outputs[0], inputs[0]->dtype(), shape, scratch);
      for (int64_t i = 0; i < outer; ++i) {
        for (const int64_t place : kept) {
          y = std::copy_n(x + (i * dim + place) * inner, inner, y);
        }
      }
    });
  };
}

// A cache with new rows written from a place of each batch on; `mode` circular: past its end they
// go to its beginning.
Op PrepareTensorScatter(const Node& node, const OpContext&) {
  CheckInputCount(node, 2, 3);
  const std::string mode = node.String("mode", "linear");
  if (mode != "linear" && mode != "circular") {
    RefuseNode("mode must be linear or circular, is \"" + mode + "\"", NodeLabel(node));
  }
  return [wraps = mode == "circular", axis_given = node.Int("axis", -2), label = NodeLabel(node)](
             std::span<const Tensor* const> inputs, std::span<Tensor> outputs, Scratch& scratch) {
    const Tensor &past = *inputs[0], &update = *inputs[1];
    const int64_t axis = NormalizeAxis(axis_given, past.rank(), label);
    Shape wanted = past.shape();
    if (update.rank() == past.rank()) wanted[Sz(axis)] = update.shape()[Sz(axis)];
    const bool fits = axis >= 1 && update.shape() == wanted && update.dtype() == past.dtype() &&
                      wanted[Sz(axis)] <= past.shape()[Sz(axis)];
    if (!fits) RefuseNode("its update does not fit its cache", label);
    const int64_t batches = wanted[0], rows = wanted[Sz(axis)], length = past.shape()[Sz(axis)];
    std::vector<int64_t> starts(Sz(batches), 0);
    if (inputs.size() > 2 && inputs[2] != nullptr) starts = IntegersOf(*inputs[2], label);
    const int64_t last = wraps ? length - 1 : length - rows;
    const bool starts_fit =
        starts.size() == Sz(batches) && std::ranges::all_of(starts, [&](int64_t start) {
          return start >= 0 && start <= std::max<int64_t>(last, 0);
        });
    if (!starts_fit) RefuseNode("its write_indices are not within the cache", label);
    const int64_t heads = Extent(wanted, 1, axis), inner = Extent(wanted, axis + 1, past.rank());
    DispatchWidth(past.dtype(), label, [&]<class T>() {
      T* y = AllocateLike<T>(outputs[0], past.dtype(), past.shape(), scratch);
      std::copy_n(Elements<T>(past), past.count(), y);
      const T* x = Elements<T>(update);
      for (int64_t i = 0; i < batches * heads * rows; ++i) {
        const int64_t outer = i / rows;
        const int64_t row = (starts[Sz(outer / heads)] + i % rows) % length;
        std::copy_n(x + i * inner, inner, y + (outer * length + row) * inner);
      }
    });
  };
}

constexpr OpInfo kOps[] = {
    {"Compress", "", PrepareCompress, HalfFloats::kNative},
    {"Gather", "", PrepareGather, HalfFloats::kNative},
    {"GatherElements", "", PrepareGatherElements, HalfFloats::kNative},
    {"GatherND", "", PrepareGatherND, HalfFloats::kNative},
    {"OneHot", "", PrepareOneHot, HalfFloats::kNative},
    {"Scatter", "", PrepareScatterElements},
    {"ScatterElements", "", PrepareScatterElements},
    {"ScatterND", "", PrepareScatterND},
    {"TensorScatter", "", PrepareTensorScatter, HalfFloats::kNative},
};

}  // namespace

std::span<const OpInfo> GatherOps() { return kOps; }

}  // namespace pared
