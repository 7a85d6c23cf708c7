#include "kernels/conv_f32.h"

#include <algorithm>
#include <cstring>

namespace pared {
namespace {

// A band of a depthwise convolution and its sums: a good part of an L2 cache of 512 KB.
constexpr int64_t kBandFloats = 48 * 1024;

constexpr int64_t kLineFloats = 16;  // of a cache line

// Where no more tiles than these read a panel, packing it costs more than reading it from the
// image, which takes whole vectors of pixels in one row of the output.
constexpr int64_t kUnpackedBlocks = 6;

int64_t Volume(const Extent3& e) { return e[0] * e[1] * e[2]; }

// Where `pixel` of the output begins in the input, and how many outputs follow it in its row.
struct PixelAt {
  int64_t source, left_in_row;
};
PixelAt Locate(const ConvF32Plan& plan, const Extent3& stride, int64_t pixel) {
  const int64_t x = pixel % plan.out[2];
  const int64_t row = pixel / plan.out[2];
  const int64_t y = row % plan.out[1];
  const int64_t z = row / plan.out[1];
  const int64_t source_row = z * stride[0] * plan.padded[1] + y * stride[1];
  return {source_row * plan.row_floats + x, plan.out[2] - x};
}

}  // namespace

ConvF32::ConvF32(const ConvF32Options& options, std::shared_ptr<const float> weights,
                 std::span<const float> bias, const F32Kernels& kernels)
    : options_(options),
      kernels_(kernels),
      weights_(std::move(weights)),
      bias_(bias.begin(), bias.end()) {
  const int64_t group_channels = options.channels / options.groups;
  const int64_t group_outputs = options.outputs / options.groups;
  k_ = group_channels * Volume(options.kernel);
  depthwise_ = group_channels == 1 && group_outputs <= 2 && options.groups > 1;
  if (!depthwise_) nonzeros_ = NonZeros(weights_.get(), options.outputs * k_);
  const bool fills_lanes = options.channels > kernels.lanes / 2;
  if (depthwise_ && fills_lanes && group_outputs == 1 && options.kernel[0] == 1) PackLanes();
}

int64_t ConvF32::group_floats(bool by_outputs) const {
  const int64_t outputs = options_.outputs / options_.groups;
  return by_outputs ? PackedRhsFloats(k_, outputs, kernels_)
                    : PackedLhsFloats(outputs, k_, kernels_);
}

ConvWeightsF32 ConvF32::Pack(Layout layout) const {
  if (layout == kWinograd) {
    return {.dense = PackWinograd(weights_.get(), options_.outputs, options_.channels, kernels_)};
  }
  if (layout == kSparse) {
    return {.sparse = PackSparseLhs({weights_.get(), options_.outputs, k_, k_, 1}, nonzeros_)};
  }
  const int64_t outputs = options_.outputs / options_.groups;
  const int64_t floats = group_floats(layout == kPanels);
  AlignedBuffer<float> packed(static_cast<size_t>(floats * options_.groups));
  for (int64_t g = 0; g < options_.groups; ++g) {
    const float* from = weights_.get() + g * outputs * k_;
    float* to = packed.data() + g * floats;
    if (layout == kPanels) {
      PackRhs({from, k_, outputs, 1, k_}, kernels_, 0, CeilDiv(outputs, kernels_.tile_columns), to);
    } else {
      PackLhs({from, outputs, k_, k_, 1}, kernels_, to);
    }
  }
  return {.dense = std::move(packed)};
}

std::shared_ptr<const ConvWeightsF32> ConvF32::WeightsFor(Layout layout) const {
  const std::scoped_lock lock(layouts_mutex_);
  std::shared_ptr<const ConvWeightsF32>& wanted = layouts_[layout];
  if (wanted == nullptr) {
    auto packed = std::make_shared<const ConvWeightsF32>(Pack(layout));
    if (++packs_ < 3) layouts_.fill(nullptr);  // the second change of mind is not the last
    wanted = std::move(packed);
  }
  return wanted;
}

void ConvF32::PackLanes() {
  const int64_t lanes = kernels_.lanes;
  const int64_t vectors = CeilDiv(options_.channels, lanes);
  lanes_.assign(static_cast<size_t>(vectors * (k_ + 1) * lanes), 0.0F);
  for (int64_t c = 0; c < options_.channels; ++c) {
    float* to = lanes_.data() + c / lanes * (k_ + 1) * lanes + c % lanes;
    for (int64_t t = 0; t < k_; ++t) to[t * lanes] = weights_.get()[c * k_ + t];
    if (!bias_.empty()) to[k_ * lanes] = bias_[static_cast<size_t>(c)];
  }
}

void ConvF32::PlanLanes(ConvF32Plan& plan) const {
  const int64_t taps_y = (options_.kernel[1] - 1) * options_.dilation[1] + 1;
  const int64_t taps_x = (options_.kernel[2] - 1) * options_.dilation[2] + 1;
  const int64_t outputs = std::max(plan.out[2], kDepthwiseBlock);
  plan.row_vectors =
      std::max(plan.pad[2] + plan.in[2], (outputs - 1) * options_.stride[2] + taps_x);
  const auto band_floats = [&](int64_t rows) {
    const int64_t inputs = (rows - 1) * options_.stride[1] + taps_y;
    const int64_t sums = rows * plan.out[2] + kDepthwiseBlock;
    return (inputs * plan.row_vectors + sums) * kernels_.lanes;
  };
  if (lanes_.empty() || plan.in[0] != 1 || plan.out[0] != 1 || band_floats(1) > kBandFloats) return;
  const int64_t step = band_floats(2) - band_floats(1);
  plan.band_rows = std::min(plan.out[1], 1 + (kBandFloats - band_floats(1)) / step);
  plan.units = CeilDiv(options_.channels, kernels_.lanes);
  plan.scratch_floats = band_floats(plan.band_rows);
}

std::optional<WinogradPlanF32> ConvF32::PlanWinogradOf(const ConvF32Plan& plan,
                                                       int64_t threads) const {
  constexpr Extent3 kKernel = {1, 3, 3}, kOnes = {1, 1, 1};
  const bool fits = options_.groups == 1 && options_.kernel == kKernel &&
                    options_.stride == kOnes && options_.dilation == kOnes && plan.in[0] == 1 &&
                    plan.out[0] == 1 && plan.pad[0] == 0;
  const WinogradShapeF32 shape{.channels = options_.channels,
                               .outputs = options_.outputs,
                               .height = plan.in[1],
                               .width = plan.in[2],
                               .out_height = plan.out[1],
                               .out_width = plan.out[2],
                               .pad_y = plan.pad[1],
                               .pad_x = plan.pad[2]};
  if (!fits || !PrefersWinograd(shape, kernels_)) return std::nullopt;
  const int64_t vectors = CeilDiv(plan.out[1] * plan.out[2], kernels_.lanes);
  if (SparseCost(options_.outputs, k_, nonzeros_, vectors) < WinogradCost(shape, kernels_)) {
    return std::nullopt;
  }
  return PlanWinograd(shape, kernels_, threads);
}

ConvF32Plan ConvF32::Plan(const Extent3& in, const Extent3& out, const Extent3& pad,
                          int64_t threads) const {
  ConvF32Plan plan{.in = in, .out = out, .pad = pad};
  plan.winograd = PlanWinogradOf(plan, threads);
  if (plan.winograd) {
    plan.units = plan.winograd->units;
    plan.scratch_floats = plan.winograd->scratch_floats;
    plan.weights = WeightsFor(kWinograd);
    return plan;
  }
  const Extent3& stride = options_.stride;
  plan.pads = stride[2] != 1;
  for (size_t d = 0; d < 3; ++d) {
    const int64_t reach =
        (out[d] - 1) * stride[d] + (options_.kernel[d] - 1) * options_.dilation[d] + 1;
    if (pad[d] != 0 || reach > in[d]) plan.pads = true;
    plan.padded[d] = std::max(reach, in[d] + pad[d]);
  }
  plan.pixels = Volume(out);
  if (!plan.pads) {
    plan.padded = in;
    // A pointwise convolution sees one long row.
    if (Volume(options_.kernel) == 1 && stride[0] == 1 && stride[1] == 1 && !depthwise_) {
      plan.padded = plan.in = plan.out = {1, 1, plan.pixels};
    }
  }
  plan.phase_floats = CeilDiv(plan.padded[2], stride[2]);
  plan.row_floats = plan.phase_floats * stride[2];
  plan.plane_floats = plan.row_floats * plan.padded[0] * plan.padded[1];
  if (plan.pads) plan.plane_floats += kernels_.lanes;  // see PadRowsF32
  for (int64_t c = 0; c < options_.channels / options_.groups; ++c) {
    for (int64_t z = 0; z < options_.kernel[0]; ++z) {
      for (int64_t y = 0; y < options_.kernel[1]; ++y) {
        for (int64_t x = 0; x < options_.kernel[2]; ++x) {
          const int64_t row = z * options_.dilation[0] * plan.padded[1] + y * options_.dilation[1];
          const int64_t column = x * options_.dilation[2];
          plan.tap_offsets.push_back(c * plan.plane_floats + row * plan.row_floats +
                                     column % stride[2] * plan.phase_floats + column / stride[2]);
        }
      }
    }
  }
  if (depthwise_) {
    plan.units = options_.outputs;
    plan.scratch_floats = plan.plane_floats + kTapSlack;
    PlanLanes(plan);
    return plan;
  }
  plan.buffer_floats = plan.pads ? plan.plane_floats * options_.channels + kTapSlack : 0;
  const int64_t outputs = options_.outputs / options_.groups;
  // 196 pixels are worth it: 12.25 vectors of them cost 13.
  plan.by_outputs = 25 * plan.pixels * Whole(outputs, kernels_.lanes) <
                    24 * Whole(plan.pixels, kernels_.lanes) * outputs;
  if (PrefersSparse(plan)) {
    plan.weights = WeightsFor(kSparse);
    PlanSparse(plan, threads);
    return plan;
  }
  plan.is_direct = !plan.pads && Volume(options_.kernel) == 1 && plan.row_floats == plan.pixels;
  plan.weights = WeightsFor(plan.by_outputs ? kPanels : kRows);
  if (plan.by_outputs) {
    PlanOutputs(plan, threads);
  } else {
    PlanTiles(plan, threads);
  }
  return plan;
}

void ConvF32::PlanTiles(ConvF32Plan& plan, int64_t threads) const {
  const GemmF32 gemm{.m = options_.outputs / options_.groups, .n = plan.pixels, .k = k_};
  plan.group_panels = PanelGroup(gemm.m * gemm.k, kernels_);
  // A 1x1 convolution packs its input once, so as many panels as it may: the longer the rows of
  // outputs that are stored, the better.
  if (Volume(options_.kernel) == 1) {
    const int64_t rows = std::clamp(k_, kBlockK / 4, kBlockK);
    plan.group_panels = kernels_.packed_floats / (rows * kernels_.tile_columns);
  }
  plan.reads_image = kernels_.reads_images && !plan.is_direct &&
                     plan.out[2] % kernels_.lanes == 0 &&
                     RowBlocks(gemm, kernels_) <= kUnpackedBlocks;
  const int64_t group_columns = plan.group_panels * kernels_.tile_columns;
  plan.column_groups = CeilDiv(plan.pixels, group_columns);
  CutUnits(plan, threads);
  plan.scratch_floats =
      std::min(k_, kBlockK) * group_columns + plan.group_panels * kLineFloats + kTapSlack;
}

void ConvF32::CutUnits(ConvF32Plan& plan, int64_t threads) const {
  const int64_t blocks = CeilDiv(options_.outputs / options_.groups, kernels_.tile_rows);
  const int64_t pieces = plan.column_groups * options_.groups;
  if (pieces < threads) plan.row_splits = std::min(blocks, CeilDiv(threads, pieces));
  plan.units = pieces * plan.row_splits;
}

void ConvF32::PadChannel(const ConvF32Plan& plan, const float* x, float* target) const noexcept {
  const int64_t above = std::min(plan.pad[1], plan.padded[1]);
  const int64_t inside = std::min(plan.in[1], plan.padded[1] - above);
  PadRowsF32 pad{.count = plan.in[2],
                 .pad = plan.pad[2],
                 .stride = options_.stride[2],
                 .phase_floats = plan.phase_floats,
                 .phases = options_.kernel[2] == 1 ? 1 : options_.stride[2],
                 .y_step = plan.row_floats};
  for (int64_t z = 0; z < plan.padded[0]; ++z, target += plan.padded[1] * plan.row_floats) {
    const int64_t in_z = z - plan.pad[0];
    float* end = target + plan.padded[1] * plan.row_floats;
    if (in_z < 0 || in_z >= plan.in[0]) {
      std::fill(target, end, 0.0F);
      continue;
    }
    pad.x = x + in_z * plan.in[1] * plan.in[2];
    pad.y = target + above * plan.row_floats;
    pad.rows = inside;
    std::fill(target, pad.y, 0.0F);
    kernels_.pad_rows(pad);
    std::fill(pad.y + inside * plan.row_floats, end, 0.0F);
  }
}

void ConvF32::Pad(const ConvF32Plan& plan, const float* x, int64_t begin, int64_t end,
                  float* buffer) const noexcept {
  const int64_t in_floats = Volume(plan.in);
  for (int64_t c = begin; c < end; ++c) {
    PadChannel(plan, x + c * in_floats, buffer + c * plan.plane_floats);
  }
}

void ConvF32::RunUnits(const ConvF32Plan& plan, const float* x, float* y, const float* addend,
                       int64_t unit_begin, int64_t unit_end, float* scratch) const noexcept {
  for (int64_t unit = unit_begin; unit < unit_end; ++unit) {
    if (plan.winograd) {
      RunWinograd(*plan.winograd, kernels_,
                  {.weights = plan.weights->dense.data(),
                   .x = x,
                   .y = y,
                   .bias = bias_,
                   .addend = addend,
                   .activation = options_.activation},
                  unit, scratch);
    } else if (plan.band_rows > 0) {
      RunLanes(plan, x, y, addend, unit, scratch);
    } else if (depthwise_) {
      RunDepthwise(plan, x, y, addend, unit, scratch);
    } else if (plan.is_sparse) {
      RunSparse(plan, x, y, addend, unit, scratch);
    } else if (plan.by_outputs) {
      RunOutputs(plan, x, y, addend, unit, scratch);
    } else {
      RunTiles(plan, x, y, addend, unit, scratch);
    }
  }
}

void ConvF32::RunLanes(const ConvF32Plan& plan, const float* x, float* y, const float* addend,
                       int64_t unit, float* scratch) const noexcept {
  const int64_t first = unit * kernels_.lanes;
  const ActivationF32& activation = options_.activation;
  const ClampF32 limits = ClampOf(activation);
  DepthwiseF32 planes{.x = x + first * Volume(plan.in),
                      .y = y + first * plan.pixels,
                      .weights = lanes_.data() + unit * (k_ + 1) * kernels_.lanes,
                      .channels = std::min(kernels_.lanes, options_.channels - first),
                      .in_height = plan.in[1],
                      .in_width = plan.in[2],
                      .out_height = plan.out[1],
                      .out_width = plan.out[2],
                      .kernel_y = options_.kernel[1],
                      .kernel_x = options_.kernel[2],
                      .stride_y = options_.stride[1],
                      .stride_x = options_.stride[2],
                      .dilation_y = options_.dilation[1],
                      .dilation_x = options_.dilation[2],
                      .pad_y = plan.pad[1],
                      .pad_x = plan.pad[2],
                      .row_vectors = plan.row_vectors,
                      .band_rows = plan.band_rows,
                      .low = limits.low,
                      .high = limits.high,
                      .addend = addend == nullptr ? nullptr : addend + first * plan.pixels,
                      .sums = scratch};
  planes.bias = planes.weights + k_ * kernels_.lanes;
  planes.band = scratch + (plan.band_rows * plan.out[2] + kDepthwiseBlock) * kernels_.lanes;
  kernels_.depthwise(planes);
  if (activation.kind == ActivationKind::kClamp) return;
  kernels_.activate(activation, planes.y, planes.channels * plan.pixels);
}

void ConvF32::RunDepthwise(const ConvF32Plan& plan, const float* x, float* y, const float* addend,
                           int64_t output, float* scratch) const noexcept {
  const int64_t channel = output / (options_.outputs / options_.groups);
  PadChannel(plan, x + channel * Volume(plan.in), scratch);
  const ClampF32 limits = ClampOf(addend == nullptr ? options_.activation : ActivationF32{});
  TapRowsF32 taps{.source_step = options_.stride[1] * plan.row_floats,
                  .offsets = plan.tap_offsets.data(),
                  .weights = weights_.get() + output * k_,
                  .taps = k_,
                  .bias = bias_.empty() ? 0.0F : bias_[static_cast<size_t>(output)],
                  .low = limits.low,
                  .high = limits.high,
                  .y = y + output * plan.pixels,
                  .y_step = plan.out[2],
                  .rows = plan.out[1],
                  .count = plan.out[2]};
  for (int64_t z = 0; z < plan.out[0]; ++z, taps.y += taps.rows * taps.count) {
    taps.source = scratch + z * options_.stride[0] * plan.padded[1] * plan.row_floats;
    kernels_.tap_sum_rows(taps);
  }
  float* out = y + output * plan.pixels;
  if (addend != nullptr) kernels_.axpy(addend + output * plan.pixels, 1.0F, out, plan.pixels);
  if (addend == nullptr && options_.activation.kind == ActivationKind::kClamp) return;
  kernels_.activate(options_.activation, out, plan.pixels);
}

void ConvF32::PackPixels(const ConvF32Plan& plan, const PackColumnsF32& part, int64_t first,
                         int64_t count) const noexcept {
  std::array<PixelRun, 64> runs;  // a panel has at most 64 columns
  PackColumnsF32 pack = part;
  pack.runs = runs.data();
  for (int64_t pixel = first; pixel < first + count;) {
    const PixelAt at = Locate(plan, options_.stride, pixel);
    const int64_t length = std::min(at.left_in_row, first + count - pixel);
    runs[static_cast<size_t>(pack.run_count++)] = {pixel - first, at.source, length};
    pixel += length;
  }
  kernels_.pack_columns(pack);
}

GemmF32 ConvF32::GroupProduct(const ConvF32Plan& plan, int64_t group, int64_t pixel, float* y,
                              const float* addend) const noexcept {
  const int64_t outputs = options_.outputs / options_.groups;
  const int64_t at = group * outputs * plan.pixels + pixel;
  GemmF32 gemm{.m = outputs, .n = plan.pixels - pixel, .k = k_};
  gemm.c = y + at;
  gemm.c_row = plan.pixels;
  gemm.row_bias = bias_.empty() ? nullptr : bias_.data() + group * outputs;
  gemm.addend = addend == nullptr ? nullptr : addend + at;
  gemm.activation = options_.activation;
  return gemm;
}

void ConvF32::RunTiles(const ConvF32Plan& plan, const float* x, float* y, const float* addend,
                       int64_t unit, float* scratch) const noexcept {
  const int64_t split = unit % plan.row_splits;
  const int64_t columns_index = unit / plan.row_splits % plan.column_groups;
  const int64_t g = unit / plan.row_splits / plan.column_groups;
  const int64_t width = kernels_.tile_columns;
  GemmF32 gemm = GroupProduct(plan, g, 0, y, addend);
  SetPackedLhs(gemm, plan.weights->dense.data() + g * group_floats(false), kernels_);

  const int64_t blocks = RowBlocks(gemm, kernels_);
  TileRange range;
  range.block_begin = blocks * split / plan.row_splits;
  range.block_end = blocks * (split + 1) / plan.row_splits;
  range.panel_begin = columns_index * plan.group_panels;
  range.panel_end = std::min(Panels(gemm, kernels_), range.panel_begin + plan.group_panels);

  const float* source = x + g * (options_.channels / options_.groups) * plan.plane_floats;
  std::array<const float*, 128> vectors;
  if (plan.reads_image) {
    const int64_t begin = range.panel_begin * width;
    const int64_t end = std::min(range.panel_end * width, plan.pixels);
    for (int64_t pixel = begin; pixel < end; pixel += kernels_.lanes) {
      vectors[static_cast<size_t>((pixel - begin) / kernels_.lanes)] =
          source + Locate(plan, options_.stride, pixel).source;
    }
  }
  for (int64_t k = 0; k < k_; k += kBlockK) {
    GemmPartF32 part{.k_begin = k, .k_count = std::min(kBlockK, k_ - k), .b = scratch};
    part.panel_step = part.k_count * width + kLineFloats;
    if (plan.is_direct && kernels_.pack_rows == nullptr) {
      part.rows = source + k * plan.plane_floats;
      part.rows_step = plan.plane_floats;
      part.packed = scratch;
    } else if (plan.is_direct) {
      kernels_.pack_rows(
          {.rows = source + k * plan.plane_floats + range.panel_begin * width,
           .rows_step = plan.plane_floats,
           .k = part.k_count,
           .panels = std::min(range.panel_end, plan.pixels / width) - range.panel_begin,
           .target = scratch,
           .panel_step = part.panel_step});
    }
    if (plan.reads_image) {
      part.b_offsets = plan.tap_offsets.data() + k;
      part.b_vectors = vectors.data();
    }
    for (int64_t panel = range.panel_begin; panel < range.panel_end; ++panel) {
      if ((plan.is_direct || plan.reads_image) && (panel + 1) * width <= plan.pixels) continue;
      PackPixels(plan,
                 {.source = source,
                  .offsets = plan.tap_offsets.data() + k,
                  .k = part.k_count,
                  .target = scratch + (panel - range.panel_begin) * part.panel_step},
                 panel * width, std::min(width, plan.pixels - panel * width));
    }
    RunGemmPart(gemm, kernels_, range, part);
  }
}

}  // namespace pared
