// Convolutions and matrix products of quantized activations and constant INT8 weights.
//
// Before:  f = Conv(DQ(x), DQ(w), DQ(b))  y = Q(Relu(f))       After:  y = Conv(x) with w, b inside
//
// The zero point of x goes into the bias: sum w * (x - z) = sum w * x - z * sum w. Padding has code
// z. Declines where weights are not constant, have a zero point, or are scaled along k.

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <numeric>
#include <span>
#include <utility>

#include "evaluator/fuse_graph.h"

namespace pared {
namespace {

constexpr int64_t kMaxK = 65536;  // kernels/gemm.h

// Weights as rows of outputs.
struct Matrix {
  int64_t m = 0, k = 0;
  std::vector<int8_t> codes;  // [m][k]
  std::vector<float> scales;  // [m]
};

// Codes as int8 of zero point 0; nothing where that cannot be.
std::optional<std::vector<int8_t>> SymmetricCodes(const Tensor& codes, const Tensor* zero_point) {
  const auto all_equal = [](auto values, int expected) {
    return std::all_of(values.begin(), values.end(), [&](auto v) { return v == expected; });
  };
  if (codes.dtype() == DType::kInt8) {
    if (zero_point != nullptr && !all_equal(zero_point->data<int8_t>(), 0)) return {};
    const std::span<const int8_t> values = codes.data<int8_t>();
    return std::vector<int8_t>(values.begin(), values.end());
  }
  if (codes.dtype() != DType::kUInt8 || zero_point == nullptr) return {};
  if (!all_equal(zero_point->data<uint8_t>(), 128)) return {};
  std::vector<int8_t> result;
  result.reserve(static_cast<size_t>(codes.count()));
  for (const uint8_t code : codes.data<uint8_t>())
    result.push_back(static_cast<int8_t>(code - 128));
  return result;
}

// [rows][columns] to [columns][rows].
std::vector<int8_t> Transposed(const std::vector<int8_t>& codes, int64_t rows, int64_t columns) {
  std::vector<int8_t> result(codes.size());
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < columns; ++c) {
      result[static_cast<size_t>(c * rows + r)] = codes[static_cast<size_t>(r * columns + c)];
    }
  }
  return result;
}

// The DequantizeLinear behind `value`; `transposed` flips where a Transpose of a matrix lies
// between.
const Node* DequantizeOf(const FuseGraph& graph, const std::string& value, bool& transposed) {
  const Node* node = graph.producer(value);
  if (node != nullptr && node->op_type == "Transpose" && node->domain.empty()) {
    const std::vector<int64_t> order = node->Ints("perm", {1, 0});
    if (order != std::vector<int64_t>{1, 0}) return nullptr;
    transposed = !transposed;
    node = graph.producer(node->inputs[0]);
  }
  const bool found = node != nullptr && node->op_type == "DequantizeLinear" && node->domain.empty();
  return found ? node : nullptr;
}

// The constant weights behind `value`, whose rows of outputs are axis 0, or axis 1 of a matrix
// where `transposed`.
std::optional<Matrix> FindWeights(const FuseGraph& graph, const std::string& value,
                                  bool transposed) {
  const Node* dequantize = DequantizeOf(graph, value, transposed);
  if (dequantize == nullptr || dequantize->Int("block_size", 0) != 0) return {};
  const Tensor* codes = graph.constant(dequantize->inputs[0]);
  const Tensor* scale = graph.constant(dequantize->inputs[1]);
  if (codes == nullptr || scale == nullptr || scale->dtype() != DType::kFloat32) return {};
  if (codes->rank() < 2 || (transposed && codes->rank() != 2) || codes->count() == 0) return {};
  const Tensor* zero_point = nullptr;
  if (dequantize->inputs.size() > 2 && !dequantize->inputs[2].empty()) {
    zero_point = graph.constant(dequantize->inputs[2]);
    if (zero_point == nullptr || zero_point->dtype() != codes->dtype()) return {};
  }
  std::optional<std::vector<int8_t>> symmetric = SymmetricCodes(*codes, zero_point);
  if (!symmetric) return {};
  const int64_t axis = transposed ? 1 : 0;
  Matrix matrix;
  matrix.m = codes->shape()[static_cast<size_t>(axis)];
  matrix.k = codes->count() / matrix.m;
  if (matrix.k >= kMaxK) return {};
  const std::span<const float> scales = scale->data<float>();
  if (scales.size() == 1) {
    matrix.scales.assign(static_cast<size_t>(matrix.m), scales[0]);
  } else {
    int64_t given = dequantize->Int("axis", 1);
    if (given < 0) given += codes->rank();
    if (given != axis || static_cast<int64_t>(scales.size()) != matrix.m) return {};
    matrix.scales.assign(scales.begin(), scales.end());
  }
  matrix.codes = transposed ? Transposed(*symmetric, matrix.k, matrix.m) : std::move(*symmetric);
  return matrix;
}

