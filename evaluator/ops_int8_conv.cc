// Conv on INT8 codes: a GEMM of weights and planar tiles.
//
//   pointwise, stride 1   the planar image is the operand
//   depthwise             the depthwise kernel on the padded image
//   3x3, stride 1         by Winograd's algorithm, where that is faster (winograd.h)
//   anything else         for each tile of 64 output pixels and each group: gather [k][64],
//   multiply
//
// Threads share the tiles. Where there are few (a 7x7 image is one), weights are packed in parts of
// rows, and threads share tiles times parts.
//
// Plans hold what depends on the size of the image; the last one is kept, for images of one size
// follow one another.

#include <algorithm>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>

#include "base/check.h"
#include "base/error.h"
#include "evaluator/executor.h"
#include "evaluator/metrics.h"
#include "evaluator/ops_int8.h"
#include "evaluator/winograd.h"
#include "kernels/depthwise.h"
#include "kernels/im2col.h"
#include "kernels/planar_gather.h"

namespace pared {
namespace {

constexpr int64_t kHotBytes =
    131072;  // output that stays in cache until what follows is done to it

constexpr int64_t kItemsPerThread = 8;  // pieces of work: the last to end leaves an eighth idle
constexpr int64_t kPixelsUnknown = 256;
constexpr int64_t kPartRows = 48;  // fewer rows would load the operand too often; 8 panels of 6

// How many parts of rows a product of `m` rows over `tiles` tiles is packed in.
int64_t PartsFor(int64_t m, int64_t tiles, int64_t threads) {
  const int64_t wanted = kItemsPerThread * threads;
  if (threads == 1 || tiles >= wanted) return 1;
  return std::clamp<int64_t>((wanted + tiles - 1) / tiles, 1, std::max<int64_t>(1, m / kPartRows));
}

// Rows [first, first + count) of one group's weights.
struct RowPart {
  int64_t first, count;
  std::unique_ptr<PackedGemm> gemm;

  bool is_sparse() const { return gemm->kernel_name()[0] == 's'; }
};

struct Plan {
  Shape in, out;                                 // [N,C,H,W] with N = 1, or [1,C,L]
  bool is_planar;                                // of x
  std::unique_ptr<Im2col> im2col;                // of one group; null: not needed
  std::unique_ptr<PlanarGather> gather;          // likewise, instead of it
  std::unique_ptr<PackedDepthwise> depthwise;    // null: not depthwise
  std::unique_ptr<const WinogradPlan> winograd;  // null: not by Winograd's algorithm
};

class ConvInt8 {
 public:
  ConvInt8(const Node& node, const OpContext& context);
  // `other`: the second operand of what follows the convolution; null: nothing follows.
  void Run(const Tensor& x, const Tensor* other, Tensor& y, Scratch& scratch) const;
  void Describe(LayerStats& stats) const;

 private:
  // One call: where things are.
  struct Call {
    const Plan* plan;
    const Tensor* x;
    std::byte* y;          // planar [N][tiles][m][64] of the output's type
    const uint8_t* other;  // likewise, of uint8; null: none
    Scratch* scratch;
    int64_t images;
    ImageSize in, out;
  };
  std::shared_ptr<const Plan> PlanFor(const Tensor& x) const;
  std::shared_ptr<const Plan> MakePlan(const Shape& x, bool is_planar) const;
  void RunImages(const Call& call) const;
  void RunPointwise(const Call& call) const;
  void ToFloat(const Call& call, Tensor& y) const;
  void RunGathered(const Call& call, int64_t image) const;
  void RunDepthwise(const Call& call, int64_t image) const;
  void RunWinograd(const Call& call, int64_t image) const;
  // What one group is multiplied with: tile t of `tiles` is at `x` + t * `stride`. Each image has
  // `image_tiles` of them for its `pixels`.
  struct Operand {
    const uint8_t* x;
    int64_t stride, tiles, image_tiles, pixels;
    std::byte* y;

