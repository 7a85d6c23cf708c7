// Convolutions, matrix products and pools as TensorFlow Lite operators.

#include <algorithm>
#include <cmath>
#include <limits>

#include "model/permute.h"
#include "model/tflite_lowering.h"

namespace pared {
namespace {

using Kind = TfliteOptionsKind;
using Codes = TfliteLowering::Codes;

constexpr int8_t kSame = 0, kValid = 1;

int32_t Narrow(int64_t number) { return static_cast<int32_t>(number); }

// Height and width; of one spatial axis the height is 1.
struct Window {
  std::vector<int64_t> kernel, strides, dilations, begins, ends;
};

// `spatial`: lengths of the input's spatial axes, -1: open.
Window WindowOf(const TfliteLowering& l, const Shape& spatial, std::vector<int64_t> kernel) {
  const size_t rank = spatial.size();
  const Node& node = l.node();
  Window w = {std::move(kernel),
              node.Ints("strides", std::vector<int64_t>(rank, 1)),
              node.Ints("dilations", std::vector<int64_t>(rank, 1)),
              {},
              {}};
  std::vector<int64_t> pads = node.Ints("pads", std::vector<int64_t>(2 * rank, 0));
  l.Require(w.kernel.size() == rank && w.strides.size() == rank && w.dilations.size() == rank &&
                pads.size() == 2 * rank,
            "a window of other axes than its input");
  const std::string automatic = node.String("auto_pad", "NOTSET");
  for (size_t i = 0; i < rank && automatic.starts_with("SAME"); ++i) {
    l.Require(spatial[i] >= 0, "auto_pad where lengths are open");
    const int64_t covered = (w.kernel[i] - 1) * w.dilations[i] + 1;
    const int64_t outputs = (spatial[i] + w.strides[i] - 1) / w.strides[i];
    const int64_t total = std::max<int64_t>((outputs - 1) * w.strides[i] + covered - spatial[i], 0);
    pads[i] = automatic == "SAME_UPPER" ? total / 2 : total - total / 2;
    pads[i + rank] = total - pads[i];
  }
  if (automatic == "VALID") std::ranges::fill(pads, 0);
  w.begins.assign(pads.begin(), pads.begin() + static_cast<int64_t>(rank));
  w.ends.assign(pads.begin() + static_cast<int64_t>(rank), pads.end());
  return w;
}

// One spatial axis becomes two, the first of length 1.
void Widen(std::vector<int64_t>& axes, int64_t value) {
  if (axes.size() == 1) axes.insert(axes.begin(), value);
}

void Widen(Window& w) {
  Widen(w.kernel, 1);
  Widen(w.strides, 1);
  Widen(w.dilations, 1);
  Widen(w.begins, 0);
  Widen(w.ends, 0);
}

// Whether TensorFlow Lite pads so where it is told SAME.
bool IsSame(const Window& w, const Shape& spatial) {
  for (size_t i = 0; i < 2; ++i) {
    const int64_t covered = (w.kernel[i] - 1) * w.dilations[i] + 1;
    int64_t total = covered - 1;  // of stride 1, whatever the length
    if (w.strides[i] != 1) {
      if (spatial[i] < 0) return false;
      const int64_t outputs = (spatial[i] + w.strides[i] - 1) / w.strides[i];
      total = std::max<int64_t>((outputs - 1) * w.strides[i] + covered - spatial[i], 0);
    }
    if (w.begins[i] != total / 2 || w.ends[i] != total - total / 2) return false;
  }
  return true;
}

bool IsUnpadded(const Window& w) {
  const auto is_zero = [](int64_t pad) { return pad == 0; };
  return std::ranges::all_of(w.begins, is_zero) && std::ranges::all_of(w.ends, is_zero);
}

// [N,H,W,C] with zeros around; with the least number where `with_least`.
int64_t Padded(TfliteLowering& l, int64_t x, const Window& w, bool with_least) {
  if (IsUnpadded(w)) return x;
  Shape shape = l.tensor(x).shape;
  std::vector<int32_t> pads(8, 0);
  for (size_t i = 0; i < 2; ++i) {
    l.Require(w.begins[i] >= 0 && w.ends[i] >= 0, "negative pads");
    pads[2 * i + 2] = Narrow(w.begins[i]);
    pads[2 * i + 3] = Narrow(w.ends[i]);
    if (shape[i + 1] >= 0) shape[i + 1] += w.begins[i] + w.ends[i];
  }
  const int64_t sizes = l.AddConstant(l.result() + "/pads", Tensor::Make<int32_t>({4, 2}, pads));
  if (!with_least) return l.Emit("PAD", {x, sizes}, shape, x);
  int64_t least = -1;
  if (l.in_codes()) {
    const TfliteTensor& like = l.tensor(x);
    least = l.AddCodes(l.result() + "/least",
                       {Tensor::Make<int8_t>({1}, {-128}), like.scales, like.zero_points, 0});
  } else {
    least = l.AddConstant(l.result() + "/least",
                          Tensor::Make<float>({1}, {std::numeric_limits<float>::lowest()}));
  }
  return l.Emit("PADV2", {x, sizes, least}, shape, x);
}

// The input as [N,H,W,C], and the lengths of its spatial axes.
int64_t Image(TfliteLowering& l, const std::string& value, Shape& spatial) {
  const int64_t rank = l.RankOf(value);
  l.Require(rank == 3 || rank == 4, "an input of " + std::to_string(rank) + " axes");
  int64_t x = l.Get(value, ChannelsLast(rank));
  Shape shape = l.tensor(x).shape;
  if (rank == 3) {
    shape.insert(shape.begin() + 1, 1);
    x = l.Reshaped(x, shape);
  }
  spatial = {shape[1], shape[2]};
  return x;
}

// Of the operator's result: [N,H,W,C].
Shape ImageShape(const TfliteLowering& l) {
  const std::string& value = l.node().outputs[0];
  Shape shape = Permuted(l.ShapeOf(value), ChannelsLast(l.RankOf(value)));
  if (shape.size() == 3) shape.insert(shape.begin() + 1, 1);
  return shape;
}

// `image` is the result, but for the height of one spatial axis.
void DefineImage(TfliteLowering& l, int64_t image) {
  const std::string& value = l.node().outputs[0];
  const AxisOrder order = ChannelsLast(l.RankOf(value));
  if (order.size() == 3) image = l.Reshaped(image, Permuted(l.ShapeOf(value), order));
  l.Define(order, image);
}

// Adds the operator that makes the image, in codes or not.
int64_t EmitImage(TfliteLowering& l, const std::string& type, std::vector<int64_t> inputs,
                  Shape shape, TfliteOptions options) {
  if (!l.in_codes()) {
    return l.EmitTyped(type, std::move(inputs), std::move(shape), DType::kFloat32,
                       std::move(options));
  }
  return l.EmitCodes(type, std::move(inputs), std::move(shape), l.result_scale(),
                     std::move(options));
}

// A weight and a bias, as an operator in codes needs them, or in float.
struct Weights {
  int64_t weight = -1, bias = -1;
};

// With its axes in the order, then in the shape.
int64_t FloatWeight(TfliteLowering& l, const std::string& value, const AxisOrder& order,
                    const Shape& shape) {
  if (const Tensor* constant = l.Constant(value)) {
    const Tensor moved = Permuted(*constant, order);
    if (moved.dtype() == DType::kFloat32) return l.AddConstant(value, moved.Reshaped(shape));
  }
  if (auto stored = l.StoredCodes(value); stored && stored->tensor.rank() != std::ssize(shape)) {
    // The axis of the scales is the first or the last one, which stays so.
    const bool is_last = PlaceOf(order, stored->axis) + 1 == std::ssize(order);
    stored->tensor = Permuted(stored->tensor, order).Reshaped(shape);
    stored->axis = is_last ? std::ssize(shape) - 1 : 0;
    const int64_t codes = l.AddCodes(value, *stored);
    return stored->scales.empty() ? l.EmitTyped("DEQUANTIZE", {codes}, shape, DType::kFloat32)
                                  : l.Dequantized(codes);
  }
  return l.Reshaped(l.Get(value, order), shape);
}

// Symmetric codes of 8 bits with one scale, or one for each index of `axis`.
bool SuitsCodes(const std::optional<TfliteLowering::Stored>& stored, int64_t axis) {
  return stored && stored->tensor.dtype() == DType::kInt8 && !stored->scales.empty() &&
         (stored->scales.size() == 1 || stored->axis == axis) &&
         std::ranges::all_of(stored->zero_points, [](int64_t point) { return point == 0; });
}

// The bias in units of the products, real = code * scale; empty: it does not fit 32 bits.
std::vector<int32_t> BiasCodes(const std::vector<float>& bias, const std::vector<float>& scales) {
  std::vector<int32_t> codes;
  for (size_t i = 0; i < bias.size(); ++i) {
    const double scale = scales[scales.size() == 1 ? 0 : i];
    const double code = std::nearbyint(static_cast<double>(bias[i]) / scale);
    if (!(std::abs(code) <= std::numeric_limits<int32_t>::max())) return {};
    codes.push_back(static_cast<int32_t>(code));
  }
  return codes;
}

// What is known before anything is written: whether codes can be had.
std::optional<std::vector<float>> BiasFloats(const TfliteLowering& l, const std::string& value,
                                             int64_t count) {
  if (value.empty()) return std::vector<float>(static_cast<size_t>(count), 0.0f);
  std::vector<float> floats;
  if (const Tensor* constant = l.Constant(value)) {
    if (constant->dtype() != DType::kFloat32) return std::nullopt;
    floats.assign(constant->data<float>().begin(), constant->data<float>().end());
  } else if (const auto stored = l.StoredCodes(value); stored && !stored->scales.empty()) {
    const bool is_wide = stored->tensor.dtype() == DType::kInt32;
    for (int64_t i = 0; i < stored->tensor.count(); ++i) {
      const auto at = static_cast<size_t>(i);
      const size_t scale = stored->scales.size() == 1 ? 0 : at;
      const int64_t code =
          is_wide ? stored->tensor.data<int32_t>()[at] : stored->tensor.data<int8_t>()[at];
      floats.push_back(static_cast<float>(static_cast<double>(code - stored->zero_points[scale]) *
                                          static_cast<double>(stored->scales[scale])));
    }
  } else {
    return std::nullopt;
  }
  if (std::ssize(floats) == 1 && count > 1) floats.assign(static_cast<size_t>(count), floats[0]);
  if (std::ssize(floats) != count) return std::nullopt;
  return floats;
}

// The weight's axis `outputs` is that of its scales. Leaves codes where it or the bias has none.
Weights MakeWeights(TfliteLowering& l, const std::string& weight, const std::string& bias,
                    int64_t outputs, const AxisOrder& order, const Shape& shape) {
  const int64_t count = l.ShapeOf(weight)[static_cast<size_t>(outputs)] *
                        (l.node().op_type == "ConvTranspose" ? l.node().Int("group", 1) : 1);
  const std::optional<std::vector<float>> floats = BiasFloats(l, bias, count);
  std::optional<TfliteLowering::Stored> stored;
  std::vector<int32_t> codes;
  std::vector<float> scales;
  if (l.in_codes()) stored = l.StoredCodes(weight);
  if (floats && SuitsCodes(stored, outputs)) {
    const float input = l.ScaleOf(*l.CodesOf(l.Input(0))).scale;
    for (const float scale : stored->scales) scales.push_back(input * scale);
    codes = BiasCodes(*floats, scales);
  }
  if (codes.empty()) {
    l.LeaveCodes();
    Weights made = {FloatWeight(l, weight, order, shape), -1};
    made.bias = floats ? l.AddConstant(l.result() + "/bias", Tensor::Make<float>({count}, *floats))
                       : l.Reshaped(l.Plain(bias), {count});
    return made;
  }
  stored->tensor = Permuted(stored->tensor, order).Reshaped(shape);
  stored->axis = std::ssize(shape) == 4 && order.back() == outputs ? 3 : 0;
  const std::vector<int64_t> zeros(scales.size(), 0);
  return {l.AddCodes(weight, *stored),
          l.AddCodes(l.result() + "/bias",
                     {Tensor::Make<int32_t>({count}, std::move(codes)), scales, zeros, 0})};
}

TfliteOptions ConvOptions(const TfliteLowering& l, const Window& w, int8_t padding,
                          int64_t multiplier) {
  const auto width = Narrow(w.strides[1]), height = Narrow(w.strides[0]);
  const auto across = Narrow(w.dilations[1]), down = Narrow(w.dilations[0]);
  if (multiplier == 0) {
    return {Kind::kConv2D,
            {{0, padding}, {1, width}, {2, height}, {3, l.activation()}, {4, across}, {5, down}}};
  }
  return {Kind::kDepthwiseConv2D,
          {{0, padding},
           {1, width},
           {2, height},
           {3, Narrow(multiplier)},
           {4, l.activation()},
           {5, across},
           {6, down}}};
}

void LowerConv(TfliteLowering& l) {
  const std::string &x = l.Input(0), &w = l.Input(1);
  const Shape weight = l.ShapeOf(w);
  l.Require(std::ranges::count(weight, -1) == 0 && std::ssize(weight) == l.RankOf(x),
            "a weight of unknown shape");
  const int64_t group = l.node().Int("group", 1), outputs = weight[0];
  Shape spatial = l.ShapeOf(x);
  spatial.erase(spatial.begin(), spatial.begin() + 2);
  l.Require(spatial.size() == 1 || spatial.size() == 2,
            std::to_string(spatial.size()) + " spatial axes");
  Window window = WindowOf(l, spatial, {weight.begin() + 2, weight.end()});
  Widen(window);
  Widen(spatial, 1);
  const bool is_depthwise = weight[1] == 1 && group > 1;
  // [O,H,W,I], or [1,H,W,O].
  AxisOrder order = ChannelsLast(std::ssize(weight));
  Shape shape = {outputs, window.kernel[0], window.kernel[1], weight[1]};
  if (is_depthwise) {
    order = std::ssize(weight) == 4 ? AxisOrder{1, 2, 3, 0} : AxisOrder{1, 2, 0};
    shape = {1, window.kernel[0], window.kernel[1], outputs};
  }
  const std::string bias = l.HasInput(2) ? l.node().inputs[2] : "";
  const Weights weights = MakeWeights(l, w, bias, 0, order, shape);
  int64_t image = Image(l, x, spatial);
  int8_t padding = kValid;
  if (!IsUnpadded(window) && IsSame(window, spatial)) {
    padding = kSame;
  } else {
    image = Padded(l, image, window, false);
  }
  const int64_t multiplier = is_depthwise ? outputs / group : 0;
  DefineImage(l, EmitImage(l, is_depthwise ? "DEPTHWISE_CONV_2D" : "CONV_2D",
                           {image, weights.weight, weights.bias}, ImageShape(l),
                           ConvOptions(l, window, padding, multiplier)));
}

// [N, ...rest] as int32, N as `t` has it.
int64_t BatchedShape(TfliteLowering& l, int64_t t, Shape shape) {
  if (shape[0] >= 0) return l.AddInts(shape);
  const int64_t rank = std::ssize(l.tensor(t).shape);
  const int8_t int32 = 2;  // TensorType
  const int64_t all =
      l.EmitTyped("SHAPE", {t}, {rank}, DType::kInt32, {Kind::kShape, {{0, int32}}});
  const int64_t batch =
      l.EmitTyped("SLICE", {all, l.AddInts({0}), l.AddInts({1})}, {1}, DType::kInt32);
  shape.erase(shape.begin());
  return l.EmitTyped("CONCATENATION", {batch, l.AddInts(shape)}, {std::ssize(shape) + 1},
                     DType::kInt32, {Kind::kConcatenation, {{0, int32_t{0}}}});
}

void LowerConvTranspose(TfliteLowering& l) {
  const std::string &x = l.Input(0), &w = l.Input(1);
  const Shape weight = l.ShapeOf(w);
  const Node& node = l.node();
  l.Require(std::ranges::count(weight, -1) == 0 && std::ssize(weight) == l.RankOf(x) &&
                (weight.size() == 3 || weight.size() == 4),
            "a weight of unknown shape, or of three spatial axes");
  l.Require(node.Int("group", 1) == 1, "groups of a ConvTranspose");
  std::vector<int64_t> kernel(weight.begin() + 2, weight.end());
  Window window = {kernel,
                   node.Ints("strides", std::vector<int64_t>(kernel.size(), 1)),
                   node.Ints("dilations", std::vector<int64_t>(kernel.size(), 1)),
                   {},
                   {}};
  std::vector<int64_t> pads = node.Ints("pads", std::vector<int64_t>(2 * kernel.size(), 0));
  l.Require(std::ranges::all_of(window.dilations, [](int64_t d) { return d == 1; }),
            "dilations of a ConvTranspose");
  window.begins.assign(pads.begin(), pads.begin() + std::ssize(kernel));
  Widen(window.kernel, 1);
  Widen(window.strides, 1);
  Widen(window.begins, 0);
  const Shape result = ImageShape(l);
  Shape full = result;
  Shape spatial;
  const int64_t outputs = weight[1];
  AxisOrder order = ChannelsLast(std::ssize(weight));  // [I,H,W,O]
  std::swap(order.front(), order.back());
  const std::string bias = l.HasInput(2) ? node.inputs[2] : "";
  const Weights weights =
      MakeWeights(l, w, bias, 1, order, {outputs, window.kernel[0], window.kernel[1], weight[0]});
  const int64_t image = Image(l, x, spatial);
  bool is_same = true;
  for (size_t i = 0; i < 2; ++i) {
    l.Require(spatial[i] > 0 && result[i + 1] > 0, "a ConvTranspose where lengths are open");
    full[i + 1] = (spatial[i] - 1) * window.strides[i] + window.kernel[i];
    const int64_t total = full[i + 1] - result[i + 1];
    const bool is_automatic = node.String("auto_pad", "NOTSET").starts_with("SAME") ||
                              node.attributes.contains("output_shape");
    if (is_automatic) {
      const bool is_upper = node.String("auto_pad", "NOTSET") == "SAME_UPPER";
      window.begins[i] = std::max<int64_t>(is_upper ? total / 2 : total - total / 2, 0);
    }
    const bool is_short = (result[i + 1] + window.strides[i] - 1) / window.strides[i] == spatial[i];
    is_same = is_same && is_short && window.begins[i] == std::max<int64_t>(total, 0) / 2;
  }
  for (size_t i = 0; i < 2 && !is_same; ++i) {
    // The kernel reaches so far, and less than a stride may be added.
    const int64_t reach = full[i + 1] + window.strides[i] - 1;
    full[i + 1] = std::max(full[i + 1], window.begins[i] + result[i + 1]);
    l.Require(full[i + 1] <= reach, "a result that is larger than its input reaches");
  }
  if (is_same) full = result;
  const int64_t shape = BatchedShape(l, image, full);
  int64_t made = EmitImage(l, "TRANSPOSE_CONV", {shape, weights.weight, image, weights.bias}, full,
                           {Kind::kTransposeConv,
                            {{0, is_same ? kSame : kValid},
                             {1, Narrow(window.strides[1])},
                             {2, Narrow(window.strides[0])},
                             {3, l.activation()}}});
  if (!is_same) {
    const int64_t begin = l.AddInts({0, window.begins[0], window.begins[1], 0});
    made = l.Emit("SLICE", {made, begin, l.AddInts({-1, result[1], result[2], -1})}, result, made);
  }
  DefineImage(l, made);
}

// What is multiplied: with its last two axes exchanged where that is there and the plain order not.
struct Factor {
  int64_t t = -1;
  bool is_adjoint = false;
};

Factor FactorOf(TfliteLowering& l, const std::string& value) {
  const int64_t rank = l.RankOf(value);
  const std::vector<AxisOrder> orders = l.OrdersOf(value);
  AxisOrder swapped = PlainOrder(rank);
  std::swap(swapped[swapped.size() - 2], swapped[swapped.size() - 1]);
  const auto has = [&](const AxisOrder& order) {
    return std::ranges::find(orders, order) != orders.end();
  };
  const bool is_adjoint = has(swapped) && !has(PlainOrder(rank));
  const AxisOrder order = is_adjoint ? swapped : PlainOrder(rank);
  return {l.in_codes() ? l.Codes8(value, order) : l.Get(value, order), is_adjoint};
}

// y = x * w + bias of rows.
void MultiplyRows(TfliteLowering& l, const AxisOrder& input, const AxisOrder& weight,
                  const std::string& bias) {
  const std::string& w = l.Input(1);
  const Shape shape = Permuted(l.ShapeOf(w), weight);  // [outputs, inputs]
  const Weights weights = MakeWeights(l, w, bias, weight[0], weight, shape);
  const int64_t x = l.Get(l.Input(0), input);
  const AxisOrder order = PlainOrder(l.RankOf(l.node().outputs[0]));
  const TfliteOptions options = {Kind::kFullyConnected,
                                 {{0, l.activation()}, {2, std::ssize(input) != 2}}};
  l.Define(order,
           l.EmitResult("FULLY_CONNECTED", {x, weights.weight, weights.bias}, order, options));
}

bool IsConstantMatrix(const TfliteLowering& l, const std::string& value) {
  return l.RankOf(value) == 2 && (l.Constant(value) != nullptr || l.StoredCodes(value));
}

void AddBias(TfliteLowering& l, int64_t product, const std::string& bias) {
  const AxisOrder order = PlainOrder(l.RankOf(l.node().outputs[0]));
  l.Define(order, l.EmitResult("ADD", {product, l.Aligned(bias, order)}, order,
                               {Kind::kAdd, {{0, l.activation()}}}));
}

void LowerMatMul(TfliteLowering& l) {
  const int64_t left = l.RankOf(l.Input(0)), right = l.RankOf(l.Input(1));
  l.Require(left >= 2 && right >= 2, "a product with a vector");
  if (IsConstantMatrix(l, l.Input(1))) return MultiplyRows(l, PlainOrder(left), {1, 0}, l.bias());
  if (l.in_codes() && !(l.HasCodes(l.Input(0)) && l.HasCodes(l.Input(1)) && l.bias().empty())) {
    l.LeaveCodes();
  }
  const Factor a = FactorOf(l, l.Input(0)), b = FactorOf(l, l.Input(1));
  const AxisOrder order = PlainOrder(l.RankOf(l.node().outputs[0]));
  const TfliteOptions options = {Kind::kBatchMatMul, {{0, a.is_adjoint}, {1, b.is_adjoint}}};
  const bool is_plain = l.bias().empty() && l.activation() == 0;
  const int64_t product = l.EmitResult("BATCH_MATMUL", {a.t, b.t}, order, options);
  if (is_plain) return l.Define(order, product);
  if (l.bias().empty()) {
    return l.Define(order, l.EmitResult("ADD", {product, l.AddFloat(0)}, order,
                                        {Kind::kAdd, {{0, l.activation()}}}));
  }
  AddBias(l, product, l.bias());
}

void LowerGemm(TfliteLowering& l) {
  const Node& node = l.node();
  const float alpha = node.Float("alpha", 1), beta = node.Float("beta", 1);
  const bool left = node.Int("transA", 0) != 0, right = node.Int("transB", 0) != 0;
  const AxisOrder a = left ? AxisOrder{1, 0} : AxisOrder{0, 1};
  const std::string bias = l.HasInput(2) ? node.inputs[2] : "";
  const int64_t outputs = l.ShapeOf(node.outputs[0])[1];
  bool is_row = bias.empty();
  if (!bias.empty()) {
    const Shape shape = l.ShapeOf(bias);
    is_row = BiasFloats(l, bias, outputs).has_value() &&
             (shape.empty() || shape.size() == 1 || shape[0] == 1);
  }
  if (is_row && alpha == 1 && beta == 1 && IsConstantMatrix(l, l.Input(1))) {
    return MultiplyRows(l, a, right ? AxisOrder{0, 1} : AxisOrder{1, 0}, bias);
  }
  l.LeaveCodes();
  int64_t x = l.Get(l.Input(0), a);
  if (alpha != 1) x = l.Emit("MUL", {x, l.AddFloat(alpha)}, l.tensor(x).shape, x, {Kind::kMul, {}});
  const Shape shape = l.ShapeOf(node.outputs[0]);
  int64_t made = l.Emit("BATCH_MATMUL", {x, l.Plain(l.Input(1))}, shape, x,
                        {Kind::kBatchMatMul, {{1, right}}});
  int64_t added = bias.empty() ? l.AddFloat(0) : l.Aligned(bias, {0, 1});
  if (beta != 1 && !bias.empty()) {
    added =
        l.Emit("MUL", {added, l.AddFloat(beta)}, l.tensor(added).shape, added, {Kind::kMul, {}});
  }
  l.Define({0, 1}, l.EmitResult("ADD", {made, added}, {0, 1}, {Kind::kAdd, {{0, l.activation()}}}));
}

TfliteOptions PoolOptions(const TfliteLowering& l, const Window& w, int8_t padding) {
  return {Kind::kPool2D,
          {{0, padding},
           {1, Narrow(w.strides[1])},
           {2, Narrow(w.strides[0])},
           {3, Narrow(w.kernel[1])},
           {4, Narrow(w.kernel[0])},
           {5, l.activation()}}};
}

// Elements of the kernel over those that lie in the image, for each place of the result.
int64_t Shares(TfliteLowering& l, const Window& w, const Shape& spatial, const Shape& result) {
  std::vector<float> shares;
  const auto inside = [&](size_t i, int64_t place) {
    const int64_t begin = place * w.strides[i] - w.begins[i];
    return std::min(begin + w.kernel[i], spatial[i]) - std::max<int64_t>(begin, 0);
  };
  for (int64_t row = 0; row < result[1]; ++row) {
    for (int64_t column = 0; column < result[2]; ++column) {
      const int64_t count = std::max<int64_t>(inside(0, row) * inside(1, column), 1);
      shares.push_back(static_cast<float>(w.kernel[0] * w.kernel[1]) / static_cast<float>(count));
    }
  }
  return l.AddConstant(l.result() + "/shares",
                       Tensor::Make<float>({1, result[1], result[2], 1}, std::move(shares)));
}

void LowerPool(TfliteLowering& l) {
  l.Require(l.node().outputs.size() == 1 || l.node().outputs[1].empty(), "places of the maxima");
  const bool is_max = l.node().op_type == "MaxPool";
  const std::string& x = l.Input(0);
  Shape spatial = l.ShapeOf(x);
  spatial.erase(spatial.begin(), spatial.begin() + 2);
  Window w = WindowOf(l, spatial, l.node().Ints("kernel_shape"));
  l.Require(std::ranges::all_of(w.dilations, [](int64_t d) { return d == 1; }),
            "dilations of a pool");
  Widen(w);
  Widen(spatial, 1);
  const Shape result = ImageShape(l);
  for (size_t i = 0; i < 2; ++i) {  // ceil_mode: the last window reaches beyond
    if (spatial[i] < 0 || result[i + 1] < 0) {
      l.Require(l.node().Int("ceil_mode", 0) == 0, "ceil_mode where lengths are open");
      continue;
    }
    const int64_t reach = (result[i + 1] - 1) * w.strides[i] + w.kernel[i];
    w.ends[i] = std::max(w.ends[i], reach - spatial[i] - w.begins[i]);
    // What no window reaches is not padded either.
    w.ends[i] = std::min(w.ends[i], std::max<int64_t>(reach - spatial[i] - w.begins[i], 0));
  }
  const bool counts_pads = l.node().Int("count_include_pad", 0) != 0;
  const bool is_same = !IsUnpadded(w) && IsSame(w, spatial) && (is_max || !counts_pads);
  const bool corrects = !is_max && !is_same && !IsUnpadded(w) && !counts_pads;
  if (corrects) {
    l.LeaveCodes();
    l.Require(spatial[0] >= 0 && spatial[1] >= 0, "an average beside pads where lengths are open");
  }
  l.Require(!corrects || l.activation() == 0, "an activation behind an average beside pads");
  int64_t image = Image(l, x, spatial);
  if (!is_same) image = Padded(l, image, w, is_max);
  const TfliteOptions options = PoolOptions(l, w, is_same ? kSame : kValid);
  int64_t made =
      l.Emit(is_max ? "MAX_POOL_2D" : "AVERAGE_POOL_2D", {image}, result, image, options);
  if (corrects) {
    made = l.Emit("MUL", {made, Shares(l, w, spatial, result)}, result, made, {Kind::kMul, {}});
  }
  DefineImage(l, made);
}

void LowerGlobalPool(TfliteLowering& l) {
  const std::string& x = l.Input(0);
  const int64_t rank = l.RankOf(x);
  const AxisOrder order = ChannelsLast(rank);
  std::vector<int64_t> axes;
  for (int64_t axis = 1; axis + 1 < rank; ++axis) axes.push_back(axis);
  const int64_t image = l.Get(x, order);
  const bool is_max = l.node().op_type == "GlobalMaxPool";
  const int64_t made = l.EmitResult(is_max ? "REDUCE_MAX" : "MEAN", {image, l.AddInts(axes)}, order,
                                    {Kind::kReducer, {{0, true}}});
  l.Define(order, made);
}

constexpr TfliteLoweringInfo kOps[] = {
    {"Conv", LowerConv, Codes::kComputed, true},
    {"ConvTranspose", LowerConvTranspose, Codes::kComputed, true},
    {"MatMul", LowerMatMul, Codes::kComputed, true},
    {"Gemm", LowerGemm, Codes::kComputed, true},
    {"MaxPool", LowerPool, Codes::kMoved},
    {"AveragePool", LowerPool, Codes::kMoved},
    {"GlobalAveragePool", LowerGlobalPool, Codes::kComputed},
    {"GlobalMaxPool", LowerGlobalPool, Codes::kMoved},
};

}  // namespace

std::span<const TfliteLoweringInfo> LowerComputeOps() { return kOps; }

}  // namespace pared
