// Pools, joins and parts of INT8 codes.

#include <algorithm>
#include <cstring>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/error.h"
#include "evaluator/ops_int8.h"
#include "kernels/im2col.h"
#include "kernels/planar_gather.h"

namespace pared {
namespace {

// Pools whose window is not one pixel wide are taken apart: a maximum over the rows of the window,
// in whole image rows, then over its columns. A window of 3x3 then gathers 3 rows of 64 pixels
// instead of 9, one of 5x5 5 instead of 25. Means are summed exactly, in one step.
struct PoolPlan {
  Shape x;
  bool is_planar;
  std::unique_ptr<PlanarGather> gather;  // of a maximum over a planar x; null: not
  Im2col image;                          // the padded image
  Im2col columns;  // what is gathered: for a maximum, from rows that are maxima already
};

// The geometry of the second step: `g`'s columns over an image of `g`'s output rows, padded.
ConvGeometry ColumnsOf(const ConvGeometry& g) {
  ConvGeometry columns = g;
  columns.height = g.out_height();
  columns.width = g.width + g.pad_left + g.pad_right;
  columns.kernel_height = columns.stride_y = columns.dilation_y = 1;
  columns.pad_top = columns.pad_bottom = columns.pad_left = columns.pad_right = 0;
  return columns;
}

// to[i] = max(to[i], from[i]). The blocks are what the compiler makes vectors of.
void MaxOf(const uint8_t* from, int64_t count, uint8_t* to) {
  constexpr int64_t kBlock = 16;
  int64_t i = 0;
  for (; i + kBlock <= count; i += kBlock) {
    uint8_t block[kBlock];
    for (int64_t j = 0; j < kBlock; ++j) block[j] = std::max(to[i + j], from[i + j]);
    std::memcpy(to + i, block, kBlock);
  }
  for (; i < count; ++i) to[i] = std::max(to[i], from[i]);
}

// to[i] = the maximum over the rows of the window that begins at `from`.
void MaxOfRows(const uint8_t* from, const ConvGeometry& g, int64_t width, uint8_t* to) {
  std::memcpy(to, from, static_cast<size_t>(width));
  for (int64_t row = 1; row < g.kernel_height; ++row) {
    MaxOf(from + row * g.dilation_y * width, width, to);
  }
}

class PoolInt8 {
 public:
  PoolInt8(const Node& node, const OpContext& context)
      : node_(node), isa_(context.isa), is_max_(node.op_type == "MaxPool") {
    average_ = {.x = ParametersOf(node, "x"),
                .y = ParametersOf(node, "y"),
                .count_include_pad = node.Int("count_include_pad", 0) != 0,
                .isa = isa_};
  }

  void Run(const Tensor& x, Tensor& y, Scratch& scratch) const {
    const std::shared_ptr<const PoolPlan> plan = PlanFor(x);
    const ConvGeometry& geometry = plan->image.geometry();
    const int64_t channels = geometry.channels;
    auto* out = reinterpret_cast<uint8_t*>(scratch.AllocateBytes(
        y, DType::kUInt8, OutputShape(geometry, x.shape(), channels), Layout::kPlanar64));
    if (plan->gather != nullptr) return RunMax(*plan, x, out, scratch);
    const auto padding = static_cast<uint8_t>(is_max_ ? 0 : average_.x.zero_point);
    const ConvGeometry& window = plan->columns.geometry();
    const auto bytes = static_cast<size_t>((window.kernel_height * window.kernel_width + 1) * 64);
    for (int64_t image = 0; image < x.shape()[0]; ++image) {
      const uint8_t* padded = PadImage(x, image, plan->image, padding, scratch).bytes;
      const uint8_t* source = is_max_ ? MaxOfColumns(*plan, padded, scratch) : padded;
      uint8_t* tiles = out + image * geometry.out_tiles() * channels * 64;
      ForEachPiece(scratch, geometry.out_tiles(), bytes,
                   [&](int64_t begin, int64_t end, std::byte* memory) {
                     for (int64_t tile = begin; tile < end; ++tile) {
                       RunTile(*plan, source, {tile, 0, channels}, tiles, memory);
                     }
                   });
    }
  }

