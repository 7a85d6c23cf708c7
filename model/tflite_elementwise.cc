// Functions of one element, or of one of each input.

#include <array>
#include <cmath>
#include <unordered_map>

#include "model/tflite_ops.h"

namespace pared {
namespace {

std::string Number(TfliteValues& values, float number) {
  return values.AddInitializer("number", Tensor::Scalar<float>(number));
}

std::string Clip(TfliteValues& values, const std::string& value, float low, float high,
                 const std::string& base) {
  return values.Emit("Clip", {value, Number(values, low), Number(values, high)}, base);
}

// 0.5 x (1 + erf(x / sqrt(2))), or its approximation by tanh.
std::string Gelu(TfliteValues& values, const std::string& x, bool is_approximate,
                 const std::string& base) {
  std::string inner;
  if (is_approximate) {
    const std::string square = values.Emit("Mul", {x, x}, base + "_square");
    const std::string cube = values.Emit("Mul", {square, x}, base + "_cube");
    const std::string part = values.Emit("Mul", {cube, Number(values, 0.044715f)}, base + "_part");
    const std::string sum = values.Emit("Add", {x, part}, base + "_sum");
    const float root = std::sqrt(2 / std::acos(-1.0f));
    inner = values.Emit("Tanh", {values.Emit("Mul", {sum, Number(values, root)}, base + "_scaled")},
                        base + "_tanh");
  } else {
    const std::string scaled =
        values.Emit("Div", {x, Number(values, std::sqrt(2.0f))}, base + "_scaled");
    inner = values.Emit("Erf", {scaled}, base + "_erf");
  }
  const std::string plus = values.Emit("Add", {inner, Number(values, 1)}, base + "_plus");
  const std::string product = values.Emit("Mul", {x, plus}, base + "_product");
  return values.Emit("Mul", {product, Number(values, 0.5f)}, base);
}

// Operators of one input that ONNX has too.
const std::unordered_map<std::string, const char*>& SameOps() {
  static const std::unordered_map<std::string, const char*> kSame = {{"ABS", "Abs"},
                                                                     {"CEIL", "Ceil"},
                                                                     {"COS", "Cos"},
                                                                     {"ELU", "Elu"},
                                                                     {"EXP", "Exp"},
                                                                     {"FLOOR", "Floor"},
                                                                     {"LOG", "Log"},
                                                                     {"LOGICAL_NOT", "Not"},
                                                                     {"NEG", "Neg"},
                                                                     {"RELU", "Relu"},
                                                                     {"ROUND", "Round"},
                                                                     {"SIGN", "Sign"},
                                                                     {"SIN", "Sin"},
                                                                     {"SQRT", "Sqrt"},
                                                                     {"TANH", "Tanh"},
                                                                     {"LOGISTIC", "Sigmoid"},
                                                                     {"HARD_SWISH", "HardSwish"}};
  return kSame;
}

std::string UnaryResult(TfliteValues& values, const TfliteOp& op, const std::string& x,
                        const std::string& base) {
  const std::string& type = op.type;
  if (const auto same = SameOps().find(type); same != SameOps().end()) {
    return values.Emit(same->second, {x}, base);
  }
  if (type == "RELU6") return Clip(values, x, 0, 6, base);
  if (type == "RELU_N1_TO_1") return Clip(values, x, -1, 1, base);
  if (type == "RELU_0_TO_1") return Clip(values, x, 0, 1, base);
  if (type == "SQUARE") return values.Emit("Mul", {x, x}, base);
  if (type == "RSQRT") {
    return values.Emit("Reciprocal", {values.Emit("Sqrt", {x}, base + "_root")}, base);
  }
  if (type == "LEAKY_RELU") {
    return values.Emit("LeakyRelu", {x}, base, FloatAttribute("alpha", op.Option<float>(0)));
  }
  if (type == "ZEROS_LIKE") {
    const std::string zero = values.Cast(Number(values, 0), values.HeldType(op.outputs[0]));
    return values.Emit("Expand", {zero, values.Emit("Shape", {x}, base + "_shape")}, base);
  }
  return Gelu(values, x, op.Option<uint8_t>(0) != 0, base);
}

void Unary(TfliteValues& values, const TfliteOp& op) {
  const int64_t output = op.outputs[0];
  const Form form = values.CommonForm({op.inputs[0]}, output);
  const std::string x = values.Get(op.inputs[0], form);
  values.Define(output, form, UnaryResult(values, op, x, values.BaseOf(output)));
}

// floor(a / b), or what is left. Of floats in double as TensorFlow Lite does: 1 / 0.1f is 9 and a
// bit. Of integers the rest has the sign of b (Mod); ONNX's Div cuts towards zero.
std::string Floored(TfliteValues& values, const TfliteOp& op, std::string a, std::string b,
                    const std::string& base) {
  const bool is_rest = op.type == "FLOOR_MOD";
  if (!values.HoldsFloats(op.inputs[0])) {
    const std::string rest = values.Emit("Mod", {a, b}, is_rest ? base : base + "_floor_rest");
    if (is_rest) return rest;
    return values.Emit("Div", {values.Emit("Sub", {a, rest}, base + "_floor_whole"), b},
                       base + "_floor");
  }
  a = values.Cast(a, DType::kFloat64);
  b = values.Cast(b, DType::kFloat64);
  std::string made =
      values.Emit("Floor", {values.Emit("Div", {a, b}, base + "_floor_quotient")}, base + "_floor");
  if (is_rest) {
    made = values.Emit("Sub", {a, values.Emit("Mul", {made, b}, base + "_whole")}, base);
  }
  return values.Cast(made, DType::kFloat32);
}

const std::unordered_map<std::string, const char*>& SameBinaryOps() {
  static const std::unordered_map<std::string, const char*> kSame = {
      {"ADD", "Add"},         {"SUB", "Sub"},
      {"MUL", "Mul"},         {"DIV", "Div"},
      {"POW", "Pow"},         {"MAXIMUM", "Max"},
      {"MINIMUM", "Min"},     {"EQUAL", "Equal"},
      {"LESS", "Less"},       {"LESS_EQUAL", "LessOrEqual"},
      {"GREATER", "Greater"}, {"GREATER_EQUAL", "GreaterOrEqual"},
      {"LOGICAL_AND", "And"}, {"LOGICAL_OR", "Or"},
      {"PRELU", "PRelu"}};
  return kSame;
}

std::string BinaryResult(TfliteValues& values, const TfliteOp& op, const std::string& a,
                         const std::string& b, const std::string& base) {
  const std::string& type = op.type;
  if (const auto same = SameBinaryOps().find(type); same != SameBinaryOps().end()) {
    return values.Emit(same->second, {a, b}, base);
  }
  if (type == "NOT_EQUAL") {
    return values.Emit("Not", {values.Emit("Equal", {a, b}, base + "_equal")}, base);
  }
  if (type == "SQUARED_DIFFERENCE") {
    const std::string difference = values.Emit("Sub", {a, b}, base + "_difference");
    return values.Emit("Mul", {difference, difference}, base);
  }
  return Floored(values, op, a, b, base);
}

// Add, Sub, Mul and Div have an activation function as their first option.
int64_t ActivationOf(const TfliteOp& op) {
  const bool has_one = op.type == "ADD" || op.type == "SUB" || op.type == "MUL" || op.type == "DIV";
  return has_one ? op.Option<int8_t>(0) : 0;
}

void Binary(TfliteValues& values, const TfliteOp& op) {
  const int64_t output = op.outputs[0];
  const Form form = values.CommonForm(op.inputs, output);
  const std::string a = values.Aligned(op.inputs[0], form), b = values.Aligned(op.inputs[1], form);
  const std::string base = values.BaseOf(output);
  values.Define(output, form,
                Activated(values, ActivationOf(op), BinaryResult(values, op, a, b, base), base));
}

void Sum(TfliteValues& values, const TfliteOp& op) {
  const int64_t output = op.outputs[0];
  const Form form = values.CommonForm(op.inputs, output);
  std::vector<std::string> all;
  for (const int64_t input : op.inputs) all.push_back(values.Aligned(input, form));
  values.Define(output, form, values.Emit("Sum", all, values.BaseOf(output)));
}

void Select(TfliteValues& values, const TfliteOp& op) {
  const int64_t condition = op.inputs[0], output = op.outputs[0];
  // The older operator takes a condition of one axis as one for each row.
  values.Require(op.type == "SELECT_V2" || values.tensor(condition).rank() != 1 ||
                     values.tensor(output).rank() == 1,
                 "a condition for each row is not supported");
  const Form form = values.CommonForm(op.inputs, output);
  values.Define(output, form,
                values.Emit("Where",
                            {values.Aligned(condition, form), values.Aligned(op.inputs[1], form),
                             values.Aligned(op.inputs[2], form)},
                            values.BaseOf(output)));
}

// Complex numbers are pairs along an axis of their own, the last (RFFT2D).
void TakePart(TfliteValues& values, const TfliteOp& op) {
  const std::string pairs = values.Plain(op.inputs[0]), base = values.BaseOf(op.outputs[0]);
  const std::string part =
      values.AddInitializer(base + "_part", Tensor::Scalar<int64_t>(op.type == "IMAG" ? 1 : 0));
  values.DefinePlain(op, values.Emit("Gather", {pairs, part}, base, IntAttribute("axis", -1)));
}

void TakeMagnitude(TfliteValues& values, const TfliteOp& op) {
  values.DefinePlain(
      op, values.Emit("ReduceL2", {values.Plain(op.inputs[0])}, values.BaseOf(op.outputs[0]),
                      IntsAttribute("axes", {-1}) + IntAttribute("keepdims", 0)));
}

void Convert(TfliteValues& values, const TfliteOp& op) {
  const int64_t input = op.inputs[0], output = op.outputs[0];
  const Form form = values.CommonForm({input}, output);
  if (values.tensor(input).dtype == DType::kComplex64) return TakePart(values, op);
  const auto has_codes = [&](int64_t t) { return values.HasCodes(t) || values.HasWideCodes(t); };
  values.Require(!has_codes(input) && !has_codes(output),
                 "casts of codes as they are stored are not supported");
  values.Define(output, form, values.Cast(values.Get(input, form), values.tensor(output).dtype));
}

// Constants stay as they are stored; what is quantized is held as float anyway.
void Dequantize(TfliteValues& values, const TfliteOp& op) {
  const int64_t input = op.inputs[0], output = op.outputs[0];
  const TfliteTensor& stored = values.tensor(input);
  if (values.IsConstant(input) || stored.is_quantized()) return values.DefineAs(output, input);
  Convert(values, op);
}

void Quantize(TfliteValues& values, const TfliteOp& op) {
  const Form form = values.CommonForm({op.inputs[0]}, op.outputs[0]);
  values.Require(values.tensor(op.outputs[0]).is_quantized(), "the output has no scale");
  values.Define(op.outputs[0], form, values.Get(op.inputs[0], form));
}

constexpr TfliteOpInfo kOps[] = {
    {"ABS", Unary},
    {"CEIL", Unary},
    {"COS", Unary},
    {"ELU", Unary},
    {"EXP", Unary},
    {"FLOOR", Unary},
    {"GELU", Unary},
    {"HARD_SWISH", Unary},
    {"LEAKY_RELU", Unary},
    {"LOG", Unary},
    {"LOGICAL_NOT", Unary},
    {"LOGISTIC", Unary},
    {"NEG", Unary},
    {"RELU", Unary},
    {"RELU6", Unary},
    {"RELU_0_TO_1", Unary},
    {"RELU_N1_TO_1", Unary},
    {"ROUND", Unary},
    {"RSQRT", Unary},
    {"SIGN", Unary},
    {"SIN", Unary},
    {"SQRT", Unary},
    {"SQUARE", Unary},
    {"TANH", Unary},
    {"ZEROS_LIKE", Unary},
    {"ADD", Binary, 2},
    {"DIV", Binary, 2},
    {"EQUAL", Binary, 2},
    {"FLOOR_DIV", Binary, 2},
    {"FLOOR_MOD", Binary, 2},
    {"GREATER", Binary, 2},
    {"GREATER_EQUAL", Binary, 2},
    {"LESS", Binary, 2},
    {"LESS_EQUAL", Binary, 2},
    {"LOGICAL_AND", Binary, 2},
    {"LOGICAL_OR", Binary, 2},
    {"MAXIMUM", Binary, 2},
    {"MINIMUM", Binary, 2},
    {"MUL", Binary, 2},
    {"NOT_EQUAL", Binary, 2},
    {"POW", Binary, 2},
    {"PRELU", Binary, 2},
    {"SQUARED_DIFFERENCE", Binary, 2},
    {"SUB", Binary, 2},
    {"ADD_N", Sum},
    {"SELECT", Select, 3},
    {"SELECT_V2", Select, 3},
    {"CAST", Convert},
    {"DEQUANTIZE", Dequantize},
    {"DENSIFY", Dequantize},
    {"QUANTIZE", Quantize},
    {"REAL", TakePart},
    {"IMAG", TakePart},
    {"COMPLEX_ABS", TakeMagnitude},
};

}  // namespace

std::string Activated(TfliteValues& values, int64_t activation, const std::string& value,
                      const std::string& base) {
  if (activation == 0) return value;
  values.Require(values.MakesFloats(), "activation functions of integers are not supported");
  switch (activation) {
    case 1:
      return values.Emit("Relu", {value}, base + "_relu");
    case 2:
      return Clip(values, value, -1, 1, base + "_relu_n1_to_1");
    case 3:
      return Clip(values, value, 0, 6, base + "_relu6");
    default:
      values.Refuse("activation function " + std::to_string(activation) + " is not supported");
  }
}

std::span<const TfliteOpInfo> TfliteElementwiseOps() { return kOps; }

}  // namespace pared
