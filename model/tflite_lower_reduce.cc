// Reductions and normalizations as TensorFlow Lite operators.

#include <algorithm>
#include <cmath>
#include <map>

#include "model/permute.h"
#include "model/tflite_lowering.h"

namespace pared {
namespace {

using Kind = TfliteOptionsKind;
using Codes = TfliteLowering::Codes;

// Where the axes lie in a tensor of the order.
std::vector<int64_t> Places(const AxisOrder& order, const std::vector<int64_t>& axes) {
  std::vector<int64_t> places;
  for (const int64_t axis : axes) places.push_back(PlaceOf(order, axis));
  std::ranges::sort(places);
  return places;
}

// The order of what is left of a tensor of the order without the axes.
AxisOrder Without(const AxisOrder& order, const std::vector<int64_t>& axes) {
  AxisOrder left;
  for (const int64_t axis : order) {
    if (std::ranges::find(axes, axis) != axes.end()) continue;
    left.push_back(axis - std::ranges::count_if(axes, [&](int64_t gone) { return gone < axis; }));
  }
  return left;
}

const std::map<std::string, const char*>& Reductions() {
  static const std::map<std::string, const char*> kTypes = {
      {"ReduceMean", "MEAN"},        {"ReduceSum", "SUM"},
      {"ReduceMax", "REDUCE_MAX"},   {"ReduceMin", "REDUCE_MIN"},
      {"ReduceProd", "REDUCE_PROD"}, {"ReduceL2", "SUM"},
      {"ReduceSumSquare", "SUM"},    {"ReduceL1", "SUM"}};
  return kTypes;
}

void LowerReduce(TfliteLowering& l) {
  const std::string &x = l.Input(0), &op_type = l.node().op_type;
  const int64_t rank = l.RankOf(x);
  std::vector<int64_t> axes = l.IntegersOf("axes", 1).value_or(std::vector<int64_t>{});
  if (axes.empty() && l.node().Int("noop_with_empty_axes", 0) != 0) return l.DefineSame(x);
  if (axes.empty()) axes = PlainOrder(rank);
  for (int64_t& axis : axes) axis = l.Axis(axis, rank);
  const DType dtype = l.TypeOf(x);
  l.Require(dtype == DType::kFloat32 ||
                ((dtype == DType::kInt32 || dtype == DType::kInt64) && !op_type.ends_with("L2")),
            op_type + std::string(" of ") + DTypeName(dtype));
  const bool is_mean = op_type == "ReduceMean", is_max = op_type == "ReduceMax";
  if (!is_mean && !is_max && op_type != "ReduceMin") l.LeaveCodes();
  const bool keeps = l.node().Int("keepdims", 1) != 0;
  const AxisOrder order = l.CommonOrder({x}, rank);
  const AxisOrder left = keeps ? order : Without(order, axes);
  int64_t t = l.Get(x, order);
  if (op_type == "ReduceL2" || op_type == "ReduceSumSquare") {
    t = l.Emit("MUL", {t, t}, l.tensor(t).shape, t, {Kind::kMul, {}});
  }
  if (op_type == "ReduceL1") t = l.Emit("ABS", {t}, l.tensor(t).shape, t);
  const int64_t places = l.AddInts(Places(order, axes));
  const TfliteOptions options = {Kind::kReducer, {{0, keeps}}};
  int64_t made = -1;
  if (l.in_codes() && !is_mean) {  // these keep their input's scale
    made = l.Emit(Reductions().at(op_type), {t, places},
                  Permuted(l.ShapeOf(l.node().outputs[0]), left), t, options);
  } else {
    made = l.EmitResult(Reductions().at(op_type), {t, places}, left, options);
  }
  if (op_type == "ReduceL2") made = l.Float("SQRT", {made});
  l.Define(left, made);
}

void LowerArgMax(TfliteLowering& l) {
  const std::string& x = l.Input(0);
  const int64_t rank = l.RankOf(x), axis = l.Axis(l.node().Int("axis", 0), rank);
  l.Require(l.node().Int("select_last_index", 0) == 0, "the last of equal elements");
  const bool is_max = l.node().op_type == "ArgMax";
  const AxisOrder order = l.CommonOrder({x}, rank);
  const int64_t t = l.Get(x, order);
  AxisOrder left = Without(order, {axis});
  const bool keeps = l.node().Int("keepdims", 1) != 0;
  Shape shape = l.tensor(t).shape;
  shape.erase(shape.begin() + PlaceOf(order, axis));
  const int64_t place = l.AddInt("axis", PlaceOf(order, axis));
  const int8_t int64 = *TfliteTypeNumber(DType::kInt64);
  int64_t made = l.EmitTyped(is_max ? "ARG_MAX" : "ARG_MIN", {t, place}, shape, DType::kInt64,
                             {is_max ? Kind::kArgMax : Kind::kArgMin, {{0, int64}}});
  if (!keeps) return l.Define(left, made);
  l.Define(order, l.Reshaped(made, Permuted(l.ShapeOf(l.node().outputs[0]), order)));
}

// An order that `value` has with the axis last; the plain one with it moved there.
AxisOrder WithLast(const TfliteLowering& l, const std::string& value, int64_t axis) {
  for (const AxisOrder& order : l.OrdersOf(value)) {
    if (order.back() == axis) return order;
  }
  AxisOrder order = PlainOrder(l.RankOf(value));
  order.erase(order.begin() + axis);
  order.push_back(axis);
  return order;
}

void EmitSoftmax(TfliteLowering& l, int64_t x, const AxisOrder& order) {
  const Shape shape = l.tensor(x).shape;
  if (l.node().op_type == "LogSoftmax") {
    return l.Define(order, l.EmitTyped("LOG_SOFTMAX", {x}, shape, DType::kFloat32));
  }
  const TfliteOptions options = {Kind::kSoftmax, {{0, 1.0f}}};
  l.Define(order, l.EmitResult("SOFTMAX", {x}, order, options));
}

void LowerSoftmax(TfliteLowering& l) {
  const std::string& x = l.Input(0);
  const int64_t rank = l.RankOf(x);
  const int64_t axis = l.Axis(l.node().Int("axis", l.opset() < 13 ? 1 : -1), rank);
  const Shape shape = l.ShapeOf(x);
  // Before opset 13 all axes from `axis` on are one.
  const bool is_one = l.opset() >= 13 || std::all_of(shape.begin() + axis + 1, shape.end(),
                                                     [](int64_t d) { return d == 1; });
  if (!is_one) {
    l.LeaveCodes();
    Shape rows = {-1, 1};
    for (size_t i = static_cast<size_t>(axis); i < shape.size(); ++i) {
      l.Require(shape[i] > 0, "a Softmax over lengths that are open");
      rows[1] *= shape[i];
    }
    const int64_t flat = l.Reshaped(l.Plain(x), rows);
    const bool is_log = l.node().op_type == "LogSoftmax";
    const int64_t made =
        l.Float(is_log ? "LOG_SOFTMAX" : "SOFTMAX", {flat},
                is_log ? TfliteOptions() : TfliteOptions{Kind::kSoftmax, {{0, 1.0f}}});
    return l.Define(PlainOrder(rank), l.Reshaped(made, shape));
  }
  const AxisOrder order = WithLast(l, x, axis);
  EmitSoftmax(l, l.Get(x, order), order);
}

// (x - mean) / sqrt(variance + epsilon) over the axes, which stay with length 1.
int64_t Normalized(TfliteLowering& l, int64_t x, const std::vector<int64_t>& places,
                   float epsilon) {
  Shape reduced = l.tensor(x).shape;
  for (const int64_t place : places) reduced[static_cast<size_t>(place)] = 1;
  const TfliteOptions keeps = {Kind::kReducer, {{0, true}}};
  const int64_t axes = l.AddInts(places);
  const int64_t mean = l.EmitTyped("MEAN", {x, axes}, reduced, DType::kFloat32, keeps);
  const int64_t difference = l.Float("SUB", {x, mean}, {Kind::kSub, {}});
  const int64_t square = l.Times(difference, difference);
  const int64_t variance = l.EmitTyped("MEAN", {square, axes}, reduced, DType::kFloat32, keeps);
  const int64_t root = l.Float("RSQRT", {l.Plus(variance, l.AddFloat(epsilon))});
  return l.Times(difference, root);
}

void LowerLayerNormalization(TfliteLowering& l) {
  const std::string& x = l.Input(0);
  const int64_t rank = l.RankOf(x), first = l.Axis(l.node().Int("axis", -1), rank);
  const auto& outputs = l.node().outputs;
  l.Require(
      std::all_of(outputs.begin() + 1, outputs.end(), [](const auto& o) { return o.empty(); }),
      "the mean of a LayerNormalization as an output");
  std::vector<int64_t> axes;
  for (int64_t axis = first; axis < rank; ++axis) axes.push_back(axis);
  const AxisOrder order = l.CommonOrder({x}, rank);
  int64_t made =
      Normalized(l, l.Get(x, order), Places(order, axes), l.node().Float("epsilon", 1e-5f));
  made = l.Times(made, l.Aligned(l.Input(1), order));
  if (l.HasInput(2)) made = l.Plus(made, l.Aligned(l.Input(2), order));
  l.Define(order, made);
}

// A constant of each channel, for values of the rank in the order.
int64_t OfChannels(TfliteLowering& l, std::vector<float> numbers, const AxisOrder& order) {
  l.Require(order.size() > 1, "a value without channels");
  Shape shape(order.size(), 1);
  shape[static_cast<size_t>(PlaceOf(order, 1))] = std::ssize(numbers);
  return l.AddConstant(l.result() + "/channels", Tensor::Make<float>(shape, std::move(numbers)));
}

void LowerBatchNormalization(TfliteLowering& l) {
  l.Require(l.node().Int("training_mode", 0) == 0, "a BatchNormalization in training");
  const std::string& x = l.Input(0);
  const int64_t rank = l.RankOf(x);
  l.Require(rank >= 2, "a BatchNormalization without channels");
  std::vector<float> scale = l.Floats(l.Input(1), "the scale"),
                     bias = l.Floats(l.Input(2), "the bias");
  const std::vector<float> mean = l.Floats(l.Input(3), "the mean"),
                           variance = l.Floats(l.Input(4), "the variance");
  l.Require(
      bias.size() == scale.size() && mean.size() == scale.size() && variance.size() == scale.size(),
      "statistics of different lengths");
  const float epsilon = l.node().Float("epsilon", 1e-5f);
  for (size_t i = 0; i < scale.size(); ++i) {
    scale[i] /= std::sqrt(variance[i] + epsilon);
    bias[i] -= mean[i] * scale[i];
  }
  const AxisOrder order = l.CommonOrder({x}, rank);
  const int64_t scaled = l.Times(l.Get(x, order), OfChannels(l, scale, order));
  l.Define(order, l.EmitResult("ADD", {scaled, OfChannels(l, bias, order)}, order,
                               {Kind::kAdd, {{0, l.activation()}}}));
}

void LowerInstanceNormalization(TfliteLowering& l) {
  const std::string& x = l.Input(0);
  const int64_t rank = l.RankOf(x);
  std::vector<int64_t> axes;
  for (int64_t axis = 2; axis < rank; ++axis) axes.push_back(axis);
  const AxisOrder order = l.CommonOrder({x}, rank);
  const std::vector<float> scale = l.Floats(l.Input(1), "the scale"),
                           bias = l.Floats(l.Input(2), "the bias");
  int64_t made =
      Normalized(l, l.Get(x, order), Places(order, axes), l.node().Float("epsilon", 1e-5f));
  made = l.Times(made, OfChannels(l, scale, order));
  l.Define(order, l.Plus(made, OfChannels(l, bias, order)));
}

void LowerTopK(TfliteLowering& l) {
  const std::string& x = l.Input(0);
  const int64_t rank = l.RankOf(x), axis = l.Axis(l.node().Int("axis", -1), rank);
  l.Require(l.node().Int("largest", 1) != 0, "the least elements");
  l.Require(l.TypeOf(x) == DType::kFloat32 || l.TypeOf(x) == DType::kInt32,
            "a TopK of other types");
  const std::vector<int64_t> k = l.IntegersOf("k", 1).value_or(std::vector<int64_t>{});
  l.Require(k.size() == 1, "how many elements TopK takes");
  const AxisOrder order = WithLast(l, x, axis);
  const int64_t t = l.Get(x, order);
  Shape shape = l.tensor(t).shape;
  shape.back() = k[0];
  const int64_t count = l.AddInt("k", k[0]);
  const int64_t values = l.AddLike(shape, l.TypeOf(x)), places = l.AddLike(shape, DType::kInt32);
  l.EmitSeveral("TOPK_V2", {t, count}, {values, places});
  l.DefineOutput(0, order, values);
  l.DefineOutput(1, order, l.Cast(places, DType::kInt64));
}

void LowerCumSum(TfliteLowering& l) {
  const std::string& x = l.Input(0);
  const std::vector<int64_t> axis = l.Integers(l.Input(1), "the axis");
  l.Require(axis.size() == 1, "a CumSum along several axes");
  const int64_t rank = l.RankOf(x);
  const int64_t at = l.AddInt("axis", l.Axis(axis[0], rank));
  const AxisOrder order = PlainOrder(rank);
  l.Define(order, l.EmitResult("CUMSUM", {l.Plain(x), at}, order,
                               {Kind::kCumsum,
                                {{0, l.node().Int("exclusive", 0) != 0},
                                 {1, l.node().Int("reverse", 0) != 0}}}));
}

// Of real numbers [..., n, 1], half of the result as pairs [..., n / 2 + 1, 2].
void LowerDft(TfliteLowering& l) {
  const std::string& x = l.Input(0);
  const Shape shape = l.ShapeOf(x);
  const int64_t rank = std::ssize(shape);
  const Node& node = l.node();
  l.Require(
      rank >= 2 && shape[static_cast<size_t>(rank) - 1] == 1 &&
          l.Axis(node.Int("axis", 1), rank) == rank - 2 && node.Int("onesided", 0) != 0 &&
          node.Int("inverse", 0) == 0,
      "a DFT that is not the half that says all of real numbers along the axis before the last");
  const int64_t length = shape[static_cast<size_t>(rank) - 2];
  const bool has_length = length > 0 && (length & (length - 1)) == 0;
  l.Require(
      has_length && (!l.HasInput(1) || l.Integers(node.inputs[1], "the length") == Shape{length}),
      "a DFT whose length is not that of its input, known and a power of 2");
  // There rows are the last axis, and pairs lie across: an order of axes in which both ends agree.
  AxisOrder order = PlainOrder(rank);
  std::swap(order[order.size() - 2], order.back());
  const int64_t rows = l.Get(x, order);
  Shape halves = l.tensor(rows).shape;
  halves.back() = length / 2 + 1;
  const int64_t complex =
      l.EmitTyped("RFFT2D", {rows, l.AddInts({1, length})}, halves, DType::kComplex64);
  std::vector<int64_t> both;
  for (const char* part : {"REAL", "IMAG"}) {
    both.push_back(l.EmitTyped(part, {complex}, halves, DType::kFloat32));
  }
  l.Define(order, l.EmitResult("CONCATENATION", both, order,
                               {Kind::kConcatenation, {{0, Narrow(rank - 2)}}}));
}

void LowerLrn(TfliteLowering& l) {
  const std::string& x = l.Input(0);
  const int64_t size = l.node().Int("size", 1);
  l.Require(l.RankOf(x) == 4 && size % 2 == 1, "an LRN of an even size, or of other than 4 axes");
  const AxisOrder order = ChannelsLast(4);
  const float alpha = l.node().Float("alpha", 1e-4f) / static_cast<float>(size);
  l.Define(order, l.EmitResult("LOCAL_RESPONSE_NORMALIZATION", {l.Get(x, order)}, order,
                               {Kind::kLocalResponseNormalization,
                                {{0, Narrow(size / 2)},
                                 {1, l.node().Float("bias", 1)},
                                 {2, alpha},
                                 {3, l.node().Float("beta", 0.75f)}}}));
}

constexpr TfliteLoweringInfo kOps[] = {
    {"ReduceMean", LowerReduce, Codes::kComputed},
    {"ReduceSum", LowerReduce},
    {"ReduceMax", LowerReduce, Codes::kComputed},
    {"ReduceMin", LowerReduce, Codes::kComputed},
    {"ReduceProd", LowerReduce},
    {"ReduceL1", LowerReduce},
    {"ReduceL2", LowerReduce},
    {"ReduceSumSquare", LowerReduce},
    {"ArgMax", LowerArgMax},
    {"ArgMin", LowerArgMax},
    {"Softmax", LowerSoftmax},
    {"LogSoftmax", LowerSoftmax},
    {"LayerNormalization", LowerLayerNormalization},
    {"BatchNormalization", LowerBatchNormalization, Codes::kNever, true},
    {"InstanceNormalization", LowerInstanceNormalization},
    {"TopK", LowerTopK},
    {"CumSum", LowerCumSum},
    {"DFT", LowerDft},
    {"LRN", LowerLrn},
};

}  // namespace

std::span<const TfliteLoweringInfo> LowerReduceOps() { return kOps; }

}  // namespace pared
