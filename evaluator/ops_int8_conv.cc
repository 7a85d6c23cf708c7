// Conv on INT8 codes: a GEMM of weights and planar tiles.
//
//   pointwise, stride 1   the planar image is the operand
//   depthwise             the depthwise kernel on the padded image
//   anything else         for each tile of 64 output pixels and each group: gather [k][64],
//   multiply
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
#include "evaluator/ops_int8.h"
#include "kernels/depthwise.h"
#include "kernels/im2col.h"

namespace pared {
namespace {

constexpr int64_t kHotBytes =
    131072;  // output that stays in cache until what follows is done to it

struct Plan {
  Shape in, out;                               // [N,C,H,W] with N = 1, or [1,C,L]
  std::unique_ptr<Im2col> im2col;              // of one group; null: pointwise
  std::unique_ptr<PackedDepthwise> depthwise;  // null: not depthwise
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
  std::shared_ptr<const Plan> PlanFor(const Shape& x) const;
  std::shared_ptr<const Plan> MakePlan(const Shape& x) const;
  void RunPointwise(const Call& call) const;
  void ToFloat(const Call& call, Tensor& y) const;
  void RunGathered(const Call& call, int64_t image) const;
  void RunDepthwise(const Call& call, int64_t image) const;
  // What follows the convolution, on `bytes` bytes of the output at `y`.
  void Follow(const Call& call, std::byte* y, int64_t bytes) const;
  bool follows() const { return table_.has_value() || follow_.has_value(); }
  std::byte* TileOf(const Call& call, int64_t image, int64_t tile) const {
    return call.y + (image * call.out.tiles() + tile) * m_ * kTileColumns * element_bytes_;
  }

