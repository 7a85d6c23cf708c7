// What the INT8 operators (ops_int8*.cc) share. Their values are codes of uint8, planar or
// row-major; each operator takes both and converts where it must.

#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "evaluator/ops.h"
#include "kernels/elementwise.h"
#include "kernels/fixed_sum.h"
#include "kernels/gemm.h"
#include "model/graph.h"

namespace pared {

// fuse_graph.h: SetParameters, SetRange.
QuantParams ParametersOf(const Node& node, const std::string& suffix,
                         const std::string& prefix = "");
ByteTable TableOf(const Tensor& tensor);
// From attributes bias, scale and those of y; float where float_output is set.
GemmEpilogue EpilogueOf(const Node& node);
GemmWeights WeightsOf(const Node& node, const Tensor& w);

// How many times as fast as the dense one the kernel of a product is, by the cost model.
double GainOf(const PackedGemm& gemm, const GemmWeights& weights, Isa isa);

// Packed as the context asks: dense only, by the cost model or by the clock over so many columns.
std::unique_ptr<PackedGemm> PackFor(const OpContext& context, const GemmWeights& weights,
                                    int64_t columns);
// Kernel, density, and what the cost model says of the formats for weights [m][k].
void DescribeKernel(const char* kernel, const Tensor& w, LayerStats& stats);

const uint8_t* Codes(const Tensor& tensor);
// [N,C,...]: the size of one image.
ImageSize ImageOf(const Shape& shape);
bool IsPlanar(const Tensor& tensor);

// Codes in row-major order: those of `x` itself where it is so, else a copy in temporary memory.
const uint8_t* RowMajorCodes(const Tensor& x, Scratch& scratch);
// Codes as planar tiles, likewise.
const uint8_t* PlanarCodes(const Tensor& x, Scratch& scratch);

// Cuts [0, count) into a piece for each thread and gives each its own `bytes` of memory.
void ForEachPiece(Scratch& scratch, int64_t count, size_t bytes,
                  const std::function<void(int64_t begin, int64_t end, std::byte* memory)>& body);

// The window over all channels of `x`, [N,C,L] or [N,C,H,W]; L is one row. Throws kInvalidArgument.
ConvGeometry GeometryOf(const Node& node, const Shape& x);
// [N,channels] and the spatial axes of the result.
Shape OutputShape(const ConvGeometry& geometry, const Shape& x, int64_t channels);

// Image `image` of x in a padded image in temporary memory, for one group or all: `groups` padded
// images, each with the channels of `im2col`, `stride` bytes apart.
struct PaddedImage {
  const uint8_t* bytes;
  size_t stride;
};
PaddedImage PadImage(const Tensor& x, int64_t image, const Im2col& im2col, uint8_t padding,
                     Scratch& scratch);

// A sum, difference or product of two values.
class BinaryInt8 {
 public:
  // The attributes' names begin with `prefix`.
  BinaryInt8(const std::string& op_type, const Node& node, const std::string& prefix, Isa isa);

  // Of any layouts, and shapes that broadcast.
  void Run(const Tensor& a, const Tensor& b, Tensor& y, Scratch& scratch) const;
  // Byte by byte; y may be a.
  void RunFlat(std::span<const uint8_t> a, const uint8_t* b, uint8_t* y) const {
    fixed_ ? AddFixed(a, b, *fixed_, y) : kernel_(a, b, params_, y, isa_);
  }

 private:
  using Kernel = void (*)(std::span<const uint8_t> a, const uint8_t* b, const AddParams& params,
                          uint8_t* y, Isa isa) noexcept;

  void RunSame(const Tensor& a, const Tensor& b, uint8_t* y, Scratch& scratch) const;
  void RunByChannel(const Tensor& a, const Tensor& b, uint8_t* y, Scratch& scratch) const;
  void RunBroadcast(const Tensor& a, const Tensor& b, Tensor& y, Scratch& scratch) const;

  AddParams params_;
  std::optional<FixedSum> fixed_;  // of a sum or difference
  Kernel kernel_;
  Isa isa_;
  bool commutes_;
  std::string label_;
};

Op PrepareConvInt8(const Node& node, const OpContext& context);
Op PrepareMatMulInt8(const Node& node, const OpContext& context);
Op PrepareBinaryInt8(const Node& node, const OpContext& context);  // Add, Sub, Mul
Op PrepareLookUp(const Node& node, const OpContext& context);
Op PreparePoolInt8(const Node& node, const OpContext& context);  // MaxPool, AveragePool
Op PrepareGlobalAveragePoolInt8(const Node& node, const OpContext& context);
Op PrepareConcatInt8(const Node& node, const OpContext& context);
Op PrepareResizeInt8(const Node& node, const OpContext& context);
Op PrepareConvIntegerToFloat(const Node& node, const OpContext& context);
Op PrepareMatMulIntegerToFloat(const Node& node, const OpContext& context);
Op PrepareSplitPart(const Node& node, const OpContext& context);

}  // namespace pared
