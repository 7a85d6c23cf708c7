// Reductions, and what looks along an axis.

#include <algorithm>
#include <map>

#include "model/tflite_ops.h"

namespace pared {
namespace {

// Of an input of four axes that is held by channels: whether what is left lies in the same order.
bool KeepsOrder(const std::vector<int64_t>& axes, bool keeps_axes) {
  const auto has = [&](int64_t axis) { return std::ranges::count(axes, axis) > 0; };
  return keeps_axes || has(3) || (has(1) && has(2));
}

std::string Reduced(TfliteValues& values, const TfliteOp& op, const std::string& x,
                    const std::vector<int64_t>& axes, bool keeps_axes) {
  static const std::map<std::string, const char*> kOnnx = {{"MEAN", "ReduceMean"},
                                                           {"REDUCE_MAX", "ReduceMax"},
                                                           {"REDUCE_MIN", "ReduceMin"},
                                                           {"REDUCE_PROD", "ReduceProd"}};
  const std::string base = values.BaseOf(op.outputs[0]);
  NamedAttributes attributes = IntAttribute("keepdims", keeps_axes ? 1 : 0);
  if (op.type == "SUM") {  // its axes are an input since opset 13
    return values.Emit("ReduceSum", {x, values.AddInt64(axes)}, base, attributes);
  }
  attributes = attributes + IntsAttribute("axes", axes);
  if (op.type == "REDUCE_ANY" || op.type == "REDUCE_ALL") {
    const std::string numbers = values.Cast(x, DType::kInt32);
    const std::string reduced = values.Emit(op.type == "REDUCE_ANY" ? "ReduceMax" : "ReduceMin",
                                            {numbers}, base + "_number", attributes);
    return values.Cast(reduced, DType::kBool);
  }
  return values.Emit(kOnnx.at(op.type), {x}, base, attributes);
}

void Reduce(TfliteValues& values, const TfliteOp& op) {
  const int64_t input = op.inputs[0], output = op.outputs[0];
  const int64_t rank = values.tensor(input).rank();
  const DType dtype = values.HeldType(input);
  values.Require(dtype != DType::kInt8 && dtype != DType::kUInt8 && dtype != DType::kInt16,
                 std::string("reductions of ") + DTypeName(dtype) + " are not supported");
  std::vector<int64_t> axes = values.Integers(op.inputs[1], "the axes");
  for (int64_t& axis : axes) axis = values.Axis(axis, rank);
  std::ranges::sort(axes);
  axes.erase(std::unique(axes.begin(), axes.end()), axes.end());
  const bool keeps_axes = op.Option<uint8_t>(0) != 0;
  if (axes.empty()) {
    return values.Define(output, Form::kPlain,
                         values.Emit("Identity", {values.Plain(input)}, values.BaseOf(output)));
  }
  // The mean of a LayerNormalization, which ONNX has for the last axis.
  const bool is_norm = op.type == "MEAN" && keeps_axes && axes == std::vector<int64_t>{3} &&
                       values.IsDeviation(input, output);
  if (is_norm) values.Plain(input);
  const bool is_by_channels = rank == 4 && !is_norm && KeepsOrder(axes, keeps_axes) &&
                              values.CommonForm({input}, input) == Form::kChannels;
  const Form form = is_by_channels ? Form::kChannels : Form::kPlain;
  for (int64_t& axis : axes) axis = AxisIn(form, axis);
  const std::string made = Reduced(values, op, values.Get(input, form), axes, keeps_axes);
  values.Define(output, keeps_axes ? form : Form::kPlain, made);
}

void Softmax(TfliteValues& values, const TfliteOp& op) {
  const int64_t input = op.inputs[0], output = op.outputs[0];
  const Form form = values.CommonForm({input}, output);
  const std::string base = values.BaseOf(output);
  std::string x = values.Get(input, form);
  const float beta = op.type == "SOFTMAX" ? op.Option<float>(0) : 1;
  if (beta != 1) {
    x = values.Emit("Mul", {x, values.AddInitializer(base + "_beta", Tensor::Scalar<float>(beta))},
                    base + "_scaled");
  }
  values.Define(output, form,
                values.Emit(op.type == "SOFTMAX" ? "Softmax" : "LogSoftmax", {x}, base,
                            IntAttribute("axis", form == Form::kChannels ? 1 : -1)));
}

// x / max(sqrt(sum of squares), 1e-6) along the last axis.
void Normalize(TfliteValues& values, const TfliteOp& op) {
  const int64_t input = op.inputs[0], output = op.outputs[0];
  const Form form = values.CommonForm({input}, output);
  const std::string base = values.BaseOf(output);
  const std::string x = values.Get(input, form);
  const std::string square = values.Emit("Mul", {x, x}, base + "_square");
  const std::string sum = values.Emit(
      "ReduceSum", {square, values.AddInt64({form == Form::kChannels ? 1 : -1})}, base + "_sum");
  const std::string least = values.AddInitializer(base + "_least", Tensor::Scalar<float>(1e-6f));
  const std::string norm =
      values.Emit("Max", {values.Emit("Sqrt", {sum}, base + "_root"), least}, base + "_norm");
  values.Define(output, form,
                Activated(values, op.Option<int8_t>(0), values.Emit("Div", {x, norm}, base), base));
}

// x / (bias + alpha * sum of squares within the radius)^beta across channels; ONNX has the mean.
void NormalizeLocally(TfliteValues& values, const TfliteOp& op) {
  values.Require(values.tensor(op.inputs[0]).rank() == 4, "the input must have 4 axes");
  const int64_t size = 2 * int64_t{op.Option<int32_t>(0)} + 1;
  NamedAttributes attributes = IntAttribute("size", size);
  attributes = attributes + FloatAttribute("bias", op.Option<float>(1)) +
               FloatAttribute("alpha", op.Option<float>(2) * static_cast<float>(size)) +
               FloatAttribute("beta", op.Option<float>(3));
  values.Define(op.outputs[0], Form::kChannels,
                values.Emit("LRN", {values.Channels(op.inputs[0])}, values.BaseOf(op.outputs[0]),
                            attributes));
}

void FindExtreme(TfliteValues& values, const TfliteOp& op) {
  const int64_t input = op.inputs[0], output = op.outputs[0];
  const std::vector<int64_t> axis = values.Integers(op.inputs[1], "the axis");
  values.Require(axis.size() == 1, "there must be one axis");
  NamedAttributes attributes =
      IntAttribute("axis", values.Axis(axis[0], values.tensor(input).rank()));
  attributes = attributes + IntAttribute("keepdims", 0);
  const std::string found =
      values.Emit(op.type == "ARG_MAX" ? "ArgMax" : "ArgMin", {values.Plain(input)},
                  values.BaseOf(output) + "_place", attributes);
  values.Define(output, Form::kPlain, values.Cast(found, values.tensor(output).dtype));
}

void TakeTop(TfliteValues& values, const TfliteOp& op) {
  const std::vector<int64_t> count = values.Integers(op.inputs[1], "the number of values");
  values.Require(count.size() == 1 && op.outputs.size() == 2, "there must be one number");
  const std::vector<std::string> made =
      values.EmitSeveral("TopK", {values.Plain(op.inputs[0]), values.AddInt64(count)},
                         {values.BaseOf(op.outputs[0]), values.BaseOf(op.outputs[1]) + "_place"});
  values.DefinePlain(op, made[0]);
  values.Define(op.outputs[1], Form::kPlain,
                values.Cast(made[1], values.tensor(op.outputs[1]).dtype));
}

void SumUp(TfliteValues& values, const TfliteOp& op) {
  const std::vector<int64_t> axis = values.Integers(op.inputs[1], "the axis");
  values.Require(axis.size() == 1, "there must be one axis");
  const std::string base = values.BaseOf(op.outputs[0]);
  const std::string axis_name =
      values.AddInitializer(base + "_axis", Tensor::Scalar<int64_t>(axis[0]));
  NamedAttributes attributes = IntAttribute("exclusive", op.Option<uint8_t>(0));
  attributes = attributes + IntAttribute("reverse", op.Option<uint8_t>(1));
  values.DefinePlain(
      op, values.Emit("CumSum", {values.Plain(op.inputs[0]), axis_name}, base, attributes));
}

// The transform of rows of real numbers, of which half of the result says all. Lengths are of the
// last two axes: of the other one the first row is taken.
void TransformRows(TfliteValues& values, const TfliteOp& op) {
  const std::vector<int64_t> lengths = values.Integers(op.inputs[1], "the lengths");
  const int64_t input = op.inputs[0], rank = values.tensor(input).rank();
  values.Require(lengths.size() == 2 && lengths[0] == 1 && lengths[1] > 0 && rank >= 2,
                 "transforms over more than the last axis are not supported");
  const std::string base = values.BaseOf(op.outputs[0]);
  std::string x = values.Plain(input);
  if (values.Dim(input, rank - 2) != 1) {
    x = values.Emit("Slice",
                    {x, values.AddInt64({0}), values.AddInt64({1}), values.AddInt64({rank - 2})},
                    base + "_first");
  }
  const std::string rows = values.Emit("Unsqueeze", {x, values.AddInt64({rank})}, base + "_rows");
  const std::string length =
      values.AddInitializer(base + "_length", Tensor::Scalar<int64_t>(lengths[1]));
  NamedAttributes attributes = IntAttribute("axis", rank - 1);
  attributes = attributes + IntAttribute("onesided", 1);
  values.DefinePlain(op, values.Emit("DFT", {rows, length}, base, attributes));
}

constexpr TfliteOpInfo kOps[] = {
    {"LOCAL_RESPONSE_NORMALIZATION", NormalizeLocally},
    {"MEAN", Reduce, 2},
    {"SUM", Reduce, 2},
    {"REDUCE_MAX", Reduce, 2},
    {"REDUCE_MIN", Reduce, 2},
    {"REDUCE_PROD", Reduce, 2},
    {"REDUCE_ANY", Reduce, 2},
    {"REDUCE_ALL", Reduce, 2},
    {"SOFTMAX", Softmax},
    {"LOG_SOFTMAX", Softmax},
    {"L2_NORMALIZATION", Normalize},
    {"ARG_MAX", FindExtreme, 2},
    {"ARG_MIN", FindExtreme, 2},
    {"TOPK_V2", TakeTop, 2},
    {"CUMSUM", SumUp, 2},
    {"RFFT2D", TransformRows, 2},
};

}  // namespace

std::span<const TfliteOpInfo> TfliteReduceOps() { return kOps; }

}  // namespace pared
