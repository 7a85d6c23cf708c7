// The INT8 operators' list, the ways in and out of INT8, and what the families share.

#include "evaluator/ops_int8.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstring>
#include <string>

#include "base/check.h"
#include "evaluator/executor.h"
#include "evaluator/metrics.h"

namespace pared {
namespace {

constexpr int64_t kGrainBytes = 16384;  // less work than this is not worth a second thread

bool IsSigned(const Node& node, const std::string& suffix) {
  return node.Int("is_signed_" + suffix, 0) != 0;
}

int64_t TileGrain(const ImageSize& image) {
  return std::max<int64_t>(1, kGrainBytes / std::max<int64_t>(1, image.channels * 64));
}

// Calls body(image index, tiles) for all tiles of all images.
void ForEachTile(Scratch& scratch, int64_t images, const ImageSize& image,
                 const std::function<void(int64_t, TileRange)>& body) {
  for (int64_t n = 0; n < images; ++n) {
    scratch.ParallelFor(image.tiles(), TileGrain(image), [&](int64_t begin, int64_t end) {
      body(n, TileRange{begin, end});
    });
  }
}

// float -> codes.
Op PrepareQuantize(const Node& node, const OpContext& context) {
  const QuantParams q = ParametersOf(node, "y");
  const bool planar = node.Int("planar", 0) != 0;
  const Isa isa = context.isa;
  return [q, planar, isa](std::span<const Tensor* const> inputs, std::span<Tensor> outputs,
                          Scratch& scratch) {
    const Tensor& x = *inputs[0];
    const std::span<const float> values = x.data<float>();
    if (!planar || x.rank() < 3 || x.count() == 0) {
      const std::span<uint8_t> y = scratch.Allocate<uint8_t>(outputs[0], x.shape());
      scratch.ParallelFor(x.count(), kGrainBytes, [&](int64_t begin, int64_t end) {
        const auto first = static_cast<size_t>(begin), count = static_cast<size_t>(end - begin);
        Quantize(values.subspan(first, count), q, y.data() + begin, isa);
      });
      return;
    }
    auto* y = reinterpret_cast<uint8_t*>(
        scratch.AllocateBytes(outputs[0], DType::kUInt8, x.shape(), Layout::kPlanar64));
    const ImageSize image = ImageOf(x.shape());
    ForEachTile(scratch, x.shape()[0], image, [&](int64_t n, TileRange tiles) {
      QuantizeToPlanar(values.data() + n * image.channels * image.pixels, image, q, tiles,
                       y + n * image.planar_bytes(), isa);
    });
  };
}

// codes -> float, row-major.
Op PrepareDequantize(const Node& node, const OpContext& context) {
  const QuantParams q = ParametersOf(node, "x");
  const Isa isa = context.isa;
  return [q, isa](std::span<const Tensor* const> inputs, std::span<Tensor> outputs,
                  Scratch& scratch) {
    const Tensor& x = *inputs[0];
    const std::span<float> y = scratch.Allocate<float>(outputs[0], x.shape());
    if (!IsPlanar(x)) {
      scratch.ParallelFor(x.count(), kGrainBytes, [&](int64_t begin, int64_t end) {
        Dequantize({Codes(x) + begin, static_cast<size_t>(end - begin)}, q, y.data() + begin, isa);
      });
      return;
    }
    const ImageSize image = ImageOf(x.shape());
    ForEachTile(scratch, x.shape()[0], image, [&](int64_t n, TileRange tiles) {
      DequantizeFromPlanar(Codes(x) + n * image.planar_bytes(), image, q, tiles,
                           y.data() + n * image.channels * image.pixels, isa);
    });
  };
}

// Codes of an ONNX tensor: an int8 code c is c + 128 here, which flips its highest bit.
void CopyCodes(const Tensor& x, bool flip, uint8_t* y) {
  const auto* codes = reinterpret_cast<const uint8_t*>(x.bytes().data());
  if (!flip) {
    std::memcpy(y, codes, static_cast<size_t>(x.count()));
    return;
  }
  for (int64_t i = 0; i < x.count(); ++i) y[i] = codes[i] ^ 0x80;
}

Op PrepareFromOnnx(const Node& node, const OpContext& /*context*/) {
  const bool is_signed = IsSigned(node, "y");
  const bool planar = node.Int("planar", 0) != 0;
  return [is_signed, planar](std::span<const Tensor* const> inputs, std::span<Tensor> outputs,
                             Scratch& scratch) {
    const Tensor& x = *inputs[0];
    Tensor row_major = x;
    if (is_signed) CopyCodes(x, true, scratch.Allocate<uint8_t>(row_major, x.shape()).data());
    if (!planar || x.rank() < 3 || x.count() == 0) {
      outputs[0] = row_major;
      return;
    }
    auto* y = reinterpret_cast<uint8_t*>(
        scratch.AllocateBytes(outputs[0], DType::kUInt8, x.shape(), Layout::kPlanar64));
    const ImageSize image = ImageOf(x.shape());
    ForEachTile(scratch, x.shape()[0], image, [&](int64_t n, TileRange tiles) {
      ToPlanar(Codes(row_major) + n * image.channels * image.pixels, image, tiles,
               y + n * image.planar_bytes());
    });
  };
}

void ToRowMajor(const Tensor& x, Tensor& y, Scratch& scratch) {
  if (!IsPlanar(x)) {
    y = x;
    return;
  }
  const std::span<uint8_t> out = scratch.Allocate<uint8_t>(y, x.shape());
  const ImageSize image = ImageOf(x.shape());
  ForEachTile(scratch, x.shape()[0], image, [&](int64_t n, TileRange tiles) {
    FromPlanar(Codes(x) + n * image.planar_bytes(), image, tiles,
               out.data() + n * image.channels * image.pixels);
  });
}

Op PrepareToRowMajor(const Node& /*node*/, const OpContext& /*context*/) {
  return [](std::span<const Tensor* const> inputs, std::span<Tensor> outputs, Scratch& scratch) {
    ToRowMajor(*inputs[0], outputs[0], scratch);
  };
}

Op PrepareToOnnx(const Node& node, const OpContext& /*context*/) {
  const bool is_signed = node.Int("is_signed", 0) != 0;
  return [is_signed](std::span<const Tensor* const> inputs, std::span<Tensor> outputs,
                     Scratch& scratch) {
    Tensor codes;
    ToRowMajor(*inputs[0], codes, scratch);
    if (!is_signed) {
      outputs[0] = codes;
      return;
    }
    const std::span<int8_t> y = scratch.Allocate<int8_t>(outputs[0], codes.shape());
    CopyCodes(codes, true, reinterpret_cast<uint8_t*>(y.data()));
  };
}

}  // namespace

QuantParams ParametersOf(const Node& node, const std::string& suffix, const std::string& prefix) {
  return {node.Float(prefix + "scale_" + suffix, 1.0f),
          static_cast<int32_t>(node.Int(prefix + "zero_point_" + suffix, 0))};
}

ByteTable TableOf(const Tensor& tensor) {
  const std::span<const uint8_t> codes = tensor.data<uint8_t>();
  ByteTable table;
  PARED_CHECK(codes.size() == table.size());
  std::copy(codes.begin(), codes.end(), table.begin());
  return table;
}

GemmEpilogue EpilogueOf(const Node& node) {
  GemmEpilogue epilogue;
  const std::span<const int32_t> bias = node.TensorOf("bias")->data<int32_t>();
  const std::span<const float> scale = node.TensorOf("scale")->data<float>();
  epilogue.bias.assign(bias.begin(), bias.end());
  epilogue.scale.assign(scale.begin(), scale.end());
  epilogue.output = node.Int("float_output", 0) != 0 ? GemmOutput::kFloat32 : GemmOutput::kUInt8;
  epilogue.zero_point = static_cast<int32_t>(node.Int("zero_point_y", 0));
  epilogue.low = static_cast<int32_t>(node.Int("low", 0));
  epilogue.high = static_cast<int32_t>(node.Int("high", 255));
  return epilogue;
}

GemmWeights WeightsOf(const Node& node, const Tensor& w) {
  return GemmWeights{.m = w.shape()[0],
                     .k = w.shape()[1],
                     .values = w.data<int8_t>(),
                     .epilogue = EpilogueOf(node)};
}

std::unique_ptr<PackedGemm> PackFor(const OpContext& context, const GemmWeights& weights,
                                    int64_t columns) {
  if (!context.sparse) return PackDenseGemm(weights, context.isa);
  return context.tune ? PackGemmTimed(weights, context.isa, columns)
                      : PackGemm(weights, context.isa);
}

double GainOf(const PackedGemm& gemm, const GemmWeights& weights, Isa isa) {
  const std::string_view kernel = gemm.kernel_name();
  return kernel.starts_with("sparse") ? PredictGemm(weights, isa).GainOf(kernel) : 1;
}

void DescribeKernel(const char* kernel, const Tensor& w, LayerStats& stats) {
  const std::span<const int8_t> values = w.data<int8_t>();
  stats.density = DensityOf(values);
  stats.kernel = kernel;
  const GemmPrediction prediction =
      PredictGemm({.m = w.shape()[0], .k = w.shape()[1], .values = values, .epilogue = {}});
  stats.predicted_gain = prediction.GainOf(kernel);
  std::array<char, 96> text{};
  std::snprintf(text.data(), text.size(), "predicted over dense: 1x1 %.2f, 2x1 %.2f, 4x1 %.2f",
                prediction.sparse_1x1, prediction.sparse_2x1, prediction.sparse_4x1);
  stats.reason = text.data();
}

const uint8_t* Codes(const Tensor& tensor) {
  PARED_CHECK(tensor.dtype() == DType::kUInt8);
  return reinterpret_cast<const uint8_t*>(tensor.bytes().data());
}

ImageSize ImageOf(const Shape& shape) {
  PARED_CHECK(shape.size() >= 2);
  return {shape[1], ElementCount(Shape(shape.begin() + 2, shape.end()))};
}

bool IsPlanar(const Tensor& tensor) { return tensor.layout() == Layout::kPlanar64; }

const uint8_t* RowMajorCodes(const Tensor& x, Scratch& scratch) {
  if (!IsPlanar(x)) return Codes(x);
  auto* y = reinterpret_cast<uint8_t*>(scratch.Temporary(static_cast<size_t>(x.count())));
  const ImageSize image = ImageOf(x.shape());
  ForEachTile(scratch, x.shape()[0], image, [&](int64_t n, TileRange tiles) {
    FromPlanar(Codes(x) + n * image.planar_bytes(), image, tiles,
               y + n * image.channels * image.pixels);
  });
  return y;
}

const uint8_t* PlanarCodes(const Tensor& x, Scratch& scratch) {
  if (IsPlanar(x)) return Codes(x);
  const ImageSize image = ImageOf(x.shape());
  const int64_t images = x.shape()[0];
  auto* y = reinterpret_cast<uint8_t*>(
      scratch.Temporary(static_cast<size_t>(images * image.planar_bytes())));
  ForEachTile(scratch, images, image, [&](int64_t n, TileRange tiles) {
    ToPlanar(Codes(x) + n * image.channels * image.pixels, image, tiles,
             y + n * image.planar_bytes());
  });
  return y;
}

void ForEachPiece(Scratch& scratch, int64_t count, size_t bytes,
                  const std::function<void(int64_t, int64_t, std::byte*)>& body) {
  const int64_t pieces = std::min(count, scratch.threads());
  if (pieces <= 0) return;
  const size_t stride = (bytes + 127) / 64 * 64;
  std::byte* memory = scratch.Temporary(stride * static_cast<size_t>(pieces));
  scratch.ParallelFor(pieces, 1, [&](int64_t first, int64_t last) {
    for (int64_t piece = first; piece < last; ++piece) {
      body(count * piece / pieces, count * (piece + 1) / pieces,
           memory + stride * static_cast<size_t>(piece));
    }
  });
}

std::span<const OpInfo> FusedOps() {
  static const std::array<OpInfo, 19> kOps = {{
      {"QuantizeLinear", "pared", PrepareQuantize},
      {"DequantizeLinear", "pared", PrepareDequantize},
      {"FromOnnx", "pared", PrepareFromOnnx},
      {"ToOnnx", "pared", PrepareToOnnx},
      {"ToRowMajor", "pared", PrepareToRowMajor},
      {"Conv", "pared", PrepareConvInt8},
      {"MatMul", "pared", PrepareMatMulInt8},
      {"Add", "pared", PrepareBinaryInt8},
      {"Sub", "pared", PrepareBinaryInt8},
      {"Mul", "pared", PrepareBinaryInt8},
      {"LookUp", "pared", PrepareLookUp},
      {"MaxPool", "pared", PreparePoolInt8},
      {"AveragePool", "pared", PreparePoolInt8},
      {"GlobalAveragePool", "pared", PrepareGlobalAveragePoolInt8},
      {"Concat", "pared", PrepareConcatInt8},
      {"Resize", "pared", PrepareResizeInt8},
      {"SplitPart", "pared", PrepareSplitPart},
      {"ConvIntegerToFloat", "pared", PrepareConvIntegerToFloat},
      {"MatMulIntegerToFloat", "pared", PrepareMatMulIntegerToFloat},
  }};
  return kOps;
}

}  // namespace pared