  Node node_;
  Tensor w_;
  Isa isa_;
  int64_t group_, m_, k_;
  uint8_t x_zero_point_;
  bool float_output_, depthwise_;
  int64_t element_bytes_;
  std::optional<ByteTable> table_;
  std::optional<BinaryInt8> follow_;
  std::vector<std::unique_ptr<PackedGemm>> gemms_;  // by group; empty: depthwise
  size_t gemm_scratch_ = 0;
  mutable std::mutex mutex_;
  mutable std::shared_ptr<const Plan> plan_;  // guarded by mutex_
};

ConvInt8::ConvInt8(const Node& node, const OpContext& context)
    : node_(node), w_(*node.TensorOf("w")), isa_(context.isa), group_(node.Int("group", 1)) {
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
  int64_t kernel = 1;
  for (const int64_t size : node.Ints("kernel_shape")) kernel *= size;
  depthwise_ = group_ > 1 && k_ == kernel;
  if (depthwise_) return;
  const int64_t rows = m_ / group_;
  const GemmEpilogue epilogue = EpilogueOf(node);
  for (int64_t g = 0; g < group_; ++g) {
    GemmWeights weights{.m = rows, .k = k_, .values = {}, .epilogue = epilogue};
    const auto first = static_cast<size_t>(g * rows), count = static_cast<size_t>(rows);
    const auto k = static_cast<size_t>(k_);
    weights.values = w_.data<int8_t>().subspan(first * k, count * k);
    weights.epilogue.bias.assign(epilogue.bias.begin() + g * rows,
                                 epilogue.bias.begin() + (g + 1) * rows);
    weights.epilogue.scale.assign(epilogue.scale.begin() + g * rows,
                                  epilogue.scale.begin() + (g + 1) * rows);
    const int64_t tiles = node.Int("tiles", 4);
    gemms_.push_back(context.tune ? PackGemmTimed(weights, isa_, tiles) : PackGemm(weights, isa_));
    gemm_scratch_ = std::max(gemm_scratch_, gemms_.back()->scratch_bytes());
  }
}

std::shared_ptr<const Plan> ConvInt8::MakePlan(const Shape& x) const {
  ConvGeometry g = GeometryOf(node_, x);
  g.channels = x[1] / group_;
  if (x[1] % group_ != 0 || g.k() != k_) {
    throw Error(ErrorCode::kInvalidArgument,
                "x has shape " + ShapeText(x) + ", whose channels do not fit the weights",
                NodeLabel(node_));
  }
  auto plan = std::make_shared<Plan>();
  plan->in = x;
  plan->out = OutputShape(g, x, m_);
  if (depthwise_) {
    g.channels = x[1];
    plan->depthwise = PackDepthwise({.geometry = g,
                                     .multiplier = m_ / group_,
                                     .values = w_.data<int8_t>(),
                                     .epilogue = EpilogueOf(node_)},
                                    isa_);
  } else if (!g.is_pointwise() || group_ > 1) {
    plan->im2col = std::make_unique<Im2col>(g, isa_);
  }
  return plan;
}

std::shared_ptr<const Plan> ConvInt8::PlanFor(const Shape& x) const {
  const std::scoped_lock lock(mutex_);
  if (plan_ == nullptr || plan_->in != x) plan_ = MakePlan(x);
  return plan_;
}

void ConvInt8::Follow(const Call& call, std::byte* y, int64_t bytes) const {
  const auto count = static_cast<size_t>(bytes);
  auto* codes = reinterpret_cast<uint8_t*>(y);
  if (table_) LookUp({codes, count}, *table_, codes, isa_);
  if (call.other != nullptr) follow_->RunFlat({codes, count}, call.other + (y - call.y), codes);
}

void ConvInt8::RunPointwise(const Call& call) const {
  const uint8_t* x = PlanarCodes(*call.x, *call.scratch);
  const int64_t tiles = call.images * call.out.tiles();
  const int64_t tile_bytes = m_ * kTileColumns * element_bytes_;
  const int64_t step = follows() ? std::max<int64_t>(1, kHotBytes / tile_bytes) : tiles;
  // Only a single image knows which columns of its last tile are in use.
  const int64_t columns = call.images == 1 ? call.out.pixels : tiles * kTileColumns;
  const auto run = [&](int64_t begin, int64_t end, std::byte* memory) {
    for (int64_t tile = begin; tile < end; tile += step) {
      const int64_t last = std::min(end, tile + step);
      const int64_t used = std::min(columns, last * kTileColumns) - tile * kTileColumns;
      std::byte* y = call.y + tile * tile_bytes;
      gemms_[0]->RunColumns(x + tile * k_ * kTileColumns, used, y, memory);
      Follow(call, y, (last - tile) * tile_bytes);
    }
  };
  ForEachPiece(*call.scratch, tiles, gemm_scratch_, run);
}

void ConvInt8::RunGathered(const Call& call, int64_t image) const {
  const Im2col& im2col = *call.plan->im2col;
  const PaddedImage padded = PadImage(*call.x, image, im2col, x_zero_point_, *call.scratch);
  const size_t tile_bytes = (im2col.tile_bytes() + 63) / 64 * 64;
  const int64_t rows = m_ / group_;
  const auto run = [&](int64_t begin, int64_t end, std::byte* memory) {
    auto* operand = reinterpret_cast<uint8_t*>(memory);
    for (int64_t tile = begin; tile < end; ++tile) {
      const int64_t used = std::min(kTileColumns, call.out.pixels - tile * kTileColumns);
      std::byte* y = TileOf(call, image, tile);
      for (int64_t g = 0; g < group_; ++g) {
        im2col.GatherTile(padded.bytes + padded.stride * static_cast<size_t>(g), tile, operand);
        gemms_[static_cast<size_t>(g)]->RunColumns(
            operand, used, y + g * rows * kTileColumns * element_bytes_, memory + tile_bytes);
      }
      Follow(call, y, m_ * kTileColumns);
    }
  };
  ForEachPiece(*call.scratch, call.out.tiles(), tile_bytes + gemm_scratch_, run);
}

void ConvInt8::RunDepthwise(const Call& call, int64_t image) const {
  const PackedDepthwise& kernel = *call.plan->depthwise;
  const PaddedImage padded =
      PadImage(*call.x, image, kernel.im2col(), x_zero_point_, *call.scratch);
  std::byte* y = TileOf(call, image, 0);
  const auto run = [&](int64_t begin, int64_t end, std::byte* memory) {
    for (int64_t tile = begin; tile < end; ++tile) {
      kernel.Run(padded.bytes, {tile, 0, m_}, y, memory);
      Follow(call, y + tile * m_ * kTileColumns, m_ * kTileColumns);
    }
  };
  ForEachPiece(*call.scratch, call.out.tiles(), kernel.scratch_bytes(), run);
}

void ConvInt8::Run(const Tensor& x, const Tensor* other, Tensor& y, Scratch& scratch) const {
  const std::shared_ptr<const Plan> plan = PlanFor(x.shape());
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
  if (plan->im2col == nullptr && plan->depthwise == nullptr) {
    RunPointwise(call);
  } else {
    for (int64_t image = 0; image < call.images; ++image) {
      plan->depthwise ? RunDepthwise(call, image) : RunGathered(call, image);
    }
  }
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
  const std::span<const int8_t> w = w_.data<int8_t>();
  const auto zeros = static_cast<double>(std::count(w.begin(), w.end(), 0));
  stats.density = 1.0 - zeros / static_cast<double>(w.size());
  stats.kernel = depthwise_ ? std::string("depthwise_") + IsaName(isa_) : gemms_[0]->kernel_name();
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