 private:
  // Codes are never below 0, which pads, and every window holds a real pixel.
  void RunMax(const PoolPlan& plan, const Tensor& x, uint8_t* y, Scratch& scratch) const {
    const ImageSize size = ImageOf(x.shape());
    const int64_t tiles = plan.gather->geometry().out_tiles(), images = x.shape()[0];
    const int64_t grain = std::max<int64_t>(1, 512 / std::max<int64_t>(1, size.channels));
    scratch.ParallelFor(images * tiles, grain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const uint8_t* image = Codes(x) + i / tiles * size.planar_bytes();
        plan.gather->Max({image, 0, size.channels, 0}, i % tiles, y + i * size.channels * 64);
      }
    });
  }

  // An image with the maxima over each window's rows, for plan.columns.
  const uint8_t* MaxOfColumns(const PoolPlan& plan, const uint8_t* padded, Scratch& scratch) const {
    const ConvGeometry& g = plan.image.geometry();
    const ConvGeometry& columns = plan.columns.geometry();
    auto* maxima = reinterpret_cast<uint8_t*>(scratch.Temporary(plan.columns.image_bytes()));
    const int64_t width = columns.width, height = g.height + g.pad_top + g.pad_bottom;
    const int64_t grain = std::max<int64_t>(1, 32768 / std::max<int64_t>(1, width * height));
    scratch.ParallelFor(g.channels, grain, [&](int64_t begin, int64_t end) {
      for (int64_t c = begin; c < end; ++c) {
        for (int64_t y = 0; y < columns.height; ++y) {
          MaxOfRows(padded + (c * height + y * g.stride_y) * width, g, width,
                    maxima + (c * columns.height + y) * width);
        }
      }
    });
    return maxima;
  }

  void RunTile(const PoolPlan& plan, const uint8_t* image, PoolRange range, uint8_t* y,
               std::byte* memory) const {
    if (is_max_) {
      MaxPoolTile(plan.columns, image, range, y, memory);
    } else {
      AveragePoolTile(plan.columns, average_, image, range, y, memory);
    }
  }

  std::shared_ptr<const PoolPlan> PlanFor(const Tensor& x) const {
    const std::scoped_lock lock(mutex_);
    if (plan_ == nullptr || plan_->x != x.shape() || plan_->is_planar != IsPlanar(x)) {
      const ConvGeometry geometry = GeometryOf(node_, x.shape());
      const bool gathers = is_max_ && IsPlanar(x) && PlanarGather::Supports(isa_);
      plan_ = std::make_shared<const PoolPlan>(PoolPlan{
          .x = x.shape(),
          .is_planar = IsPlanar(x),
          .gather = gathers ? std::make_unique<PlanarGather>(geometry, geometry.channels) : nullptr,
          .image = Im2col(geometry, isa_),
          .columns = Im2col(is_max_ ? ColumnsOf(geometry) : geometry, isa_)});
    }
    return plan_;
  }

  Node node_;
  Isa isa_;
  bool is_max_;
  AveragePoolParams average_;
  mutable std::mutex mutex_;
  mutable std::shared_ptr<const PoolPlan> plan_;  // guarded by mutex_
};

int64_t CountFrom(int64_t axis, int64_t rank, const std::string& label) {
  if (axis < -rank || axis >= rank) {
    throw Error(ErrorCode::kInvalidArgument,
                "axis " + std::to_string(axis) + " is not of rank " + std::to_string(rank), label);
  }
  return axis < 0 ? axis + rank : axis;
}

int64_t ProductOf(const Shape& shape, size_t begin, size_t end) {
  return ElementCount(Shape(shape.begin() + static_cast<int64_t>(begin),
                            shape.begin() + static_cast<int64_t>(end)));
}

