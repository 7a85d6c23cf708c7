#include "evaluator/integer_product.h"

#include <algorithm>
#include <cstring>
#include <mutex>
#include <numeric>

#include "evaluator/executor.h"
#include "evaluator/fuse_graph.h"
#include "evaluator/op_checks.h"
#include "evaluator/ops_int8.h"
#include "evaluator/winograd.h"
#include "kernels/im2col.h"

namespace pared {
namespace {

constexpr int64_t kMaxK = 65536;     // kernels/gemm.h
constexpr int64_t kVectorRows = 16;  // kernels/gemv.h

// An int8 code or zero point plus 128, which flips its highest bit.
int32_t AsUint8(const Tensor* zero_point, size_t index) {
  if (zero_point == nullptr) return 0;
  if (zero_point->dtype() == DType::kUInt8) return zero_point->data<uint8_t>()[index];
  return zero_point->data<int8_t>()[index] + 128;
}

bool IsByte(DType dtype) { return dtype == DType::kUInt8 || dtype == DType::kInt8; }

// The zero point of x in uint8 form: int8 codes without one have 0, which is 128.
int32_t ZeroPointOf(const Tensor& x, const Tensor* x_zero) {
  if (x_zero == nullptr) return x.dtype() == DType::kInt8 ? 128 : 0;
  return AsUint8(x_zero, 0);
}

// x as uint8, row-major.
Tensor CodesOf(const Tensor& x, Scratch& scratch) {
  if (x.dtype() == DType::kUInt8) return x;
  Tensor codes;
  const std::span<uint8_t> y = scratch.Allocate<uint8_t>(codes, x.shape());
  const int8_t* from = x.data<int8_t>().data();
  scratch.ParallelFor(x.count(), 65536, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      y[Sz(i)] = static_cast<uint8_t>(static_cast<uint8_t>(from[i]) ^ 0x80U);
    }
  });
  return codes;
}

// What an output channel needs, for all channels of all groups.
struct Channels {
  IntegerResult result;
  std::vector<int32_t> offset;  // [m]
  std::vector<int32_t> w_zero;  // [m]

  const float* ScaleOf(int64_t m) const {
    return result.scale.data() + (result.scale.size() == 1 ? 0 : m);
  }
  const float* BiasOf(int64_t m) const {
    if (result.bias.empty()) return nullptr;
    return result.bias.data() + (result.bias.size() == 1 ? 0 : m);
  }
  bool is_signed() const { return result.dtype == DType::kInt8; }
  SumsToCodes ToCodes(const float* scale) const {
    return {.scale = scale,
            .zero_point = result.zero_point + (is_signed() ? 128 : 0),
            .is_signed = is_signed()};
  }
};

void StoreLine(const SumLine& line, const Channels& channels, int64_t m, std::byte* y, Isa isa) {
  switch (channels.result.dtype) {
    case DType::kInt32:
      return StoreSums(line, reinterpret_cast<int32_t*>(y), isa);
    case DType::kFloat32: {
      const SumsToFloat to{channels.ScaleOf(m), channels.BiasOf(m), channels.result.relu};
      return StoreSums(line, to, reinterpret_cast<float*>(y), isa);
    }
    default:
      StoreSums(line, channels.ToCodes(channels.ScaleOf(m)), reinterpret_cast<uint8_t*>(y), isa);
  }
}

int64_t BytesOf(DType dtype) { return ElementBits(dtype) / 8; }