    // In use of `count` tiles of one image from `tile` on.
    int64_t Columns(int64_t tile, int64_t count) const {
      const int64_t left = pixels - tile % image_tiles * kTileColumns;
      return std::min(left, count * kTileColumns);
    }
  };
  void RunParts(const Call& call, const Operand& operand) const;
  const uint8_t* GatherAll(const Call& call, int64_t image, int64_t stride) const;
  // What one image is gathered from: the planar image itself or a padded copy, by groups `stride`
  // bytes apart.
  struct Source {
    const Plan* plan;
    const uint8_t* bytes;
    size_t stride;
  };
  struct GatherRange {
    int64_t tile, begin, end;  // channels of the group
  };
  Source SourceOf(const Call& call, int64_t image) const;
  void Gather(const Source& source, int64_t group, const GatherRange& range, uint8_t* out) const;
  void Pack(const OpContext& context);
  // What follows the convolution, on `bytes` bytes of the output at `y`.
  void Follow(const Call& call, std::byte* y, int64_t bytes) const;
  void FollowBinary(const Call& call, std::byte* y, int64_t bytes) const;
  bool follows() const { return table_.has_value() || follow_.has_value(); }
  std::byte* TileOf(const Call& call, int64_t image, int64_t tile) const {
    return call.y + (image * call.out.tiles() + tile) * m_ * kTileColumns * element_bytes_;
  }