class ConcatInt8 {
 public:
  ConcatInt8(const Node& node, const OpContext& context)
      : label_(NodeLabel(node)), axis_(node.Int("axis", 0)), isa_(context.isa) {
    for (size_t i = 0; i < node.inputs.size(); ++i) {
      const Tensor* table = node.TensorOf("table_" + std::to_string(i));
      tables_.push_back(table ? std::optional<ByteTable>(TableOf(*table)) : std::nullopt);
    }
  }

  void Run(std::span<const Tensor* const> inputs, Tensor& y, Scratch& scratch) const {
    const int64_t axis = CountFrom(axis_, inputs[0]->rank(), label_);
    bool planar = axis == 1;
    Shape shape = inputs[0]->shape();
    int64_t total = 0;
    for (const Tensor* x : inputs) {
      Shape same = x->shape();
      if (same.size() == shape.size())
        same[static_cast<size_t>(axis)] = shape[static_cast<size_t>(axis)];
      if (same != shape) {
        throw Error(ErrorCode::kInvalidArgument,
                    "shapes " + ShapeText(shape) + " and " + ShapeText(x->shape()) + " do not join",
                    label_);
      }
      planar = planar && IsPlanar(*x);
      total += x->shape()[static_cast<size_t>(axis)];
    }
    shape[static_cast<size_t>(axis)] = total;
    std::byte* out = scratch.AllocateBytes(y, DType::kUInt8, shape,
                                           planar ? Layout::kPlanar64 : Layout::kRowMajor);
    // Both layouts are [outer][axis][inner], inner being what lies together behind the axis.
    const int64_t inner =
        planar ? 64 : ProductOf(shape, static_cast<size_t>(axis) + 1, shape.size());
    const int64_t outer =
        planar ? shape[0] * ImageOf(shape).tiles() : ProductOf(shape, 0, static_cast<size_t>(axis));
    std::vector<Part> parts;
    int64_t offset = 0;
    for (const Tensor* x : inputs) {
      const int64_t row = x->shape()[static_cast<size_t>(axis)] * inner;
      parts.push_back({planar ? Codes(*x) : RowMajorCodes(*x, scratch), row, offset});
      offset += row;
    }
    CopyParts(parts, outer, reinterpret_cast<uint8_t*>(out), scratch);
  }

 private:
  struct Part {
    const uint8_t* codes;
    int64_t row, offset;  // bytes
  };

  void CopyParts(const std::vector<Part>& parts, int64_t outer, uint8_t* y,
                 Scratch& scratch) const {
    const int64_t stride = parts.back().offset + parts.back().row;
    const int64_t grain = std::max<int64_t>(1, 65536 / std::max<int64_t>(1, stride));
    scratch.ParallelFor(outer, grain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        for (size_t p = 0; p < parts.size(); ++p) {
          const Part& part = parts[p];
          const auto bytes = static_cast<size_t>(part.row);
          uint8_t* to = y + i * stride + part.offset;
          const uint8_t* from = part.codes + i * part.row;
          if (tables_[p]) {
            LookUp({from, bytes}, *tables_[p], to, isa_);
          } else if (bytes > 0) {
            std::memcpy(to, from, bytes);
          }
        }
      }
    });
  }

  std::string label_;
  int64_t axis_;
  Isa isa_;
  std::vector<std::optional<ByteTable>> tables_;  // by input; nothing: codes stay
};

// One output of a Split.
struct SplitPart {
  std::string label;
  int64_t axis = 0, index = 0, count = 1;
  std::vector<int64_t> sizes;  // empty: equal parts, the last one smaller