class IntegerConv final : public IntegerProduct {
 public:
  IntegerConv(const Node& node, const IntegerOperands& operands, const OpContext& context)
      : node_(node), isa_(context.isa), threads_(context.threads), group_(node.Int("group", 1)) {
    const Shape& w = operands.w->shape();
    if (group_ < 1 || w[0] % group_ != 0) {
      RefuseNode("group does not divide the output channels", NodeLabel(node));
    }
    SetInts(node_, "kernel_shape", Shape(w.begin() + 2, w.end()));
    m_ = w[0];
    const int64_t rows = m_ / group_;
    std::span<const int32_t> bias;
    if (operands.bias != nullptr) bias = operands.bias->data<int32_t>();
    for (int64_t g = 0; g < group_; ++g) {
      IntegerWeights::Source source{.codes = operands.w,
                                    .first = g * rows,
                                    .m = rows,
                                    .k = ElementCount(w) / w[0],
                                    .zero_point = operands.w_zero,
                                    .keeps_values = MayTakeWinograd(node_, isa_)};
      if (!bias.empty()) source.bias = bias.subspan(Sz(g * rows), Sz(rows));
      weights_.push_back(std::make_unique<IntegerWeights>(source, context));
      scratch_bytes_ = std::max(scratch_bytes_, weights_.back()->gemm().scratch_bytes());
    }
    if (MayTakeWinograd(node_, isa_)) {
      gain_ = GainOf(weights_[0]->gemm(), weights_[0]->Values(), isa_);
    }
    if (context.stats != nullptr) {
      context.stats->kernel = weights_[0]->gemm().kernel_name();
      context.stats->density = weights_[0]->density();
    }
  }

  void Run(const Tensor& x, const Tensor* x_zero, const IntegerResult& result, Tensor& y,
           Scratch& scratch) const override;

 private:
  // What depends on the size of the image.
  struct Plan {
    Shape in;
    ConvGeometry geometry;
    std::unique_ptr<const Im2col> im2col;           // null: not needed
    std::unique_ptr<const WinogradPlan> winograd;   // null: by im2col
    std::shared_ptr<const PackedWinograd> weights;  // for it
  };
  std::shared_ptr<const Plan> PlanFor(const Shape& x) const;
  // Null: not by Winograd's algorithm. Under mutex_.
  std::unique_ptr<const WinogradPlan> WinogradFor(const ConvGeometry& g) const;
  // One tile of one group: gathered, multiplied and stored in rows `pixels` apart.
  struct Place {
    const Channels* channels;
    int64_t group, tile, pixels;
    std::byte* y;  // of the image
  };
  // Sums of `count` pixels from `pixel` on, rows of the GEMM `stride` elements apart.
  struct Lines {
    int64_t count;
    const int32_t* sums;
    int64_t stride;
  };
  void StoreLines(const Place& place, int64_t pixel, const Lines& lines) const;
  void StoreTile(const Place& place, const int32_t* sums) const;
  void StoreBlock(const Place& place, const WinogradPlan::Block& block, const int32_t* sums) const;
  // One image.
  void RunGathered(const Im2col& im2col, const PaddedImage& padded, const Place& start,
                   Scratch& scratch) const;
  void RunImage(const Plan& plan, const PaddedImage& padded, const Place& start,
                Scratch& scratch) const;

  Node node_;
  Isa isa_;
  int64_t threads_, group_, m_ = 0;
  double gain_ = 1;  // of the product's kernel over the dense one
  size_t scratch_bytes_ = 0;
  std::vector<std::unique_ptr<IntegerWeights>> weights_;  // by group
  mutable std::mutex mutex_;
  mutable std::shared_ptr<const Plan> plan_;                // guarded by mutex_
  mutable std::shared_ptr<const PackedWinograd> winograd_;  // likewise; null: not needed yet
};

std::unique_ptr<const WinogradPlan> IntegerConv::WinogradFor(const ConvGeometry& g) const {
  constexpr int64_t kGain = 3;  // docs/kernels.md
  const GatheredLayer layer = {
      .m = weights_[0]->rows(), .k = g.k(), .pixels = g.out_pixels(), .gain = gain_};
  if (!MayTakeWinograd(node_, isa_) || !WinogradPays(layer)) return nullptr;
  if (winograd_ == nullptr) {
    winograd_ = PackWinograd(weights_[0]->Values(), isa_);
    if (winograd_ == nullptr) return nullptr;
    weights_[0]->ForgetValues();
  }
  std::unique_ptr<const WinogradPlan> plan = PlanWinograd(*winograd_, g, threads_);
  // Threads share whole blocks; where these are too few, tiles shared by all threads take less.
  const bool is_shared = std::ssize(plan->blocks()) * kGain >= std::min(threads_, g.out_tiles());
  return is_shared ? std::move(plan) : nullptr;
}