// A bias as real numbers, and as accumulator codes where the model has them.
struct Bias {
  std::vector<double> values;  // [m]
  std::vector<int32_t> codes;  // [m] or empty
  std::vector<float> scales;   // of codes, [m]
};

// `name` empty: a bias of zeros. Nothing where it is no constant that broadcasts to m.
std::optional<Bias> FindBias(const FuseGraph& graph, const std::string& name, int64_t m) {
  Bias bias;
  bias.values.assign(static_cast<size_t>(m), 0.0);
  if (name.empty()) return bias;
  const Tensor* constant = graph.constant(name);
  if (constant != nullptr) {
    if (constant->dtype() != DType::kFloat32) return {};
    if (constant->count() != m && constant->count() != 1) return {};
    if (constant->rank() > 0 && constant->count() != constant->shape().back()) return {};
    const std::span<const float> values = constant->data<float>();
    for (size_t i = 0; i < bias.values.size(); ++i) bias.values[i] = values[i % values.size()];
    return bias;
  }
  const Node* node = graph.producer(name);
  if (node == nullptr || node->op_type != "DequantizeLinear") return {};
  const Tensor* codes = graph.constant(node->inputs[0]);
  const Tensor* scale = graph.constant(node->inputs[1]);
  if (codes == nullptr || scale == nullptr || codes->dtype() != DType::kInt32) return {};
  if (codes->count() != m || scale->dtype() != DType::kFloat32) return {};
  if (scale->count() != 1 && scale->count() != m) return {};
  const std::span<const int32_t> ints = codes->data<int32_t>();
  const std::span<const float> scales = scale->data<float>();
  for (size_t i = 0; i < bias.values.size(); ++i) {
    bias.codes.push_back(ints[i]);
    bias.scales.push_back(scales[i % scales.size()]);
    bias.values[i] = static_cast<double>(ints[i]) * static_cast<double>(bias.scales[i]);
  }
  return bias;
}

// bias in units of x.scale * w.scale, less the share of x's zero point, and the scale of the sum.
struct Accumulator {
  std::vector<int32_t> bias;
  std::vector<float> scale;  // of the sum, as a real number
};

// One row of weights on its way there.
struct Row {
  std::span<int8_t> codes;
  double bias;  // in units of scale
  float scale;

  int64_t Sum() const { return std::accumulate(codes.begin(), codes.end(), int64_t{0}); }
  // The accumulator's bias, and the largest magnitude that it may reach in any order of adding.
  double Start(const Quantized& x) const {
    return std::nearbyint(bias) - static_cast<double>(x.zero_point) * static_cast<double>(Sum());
  }
  double Bound(const Quantized& x) const {
    int64_t magnitude = 0;
    for (const int8_t code : codes) magnitude += std::abs(code);
    return std::abs(Start(x)) + 255.0 * static_cast<double>(magnitude);
  }
  void Halve() {
    for (int8_t& code : codes) {
      code = static_cast<int8_t>(std::nearbyint(static_cast<double>(code) / 2));
    }
    bias /= 2;
    scale *= 2;
  }
};

std::optional<Accumulator> MakeAccumulator(Matrix& w, const Bias& b, const Quantized& x) {
  Accumulator result;
  const auto k = static_cast<size_t>(w.k);
  for (size_t i = 0; i < w.scales.size(); ++i) {
    Row row{
        .codes = std::span(w.codes).subspan(i * k, k), .bias = 0, .scale = x.scale * w.scales[i]};
    if (!(row.scale > 0) || !std::isfinite(b.values[i])) return {};
    const bool is_sum_code = !b.codes.empty() && std::abs(b.scales[i] / row.scale - 1.0f) < 1e-4f;
    row.bias = is_sum_code ? b.codes[i] : b.values[i] / static_cast<double>(row.scale);
    // Quantizers scale the weights of a channel that hardly contributes so that its bias just fits
    // int32. A coarser unit loses nothing that such a channel's output code could show.
    while (row.Bound(x) > std::numeric_limits<int32_t>::max()) row.Halve();
    if (!std::isfinite(row.scale)) return {};
    result.bias.push_back(static_cast<int32_t>(row.Start(x)));
    result.scale.push_back(row.scale);
  }
  return result;
}

// An INT8 node of `node` without its output's part of the epilogue.
struct Product {
  Node node;
  std::vector<float> scale;  // of the sum
};

std::optional<Product> MakeProduct(FuseGraph& graph, const Node& node, const std::string& bias_name,
                                   bool transposed) {
  const std::optional<Quantized> x = graph.DequantizedFrom(node.inputs[0]);
  if (!x || graph.constant(x->name) != nullptr) return {};
  std::optional<Matrix> weights = FindWeights(graph, node.inputs[1], transposed);
  if (!weights) return {};
  const std::optional<Bias> bias = FindBias(graph, bias_name, weights->m);
  if (!bias) return {};
  std::optional<Accumulator> sum = MakeAccumulator(*weights, *bias, *x);
  if (!sum) return {};
  Product product{.node = MakeInt8Node(node.op_type, node.name, {graph.Twin(*x)}),
                  .scale = std::move(sum->scale)};
  product.node.attributes = node.attributes;
  SetParameters(product.node, "x", *x);
  SetTensor(product.node, "w",
            Tensor::Make<int8_t>({weights->m, weights->k}, std::move(weights->codes)));
  SetTensor(product.node, "bias", Tensor::Make<int32_t>({weights->m}, std::move(sum->bias)));
  return product;
}