  void Run(const Tensor& x, Tensor& y, Scratch& scratch) const {
    const int64_t at = CountFrom(axis, x.rank(), label);
    Shape shape = x.shape();
    const int64_t whole = shape[static_cast<size_t>(at)];
    const auto [begin, size] = PartOf(whole);
    shape[static_cast<size_t>(at)] = size;
    const bool planar = IsPlanar(x) && at == 1;
    auto* out = reinterpret_cast<uint8_t*>(scratch.AllocateBytes(
        y, DType::kUInt8, shape, planar ? Layout::kPlanar64 : Layout::kRowMajor));
    const uint8_t* codes = planar ? Codes(x) : RowMajorCodes(x, scratch);
    const int64_t inner = planar ? 64 : ProductOf(shape, static_cast<size_t>(at) + 1, shape.size());
    const int64_t outer =
        planar ? shape[0] * ImageOf(shape).tiles() : ProductOf(shape, 0, static_cast<size_t>(at));
    const auto bytes = static_cast<size_t>(size * inner);
    for (int64_t i = 0; i < outer && bytes > 0; ++i) {
      std::memcpy(out + i * size * inner, codes + (i * whole + begin) * inner, bytes);
    }
  }

 private:
  std::pair<int64_t, int64_t> PartOf(int64_t whole) const {
    if (sizes.empty()) {
      const int64_t each = (whole + count - 1) / count;
      const int64_t begin = std::min(whole, index * each);
      return {begin, std::min(whole, begin + each) - begin};
    }
    int64_t begin = 0, total = 0;
    for (size_t i = 0; i < sizes.size(); ++i) {
      if (static_cast<int64_t>(i) < index) begin += sizes[i];
      total += sizes[i];
    }
    if (total != whole || index >= static_cast<int64_t>(sizes.size())) {
      throw Error(ErrorCode::kInvalidArgument,
                  "the parts add up to " + std::to_string(total) + ", not " + std::to_string(whole),
                  label);
    }
    return {begin, sizes[static_cast<size_t>(index)]};
  }
};

}  // namespace

Op PreparePoolInt8(const Node& node, const OpContext& context) {
  const auto pool = std::make_shared<const PoolInt8>(node, context);
  return [pool](std::span<const Tensor* const> inputs, std::span<Tensor> outputs,
                Scratch& scratch) { pool->Run(*inputs[0], outputs[0], scratch); };
}

Op PrepareGlobalAveragePoolInt8(const Node& node, const OpContext& /*context*/) {
  const QuantParams from = ParametersOf(node, "x"), to = ParametersOf(node, "y");
  return [from, to](std::span<const Tensor* const> inputs, std::span<Tensor> outputs,
                    Scratch& scratch) {
    const Tensor& x = *inputs[0];
    const ImageSize image = ImageOf(x.shape());
    Shape shape(x.shape().size(), 1);
    std::copy(x.shape().begin(), x.shape().begin() + 2, shape.begin());
    const std::span<uint8_t> y = scratch.Allocate<uint8_t>(outputs[0], shape);
    const uint8_t* codes = PlanarCodes(x, scratch);
    for (int64_t n = 0; n < shape[0]; ++n) {
      GlobalAveragePool(codes + n * image.planar_bytes(), image, from, to,
                        y.data() + n * image.channels);
    }
  };
}

Op PrepareConcatInt8(const Node& node, const OpContext& context) {
  const auto concat = std::make_shared<const ConcatInt8>(node, context);
  return [concat](std::span<const Tensor* const> inputs, std::span<Tensor> outputs,
                  Scratch& scratch) { concat->Run(inputs, outputs[0], scratch); };
}

Op PrepareSplitPart(const Node& node, const OpContext& /*context*/) {
  const SplitPart part{.label = NodeLabel(node),
                       .axis = node.Int("axis", 0),
                       .index = node.Int("index", 0),
                       .count = node.Int("count", 1),
                       .sizes = node.Ints("split")};
  return [part](std::span<const Tensor* const> inputs, std::span<Tensor> outputs,
                Scratch& scratch) { part.Run(*inputs[0], outputs[0], scratch); };
}

}  // namespace pared
