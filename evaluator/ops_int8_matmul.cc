// MatMul and Gemm on INT8 codes with constant weights [m][k]: rows of x are the GEMM's columns.

#include <algorithm>
#include <memory>
#include <utility>

#include "base/error.h"
#include "evaluator/executor.h"
#include "evaluator/ops_int8.h"

namespace pared {
namespace {

struct MatMulInt8 {
  std::string label;
  std::unique_ptr<PackedGemm> gemm;
  int64_t m = 0, k = 0;
  bool float_output = false;

  void Run(const Tensor& x, Tensor& y, Scratch& scratch) const;
};

void MatMulInt8::Run(const Tensor& x, Tensor& y, Scratch& scratch) const {
  if (x.rank() == 0 || x.shape().back() != k) {
    throw Error(
        ErrorCode::kInvalidArgument,
        "x has shape " + ShapeText(x.shape()) + "; its last axis must be " + std::to_string(k),
        label);
  }
  const int64_t rows = x.count() / k;
  Shape shape = x.shape();
  shape.back() = m;
  const int64_t bytes = float_output ? 4 : 1;
  std::byte* out = scratch.AllocateBytes(y, float_output ? DType::kFloat32 : DType::kUInt8, shape,
                                         Layout::kRowMajor);
  scratch.AddMacs(rows * m * k);
  const uint8_t* codes = RowMajorCodes(x, scratch);
  const ImageSize in{k, rows}, result{m, rows};
  auto* planar =
      reinterpret_cast<uint8_t*>(scratch.Temporary(static_cast<size_t>(in.planar_bytes())));
  std::byte* product = scratch.Temporary(static_cast<size_t>(result.planar_bytes() * bytes));
  const auto run = [&](int64_t begin, int64_t end, std::byte* memory) {
    const TileRange tiles{begin, end};
    RowsToPlanar(codes, in, tiles, planar);
    const int64_t used = std::min(rows, end * kTileColumns) - begin * kTileColumns;
    gemm->RunColumns(planar + begin * k * kTileColumns, used,
                     product + begin * m * kTileColumns * bytes, memory);
    if (float_output) {
      RowsFromPlanar(reinterpret_cast<const float*>(product), result, tiles,
                     reinterpret_cast<float*>(out));
    } else {
      RowsFromPlanar(reinterpret_cast<const uint8_t*>(product), result, tiles,
                     reinterpret_cast<uint8_t*>(out));
    }
  };
  ForEachPiece(scratch, result.tiles(), gemm->scratch_bytes(), run);
}

}  // namespace

Op PrepareMatMulInt8(const Node& node, const OpContext& context) {
  const Tensor& w = *node.TensorOf("w");
  const GemmWeights weights = WeightsOf(node, w);
  auto op = std::make_shared<MatMulInt8>();
  op->label = NodeLabel(node);
  op->m = weights.m;
  op->k = weights.k;
  op->float_output = node.Int("float_output", 0) != 0;
  op->gemm = context.tune ? PackGemmTimed(weights, context.isa, node.Int("tiles", 4))
                          : PackGemm(weights, context.isa);
  if (context.stats != nullptr) {
    const auto zeros = std::count(weights.values.begin(), weights.values.end(), 0);
    context.stats->density = 1.0 - static_cast<double>(zeros) / static_cast<double>(w.count());
    context.stats->kernel = op->gemm->kernel_name();
  }
  return [op](std::span<const Tensor* const> inputs, std::span<Tensor> outputs, Scratch& scratch) {
    op->Run(*inputs[0], outputs[0], scratch);
  };
}

}  // namespace pared
