// What moves elements, as TensorFlow Lite operators.

#include <algorithm>

#include "model/permute.h"
#include "model/tflite_lowering.h"

namespace pared {
namespace {

using Kind = TfliteOptionsKind;
using Codes = TfliteLowering::Codes;

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

// `numbers` as int32 [n], of which -2 - i is dimension i of the tensor.
int64_t MixedShape(TfliteLowering& l, int64_t t, const std::vector<int64_t>& numbers) {
  std::vector<int64_t> parts;
  for (const int64_t number : numbers) {
    parts.push_back(number >= -1 ? l.AddInts({number})
                                 : l.Part32(l.ShapeTensor(t), -2 - number, 1));
  }
  return l.Joined32(std::move(parts), std::ssize(numbers));
}

// A shape that is computed, of `count` numbers: 0 is as long as the tensor is there.
int64_t WithCopies(TfliteLowering& l, int64_t numbers, int64_t t, int64_t count) {
  if (l.node().Int("allowzero", 0) != 0) return numbers;
  int64_t lengths = l.ShapeTensor(t);
  const int64_t rank = std::ssize(l.tensor(t).shape);
  if (rank < count) {
    const std::vector<int64_t> zeros(static_cast<size_t>(count - rank), 0);
    lengths = l.Joined32({lengths, l.AddInts(zeros)}, count);
  } else if (rank > count) {
    lengths = l.Part32(lengths, 0, count);
  }
  const int64_t copies = l.EmitTyped("EQUAL", {numbers, l.AddInts({0})}, {count}, DType::kBool);
  return l.EmitTyped("SELECT_V2", {copies, lengths, numbers}, {count}, DType::kInt32);
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
    numbers = WithCopies(l, l.Computed32(l.Input(1)), t, std::ssize(shape));
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
  const int64_t at = l.AddInt("axis", PlaceOf(order, axis));
  l.EmitSeveral("SPLIT_V", {t, l.AddInts(sizes), at}, outputs,
                {Kind::kSplitV, {{0, Narrow(std::ssize(sizes))}}});
  for (size_t i = 0; i < outputs.size(); ++i) l.DefineOutput(i, order, outputs[i]);
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
    sizes = l.EmitTyped("BROADCAST_ARGS", {l.ShapeTensor(t), l.Computed32(l.Input(1))},
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
  const int64_t filled =
      value ? l.AddConstant(l.result() + "/value", Tensor::Make<float>({1}, {*value}))
            : l.Reshaped(l.Plain(l.Input(2)), {1});
  l.Define(order, l.EmitResult("PADV2", {t, paddings, filled}, order));
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
      std::ranges::count(shape, -1) == 0 ? l.AddInts(shape) : l.Computed32(l.Input(0));
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
    {"Expand", LowerExpand, Codes::kMoved},
    {"Tile", LowerTile, Codes::kMoved},
    {"Pad", LowerPad, Codes::kMoved},
    {"Range", LowerRange},
    {"Shape", LowerShape},
    {"ConstantOfShape", LowerConstantOfShape},
};

}  // namespace

std::span<const TfliteLoweringInfo> LowerLayoutOps() { return kOps; }

}  // namespace pared