std::shared_ptr<const IntegerConv::Plan> IntegerConv::PlanFor(const Shape& x) const {
  const std::scoped_lock lock(mutex_);
  if (plan_ == nullptr || plan_->in != x) {
    auto plan = std::make_shared<Plan>();
    plan->in = x;
    ConvGeometry& g = plan->geometry;
    g = GeometryOf(node_, x);
    g.channels = x[1] / group_;
    if (x[1] % group_ != 0 || g.k() != weights_[0]->k()) {
      RefuseNode("x has shape " + ShapeText(x) + ", whose channels do not fit the weights",
                 NodeLabel(node_));
    }
    plan->winograd = WinogradFor(g);
    plan->weights = winograd_;
    if (plan->winograd == nullptr) plan->im2col = std::make_unique<const Im2col>(g, isa_);
    plan_ = plan;
  }
  return plan_;
}

void IntegerConv::StoreTile(const Place& place, const int32_t* sums) const {
  const int64_t pixel = place.tile * kTileColumns;
  StoreLines(place, pixel,
             {.count = std::min(kTileColumns, place.pixels - pixel),
              .sums = sums,
              .stride = kTileColumns});
}

void IntegerConv::StoreBlock(const Place& place, const WinogradPlan::Block& block,
                             const int32_t* sums) const {
  for (const WinogradPlan::Piece& piece : block.pieces) {
    StoreLines(place, piece.tile * kTileColumns + piece.column,
               {.count = piece.count,
                .sums = sums + piece.from,
                .stride = PackedWinograd::staged_elements(block.columns)});
  }
}

void IntegerConv::StoreLines(const Place& place, int64_t pixel, const Lines& lines) const {
  const IntegerWeights& weights = *weights_[Sz(place.group)];
  const int64_t first = place.group * weights.m(), bytes = BytesOf(place.channels->result.dtype);
  for (int64_t row = 0; row < weights.m(); ++row) {
    const int64_t m = first + row;
    const SumLine line{.along = SumsAlong::kColumns,
                       .count = lines.count,
                       .sums = lines.sums + row * lines.stride,
                       .column_sums = lines.sums + (weights.rows() - 1) * lines.stride,
                       .w_zero = &place.channels->w_zero[Sz(m)],
                       .offset = &place.channels->offset[Sz(m)]};
    StoreLine(line, *place.channels, m, place.y + (m * place.pixels + pixel) * bytes, isa_);
  }
}

void IntegerConv::Run(const Tensor& x, const Tensor* x_zero, const IntegerResult& result, Tensor& y,
                      Scratch& scratch) const {
  const std::shared_ptr<const Plan> plan = PlanFor(x.shape());
  const ConvGeometry& g = plan->geometry;
  const Tensor codes = CodesOf(x, scratch);
  const int32_t zero = ZeroPointOf(x, x_zero);
  Channels channels{.result = result, .offset = {}, .w_zero = {}};
  for (const auto& weights : weights_) {
    const std::vector<int32_t> offsets = weights->Offsets(zero);
    channels.offset.insert(channels.offset.end(), offsets.begin(), offsets.end());
    channels.w_zero.insert(channels.w_zero.end(), weights->zero_points().begin(),
                           weights->zero_points().end());
  }
  const Shape out = OutputShape(g, x.shape(), m_);
  std::byte* bytes = scratch.AllocateBytes(y, result.dtype, out, Layout::kRowMajor);
  scratch.AddMacs(x.shape()[0] * g.out_pixels() * m_ * g.k());
  scratch.SetKernel({plan->winograd != nullptr ? PackedWinograd::kernel_name()
                                               : weights_[0]->gemm().kernel_name()});
  const Im2col& im2col = plan->winograd != nullptr ? plan->winograd->im2col() : *plan->im2col;
  for (int64_t image = 0; image < x.shape()[0]; ++image) {
    const PaddedImage padded = PadImage(codes, image, im2col, static_cast<uint8_t>(zero), scratch);
    const Place start{.channels = &channels,
                      .group = 0,
                      .tile = 0,
                      .pixels = g.out_pixels(),
                      .y = bytes + image * m_ * g.out_pixels() * BytesOf(result.dtype)};
    RunImage(*plan, padded, start, scratch);
  }
}

