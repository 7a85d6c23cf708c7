// MatMul and Gemm on INT8 codes with constant weights [m][k].
//
//   up to 16 rows   matrix times vectors, rows as they are; where weights are so sparse that a tile
//                   takes less, not from some number of rows on
//   more            rows of x become columns of planar tiles, and those of the result rows again

#include <algorithm>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>

#include "base/error.h"
#include "evaluator/executor.h"
#include "evaluator/metrics.h"
#include "evaluator/ops_int8.h"
#include "kernels/gemv.h"

namespace pared {
namespace {

constexpr int64_t kVectorRows = 16;  // kernels/gemv.h
constexpr double kDensityMax = 0.5;  // above, no sparse kernel makes up for what is left of a tile
constexpr int64_t kRowsUnknown = 256;

class MatMulInt8 {
 public:
  MatMulInt8(const Node& node, const OpContext& context)
      : label_(NodeLabel(node)),
        isa_(context.isa),
        tune_(context.tune),
        sparse_(context.sparse),
        rows_(node.Int("rows", -1)),
        w_(*node.TensorOf("w")),
        epilogue_(EpilogueOf(node)) {
    if (const Tensor* table = node.TensorOf("table")) table_ = TableOf(*table);
    if (sparse_ && DensityOf(w_.data<int8_t>()) < kDensityMax) FindTileGain();
    // What is needed for the rows that shape inference foresees; the other on its first use.
    rows_ >= 0 && TakesVectors(rows_) ? static_cast<void>(Vectors()) : static_cast<void>(Tiles());
    if (context.stats != nullptr) Describe(*context.stats);
  }

  void Run(const Tensor& x, Tensor& y, Scratch& scratch) const;

 private:
  int64_t m() const { return w_.shape()[0]; }
  int64_t k() const { return w_.shape()[1]; }
  int64_t element_bytes() const { return epilogue_.output == GemmOutput::kFloat32 ? 4 : 1; }
  GemmWeights Weights() const {
    return {.m = m(), .k = k(), .values = w_.data<int8_t>(), .epilogue = epilogue_};
  }
  // Packs tiles only where the rows that are foreseen may take them.
  void FindTileGain() {
    const GemmPrediction prediction = PredictGemm(Weights());
    tile_gain_ = std::max({prediction.sparse_1x1, prediction.sparse_2x1, prediction.sparse_4x1});
    if (rows_ >= 0 && TakesVectors(rows_)) return;
    tile_gain_ = prediction.GainOf(Tiles().kernel_name());
  }
  // A sparse kernel works on half a tile at least, so many times faster than on dense columns.
  bool TakesVectors(int64_t rows) const {
    return rows <= kVectorRows &&
           tile_gain_ * static_cast<double>(rows) < static_cast<double>(kTileColumns) / 2;
  }
  const PackedGemm& Tiles() const {
    const std::scoped_lock lock(mutex_);
    if (gemm_ == nullptr) {
      OpContext context;
      context.isa = isa_;
      context.tune = tune_;
      context.sparse = sparse_;
      gemm_ = PackFor(context, Weights(), rows_ > 0 ? rows_ : kRowsUnknown);
    }
    return *gemm_;
  }
  const PackedGemv& Vectors() const {
    const std::scoped_lock lock(mutex_);
    if (gemv_ == nullptr) gemv_ = PackGemv(Weights(), isa_);
    return *gemv_;
  }
  void RunTiles(const uint8_t* codes, int64_t rows, std::byte* y, Scratch& scratch) const;
  void Describe(LayerStats& stats) const;

  std::string label_;
  Isa isa_;
  bool tune_, sparse_;
  int64_t rows_;  // as shape inference foresees them, or -1
  Tensor w_;
  GemmEpilogue epilogue_;
  std::optional<ByteTable> table_;
  double tile_gain_ = 1;  // of the sparse kernel over dense tiles; 1: it has none
  mutable std::mutex mutex_;
  mutable std::unique_ptr<PackedGemm> gemm_;  // guarded by mutex_ until made
  mutable std::unique_ptr<PackedGemv> gemv_;  // likewise
};

void MatMulInt8::RunTiles(const uint8_t* codes, int64_t rows, std::byte* y,
                          Scratch& scratch) const {
  const PackedGemm& gemm = Tiles();
  scratch.SetKernel({gemm.kernel_name(), tile_gain_});
  const int64_t bytes = element_bytes();
  const ImageSize in{k(), rows}, result{m(), rows};
  auto* planar =
      reinterpret_cast<uint8_t*>(scratch.Temporary(static_cast<size_t>(in.planar_bytes())));
  std::byte* product = scratch.Temporary(static_cast<size_t>(result.planar_bytes() * bytes));
  const auto run = [&](int64_t begin, int64_t end, std::byte* memory) {
    const TileRange tiles{begin, end};
    RowsToPlanar(codes, in, tiles, planar);
    const int64_t used = std::min(rows, end * kTileColumns) - begin * kTileColumns;
    gemm.RunColumns(planar + begin * k() * kTileColumns, used,
                    product + begin * m() * kTileColumns * bytes, memory);
    if (bytes == 4) {
      RowsFromPlanar(reinterpret_cast<const float*>(product), result, tiles,
                     reinterpret_cast<float*>(y));
    } else {
      RowsFromPlanar(reinterpret_cast<const uint8_t*>(product), result, tiles,
                     reinterpret_cast<uint8_t*>(y));
    }
  };
  ForEachPiece(scratch, result.tiles(), gemm.scratch_bytes(), run);
}

void MatMulInt8::Run(const Tensor& x, Tensor& y, Scratch& scratch) const {
  if (x.rank() == 0 || x.shape().back() != k()) {
    throw Error(
        ErrorCode::kInvalidArgument,
        "x has shape " + ShapeText(x.shape()) + "; its last axis must be " + std::to_string(k()),
        label_);
  }
  const int64_t rows = x.count() / k();
  Shape shape = x.shape();
  shape.back() = m();
  const bool is_float = element_bytes() == 4;
  Tensor result;
  std::byte* out = scratch.AllocateBytes(result, is_float ? DType::kFloat32 : DType::kUInt8, shape,
                                         Layout::kRowMajor);
  scratch.AddMacs(rows * m() * k());
  const uint8_t* codes = RowMajorCodes(x, scratch);
  if (TakesVectors(rows)) {
    const PackedGemv& gemv = Vectors();
    scratch.SetKernel({gemv.kernel_name()});
    scratch.ParallelFor(gemv.row_blocks(), std::max<int64_t>(1, gemv.row_blocks() / 8),
                        [&](int64_t begin, int64_t end) {
                          gemv.RunRows(codes, rows, {begin, end}, out);
                        });
  } else {
    RunTiles(codes, rows, out, scratch);
  }
  if (table_) {
    auto* bytes = reinterpret_cast<uint8_t*>(out);
    LookUp({bytes, static_cast<size_t>(result.count())}, *table_, bytes, isa_);
  }
  y = std::move(result);
}

void MatMulInt8::Describe(LayerStats& stats) const {
  const bool takes_vectors = rows_ >= 0 && TakesVectors(rows_);
  DescribeKernel(takes_vectors ? gemv_->kernel_name() : gemm_->kernel_name(), w_, stats);
}

}  // namespace

Op PrepareMatMulInt8(const Node& node, const OpContext& context) {
  const auto op = std::make_shared<const MatMulInt8>(node, context);
  return [op](std::span<const Tensor* const> inputs, std::span<Tensor> outputs, Scratch& scratch) {
    op->Run(*inputs[0], outputs[0], scratch);
  };
}

}  // namespace pared
