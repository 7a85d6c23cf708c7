// Convolutions as TensorFlow Lite operators.

#include <algorithm>

#include "model/tflite_lowering.h"
#include "model/tflite_weights.h"
#include "model/tflite_window.h"

namespace pared {
namespace {

using Kind = TfliteOptionsKind;
using Codes = TfliteLowering::Codes;

TfliteOptions ConvOptions(const TfliteLowering& l, const TfliteWindow& w, int8_t padding,
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
  l.Require(
      std::ranges::count(weight, -1) == 0 && std::ssize(weight) == l.RankOf(x) && weight.size() > 2,
      "a weight of unknown shape");
  const int64_t group = l.node().Int("group", 1), outputs = weight[0];
  Shape spatial = l.ShapeOf(x);
  spatial.erase(spatial.begin(), spatial.begin() + 2);
  l.Require(spatial.size() == 1 || spatial.size() == 2,
            std::to_string(spatial.size()) + " spatial axes");
  TfliteWindow window = WindowOf(l, spatial, {weight.begin() + 2, weight.end()});
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
  const TfliteWeights weights = MakeWeights(l, w, bias, 0, order, shape);
  int64_t image = Image(l, x, spatial);
  int8_t padding = kPadValid;
  if (!IsUnpadded(window) && IsSame(window, spatial)) {
    padding = kPadSame;
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
  const int64_t batch = l.Part32(l.ShapeTensor(t), 0, 1), rank = std::ssize(shape);
  shape.erase(shape.begin());
  return l.Joined32({batch, l.AddInts(shape)}, rank);
}

// `image` has lengths that are open: those of the result follow while the file runs.
void WriteOpenTransposed(TfliteLowering& l, const TfliteWindow& w, const TfliteWeights& weights,
                         int64_t image) {
  const Node& node = l.node();
  std::vector<int64_t> added = node.Ints("output_padding", std::vector<int64_t>(w.ends.size(), 0));
  Widen(added, 0);
  bool is_same = true;
  std::vector<int64_t> more;
  for (size_t i = 0; i < 2; ++i) {
    const int64_t total = w.begins[i] + w.ends[i], over = w.kernel[i] - w.strides[i];
    is_same = is_same && total == std::max<int64_t>(over, 0) && w.begins[i] == total / 2 &&
              added[i] == std::max<int64_t>(-over, 0);
    more.push_back(over + added[i]);
  }
  const bool is_automatic = node.String("auto_pad", "NOTSET") != "NOTSET";
  l.Require(
      !is_automatic && !node.attributes.contains("output_shape") && (is_same || IsUnpadded(w)),
      "auto_pad, output_shape or such pads of a ConvTranspose where lengths are open");
  if (is_same) more = {0, 0};
  const Shape result = ImageShape(l);
  const int64_t shape = l.ShapeTensor(image);
  const auto computed = [&](const char* type, Kind kind, int64_t list, const Shape& numbers) {
    return l.EmitTyped(type, {list, l.AddInts(numbers)}, {2}, DType::kInt32, {kind, {}});
  };
  const int64_t lengths = computed(
      "ADD", Kind::kAdd, computed("MUL", Kind::kMul, l.Part32(shape, 1, 2), w.strides), more);
  const int64_t all = l.Joined32({l.Part32(shape, 0, 1), lengths, l.AddInts({result[3]})}, 4);
  DefineImage(l, EmitImage(l, "TRANSPOSE_CONV", {all, weights.weight, image, weights.bias}, result,
                           {Kind::kTransposeConv,
                            {{0, is_same ? kPadSame : kPadValid},
                             {1, Narrow(w.strides[1])},
                             {2, Narrow(w.strides[0])},
                             {3, l.activation()}}}));
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
  TfliteWindow window = {kernel,
                         node.Ints("strides", std::vector<int64_t>(kernel.size(), 1)),
                         node.Ints("dilations", std::vector<int64_t>(kernel.size(), 1)),
                         {},
                         {},
                         false};
  std::vector<int64_t> pads = node.Ints("pads", std::vector<int64_t>(2 * kernel.size(), 0));
  l.Require(std::ranges::all_of(window.dilations, [](int64_t d) { return d == 1; }),
            "dilations of a ConvTranspose");
  window.begins.assign(pads.begin(), pads.begin() + std::ssize(kernel));
  window.ends.assign(pads.begin() + std::ssize(kernel), pads.end());
  Widen(window);
  const Shape result = ImageShape(l);
  Shape full = result;
  Shape spatial;
  const int64_t outputs = weight[1];
  AxisOrder order = ChannelsLast(std::ssize(weight));  // [I,H,W,O]
  std::swap(order.front(), order.back());
  const std::string bias = l.HasInput(2) ? node.inputs[2] : "";
  const TfliteWeights weights =
      MakeWeights(l, w, bias, 1, order, {outputs, window.kernel[0], window.kernel[1], weight[0]});
  const int64_t image = Image(l, x, spatial);
  if (std::ranges::min(spatial) < 0) return WriteOpenTransposed(l, window, weights, image);
  bool is_same = true;
  for (size_t i = 0; i < 2; ++i) {
    l.Require(spatial[i] > 0 && result[i + 1] > 0, "a ConvTranspose of an empty image");
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
                            {{0, is_same ? kPadSame : kPadValid},
                             {1, Narrow(window.strides[1])},
                             {2, Narrow(window.strides[0])},
                             {3, l.activation()}}});
  if (!is_same) {
    const int64_t begin = l.AddInts({0, window.begins[0], window.begins[1], 0});
    made = l.Emit("SLICE", {made, begin, l.AddInts({-1, result[1], result[2], -1})}, result, made);
  }
  DefineImage(l, made);
}

constexpr TfliteLoweringInfo kOps[] = {
    {"Conv", LowerConv, Codes::kComputed, true},
    {"ConvTranspose", LowerConvTranspose, Codes::kComputed, true},
};

}  // namespace

std::span<const TfliteLoweringInfo> LowerConvOps() { return kOps; }

}  // namespace pared