void IntegerConv::RunImage(const Plan& plan, const PaddedImage& padded, const Place& start,
                           Scratch& scratch) const {
  if (plan.winograd == nullptr) return RunGathered(*plan.im2col, padded, start, scratch);
  RunWinogradSums(
      {.weights = plan.weights.get(), .plan = plan.winograd.get(), .image = padded.bytes},
      [&](const WinogradPlan::Block& block, const int32_t* sums) {
        StoreBlock(start, block, sums);
      },
      scratch);
}

void IntegerConv::RunGathered(const Im2col& im2col, const PaddedImage& padded, const Place& start,
                              Scratch& scratch) const {
  const size_t operand_bytes = (im2col.tile_bytes() + 63) / 64 * 64;
  const size_t sum_bytes = Sz(weights_[0]->rows() * kTileColumns * 4);
  const auto run = [&](int64_t begin, int64_t end, std::byte* memory) {
    Place place = start;  // of this thread
    auto* operand = reinterpret_cast<uint8_t*>(memory);
    auto* sums = reinterpret_cast<int32_t*>(memory + operand_bytes);
    for (place.tile = begin; place.tile < end; ++place.tile) {
      for (place.group = 0; place.group < group_; ++place.group) {
        im2col.GatherTile(padded.bytes + padded.stride * Sz(place.group), place.tile, operand);
        weights_[Sz(place.group)]->gemm().RunColumns(
            operand, std::min(kTileColumns, place.pixels - place.tile * kTileColumns), sums,
            memory + operand_bytes + sum_bytes);
        StoreTile(place, sums);
      }
    }
  };
  ForEachPiece(scratch, im2col.geometry().out_tiles(), operand_bytes + sum_bytes + scratch_bytes_,
               run);
}

class IntegerMatMul final : public IntegerProduct {
 public:
  IntegerMatMul(const Node& node, const IntegerOperands& operands, const OpContext& context)
      : label_(NodeLabel(node)), isa_(context.isa), weights_(SourceOf(operands), context) {
    if (context.stats != nullptr) {
      context.stats->kernel = weights_.gemm().kernel_name();
      context.stats->density = weights_.density();
    }
  }

  void Run(const Tensor& x, const Tensor* x_zero, const IntegerResult& result, Tensor& y,
           Scratch& scratch) const override;

 private:
  static IntegerWeights::Source SourceOf(const IntegerOperands& operands) {
    const Shape& w = operands.w->shape();
    return {.codes = operands.w,
            .first = 0,
            .m = w[1],
            .k = w[0],
            .transposed = true,
            .zero_point = operands.w_zero};
  }
  // Sums of tokens [begin, begin + count), `stride` apart, to rows of y.
  struct Tokens {
    const int32_t* sums;
    int64_t begin, count;
    std::byte* y;
  };
  void StoreTokens(const Tokens& tokens, const Channels& channels) const;

  std::string label_;
  Isa isa_;
  IntegerWeights weights_;
};

void IntegerMatMul::StoreTokens(const Tokens& tokens, const Channels& channels) const {
  const int64_t m = weights_.m(), bytes = BytesOf(channels.result.dtype);
  for (int64_t i = 0; i < tokens.count; ++i) {
    const int32_t* sums = tokens.sums + i * weights_.rows();
    const SumLine line{.along = SumsAlong::kChannels,
                       .count = m,
                       .sums = sums,
                       .column_sums = sums + weights_.rows() - 1,
                       .w_zero = channels.w_zero.data(),
                       .offset = channels.offset.data()};
    StoreLine(line, channels, 0, tokens.y + (tokens.begin + i) * m * bytes, isa_);
  }
}