// What kernels are chosen by: the rows of a product and the pixels of an image, where known.
void SetHints(FuseGraph& graph, const Node& node, Node& product) {
  const std::optional<Shape> shape = graph.ShapeOf(node.outputs[0]);
  if (!shape || shape->empty()) return;
  const bool is_conv = product.op_type == "Conv";
  int64_t columns = 1;  // of one GEMM
  for (size_t i = 0; i < shape->size(); ++i) {
    const bool counts = is_conv ? i >= 2 : i + 1 < shape->size();
    if (counts) columns *= (*shape)[i];
  }
  SetInt(product, is_conv ? "pixels" : "rows", columns);
}

std::string OptionalInput(const Node& node, size_t index) {
  return node.inputs.size() > index ? node.inputs[index] : "";
}

std::optional<Product> MakeConvolution(FuseGraph& graph, const Node& node) {
  bool transposed = false;
  const Node* dequantize = DequantizeOf(graph, node.inputs[1], transposed);
  const Tensor* weights = dequantize ? graph.constant(dequantize->inputs[0]) : nullptr;
  // One or two spatial axes: what the gathering of inputs knows.
  if (weights == nullptr || transposed || (weights->rank() != 3 && weights->rank() != 4)) return {};
  std::optional<Product> product = MakeProduct(graph, node, OptionalInput(node, 2), false);
  if (!product) return {};
  const Shape kernel(weights->shape().begin() + 2, weights->shape().end());
  SetInts(product->node, "kernel_shape", kernel);
  const auto is_one = [](int64_t v) { return v == 1; };
  const std::vector<int64_t> strides = node.Ints("strides"), pads = node.Ints("pads");
  const bool pointwise = std::all_of(kernel.begin(), kernel.end(), is_one) &&
                         std::all_of(strides.begin(), strides.end(), is_one) &&
                         std::all_of(pads.begin(), pads.end(), [](int64_t v) { return v == 0; });
  SetHints(graph, node, product->node);
  SetInt(product->node, "pointwise", pointwise && node.Int("group", 1) == 1 ? 1 : 0);
  return product;
}

std::optional<Product> MakeMatrixProduct(FuseGraph& graph, const Node& node) {
  if (node.op_type == "MatMul") {
    std::optional<Product> product = MakeProduct(graph, node, "", true);
    if (product) SetHints(graph, node, product->node);
    return product;
  }
  const bool plain = node.Float("alpha", 1.0f) == 1.0f && node.Float("beta", 1.0f) == 1.0f &&
                     node.Int("transA", 0) == 0;
  if (!plain) return {};
  std::optional<Product> product =
      MakeProduct(graph, node, OptionalInput(node, 2), node.Int("transB", 0) == 0);
  if (!product) return {};
  product->node.op_type = "MatMul";
  SetHints(graph, node, product->node);
  product->node.attributes.erase_if([](const std::string& name, const Attribute&) {
    return name == "alpha" || name == "beta" || name == "transA" || name == "transB";
  });
  return product;
}

// scale[m] = x.scale * w.scale[m] / y.scale, in the order in which ONNX Runtime divides.
bool Finish(FuseGraph& graph, const Match& match, std::optional<Product> product) {
  if (!product) return false;
  for (float& scale : product->scale) scale /= match.output.scale;
  Node& node = product->node;
  SetTensor(node, "scale",
            Tensor::Make<float>({static_cast<int64_t>(product->scale.size())}, product->scale));
  SetParameters(node, "y", match.output);
  SetRange(node, match.range);
  graph.MakeTwin(match.output, std::move(node));
  graph.MarkFused(*match.node);
  return true;
}

}  // namespace

bool FuseConvolution(FuseGraph& graph, const Match& match) {
  return Finish(graph, match, MakeConvolution(graph, *match.node));
}

bool FuseMatrixProduct(FuseGraph& graph, const Match& match) {
  return Finish(graph, match, MakeMatrixProduct(graph, *match.node));
}

void FuseFloatResults(FuseGraph& graph) {
  for (const Node& node : graph.graph().nodes) {
    if (!node.domain.empty() || graph.IsFused(node)) continue;
    std::optional<Product> product;
    if (node.op_type == "Conv") product = MakeConvolution(graph, node);
    if (node.op_type == "MatMul" || node.op_type == "Gemm")
      product = MakeMatrixProduct(graph, node);
    if (!product) continue;
    SetTensor(product->node, "scale",
              Tensor::Make<float>({static_cast<int64_t>(product->scale.size())}, product->scale));
    SetInt(product->node, "float_output", 1);
    graph.Replace(node, std::move(product->node));
  }
}

}  // namespace pared
