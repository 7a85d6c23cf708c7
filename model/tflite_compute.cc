// Convolutions, matrix products and pools.

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "model/same_padding.h"
#include "model/tflite_ops.h"

namespace pared {
namespace {

constexpr int64_t kSame = 0;

// Fields of the options, in the schema's order.
constexpr int kPadding = 0, kStrideWidth = 1, kStrideHeight = 2;  // of all with windows
constexpr int kConvActivation = 3, kConvDilations = 4;            // width, then height
constexpr int kDepthwiseActivation = 4, kDepthwiseDilations = 5;
constexpr int kFilterWidth = 3, kFilterHeight = 4, kPoolActivation = 5;
constexpr int kRowsActivation = 0, kWeightsFormat = 1, kKeepsAxes = 2;
constexpr int kLeftIsAdjoint = 0, kRightIsAdjoint = 1;

// Spatial axes: height and width, of volumes depth before them.
struct Window {
  int64_t padding = kSame;
  std::vector<int64_t> kernel, strides, dilations = {1, 1};
};

// SAME as TensorFlow means it: the output has ceil(input / stride), and the end gets the odd one.
NamedAttributes Attributes(const TfliteValues& values, int64_t input, const Window& window) {
  NamedAttributes all = IntsAttribute("kernel_shape", window.kernel);
  all = all + IntsAttribute("strides", window.strides);
  if (std::ranges::any_of(window.dilations, [](int64_t dilation) { return dilation != 1; })) {
    all = all + IntsAttribute("dilations", window.dilations);
  }
  if (window.padding != kSame) return all;
  const size_t rank = window.kernel.size();
  std::vector<int64_t> pads(2 * rank, 0);
  for (size_t i = 0; i < rank; ++i) {
    const int64_t size = values.Dim(input, static_cast<int64_t>(i) + 1);
    if (size < 0) {
      return all + TextAttribute("auto_pad", "SAME_UPPER");
    }
    const int64_t total =
        SamePadding(size, window.kernel[i], window.strides[i], window.dilations[i]);
    pads[i] = total / 2;
    pads[i + rank] = total - total / 2;
  }
  return all + IntsAttribute("pads", std::move(pads));
}

void CheckWindow(const TfliteValues& values, const Window& window) {
  for (const std::vector<int64_t>* each : {&window.kernel, &window.strides, &window.dilations}) {
    values.Require(std::ranges::all_of(*each, [](int64_t value) { return value > 0; }),
                   "kernels, strides and dilations must be 1 or more");
  }
}

std::string BiasOf(TfliteValues& values, const TfliteOp& op, size_t input) {
  return op.HasInput(input) ? values.Plain(op.inputs[input]) : "";
}

void FinishConvolution(TfliteValues& values, const TfliteOp& op, const std::string& made,
                       int64_t activation) {
  const int64_t output = op.outputs[0];
  values.Define(output, Form::kChannels,
                Activated(values, activation, made, values.BaseOf(output)));
}

// Of a convolution whose dilations begin at field `dilations`, after checks of what it reads.
Window WindowOf(const TfliteValues& values, const TfliteOp& op, int dilations) {
  const int64_t input = op.inputs[0], weight = op.inputs[1];
  values.Require(values.tensor(weight).rank() == 4 && values.tensor(input).rank() == 4,
                 "input and weight must have 4 axes");
  values.Require(values.Dim(input, 3) > 0 && values.Dim(weight, 3) > 0,
                 "the channels of input and weight must be known");
  Window window = {op.Option<int8_t>(kPadding),
                   {values.Dim(weight, 1), values.Dim(weight, 2)},
                   {op.Option<int32_t>(kStrideHeight), op.Option<int32_t>(kStrideWidth)},
                   {op.Option<int32_t>(dilations + 1, 1), op.Option<int32_t>(dilations, 1)}};
  CheckWindow(values, window);
  return window;
}

// `order`: of the weight's axes, to [outputs, inputs of a group, height, width].
void WriteConvolution(TfliteValues& values, const TfliteOp& op, const Window& window,
                      const std::vector<int64_t>& order, int64_t groups, int64_t activation) {
  NamedAttributes attributes = Attributes(values, op.inputs[0], window);
  if (groups != 1) attributes = attributes + IntAttribute("group", groups);
  const std::string made = values.Emit(
      "Conv",
      {values.Channels(op.inputs[0]), values.Permuted(op.inputs[1], order), BiasOf(values, op, 2)},
      values.BaseOf(op.outputs[0]), attributes);
  FinishConvolution(values, op, made, activation);
}

// Weights [O,H,W,I].
void Convolve(TfliteValues& values, const TfliteOp& op) {
  const Window window = WindowOf(values, op, kConvDilations);
  const int64_t channels = values.Dim(op.inputs[0], 3), each = values.Dim(op.inputs[1], 3);
  values.Require(channels % each == 0, "the weight's inputs must divide the input's channels");
  WriteConvolution(values, op, window, {0, 3, 1, 2}, channels / each,
                   op.Option<int8_t>(kConvActivation));
}

// Weights [D,H,W,I,O] of an input [N,D,H,W,C]. Strides and dilations: depth, width, height.
void ConvolveVolume(TfliteValues& values, const TfliteOp& op) {
  constexpr int kStrides = 1, kActivation = 4, kDilations = 5;
  const int64_t input = op.inputs[0], weight = op.inputs[1], output = op.outputs[0];
  values.Require(values.tensor(weight).rank() == 5 && values.tensor(input).rank() == 5,
                 "input and weight must have 5 axes");
  Window window = {op.Option<int8_t>(kPadding), {}, {}, {}};
  for (const int place : {0, 2, 1}) {
    window.kernel.push_back(values.Dim(weight, std::ssize(window.kernel)));
    window.strides.push_back(op.Option<int32_t>(kStrides + place));
    window.dilations.push_back(op.Option<int32_t>(kDilations + place, 1));
  }
  CheckWindow(values, window);
  const int64_t channels = values.Dim(input, 4), each = values.Dim(weight, 3);
  values.Require(each > 0 && channels > 0 && channels % each == 0,
                 "the weight's inputs must divide the input's channels");
  NamedAttributes attributes = Attributes(values, input, window);
  if (channels != each) attributes = attributes + IntAttribute("group", channels / each);
  const std::string base = values.BaseOf(output);
  const std::string made =
      values.Emit("Conv",
                  {values.Permuted(input, {0, 4, 1, 2, 3}),
                   values.Permuted(weight, {4, 3, 0, 1, 2}), BiasOf(values, op, 2)},
                  base, attributes);
  const std::string active = Activated(values, op.Option<int8_t>(kActivation), made, base);
  values.DefinePlain(
      op, values.Emit("Transpose", {active}, base, IntsAttribute("perm", {0, 2, 3, 4, 1})));
}

// Weights [1,H,W,channels * multiplier].
void ConvolveDepthwise(TfliteValues& values, const TfliteOp& op) {
  const Window window = WindowOf(values, op, kDepthwiseDilations);
  const int64_t channels = values.Dim(op.inputs[0], 3);
  values.Require(values.Dim(op.inputs[1], 3) % channels == 0,
                 "the input's channels must divide the outputs");
  WriteConvolution(values, op, window, {3, 0, 1, 2}, channels,
                   op.Option<int8_t>(kDepthwiseActivation));
}

// Places of tensors; the bias may be left out (-1).
struct TransposedInputs {
  int64_t input = 0, weight = 0, bias = -1;
};

// Height and width of the output stand in the computed shape: the middle is cut out of all that the
// input reaches.
void WriteOpenTransposed(TfliteValues& values, const TfliteOp& op, const TransposedInputs& inputs,
                         const Window& window) {
  const std::string base = values.BaseOf(op.outputs[0]), two = values.AddInt64({2});
  NamedAttributes attributes = IntsAttribute("kernel_shape", window.kernel);
  attributes = attributes + IntsAttribute("strides", window.strides);
  std::vector<int64_t> added(2, 0);
  for (size_t i = 0; i < 2; ++i) {
    added[i] = std::max<int64_t>(window.strides[i] - window.kernel[i], 0);
  }
  if (added[0] + added[1] > 0) attributes = attributes + IntsAttribute("output_padding", added);
  const std::string all =
      values.Emit("ConvTranspose",
                  {values.Channels(inputs.input), values.Permuted(inputs.weight, {3, 0, 1, 2}),
                   values.Plain(inputs.bias)},
                  base + "_all", attributes);
  const std::string wanted =
      values.Emit("Slice", {values.Int64(op.inputs[0]), values.AddInt64({1}), values.AddInt64({3})},
                  base + "_wanted");
  const std::string shape = values.Emit("Shape", {all}, base + "_shape");
  const std::string there =
      values.Emit("Slice", {shape, two, values.AddInt64({4})}, base + "_there");
  const std::string over = values.Emit(
      "Max", {values.Emit("Sub", {there, wanted}, base + "_over"), values.AddInt64({0})},
      base + "_over");
  // As floats: TensorFlow Lite has no division of integers to write it with.
  const std::string half =
      values.Emit("Mul",
                  {values.Cast(over, DType::kFloat32),
                   values.AddInitializer(base + "_half", Tensor::Scalar<float>(0.5F))},
                  base + "_middle");
  const std::string begin =
      values.Cast(values.Emit("Floor", {half}, base + "_begin"), DType::kInt64);
  const std::string end = values.Emit("Add", {begin, wanted}, base + "_end");
  FinishConvolution(values, op,
                    values.Emit("Slice", {all, begin, end, values.AddInt64({2, 3})}, base),
                    op.Option<int8_t>(kConvActivation));
}

// Weights [O,H,W,I]. `shape`: the output's, of which height and width count.
void WriteTransposed(TfliteValues& values, const TfliteOp& op, const TransposedInputs& inputs,
                     const Window& window, const std::vector<int64_t>& shape) {
  std::vector<int64_t> pads(4, 0), added(2, 0);
  for (size_t i = 0; i < 2; ++i) {
    const int64_t size = values.Dim(inputs.input, static_cast<int64_t>(i) + 1);
    values.Require(size > 0 && shape[i + 1] > 0,
                   "height and width of input and output must be known");
    const int64_t full = (size - 1) * window.strides[i] + window.kernel[i];
    const int64_t total = std::max<int64_t>(full - shape[i + 1], 0);
    pads[i] = total / 2;
    pads[i + 2] = total - total / 2;
    added[i] = std::max<int64_t>(shape[i + 1] - full, 0);
    values.Require(added[i] < window.strides[i], "the output is larger than its input reaches");
  }
  NamedAttributes attributes = IntsAttribute("kernel_shape", window.kernel);
  attributes = attributes + IntsAttribute("strides", window.strides) + IntsAttribute("pads", pads);
  if (added[0] + added[1] > 0) attributes = attributes + IntsAttribute("output_padding", added);
  const std::string made =
      values.Emit("ConvTranspose",
                  {values.Channels(inputs.input), values.Permuted(inputs.weight, {3, 0, 1, 2}),
                   values.Plain(inputs.bias)},
                  values.BaseOf(op.outputs[0]), attributes);
  FinishConvolution(values, op, made, op.Option<int8_t>(kConvActivation));
}

Window TransposedWindow(const TfliteValues& values, const TransposedInputs& inputs,
                        std::vector<int64_t> strides) {
  const int64_t weight = inputs.weight;
  values.Require(values.tensor(weight).rank() == 4 && values.tensor(inputs.input).rank() == 4,
                 "input and weight must have 4 axes");
  Window window = {kSame, {values.Dim(weight, 1), values.Dim(weight, 2)}, std::move(strides)};
  CheckWindow(values, window);
  return window;
}

// Inputs: the output's shape, weights, the input, a bias.
void ConvolveTransposed(TfliteValues& values, const TfliteOp& op) {
  // Where the batch is open the shape is computed; height and width stand in the file then.
  const std::vector<int64_t> shape = values.IsConstant(op.inputs[0])
                                         ? values.Integers(op.inputs[0], "the output's shape")
                                         : values.tensor(op.outputs[0]).shape;
  values.Require(shape.size() == 4, "the output must have 4 axes");
  const TransposedInputs inputs = {op.inputs[2], op.inputs[1], op.HasInput(3) ? op.inputs[3] : -1};
  const Window window = TransposedWindow(
      values, inputs, {op.Option<int32_t>(kStrideHeight), op.Option<int32_t>(kStrideWidth)});
  const auto is_open = [&](int64_t axis) {
    return values.Dim(inputs.input, axis) < 0 || shape[static_cast<size_t>(axis)] < 0;
  };
  if (is_open(1) || is_open(2)) return WriteOpenTransposed(values, op, inputs, window);
  WriteTransposed(values, op, inputs, window, shape);
}

// An operator of MediaPipe. Inputs: the input, weights, a bias; the output's height and width
// follow from the padding (1: SAME, less where the last stride is not full; 2: VALID).
void ConvolveTransposedOfMediaPipe(TfliteValues& values, const TfliteOp& op) {
  std::array<int32_t, 3> numbers;  // padding, stride of the width, of the height
  values.Require(op.custom_options.size() >= sizeof numbers, "its options are cut short");
  std::memcpy(numbers.data(), op.custom_options.data(), sizeof numbers);
  values.Require(values.HoldsFloats(op.outputs[0]) && !values.HasCodes(op.outputs[0]),
                 "it must be of floats");
  const TransposedInputs inputs = {op.inputs[0], op.inputs[1], op.inputs[2]};
  const Window window = TransposedWindow(values, inputs, {numbers[2], numbers[1]});
  std::vector<int64_t> shape(4);
  for (size_t i = 0; i < 2; ++i) {
    const int64_t last = values.Dim(inputs.input, static_cast<int64_t>(i) + 1) - 1;
    const int64_t kernel = window.kernel[i], stride = window.strides[i];
    const int64_t pads = numbers[0] == 1 ? std::max<int64_t>(kernel - last % stride - 1, 0) : 0;
    shape[i + 1] = stride * last + kernel - pads;
  }
  WriteTransposed(values, op, inputs, window, shape);
}

// y = x * transpose(w) + b, x as rows of w's columns.
void FullyConnect(TfliteValues& values, const TfliteOp& op) {
  values.Require(op.Option<int8_t>(kWeightsFormat) == 0, "shuffled weights are not supported");
  const int64_t input = op.inputs[0], weight = op.inputs[1], output = op.outputs[0];
  values.Require(values.tensor(weight).rank() == 2, "the weight must have 2 axes");
  const std::string base = values.BaseOf(output);
  const std::string bias = BiasOf(values, op, 2);
  std::string made;
  if (op.Option<uint8_t>(kKeepsAxes) != 0 &&
      values.tensor(input).rank() != 2) {  // all axes but the last stay
    made = values.Emit("MatMul", {values.Plain(input), values.Permuted(weight, {1, 0})}, base);
    if (!bias.empty()) made = values.Emit("Add", {made, bias}, base);
  } else {
    std::string rows = values.InPlainOrder(input);
    if (values.tensor(input).rank() != 2 || values.Dim(input, 1) != values.Dim(weight, 1)) {
      rows = values.Emit("Reshape", {rows, values.AddInt64({-1, values.Dim(weight, 1)})},
                         base + "_rows");
    }
    made = values.Emit("Gemm", {rows, values.Plain(weight), bias}, base, IntAttribute("transB", 1));
  }
  values.Define(output, Form::kPlain,
                Activated(values, op.Option<int8_t>(kRowsActivation), made, base));
}

// With the last two axes exchanged where `is_adjoint`.
std::string Factor(TfliteValues& values, int64_t t, bool is_adjoint) {
  if (!is_adjoint) return values.Plain(t);
  std::vector<int64_t> order;
  for (int64_t i = 0; i < values.tensor(t).rank(); ++i) order.push_back(i);
  values.Require(order.size() >= 2, "factors must have 2 axes or more");
  std::swap(order[order.size() - 1], order[order.size() - 2]);
  return values.Permuted(t, order);
}

void Multiply(TfliteValues& values, const TfliteOp& op) {
  const std::string left = Factor(values, op.inputs[0], op.Option<uint8_t>(kLeftIsAdjoint) != 0);
  const std::string right = Factor(values, op.inputs[1], op.Option<uint8_t>(kRightIsAdjoint) != 0);
  values.DefinePlain(op, values.Emit("MatMul", {left, right}, values.BaseOf(op.outputs[0])));
}

void Pool(TfliteValues& values, const TfliteOp& op) {
  const int64_t input = op.inputs[0];
  values.Require(values.tensor(input).rank() == 4, "the input must have 4 axes");
  const Window window = {op.Option<int8_t>(kPadding),
                         {op.Option<int32_t>(kFilterHeight), op.Option<int32_t>(kFilterWidth)},
                         {op.Option<int32_t>(kStrideHeight), op.Option<int32_t>(kStrideWidth)}};
  CheckWindow(values, window);
  const std::string made =
      values.Emit(op.type == "MAX_POOL_2D" ? "MaxPool" : "AveragePool", {values.Channels(input)},
                  values.BaseOf(op.outputs[0]), Attributes(values, input, window));
  FinishConvolution(values, op, made, op.Option<int8_t>(kPoolActivation));
}

constexpr TfliteOpInfo kOps[] = {
    {"CONV_2D", Convolve, 2, true},
    {"CONV_3D", ConvolveVolume, 2, true},
    {"DEPTHWISE_CONV_2D", ConvolveDepthwise, 2, true},
    {"TRANSPOSE_CONV", ConvolveTransposed, 3, true},
    {"custom operator Convolution2DTransposeBias", ConvolveTransposedOfMediaPipe, 3},
    {"FULLY_CONNECTED", FullyConnect, 2, true},
    {"BATCH_MATMUL", Multiply, 2},
    {"MAX_POOL_2D", Pool},
    {"AVERAGE_POOL_2D", Pool},
};

}  // namespace

std::span<const TfliteOpInfo> TfliteComputeOps() { return kOps; }

}  // namespace pared