void IntegerMatMul::Run(const Tensor& x, const Tensor* x_zero, const IntegerResult& result,
                        Tensor& y, Scratch& scratch) const {
  if (x.rank() == 0 || x.shape().back() != weights_.k()) {
    RefuseNode("cannot multiply " + ShapeText(x.shape()) + " by " +
                   ShapeText({weights_.k(), weights_.m()}),
               label_);
  }
  const int64_t rows = x.count() / weights_.k();
  Shape shape = x.shape();
  shape.back() = weights_.m();
  const Tensor tensor = CodesOf(x, scratch);
  const uint8_t* codes = Codes(tensor);
  // Lines along channels read one scale and bias for each.
  std::vector<float> scale(result.scale.begin(), result.scale.end());
  if (scale.size() == 1) scale.resize(Sz(weights_.m()), scale[0]);
  std::vector<float> bias(result.bias.begin(), result.bias.end());
  if (bias.size() == 1) bias.resize(Sz(weights_.m()), bias[0]);
  Channels channels{.result = result,
                    .offset = weights_.Offsets(ZeroPointOf(x, x_zero)),
                    .w_zero = {weights_.zero_points().begin(), weights_.zero_points().end()}};
  channels.result.scale = scale;
  channels.result.bias = bias;
  std::byte* out = scratch.AllocateBytes(y, result.dtype, shape, Layout::kRowMajor);
  scratch.AddMacs(rows * weights_.m() * weights_.k());
  const ImageSize in{weights_.k(), rows}, product{weights_.rows(), rows};
  if (rows <= kVectorRows) {
    auto* sums = reinterpret_cast<int32_t*>(scratch.Temporary(Sz(rows * product.channels * 4)));
    const PackedGemv& gemv = weights_.gemv();
    scratch.SetKernel({gemv.kernel_name()});
    scratch.ParallelFor(gemv.row_blocks(), std::max<int64_t>(1, gemv.row_blocks() / 8),
                        [&](int64_t begin, int64_t end) {
                          gemv.RunRows(codes, rows, {begin, end}, sums);
                        });
    StoreTokens({sums, 0, rows, out}, channels);
    return;
  }
  auto* planar = reinterpret_cast<uint8_t*>(scratch.Temporary(Sz(in.planar_bytes())));
  const PackedGemm& gemm = weights_.gemm();
  scratch.SetKernel({gemm.kernel_name()});
  const size_t tile_bytes = Sz(product.channels * kTileColumns * 4);
  const auto run = [&](int64_t begin, int64_t end, std::byte* memory) {
    RowsToPlanar(codes, in, {begin, end}, planar);
    auto* tile_sums = reinterpret_cast<int32_t*>(memory);
    auto* token_sums = reinterpret_cast<int32_t*>(memory + tile_bytes);
    for (int64_t tile = begin; tile < end; ++tile) {
      const int64_t first = tile * kTileColumns, count = std::min(kTileColumns, rows - first);
      gemm.RunColumns(planar + tile * in.channels * kTileColumns, count, tile_sums,
                      memory + 2 * tile_bytes);
      RowsFromPlanar(tile_sums, ImageSize{product.channels, count}, {0, 1}, token_sums);
      StoreTokens({token_sums, first, count, out}, channels);
    }
  };
  ForEachPiece(scratch, product.tiles(), 2 * tile_bytes + gemm.scratch_bytes(), run);
}

bool IsOneOrMany(const Tensor* zero_point, int64_t count) {
  if (zero_point == nullptr) return true;
  return IsByte(zero_point->dtype()) && (zero_point->count() == 1 || zero_point->count() == count);
}

}  // namespace

