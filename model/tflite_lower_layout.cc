// What moves elements, as TensorFlow Lite operators.

#include <algorithm>
#include <cmath>
#include <limits>

#include "model/permute.h"
#include "model/tflite_lowering.h"

namespace pared {
namespace {

using Kind = TfliteOptionsKind;
using Codes = TfliteLowering::Codes;

constexpr int64_t kSlicedRankMax = 5;

int32_t Narrow(int64_t number) {
  return static_cast<int32_t>(std::clamp<int64_t>(number, INT32_MIN, INT32_MAX));
}

void LowerSame(TfliteLowering& l) {
  const auto& outputs = l.node().outputs;
  l.Require(outputs.size() == 1 || outputs[1].empty(), "the mask of a Dropout");
  if (l.HasInput(2)) {
    const Tensor* trains = l.Constant(l.node().inputs[2]);
    l.Require(trains != nullptr && trains->count() == 1 && trains->bytes()[0] == std::byte{0},
              "a Dropout in training");
  }
  l.DefineSame(l.Input(0));
}

void LowerTranspose(TfliteLowering& l) {
  const int64_t rank = l.RankOf(l.Input(0));
  AxisOrder order = PlainOrder(rank);
  std::ranges::reverse(order);
  l.DefineTransposed(l.Input(0), l.node().Ints("perm", order));
}

// The numbers that a model computes, as int32.
int64_t Computed32(TfliteLowering& l, const std::string& value) {
  const int64_t t = l.Plain(value);
  const int8_t from = *TfliteTypeNumber(l.tensor(t).dtype), to = *TfliteTypeNumber(DType::kInt32);
  if (from == to) return t;
  return l.EmitTyped("CAST", {t}, l.tensor(t).shape, DType::kInt32,
                     {Kind::kCast, {{0, from}, {1, to}}});
}

int64_t ShapeTensor(TfliteLowering& l, int64_t t) {
  const int8_t int32 = *TfliteTypeNumber(DType::kInt32);
  return l.EmitTyped("SHAPE", {t}, {std::ssize(l.tensor(t).shape)}, DType::kInt32,
                     {Kind::kShape, {{0, int32}}});
}

// Dimension `axis` of the tensor, as int32 [1].
int64_t DimTensor(TfliteLowering& l, int64_t t, int64_t axis) {
  return l.EmitTyped("SLICE", {ShapeTensor(l, t), l.AddInts({axis}), l.AddInts({1})}, {1},
                     DType::kInt32);
}

// `numbers` as int32 [n], of which -2 - i is dimension i of the tensor.
int64_t MixedShape(TfliteLowering& l, int64_t t, const std::vector<int64_t>& numbers) {
  std::vector<int64_t> parts;
  for (const int64_t number : numbers) {
    parts.push_back(number >= -1 ? l.AddInts({number}) : DimTensor(l, t, -2 - number));
  }
  return l.EmitTyped("CONCATENATION", parts, {std::ssize(numbers)}, DType::kInt32,
                     {Kind::kConcatenation, {{0, int32_t{0}}}});
}

// In the plain order, with the shape of the result, wherever that comes from.
void LowerReshape(TfliteLowering& l) {
  const std::string& x = l.Input(0);
  const Shape shape = l.ShapeOf(l.node().outputs[0]);
  const AxisOrder order = PlainOrder(std::ssize(shape));
  const int64_t t = l.Plain(x);
  if (std::ranges::count(shape, -1) <= 1) return l.Define(order, l.Reshaped(t, shape));
  const bool is_reshape = l.node().op_type == "Reshape";
  l.Require(is_reshape, "a result of several open dimensions");
  const Tensor* asked = l.Constant(l.Input(1));
  int64_t numbers = -1;
  if (asked == nullptr) {
    numbers = Computed32(l, l.Input(1));
  } else {
    std::vector<int64_t> mixed = l.Integers(l.Input(1), "the shape");
    for (size_t i = 0; i < mixed.size(); ++i) {
      if (mixed[i] == 0) mixed[i] = -2 - static_cast<int64_t>(i);  // as the input has it
    }
    numbers = MixedShape(l, t, mixed);
  }
  l.Define(order, l.Emit("RESHAPE", {t, numbers}, shape, t));
}

// Axes of length 1 come or go; what is left keeps its order.
void LowerAxes(TfliteLowering& l) {
  const std::string& x = l.Input(0);
  const Shape shape = l.ShapeOf(l.node().outputs[0]);
  if (std::ranges::count(shape, -1) <= 1) return LowerReshape(l);
  const int64_t t = l.Plain(x), rank = std::ssize(l.ShapeOf(x)), wanted = std::ssize(shape);
  std::vector<int64_t> axes = l.IntegersOf("axes", 1).value_or(std::vector<int64_t>{});
  l.Require(!axes.empty(), "a Squeeze of whatever has length 1 where lengths are open");
  for (int64_t& axis : axes) axis = l.Axis(axis, std::max(rank, wanted));
  std::vector<int64_t> mixed;
  int64_t from = 0;
  const bool is_squeeze = l.node().op_type == "Squeeze";
  for (int64_t axis = 0; axis < std::max(rank, wanted); ++axis) {
    const bool is_named = std::ranges::find(axes, axis) != axes.end();
    if (is_squeeze) {
      if (!is_named) mixed.push_back(-2 - axis);
    } else {
      mixed.push_back(is_named ? 1 : -2 - from++);
    }
  }
  l.Define(PlainOrder(wanted), l.Emit("RESHAPE", {t, MixedShape(l, t, mixed)}, shape, t));
}

void LowerConcat(TfliteLowering& l) {
  const std::vector<std::string>& inputs = l.node().inputs;
  const int64_t rank = l.RankOf(l.node().outputs[0]);
  const int64_t axis = l.Axis(l.node().Int("axis", 0), rank);
  const auto has_codes = [&](const std::string& input) {
    return l.HasCodes(input) && l.RankOf(input) == rank;
  };
  if (!std::ranges::all_of(inputs, has_codes)) l.LeaveCodes();
  if (inputs.size() == 1) {
    l.LeaveCodes();
    return l.DefineSame(inputs[0]);
  }
  const AxisOrder order = l.CommonOrder(inputs, rank);
  std::vector<int64_t> parts;
  for (const std::string& input : inputs) {
    // TensorFlow Lite joins codes of one scale.
    parts.push_back(l.in_codes() ? l.Requantized(l.Codes8(input, order), l.result_scale())
                                 : l.Get(input, order));
  }
  l.Define(order, l.EmitResult("CONCATENATION", parts, order,
                               {Kind::kConcatenation, {{0, Narrow(PlaceOf(order, axis))}}}));
}

void LowerSplit(TfliteLowering& l) {
  const std::string& x = l.Input(0);
  const int64_t rank = l.RankOf(x), axis = l.Axis(l.node().Int("axis", 0), rank);
  const AxisOrder order = l.CommonOrder({x}, rank);
  const int64_t t = l.Get(x, order);
  const auto place = static_cast<size_t>(PlaceOf(order, axis));
  std::vector<int64_t> sizes, outputs;
  for (const std::string& output : l.node().outputs) {
    Shape shape = Permuted(l.ShapeOf(output), order);
    l.Require(shape[place] >= 0, "a Split of an open length");
    sizes.push_back(shape[place]);
    outputs.push_back(l.AddLike(std::move(shape), t));
  }
  const int64_t at =
      l.AddConstant(l.result() + "/axis", Tensor::Scalar<int32_t>(Narrow(PlaceOf(order, axis))));
  l.EmitSeveral("SPLIT_V", {t, l.AddInts(sizes), at}, outputs,
                {Kind::kSplitV, {{0, Narrow(std::ssize(sizes))}}});
  for (size_t i = 0; i < outputs.size(); ++i) l.DefineOutput(i, order, outputs[i]);
}

// What one axis is cut to.
struct Cut {
  int64_t begin = 0, end = 0, step = 1;
  bool from_start = true, to_end = true;  // whatever begin and end say
};

// As ONNX clamps it; lengths that are open are left to the run.
Cut CutOf(int64_t start, int64_t end, int64_t step, int64_t length) {
  Cut cut = {0, 0, step, false, false};
  if (length >= 0) {
    if (start < 0) start += length;
    if (end < 0) end += length;
    start = std::clamp<int64_t>(start, 0, step > 0 ? length : length - 1);
    end = std::clamp<int64_t>(end, step > 0 ? 0 : -1, length);
    cut.begin = start;
    cut.end = end;
    cut.to_end = step < 0 && end < 0;
    if (cut.to_end) cut.end = 0;
    return cut;
  }
  cut.begin = start;
  cut.end = end;
  cut.from_start = step > 0 ? start == 0 : start >= INT32_MAX;
  cut.to_end = step > 0 ? end >= INT32_MAX : end <= -INT32_MAX;
  return cut;
}

std::optional<std::vector<int64_t>> Given(const TfliteLowering& l, const char* attribute,
                                          size_t input) {
  return l.IntegersOf(attribute, input);
}

// Axes and steps; the axes that are not named stay whole. Starts and ends are attributes before
// opset 10, inputs since.
struct Slicing {
  std::vector<int64_t> axes, steps;
  std::vector<Cut> cuts;  // by axis of the input
};

bool IsComputed(const TfliteLowering& l, size_t input) {
  return l.HasInput(input) && l.Constant(l.node().inputs[input]) == nullptr;
}

// `count`: how many starts there are.
Slicing SlicingOf(const TfliteLowering& l, const Shape& shape, size_t count) {
  Slicing slicing;
  slicing.axes = Given(l, "axes", 3).value_or(PlainOrder(static_cast<int64_t>(count)));
  slicing.steps = Given(l, "steps", 4).value_or(std::vector<int64_t>(count, 1));
  slicing.cuts.resize(shape.size());
  l.Require(slicing.axes.size() == count && slicing.steps.size() == count,
            "starts, axes and steps of different numbers");
  for (int64_t& axis : slicing.axes) axis = l.Axis(axis, std::ssize(shape));
  return slicing;
}

// Places that the model computes stand among those that are known, in the order of the tensor.
int64_t MixedPlaces(TfliteLowering& l, const AxisOrder& order, const Slicing& slicing, size_t input,
                    const std::vector<int64_t>& known) {
  if (!IsComputed(l, input)) return l.AddInts(known);
  const int64_t computed = Computed32(l, l.node().inputs[input]);
  std::vector<int64_t> parts;
  for (size_t i = 0; i < order.size(); ++i) {
    const int64_t named = PlaceOf(slicing.axes, order[i]);
    if (named == std::ssize(slicing.axes)) {
      parts.push_back(l.AddInts({known[i]}));
    } else {
      parts.push_back(
          l.EmitTyped("SLICE", {computed, l.AddInts({named}), l.AddInts({1})}, {1}, DType::kInt32));
    }
  }
  return l.EmitTyped("CONCATENATION", parts, {std::ssize(order)}, DType::kInt32,
                     {Kind::kConcatenation, {{0, int32_t{0}}}});
}

void LowerSlice(TfliteLowering& l) {
  const std::string& x = l.Input(0);
  const Shape shape = l.ShapeOf(x);
  const int64_t rank = std::ssize(shape);
  l.Require(rank <= kSlicedRankMax, "a Slice of " + std::to_string(rank) + " axes");
  const bool computes_starts = IsComputed(l, 1), computes_ends = IsComputed(l, 2);
  const auto starts = computes_starts ? std::nullopt : Given(l, "starts", 1);
  const auto ends = computes_ends ? std::nullopt : Given(l, "ends", 2);
  l.Require((starts || computes_starts) && (ends || computes_ends), "a Slice without places");
  const int64_t count = starts ? std::ssize(*starts)
                        : ends ? std::ssize(*ends)
                               : l.ShapeOf(l.Input(1))[0];
  l.Require(count >= 0, "an open number of axes");
  Slicing slicing = SlicingOf(l, shape, static_cast<size_t>(count));
  for (size_t i = 0; i < slicing.axes.size(); ++i) {
    const auto axis = static_cast<size_t>(slicing.axes[i]);
    const int64_t step = slicing.steps[i];
    l.Require(step > 0 || (starts && ends), "steps back between places that are computed");
    const int64_t length = starts && ends ? shape[axis] : -1;
    Cut cut = CutOf(starts ? starts->at(i) : 0, ends ? ends->at(i) : 0, step, length);
    if (computes_starts) cut.from_start = false;
    if (computes_ends) cut.to_end = false;
    slicing.cuts[axis] = cut;
  }
  const AxisOrder order = l.CommonOrder({x}, rank);
  std::vector<int64_t> begins, stops, steps;
  int32_t begin_mask = 0, end_mask = 0;
  for (const int64_t axis : order) {
    const Cut& cut = slicing.cuts[static_cast<size_t>(axis)];
    // Beside places that are computed, numbers say it: ends are clamped.
    if (cut.from_start && starts && ends) begin_mask |= 1 << begins.size();
    if (cut.to_end && starts && ends) end_mask |= 1 << begins.size();
    begins.push_back(cut.begin);
    stops.push_back(cut.to_end && cut.step > 0 ? INT32_MAX : cut.end);
    steps.push_back(cut.step);
  }
  const int64_t begin = MixedPlaces(l, order, slicing, 1, begins);
  const int64_t end = MixedPlaces(l, order, slicing, 2, stops);
  l.Define(order, l.EmitResult("STRIDED_SLICE", {l.Get(x, order), begin, end, l.AddInts(steps)},
                               order, {Kind::kStridedSlice, {{0, begin_mask}, {1, end_mask}}}));
}

// Indices, of which TensorFlow Lite takes none from the end.
int64_t Indices(TfliteLowering& l, const std::string& value, int64_t length) {
  const Tensor* constant = l.Constant(value);
  if (constant == nullptr) return l.Plain(value);
  std::vector<int32_t> places;
  for (int64_t place : l.Integers(value, "indices")) {
    if (place < 0) {
      l.Require(length >= 0, "indices from the end of an open length");
      place += length;
    }
    places.push_back(Narrow(place));
  }
  return l.AddConstant(value, Tensor::Make<int32_t>(constant->shape(), std::move(places)));
}

void LowerGather(TfliteLowering& l) {
  const std::string &table = l.Input(0), &indices = l.Input(1);
  const Shape shape = l.ShapeOf(table);
  const int64_t axis = l.Axis(l.node().Int("axis", 0), std::ssize(shape));
  const AxisOrder order = PlainOrder(l.RankOf(l.node().outputs[0]));
  const int64_t places = Indices(l, indices, shape[static_cast<size_t>(axis)]);
  const TfliteOptions options = {Kind::kGather, {{0, Narrow(axis)}}};
  // A table of codes is looked up as it is stored.
  const auto stored = l.StoredCodes(table);
  if (stored && stored->scales.size() == 1 && stored->tensor.dtype() == DType::kInt8) {
    const int64_t codes = l.AddCodes(table, *stored);
    return l.DefineCodes(
        order, l.Emit("GATHER", {codes, places}, l.ShapeOf(l.node().outputs[0]), codes, options));
  }
  l.Define(order, l.EmitResult("GATHER", {l.Plain(table), places}, order, options));
}

void LowerGatherNd(TfliteLowering& l) {
  l.Require(l.node().Int("batch_dims", 0) == 0, "batch_dims of a GatherND");
  const AxisOrder order = PlainOrder(l.RankOf(l.node().outputs[0]));
  const Tensor* indices = l.Constant(l.Input(1));
  if (indices != nullptr) {
    l.Require(
        std::ranges::all_of(l.Integers(l.Input(1), "indices"), [](int64_t i) { return i >= 0; }),
        "indices from the end");
  }
  l.Define(order, l.EmitResult("GATHER_ND", {l.Plain(l.Input(0)), l.Plain(l.Input(1))}, order));
}

void LowerExpand(TfliteLowering& l) {
  const std::string& x = l.Input(0);
  const Shape shape = l.ShapeOf(l.node().outputs[0]);
  const AxisOrder order = PlainOrder(std::ssize(shape));
  const int64_t t = l.Plain(x);
  int64_t sizes = -1;
  if (std::ranges::count(shape, -1) == 0) {
    sizes = l.AddInts(shape);
  } else {
    sizes = l.EmitTyped("BROADCAST_ARGS", {ShapeTensor(l, t), Computed32(l, l.Input(1))},
                        {std::ssize(shape)}, DType::kInt32);
  }
  l.Define(order, l.EmitResult("BROADCAST_TO", {t, sizes}, order));
}

void LowerTile(TfliteLowering& l) {
  const std::string& x = l.Input(0);
  const std::vector<int64_t> repeats = l.Integers(l.Input(1), "repeats");
  const AxisOrder order = PlainOrder(l.RankOf(x));
  l.Define(order, l.EmitResult("TILE", {l.Plain(x), l.AddInts(repeats)}, order));
}

void LowerPad(TfliteLowering& l) {
  const std::string& x = l.Input(0);
  const int64_t rank = l.RankOf(x);
  const std::string mode = l.node().String("mode", "constant");
  l.Require(mode == "constant" || mode == "reflect", "pads of mode " + mode);
  std::vector<int64_t> pads = l.IntegersOf("pads", 1).value_or(std::vector<int64_t>{});
  std::vector<int64_t> axes =
      l.HasInput(3) ? l.Integers(l.node().inputs[3], "axes") : PlainOrder(rank);
  l.Require(pads.size() == 2 * axes.size(), "pads of other axes than the input");
  std::optional<float> value = l.node().Float("value", 0);
  if (l.HasInput(2)) value = l.Number(l.node().inputs[2]);
  l.Require(value.has_value(), "pads with what is computed, or no float");
  if (value != 0.0f) l.LeaveCodes();
  const AxisOrder order = l.CommonOrder({x}, rank);
  std::vector<int32_t> sizes(static_cast<size_t>(2 * rank), 0);
  for (size_t i = 0; i < axes.size(); ++i) {
    const auto place = static_cast<size_t>(PlaceOf(order, l.Axis(axes[i], rank)));
    l.Require(pads[i] >= 0 && pads[i + axes.size()] >= 0, "negative pads");
    sizes[2 * place] = Narrow(pads[i]);
    sizes[2 * place + 1] = Narrow(pads[i + axes.size()]);
  }
  const int64_t paddings =
      l.AddConstant(l.result() + "/pads", Tensor::Make<int32_t>({rank, 2}, std::move(sizes)));
  const int64_t t = l.Get(x, order);
  if (mode == "reflect") {
    return l.Define(order, l.EmitResult("MIRROR_PAD", {t, paddings}, order,
                                        {Kind::kMirrorPad, {{0, int8_t{0}}}}));
  }
  if (value == 0.0f) return l.Define(order, l.EmitResult("PAD", {t, paddings}, order));
  l.Define(order,
           l.EmitResult("PADV2",
                        {t, paddings,
                         l.AddConstant(l.result() + "/value", Tensor::Make<float>({1}, {*value}))},
                        order));
}

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
    const int64_t lengths = l.EmitTyped(
        "SLICE", {ShapeTensor(l, image), l.AddInts({1}), l.AddInts({2})}, {2}, DType::kInt32);
    size.t = l.EmitTyped("MUL", {lengths, l.AddInts({size.times, size.times})}, {2}, DType::kInt32,
                         {Kind::kMul, {}});
  } else {
    const int64_t all = Computed32(l, l.Input(3));
    size.t = l.EmitTyped("SLICE", {all, l.AddInts({2}), l.AddInts({2})}, {2}, DType::kInt32);
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
  l.Require(from.size() == 4 && from[1] == to[1] && (from[0] == to[0] || to[0] < 0),
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

void LowerRange(TfliteLowering& l) {
  std::vector<int64_t> bounds;
  for (size_t i = 0; i < 3; ++i) bounds.push_back(l.Reshaped(l.Plain(l.Input(i)), {}));
  l.Define({0}, l.EmitResult("RANGE", bounds, {0}));
}

void LowerShape(TfliteLowering& l) {
  const int64_t rank = l.RankOf(l.Input(0));
  const auto place = [&](const char* attribute, int64_t fallback) {
    const int64_t given = l.node().Int(attribute, fallback);
    return std::clamp<int64_t>(given < 0 ? given + rank : given, 0, rank);
  };
  const int64_t begin = place("start", 0), end = place("end", rank);
  const TfliteOptions options = {Kind::kShape, {{0, *TfliteTypeNumber(DType::kInt64)}}};
  const int64_t all = l.EmitTyped("SHAPE", {l.Plain(l.Input(0))}, {rank}, DType::kInt64, options);
  if (begin == 0 && end == rank) return l.Define({0}, all);
  const int64_t count = std::max<int64_t>(end - begin, 0);
  l.Define({0}, l.EmitResult("SLICE", {all, l.AddInts({begin}), l.AddInts({count})}, {0}));
}

void LowerConstantOfShape(TfliteLowering& l) {
  const Tensor* value = l.node().TensorOf("value");
  const Tensor filled = value == nullptr ? Tensor::Scalar<float>(0) : value->Reshaped({});
  const AxisOrder order = PlainOrder(l.RankOf(l.node().outputs[0]));
  const Shape shape = l.ShapeOf(l.node().outputs[0]);
  const int64_t sizes =
      std::ranges::count(shape, -1) == 0 ? l.AddInts(shape) : Computed32(l, l.Input(0));
  l.Define(order,
           l.EmitResult("FILL", {sizes, l.AddConstant(l.result() + "/value", filled)}, order));
}

constexpr TfliteLoweringInfo kOps[] = {
    {"Identity", LowerSame},
    {"Dropout", LowerSame},
    {"Transpose", LowerTranspose},
    {"Reshape", LowerReshape, Codes::kMoved},
    {"Flatten", LowerReshape, Codes::kMoved},
    {"Squeeze", LowerAxes, Codes::kMoved},
    {"Unsqueeze", LowerAxes, Codes::kMoved},
    {"Concat", LowerConcat, Codes::kComputed},
    {"Split", LowerSplit, Codes::kMoved},
    {"Slice", LowerSlice, Codes::kMoved},
    {"Gather", LowerGather, Codes::kMoved},
    {"GatherND", LowerGatherNd},
    {"Expand", LowerExpand, Codes::kMoved},
    {"Tile", LowerTile, Codes::kMoved},
    {"Pad", LowerPad, Codes::kMoved},
    {"Resize", LowerResize, Codes::kMoved},
    {"Upsample", LowerResize, Codes::kMoved},
    {"DepthToSpace", LowerDepthToSpace, Codes::kMoved},
    {"SpaceToDepth", LowerSpaceToDepth, Codes::kMoved},
    {"Range", LowerRange},
    {"Shape", LowerShape},
    {"ConstantOfShape", LowerConstantOfShape},
};

}  // namespace

std::span<const TfliteLoweringInfo> LowerLayoutOps() { return kOps; }

}  // namespace pared
