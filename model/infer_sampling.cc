// Operators that sample, crop or scatter an image, by a grid, by regions, by indices, and the
// transform of what was sampled.

#include <algorithm>

#include "model/infer_context.h"

namespace pared {
namespace {

void TypeOnly(InferContext& c) { c.Set(0, c.dtype(0), std::nullopt); }

// Batch and channels of the image, then the places of the grid.
void GridSample(InferContext& c) {
  const Dims* x = c.dims(0);
  const Dims* grid = c.dims(1);
  if (x == nullptr || grid == nullptr || x->size() < 3 || grid->size() != x->size()) {
    return TypeOnly(c);
  }
  Dims shape = {(*x)[0], (*x)[1]};
  shape.insert(shape.end(), grid->begin() + 1, grid->end() - 1);
  c.Set(0, c.dtype(0), std::move(shape));
}

// size is [N, C, H, W] or [N, C, D, H, W].
void AffineGrid(InferContext& c) {
  const Dims* size = c.elements(1);
  if (size == nullptr || size->size() < 4) return TypeOnly(c);
  Dims shape = {DimOfElement((*size)[0])};
  for (size_t i = 2; i < size->size(); ++i) shape.push_back(DimOfElement((*size)[i]));
  shape.push_back(Number(std::ssize(*size) - 2));
  c.Set(0, c.dtype(0), std::move(shape));
}

Dims OfRegions(const InferContext& c, const std::vector<int64_t>& pooled) {
  const Dims* x = c.dims(0);
  const Dims* regions = c.dims(1);
  Dims shape = {regions == nullptr || regions->empty() ? AnyDim() : (*regions)[0],
                x == nullptr || x->size() < 2 ? AnyDim() : (*x)[1]};
  for (const int64_t dim : pooled) shape.push_back(dim < 0 ? AnyDim() : Number(dim));
  return shape;
}

void RoiAlign(InferContext& c) {
  c.Set(0, c.dtype(0),
        OfRegions(c, {c.node.Int("output_height", 1), c.node.Int("output_width", 1)}));
}

void MaxRoiPool(InferContext& c) {
  c.Set(0, c.dtype(0), OfRegions(c, c.node.Ints("pooled_shape")));
}

// Where the pool that it undoes had a rest, output_shape says so.
void MaxUnpool(InferContext& c) {
  if (c.has_input(2)) {
    const Dims* stated = c.elements(2);
    if (stated == nullptr) return TypeOnly(c);
    Dims shape(stated->size());
    std::ranges::transform(*stated, shape.begin(), DimOfElement);
    return c.Set(0, c.dtype(0), std::move(shape));
  }
  const Dims* x = c.dims(0);
  const std::vector<int64_t> kernel = c.node.Ints("kernel_shape");
  const size_t rank = kernel.size();
  const std::vector<int64_t> strides = c.node.Ints("strides", std::vector<int64_t>(rank, 1));
  const std::vector<int64_t> pads = c.node.Ints("pads", std::vector<int64_t>(2 * rank, 0));
  if (x == nullptr || x->size() != rank + 2 || strides.size() != rank || pads.size() != 2 * rank) {
    return TypeOnly(c);
  }
  Dims shape = {(*x)[0], (*x)[1]};
  for (size_t i = 0; i < rank; ++i) {
    const int64_t ends = kernel[i] - pads[i] - pads[rank + i];
    int64_t size = (*x)[i + 2].value - 1;
    const bool is_known = size >= 0 && !__builtin_mul_overflow(size, strides[i], &size) &&
                          !__builtin_add_overflow(size, ends, &size) && size >= 0;
    shape.push_back(is_known ? Number(size) : AnyDim());
  }
  c.Set(0, c.dtype(0), std::move(shape));
}

// Columns [N, C * block, L] to an image [N, C, image_shape].
void Col2Im(InferContext& c) {
  const Dims* x = c.dims(0);
  const Dims* image = c.elements(1);
  if (image == nullptr) return TypeOnly(c);
  Dims shape = {AnyDim(), AnyDim()};
  if (x != nullptr && x->size() == 3) shape[0] = (*x)[0];
  const auto block = c.numbers(2);
  if (x != nullptr && x->size() == 3 && block) {
    int64_t count = 1;
    for (const int64_t dim : *block) count *= std::clamp<int64_t>(dim, 1, INT16_MAX);
    const int64_t channels = (*x)[1].value;
    if (channels >= 0 && count > 0 && channels % count == 0) shape[1] = Number(channels / count);
  }
  for (const Dim& dim : *image) shape.push_back(DimOfElement(dim));
  c.Set(0, c.dtype(0), std::move(shape));
}

void CenterCropPad(InferContext& c) {
  const Dims* x = c.dims(0);
  if (x == nullptr) return TypeOnly(c);
  const Dims* wanted = c.elements(1);
  std::vector<int64_t> axes = c.node.Ints("axes");
  if (!c.node.attributes.contains("axes")) {
    for (size_t i = 0; i < x->size(); ++i) axes.push_back(static_cast<int64_t>(i));
  }
  Dims shape = *x;
  for (size_t i = 0; i < axes.size(); ++i) {
    const bool is_known = wanted != nullptr && i < wanted->size();
    shape[c.Axis(axes[i], x->size())] = is_known ? DimOfElement((*wanted)[i]) : AnyDim();
  }
  c.Set(0, c.dtype(0), std::move(shape));
}

// Numbers or pairs along the last axis; pairs result. `onesided` leaves the half that says all.
void Dft(InferContext& c) {
  const Dims* x = c.dims(0);
  if (x == nullptr || x->size() < 2) return TypeOnly(c);
  Dims shape = *x;
  shape.back() = Number(2);
  const bool is_onesided = c.node.Int("onesided", 0) != 0;
  const auto axis = c.opset >= 20 && c.has_input(2)
                        ? c.numbers(2)
                        : std::vector<int64_t>{c.node.Int("axis", c.opset >= 20 ? -2 : 1)};
  if (!axis || axis->size() != 1 || (is_onesided && c.node.Int("inverse", 0) != 0)) {
    std::fill(shape.begin(), shape.end() - 1, AnyDim());
    return c.Set(0, c.dtype(0), std::move(shape));
  }
  Dim& length = shape[c.Axis((*axis)[0], shape.size())];
  if (c.has_input(1)) {
    const auto stated = c.numbers(1);
    length = stated && stated->size() == 1 ? DimOfElement(Element((*stated)[0])) : AnyDim();
  }
  if (is_onesided) length = IsNumber(length) ? Number(length.value / 2 + 1) : AnyDim();
  c.Set(0, c.dtype(0), std::move(shape));
}

}  // namespace

const InferTable& SamplingInference() {
  static const InferTable kTable = {{"GridSample", GridSample},       {"AffineGrid", AffineGrid},
                                    {"RoiAlign", RoiAlign},           {"MaxRoiPool", MaxRoiPool},
                                    {"MaxUnpool", MaxUnpool},         {"Col2Im", Col2Im},
                                    {"CenterCropPad", CenterCropPad}, {"DFT", Dft}};
  return kTable;
}

}  // namespace pared