IntegerWeights::IntegerWeights(const Source& source, const OpContext& context)
    : m_(source.m), k_(source.k), isa_(context.isa) {
  const auto m = Sz(m_), k = Sz(k_);
  const bool is_signed = source.codes->dtype() == DType::kInt8;
  const auto* bytes = reinterpret_cast<const uint8_t*>(source.codes->bytes().data());
  values_.resize((m + 1) * k, 1);
  // The kernels' form: int8, which is uint8 less 128; and the zero point likewise.
  size_t nonzero = 0;
  for (size_t row = 0; row < m; ++row) {
    int32_t zero = is_signed ? 128 : 0;
    if (source.zero_point != nullptr) {
      const size_t index = source.zero_point->count() == 1 ? 0 : Sz(source.first) + row;
      zero = AsUint8(source.zero_point, index);
    }
    w_zero_.push_back(zero - 128);
    has_zero_points_ = has_zero_points_ || zero != 128;
    int32_t sum = 0;
    for (size_t i = 0; i < k; ++i) {
      const size_t at = source.transposed ? i * m + row : (Sz(source.first) + row) * k + i;
      const uint8_t code = is_signed ? bytes[at] : static_cast<uint8_t>(bytes[at] ^ 0x80U);
      const auto value = static_cast<int8_t>(code);
      values_[row * k + i] = value;
      sum += value;
      nonzero += value != zero - 128 ? 1 : 0;
    }
    sums_.push_back(sum);
  }
  bias_.assign(source.bias.begin(), source.bias.end());
  bias_.resize(m, 0);
  density_ = static_cast<double>(nonzero) / static_cast<double>(std::max<size_t>(1, m * k));
  values_.resize(Sz(rows()) * k);
  const GemmWeights weights = Values();
  gemm_ = PackGemm(weights, isa_);
  if (source.transposed) gemv_ = PackGemv(weights, isa_);
  if (!source.keeps_values) ForgetValues();
}

GemmWeights IntegerWeights::Values() const {
  GemmWeights weights{.m = rows(), .k = k_, .values = values_, .epilogue = {}};
  weights.epilogue.bias.assign(Sz(rows()), 0);
  weights.epilogue.scale.assign(Sz(rows()), 1.0F);
  weights.epilogue.output = GemmOutput::kInt32;
  return weights;
}

const PackedGemv& IntegerWeights::gemv() const { return *gemv_; }

std::vector<int32_t> IntegerWeights::Offsets(int32_t x_zero) const {
  std::vector<int32_t> offsets;
  for (size_t row = 0; row < sums_.size(); ++row) {
    const int64_t correction = k_ * w_zero_[row] - sums_[row];
    offsets.push_back(static_cast<int32_t>(
        static_cast<uint32_t>(static_cast<uint64_t>(x_zero * correction + bias_[row]))));
  }
  return offsets;
}

std::unique_ptr<IntegerProduct> MakeIntegerConv(const Node& node, const IntegerOperands& operands,
                                                const OpContext& context) {
  const Tensor* w = operands.w;
  const bool fits = w != nullptr && IsByte(w->dtype()) && (w->rank() == 3 || w->rank() == 4) &&
                    w->count() > 0 && w->count() / w->shape()[0] < kMaxK &&
                    IsOneOrMany(operands.w_zero, w->shape()[0]);
  if (!fits) return nullptr;
  if (operands.bias != nullptr && operands.bias->count() != w->shape()[0]) return nullptr;
  return std::make_unique<IntegerConv>(node, operands, context);
}

std::unique_ptr<IntegerProduct> MakeIntegerMatMul(const Node& node, const IntegerOperands& operands,
                                                  const OpContext& context) {
  const Tensor* w = operands.w;
  const bool fits = w != nullptr && IsByte(w->dtype()) && w->rank() == 2 && w->count() > 0 &&
                    w->shape()[0] < kMaxK && IsOneOrMany(operands.w_zero, w->shape()[1]);
  if (!fits) return nullptr;
  return std::make_unique<IntegerMatMul>(node, operands, context);
}

bool HasOneZeroPoint(const Tensor* x_zero) { return x_zero == nullptr || x_zero->count() == 1; }

}  // namespace pared
