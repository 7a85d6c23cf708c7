// What samples images, as TensorFlow Lite operators.

#include <algorithm>
#include <cmath>

#include "model/permute.h"
#include "model/tflite_lowering.h"

namespace pared {
namespace {

using Kind = TfliteOptionsKind;
using Codes = TfliteLowering::Codes;

// How positions of the result are those of the input, where TensorFlow Lite has that.
struct Positions {
  bool aligns = false, is_centered = false;
};

// `times`: how many times as long both axes become, where that is a whole number; else 0.
Positions PositionsOf(const TfliteLowering& l, bool is_linear, int64_t times) {
  const Node& node = l.node();
  const bool is_old = node.op_type == "Upsample" || l.opset() < 11;
  const std::string mode =
      node.String("coordinate_transformation_mode", is_old ? "asymmetric" : "half_pixel");
  const std::string rounding = node.String("nearest_mode", is_old ? "floor" : "round_prefer_floor");
  // The two differ for results of length 1.
  const bool is_half = mode == "half_pixel" || (mode == "pytorch_half_pixel" && times != 0);
  const Shape out = l.ShapeOf(node.outputs[0]);
  const bool is_long = out[2] > 1 && out[3] > 1;
  if (mode == "align_corners" && (is_linear || rounding == "round_prefer_ceil"))
    return {true, false};
  if (is_linear && mode == "asymmetric") return {};
  if (is_linear && (is_half || (mode == "pytorch_half_pixel" && is_long))) return {false, true};
  const bool is_floor =
      rounding == "floor" || times == 1 || (rounding == "round_prefer_floor" && times == 2);
  if (mode == "asymmetric" && is_floor) return {};
  if (is_half && rounding == "round_prefer_ceil") return {false, true};
  if (is_half && rounding == "round_prefer_floor" && times != 0) return {};
  l.Refuse("positions of " + mode + (is_linear ? "" : ", " + rounding));
}

// Height and width of the result, as int32 [2]; and how many times as long they are.
struct Size {
  int64_t t = -1, times = 0;
};

Size SizeOf(TfliteLowering& l, int64_t image) {
  const Node& node = l.node();
  const Shape from = l.ShapeOf(node.inputs[0]), to = l.ShapeOf(node.outputs[0]);
  const bool is_known = from[2] > 0 && from[3] > 0 && to[2] > 0 && to[3] > 0;
  const size_t scales_input = node.op_type == "Upsample" || l.opset() < 11 ? 1 : 2;
  std::vector<float> scales;
  if (node.attributes.contains("scales")) scales = node.Floats("scales");
  if (l.HasInput(scales_input)) scales = l.Floats(node.inputs[scales_input], "the scales");
  Size size;
  if (is_known) {
    for (size_t i = 2; i < 4 && scales.size() == 4; ++i) {
      const double length = static_cast<double>(from[i]) * static_cast<double>(scales[i]);
      l.Require(std::abs(length - static_cast<double>(to[i])) < 1e-3,
                "scales that do not lead to whole lengths");
    }
    const bool is_whole = to[2] % from[2] == 0 && to[2] / from[2] * from[3] == to[3];
    size.times = is_whole ? to[2] / from[2] : 0;
    size.t = l.AddInts({to[2], to[3]});
  } else if (scales.size() == 4) {
    const float scale = scales[2];
    l.Require(scales[3] == scale && scale >= 1 && scale == std::floor(scale),
              "scales that are not whole where lengths are open");
    size.times = static_cast<int64_t>(scale);
    const int64_t lengths = l.Part32(l.ShapeTensor(image), 1, 2);
    size.t = l.EmitTyped("MUL", {lengths, l.AddInts({size.times, size.times})}, {2}, DType::kInt32,
                         {Kind::kMul, {}});
  } else {
    size.t = l.Part32(l.Computed32(l.Input(3)), 2, 2);
  }
  return size;
}

void LowerResize(TfliteLowering& l) {
  const std::string& x = l.Input(0);
  const Node& node = l.node();
  const std::string mode = node.String("mode", "nearest");
  l.Require(mode == "nearest" || mode == "linear" || mode == "bilinear",
            "a Resize of mode " + mode);
  l.Require(node.Int("antialias", 0) == 0 && !node.attributes.contains("axes"),
            "antialias, or axes of a Resize");
  const Shape from = l.ShapeOf(x), to = l.ShapeOf(node.outputs[0]);
  l.Require(
      from.size() == 4 && to.size() == 4 && from[1] == to[1] && (from[0] == to[0] || to[0] < 0),
      "a Resize of other than height and width");
  const bool is_linear = mode != "nearest";
  const AxisOrder order = ChannelsLast(4);
  const int64_t image = l.Get(x, order);
  const Size size = SizeOf(l, image);
  const Positions positions = PositionsOf(l, is_linear, size.times);
  const int first = is_linear ? 2 : 0;
  const TfliteOptions options = {is_linear ? Kind::kResizeBilinear : Kind::kResizeNearestNeighbor,
                                 {{first, positions.aligns}, {first + 1, positions.is_centered}}};
  l.Define(order, l.EmitResult(is_linear ? "RESIZE_BILINEAR" : "RESIZE_NEAREST_NEIGHBOR",
                               {image, size.t}, order, options));
}

void LowerDepthToSpace(TfliteLowering& l) {
  const std::string& x = l.Input(0);
  const AxisOrder order = ChannelsLast(4);
  const int64_t block = l.node().Int("blocksize", 1);
  int64_t t = l.Get(x, order);
  const Shape shape = l.tensor(t).shape;
  l.Require(shape[3] > 0, "an open number of channels");
  if (l.node().String("mode", "DCR") == "CRD") {  // channels of a block stand together
    std::vector<int64_t> places;
    const int64_t squares = block * block, channels = shape[3] / squares;
    for (int64_t i = 0; i < shape[3]; ++i) places.push_back(i % channels * squares + i / channels);
    t = l.Emit("GATHER", {t, l.AddInts(places)}, shape, t, {Kind::kGather, {{0, int32_t{3}}}});
  }
  l.Define(order,
           l.EmitResult("DEPTH_TO_SPACE", {t}, order, {Kind::kDepthToSpace, {{0, Narrow(block)}}}));
}

void LowerSpaceToDepth(TfliteLowering& l) {
  l.Require(l.node().String("mode", "DCR") == "DCR", "a SpaceToDepth of another mode");
  const AxisOrder order = ChannelsLast(4);
  l.Define(order, l.EmitResult("SPACE_TO_DEPTH", {l.Get(l.Input(0), order)}, order,
                               {Kind::kSpaceToDepth, {{0, Narrow(l.node().Int("blocksize", 1))}}}));
}

constexpr TfliteLoweringInfo kOps[] = {
    {"Resize", LowerResize, Codes::kMoved},
    {"Upsample", LowerResize, Codes::kMoved},
    {"DepthToSpace", LowerDepthToSpace, Codes::kMoved},
    {"SpaceToDepth", LowerSpaceToDepth, Codes::kMoved},
};

}  // namespace

std::span<const TfliteLoweringInfo> LowerImageOps() { return kOps; }

}  // namespace pared