  Node node_;
  Tensor w_;
  Isa isa_;
  int64_t threads_, group_, m_, k_;
  int64_t window_ = 1;  // kernel positions
  uint8_t x_zero_point_;
  bool float_output_, depthwise_;
  int64_t element_bytes_;
  std::optional<ByteTable> table_;
  std::optional<BinaryInt8> follow_;
  // One for each group, or several of the one group. Empty: depthwise, or by Winograd's algorithm.
  std::vector<RowPart> parts_;
  std::unique_ptr<const PackedWinograd> winograd_;
  size_t gemm_scratch_ = 0;
  mutable std::mutex mutex_;
  mutable std::shared_ptr<const Plan> plan_;  // guarded by mutex_
};

ConvInt8::ConvInt8(const Node& node, const OpContext& context)
    : node_(node),
      w_(*node.TensorOf("w")),
      isa_(context.isa),
      threads_(context.threads),
      group_(node.Int("group", 1)) {
  m_ = w_.shape()[0];
  k_ = w_.shape()[1];
  if (group_ < 1 || m_ % group_ != 0) {
    throw Error(ErrorCode::kInvalidArgument, "group does not divide the output channels",
                NodeLabel(node));
  }
  x_zero_point_ = static_cast<uint8_t>(ParametersOf(node, "x").zero_point);
  float_output_ = node.Int("float_output", 0) != 0;
  element_bytes_ = float_output_ ? 4 : 1;
  if (const Tensor* table = node.TensorOf("table")) table_ = TableOf(*table);
  if (const std::string then = node.String("then", ""); !then.empty()) {
    follow_.emplace(then, node, "then_", isa_);
  }
  for (const int64_t size : node.Ints("kernel_shape")) window_ *= size;
  depthwise_ = group_ > 1 && k_ == window_;
  if (depthwise_) return;
  Pack(context);
}

void ConvInt8::Pack(const OpContext& context) {
  const int64_t pixels = node_.Int("pixels", kPixelsUnknown);
  const int64_t tiles = ImageSize{m_, pixels}.tiles();
  const int64_t parts = group_ > 1 ? group_ : PartsFor(m_, tiles, context.threads);
  const GemmEpilogue epilogue = EpilogueOf(node_);
  // Whole panels in all parts but the last; groups are equal.
  const int64_t panel = group_ > 1 ? 1 : 6;
  const int64_t rows = (m_ / parts + panel - 1) / panel * panel;
  for (int64_t begin = 0; begin < m_; begin += rows) {
    const int64_t end = std::min(m_, begin + rows);
    GemmWeights weights{.m = end - begin, .k = k_, .values = {}, .epilogue = epilogue};
    weights.values = w_.data<int8_t>().subspan(static_cast<size_t>(begin * k_),
                                               static_cast<size_t>((end - begin) * k_));
    weights.epilogue.bias.assign(epilogue.bias.begin() + begin, epilogue.bias.begin() + end);
    weights.epilogue.scale.assign(epilogue.scale.begin() + begin, epilogue.scale.begin() + end);
    parts_.push_back({begin, end - begin, PackFor(context, weights, pixels)});
    gemm_scratch_ = std::max(gemm_scratch_, parts_.back().gemm->scratch_bytes());
  }
  if (!MayTakeWinograd(node_, isa_)) return;
  const GemmWeights all = WeightsOf(node_, w_);
  const double gain = GainOf(*parts_[0].gemm, all, isa_);
  if (!WinogradPays({.m = m_, .k = k_, .pixels = pixels, .gain = gain})) return;
  winograd_ = PackWinograd(all, isa_);
  if (winograd_ != nullptr) parts_.clear();
}

std::shared_ptr<const Plan> ConvInt8::MakePlan(const Shape& x, bool is_planar) const {
  ConvGeometry g = GeometryOf(node_, x);
  g.channels = x[1] / group_;
  if (x[1] % group_ != 0 || g.k() != k_) {
    throw Error(ErrorCode::kInvalidArgument,
                "x has shape " + ShapeText(x) + ", whose channels do not fit the weights",
                NodeLabel(node_));
  }
  auto plan = std::make_shared<Plan>();
  plan->in = x;
  plan->is_planar = is_planar;
  plan->out = OutputShape(g, x, m_);
  if (depthwise_) {
    g.channels = x[1];
    plan->depthwise = PackDepthwise({.geometry = g,
                                     .multiplier = m_ / group_,
                                     .values = w_.data<int8_t>(),
                                     .epilogue = EpilogueOf(node_)},
                                    isa_);
  } else if (winograd_ != nullptr) {
    plan->winograd = PlanWinograd(*winograd_, g, threads_);
  } else if (!g.is_pointwise() || group_ > 1) {
    if (is_planar && PlanarGather::Supports(isa_)) {
      plan->gather = std::make_unique<PlanarGather>(g, x[1]);
    } else {
      plan->im2col = std::make_unique<Im2col>(g, isa_);
    }
  }
  return plan;
}

std::shared_ptr<const Plan> ConvInt8::PlanFor(const Tensor& x) const {
  const std::scoped_lock lock(mutex_);
  if (plan_ == nullptr || plan_->in != x.shape() || plan_->is_planar != IsPlanar(x)) {
    plan_ = MakePlan(x.shape(), IsPlanar(x));
  }
  return plan_;
}

void ConvInt8::Follow(const Call& call, std::byte* y, int64_t bytes) const {
  const auto count = static_cast<size_t>(bytes);
  auto* codes = reinterpret_cast<uint8_t*>(y);
  if (table_) LookUp({codes, count}, *table_, codes, isa_);
  FollowBinary(call, y, bytes);
}

void ConvInt8::FollowBinary(const Call& call, std::byte* y, int64_t bytes) const {
  if (call.other == nullptr) return;
  auto* codes = reinterpret_cast<uint8_t*>(y);
  follow_->RunFlat({codes, static_cast<size_t>(bytes)}, call.other + (y - call.y), codes);
}

void ConvInt8::RunPointwise(const Call& call) const {
  const int64_t tiles = call.images * call.out.tiles();
  // Images whose tiles are all full lie as one behind the other; of others each has a last tile.
  const bool are_one = call.images > 1 && call.out.pixels % kTileColumns == 0;
  const Operand operand{.x = PlanarCodes(*call.x, *call.scratch),
                        .stride = k_ * kTileColumns,
                        .tiles = tiles,
                        .image_tiles = are_one ? tiles : call.out.tiles(),
                        .pixels = are_one ? tiles * kTileColumns : call.out.pixels,
                        .y = call.y};
  if (parts_.size() > 1) return RunParts(call, operand);
  const int64_t tile_bytes = m_ * kTileColumns * element_bytes_;
  const int64_t step = follows() ? std::max<int64_t>(1, kHotBytes / tile_bytes) : tiles;
  const auto run = [&](int64_t begin, int64_t end, std::byte* memory) {
    for (int64_t tile = begin, count = 0; tile < end; tile += count) {
      count = std::min({end - tile, step, operand.image_tiles - tile % operand.image_tiles});
      std::byte* y = operand.y + tile * tile_bytes;
      parts_[0].gemm->RunColumns(operand.x + tile * operand.stride, operand.Columns(tile, count), y,
                                 memory);
      Follow(call, y, count * tile_bytes);
    }
  };
  ForEachPiece(*call.scratch, tiles, gemm_scratch_, run);
}

void ConvInt8::RunParts(const Call& call, const Operand& operand) const {
  // By part, then by tile: a thread stays with one part's weights as long as it can.
  const auto run = [&](int64_t begin, int64_t end, std::byte* memory) {
    for (int64_t item = begin; item < end; ++item) {
      const RowPart& part = parts_[static_cast<size_t>(item / operand.tiles)];
      const int64_t tile = item % operand.tiles;
      std::byte* y = operand.y + (tile * m_ + part.first) * kTileColumns * element_bytes_;
      part.gemm->RunColumns(operand.x + tile * operand.stride, operand.Columns(tile, 1), y, memory);
      Follow(call, y, part.count * kTileColumns * element_bytes_);
    }
  };
  ForEachPiece(*call.scratch, operand.tiles * static_cast<int64_t>(parts_.size()), gemm_scratch_,
               run);
}

ConvInt8::Source ConvInt8::SourceOf(const Call& call, int64_t image) const {
  if (call.plan->gather != nullptr) {
    return {.plan = call.plan,
            .bytes = Codes(*call.x) + image * call.in.planar_bytes(),
            .stride = static_cast<size_t>(k_ / window_ * kTileColumns)};
  }
  const PaddedImage padded =
      PadImage(*call.x, image, *call.plan->im2col, x_zero_point_, *call.scratch);
  return {.plan = call.plan, .bytes = padded.bytes, .stride = padded.stride};
}

void ConvInt8::Gather(const Source& source, int64_t group, const GatherRange& range,
                      uint8_t* out) const {
  const uint8_t* bytes = source.bytes + source.stride * static_cast<size_t>(group);
  if (source.plan->gather != nullptr) {
    const PlanarGather::Channels channels{bytes, range.begin, range.end, x_zero_point_};
    source.plan->gather->Gather(channels, range.tile, out);
  } else {
    source.plan->im2col->GatherChannels(bytes, range.tile, range.begin, range.end, out);
  }
}

// All tiles of an image, gathered by all threads: each thread needs them all.
const uint8_t* ConvInt8::GatherAll(const Call& call, int64_t image, int64_t stride) const {
  const Source source = SourceOf(call, image);
  const int64_t tiles = call.out.tiles(), channels = k_ / window_;
  auto* gathered =
      reinterpret_cast<uint8_t*>(call.scratch->Temporary(static_cast<size_t>(stride * tiles)));
  // Every row is written whole and alone, so ranges of one tile may run at once.
  call.scratch->ParallelFor(tiles * channels, std::max<int64_t>(1, 64 / window_),
                            [&](int64_t begin, int64_t end) {
                              while (begin < end) {
                                const int64_t tile = begin / channels, first = begin % channels;
                                const int64_t last = std::min(channels, first + end - begin);
                                Gather(source, 0, {tile, first, last},
                                       gathered + tile * stride + first * window_ * kTileColumns);
                                begin += last - first;
                              }
                            });
  return gathered;
}

void ConvInt8::RunGathered(const Call& call, int64_t image) const {
  const int64_t operand_bytes = k_ * kTileColumns, channels = k_ / window_;
  if (group_ == 1 && parts_.size() > 1) {
    const int64_t stride = operand_bytes + 64;  // the slack of Im2col
    const uint8_t* x = GatherAll(call, image, stride);
    return RunParts(call, {.x = x,
                           .stride = stride,
                           .tiles = call.out.tiles(),
                           .image_tiles = call.out.tiles(),
                           .pixels = call.out.pixels,
                           .y = TileOf(call, image, 0)});
  }
  const Source source = SourceOf(call, image);
  const int64_t rows = m_ / group_;
  // Sparse kernels read an entry once for two tiles, or for one and the columns behind it.
  const int64_t step = group_ == 1 && parts_[0].is_sparse() ? 2 : 1;
  const size_t tile_bytes = static_cast<size_t>(step * operand_bytes + 64);
  const auto run = [&](int64_t begin, int64_t end, std::byte* memory) {
    auto* operand = reinterpret_cast<uint8_t*>(memory);
    for (int64_t tile = begin; tile < end; tile += step) {
      const int64_t last = std::min(end, tile + step);
      const int64_t used = std::min(call.out.pixels, last * kTileColumns) - tile * kTileColumns;
      std::byte* y = TileOf(call, image, tile);
      for (int64_t g = 0; g < group_; ++g) {
        for (int64_t t = tile; t < last; ++t) {
          Gather(source, g, {t, 0, channels}, operand + (t - tile) * operand_bytes);
        }
        parts_[static_cast<size_t>(g)].gemm->RunColumns(
            operand, used, y + g * rows * kTileColumns * element_bytes_, memory + tile_bytes);
      }
      Follow(call, y, (last - tile) * m_ * kTileColumns);
    }
  };
  ForEachPiece(*call.scratch, call.out.tiles(), tile_bytes + gemm_scratch_, run);
}

void ConvInt8::RunDepthwise(const Call& call, int64_t image) const {
  const PackedDepthwise& kernel = *call.plan->depthwise;
  const PaddedImage padded =
      PadImage(*call.x, image, kernel.im2col(), x_zero_point_, *call.scratch);
  std::byte* y = TileOf(call, image, 0);
  const int64_t tiles = call.out.tiles();
  const int64_t parts = PartsFor(m_, tiles, call.scratch->threads());
  const auto run = [&](int64_t begin, int64_t end, std::byte* memory) {
    for (int64_t item = begin; item < end; ++item) {
      const int64_t tile = item / parts, part = item % parts;
      const int64_t first = m_ * part / parts, last = m_ * (part + 1) / parts;
      kernel.Run(padded.bytes, {tile, first, last}, y, memory);
      Follow(call, y + (tile * m_ + first) * kTileColumns * element_bytes_,
             (last - first) * kTileColumns * element_bytes_);
    }
  };
  ForEachPiece(*call.scratch, tiles * parts, kernel.scratch_bytes(), run);
}

void ConvInt8::RunWinograd(const Call& call, int64_t image) const {
  const WinogradPlan& plan = *call.plan->winograd;
  const PaddedImage padded = PadImage(*call.x, image, plan.im2col(), x_zero_point_, *call.scratch);
  std::byte* y = TileOf(call, image, 0);
  const ByteTable* table = table_ ? &*table_ : nullptr;
  pared::RunWinograd({.weights = winograd_.get(),
                      .plan = &plan,
                      .image = padded.bytes,
                      .output = {.y = y, .table = table}},
                     *call.scratch);
  if (call.other == nullptr) return;
  // A block ends inside tiles.
  call.scratch->ParallelFor(call.out.tiles(), 1, [&](int64_t begin, int64_t end) {
    const int64_t tile_bytes = m_ * kTileColumns;
    FollowBinary(call, y + begin * tile_bytes, (end - begin) * tile_bytes);
  });
}

void ConvInt8::RunImages(const Call& call) const {
  const Plan& plan = *call.plan;
  const bool is_gathered = plan.im2col != nullptr || plan.gather != nullptr;
  if (!is_gathered && !plan.depthwise && !plan.winograd) return RunPointwise(call);
  for (int64_t image = 0; image < call.images; ++image) {
    if (plan.depthwise) {
      RunDepthwise(call, image);
    } else if (plan.winograd) {
      RunWinograd(call, image);
    } else {
      RunGathered(call, image);
    }
  }
}

void ConvInt8::Run(const Tensor& x, const Tensor* other, Tensor& y, Scratch& scratch) const {
  const std::shared_ptr<const Plan> plan = PlanFor(x);
  const bool joined = other != nullptr && other->shape() == plan->out;
  Call call{.plan = plan.get(),
            .x = &x,
            .y = nullptr,
            .other = joined ? PlanarCodes(*other, scratch) : nullptr,
            .scratch = &scratch,
            .images = x.shape()[0],
            .in = ImageOf(x.shape()),
            .out = ImageOf(plan->out)};
  Tensor result;
  const int64_t bytes = call.images * call.out.planar_bytes() * element_bytes_;
  call.y = float_output_
               ? scratch.Temporary(static_cast<size_t>(bytes))
               : scratch.AllocateBytes(result, DType::kUInt8, plan->out, Layout::kPlanar64);
  scratch.AddMacs(call.images * call.out.pixels * m_ * k_);
  RunImages(call);
  if (float_output_) {
    ToFloat(call, result);
  } else if (other != nullptr && !joined) {
    follow_->Run(Tensor(result), *other, result, scratch);  // shapes that broadcast
  }
  y = std::move(result);
}

void ConvInt8::ToFloat(const Call& call, Tensor& y) const {
  const std::span<float> values = call.scratch->Allocate<float>(y, call.plan->out);
  for (int64_t image = 0; image < call.images; ++image) {
    FromPlanar(reinterpret_cast<const float*>(TileOf(call, image, 0)), call.out,
               TileRange{0, call.out.tiles()},
               values.data() + image * call.out.channels * call.out.pixels);
  }
}

void ConvInt8::Describe(LayerStats& stats) const {
  if (winograd_ != nullptr) return DescribeKernel(winograd_->kernel_name(), w_, stats);
  if (!depthwise_) return DescribeKernel(parts_[0].gemm->kernel_name(), w_, stats);
  stats.kernel = std::string("depthwise_") + IsaName(isa_);
  stats.density = DensityOf(w_.data<int8_t>());
}

}  // namespace

Op PrepareConvInt8(const Node& node, const OpContext& context) {
  const auto conv = std::make_shared<const ConvInt8>(node, context);
  if (context.stats != nullptr) conv->Describe(*context.stats);
  return
      [conv](std::span<const Tensor* const> inputs, std::span<Tensor> outputs, Scratch& scratch) {
        conv->Run(*inputs[0], inputs.size() > 1 ? inputs[1] : nullptr, outputs[0], scratch);
      };
}

}  // namespace pared
