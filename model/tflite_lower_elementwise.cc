// Functions of one element, or of one of each input, as TensorFlow Lite operators.

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include "model/tflite_lowering.h"

namespace pared {
namespace {

using Kind = TfliteOptionsKind;
using Codes = TfliteLowering::Codes;

constexpr CodeScale kTanhScale = {1.0f / 128, 0};  // what TANH wants its codes to be

const std::map<std::string, const char*>& UnaryOps() {
  static const std::map<std::string, const char*> kOps = {
      {"Abs", "ABS"},   {"Ceil", "CEIL"},   {"Cos", "COS"},
      {"Exp", "EXP"},   {"Floor", "FLOOR"}, {"HardSwish", "HARD_SWISH"},
      {"Log", "LOG"},   {"Neg", "NEG"},     {"Not", "LOGICAL_NOT"},
      {"Relu", "RELU"}, {"Round", "ROUND"}, {"Sigmoid", "LOGISTIC"},
      {"Sign", "SIGN"}, {"Sin", "SIN"},     {"Sqrt", "SQRT"},
      {"Tanh", "TANH"}};
  return kOps;
}

// x of one input, in an order that it has, and the result of `emit(x)`.
template <class Function>
void Map(TfliteLowering& l, Function emit) {
  const std::string& x = l.Input(0);
  const AxisOrder order = l.CommonOrder({x}, l.RankOf(x));
  const int64_t t = l.Get(x, order);
  l.Define(order, emit(t, order));
}

// Whether the result only meets what it was made of in a product that has codes: x * Sigmoid(x).
bool IsGate(const TfliteLowering& l, const std::string& x) {
  if (l.CodesOf(x) == nullptr) return false;
  const Node* reader = l.AnyReader(l.node().outputs[0]);
  if (reader == nullptr || reader->op_type != "Mul") return false;
  const bool is_first = reader->inputs[0] == l.node().outputs[0];
  const std::string& other = reader->inputs[is_first ? 1 : 0];
  const Node* quantizer = l.OnlyReader(reader->outputs[0]);
  return l.CodesOf(other) != nullptr && quantizer != nullptr &&
         quantizer->op_type == "QuantizeLinear" && l.IsQuantizer(*quantizer);
}

void LowerUnary(TfliteLowering& l) {
  const std::string& op_type = l.node().op_type;
  const char* type = UnaryOps().at(op_type);
  const DType dtype = l.TypeOf(l.Input(0));
  const bool fits = dtype == DType::kFloat32 || (op_type == "Not" && dtype == DType::kBool) ||
                    (op_type == "Neg" && (dtype == DType::kInt32 || dtype == DType::kInt64));
  l.Require(fits, op_type + std::string(" of ") + DTypeName(dtype));
  if (!l.in_codes() && op_type == "Sigmoid" && IsGate(l, l.Input(0))) {
    const AxisOrder order = l.CommonOrder({l.Input(0)}, l.RankOf(l.Input(0)));
    const int64_t x = l.Codes8(l.Input(0), order);
    return l.DefineCodes(order, l.EmitCodes(type, {x}, l.tensor(x).shape, kUnitScale));
  }
  Map(l, [&](int64_t x, const AxisOrder& order) {
    if (!l.in_codes()) return l.EmitResult(type, {x}, order);
    // Sigmoid or Tanh, whose codes have a scale of their own.
    return l.EmitCodes(type, {x}, l.tensor(x).shape, op_type == "Tanh" ? kTanhScale : kUnitScale);
  });
}

void LowerElu(TfliteLowering& l) {
  l.Require(l.node().Float("alpha", 1) == 1, "an Elu whose alpha is not 1");
  Map(l, [&](int64_t x, const AxisOrder& order) { return l.EmitResult("ELU", {x}, order); });
}

void LowerLeakyRelu(TfliteLowering& l) {
  const float alpha = l.node().Float("alpha", 0.01f);
  Map(l, [&](int64_t x, const AxisOrder& order) {
    return l.EmitResult("LEAKY_RELU", {x}, order, {Kind::kLeakyRelu, {{0, alpha}}});
  });
}

void LowerGelu(TfliteLowering& l) {
  const bool is_approximate =
      l.node().String("approximate", "none") == "tanh" || l.node().op_type == "FastGelu";
  l.Require(!l.HasInput(1), "a bias of FastGelu");
  Map(l, [&](int64_t x, const AxisOrder& order) {
    return l.EmitResult("GELU", {x}, order, {Kind::kGelu, {{0, is_approximate}}});
  });
}

// Bounds by attributes before opset 11, by inputs since.
std::optional<float> Bound(const TfliteLowering& l, const char* attribute, size_t input) {
  if (l.node().attributes.contains(attribute)) return l.node().Float(attribute, 0);
  if (!l.HasInput(input)) return std::nullopt;
  const std::optional<float> number = l.Number(l.node().inputs[input]);
  l.Require(number.has_value(), "a Clip whose bounds are computed, or no floats");
  return number;
}

void LowerClip(TfliteLowering& l) {
  l.Require(l.TypeOf(l.Input(0)) == DType::kFloat32, "a Clip of integers");
  const std::optional<float> low = Bound(l, "min", 1), high = Bound(l, "max", 2);
  std::string type;
  if (low == 0.0f && !high) type = "RELU";
  if (low == 0.0f && high == 6.0f) type = "RELU6";
  if (low == -1.0f && high == 1.0f) type = "RELU_N1_TO_1";
  if (type.empty()) l.LeaveCodes();
  Map(l, [&](int64_t x, const AxisOrder& order) {
    if (!type.empty()) return l.EmitResult(type, {x}, order);
    if (low) x = l.Float("MAXIMUM", {x, l.AddFloat(*low)});
    return high ? l.Float("MINIMUM", {x, l.AddFloat(*high)}) : x;
  });
}

void LowerHardSigmoid(TfliteLowering& l) {
  const float alpha = l.node().Float("alpha", 0.2f), beta = l.node().Float("beta", 0.5f);
  Map(l, [&](int64_t x, const AxisOrder&) {
    const int64_t line = l.Plus(l.Times(x, l.AddFloat(alpha)), l.AddFloat(beta));
    return l.Float("MINIMUM", {l.Float("MAXIMUM", {line, l.AddFloat(0)}), l.AddFloat(1)});
  });
}

// log(1 + exp(x)), without overflow: max(x, 0) + log(1 + exp(-|x|)).
int64_t Softplus(TfliteLowering& l, int64_t x) {
  const int64_t small = l.Float("EXP", {l.Float("NEG", {l.Float("ABS", {x})})});
  const int64_t log = l.Float("LOG", {l.Plus(small, l.AddFloat(1))});
  return l.Plus(l.Float("RELU", {x}), log);
}

void LowerSoftplus(TfliteLowering& l) {
  const bool is_mish = l.node().op_type == "Mish";
  Map(l, [&](int64_t x, const AxisOrder&) {
    const int64_t soft = Softplus(l, x);
    return is_mish ? l.Times(x, l.Float("TANH", {soft})) : soft;
  });
}

void LowerSoftsign(TfliteLowering& l) {
  Map(l, [&](int64_t x, const AxisOrder&) {
    return l.Float("DIV", {x, l.Plus(l.Float("ABS", {x}), l.AddFloat(1))}, {Kind::kDiv, {}});
  });
}

// x * Sigmoid(alpha x)
void LowerQuickGelu(TfliteLowering& l) {
  const float alpha = l.node().Float("alpha", 1.702f);
  Map(l, [&](int64_t x, const AxisOrder&) {
    return l.Times(x, l.Float("LOGISTIC", {l.Times(x, l.AddFloat(alpha))}));
  });
}

void LowerReciprocal(TfliteLowering& l) {
  Map(l, [&](int64_t x, const AxisOrder&) {
    return l.EmitTyped("DIV", {l.AddFloat(1), x}, l.tensor(x).shape, DType::kFloat32,
                       {Kind::kDiv, {}});
  });
}

void LowerCast(TfliteLowering& l) {
  const DType from = l.TypeOf(l.Input(0)), to = l.TypeOf(l.node().outputs[0]);
  if (from == to) return l.DefineSame(l.Input(0));
  for (const DType dtype : {from, to}) {
    l.Require(ElementBits(dtype) >= 8 && dtype != DType::kFloat64 && TfliteTypeNumber(dtype),
              std::string("a Cast of ") + DTypeName(dtype));
  }
  Map(l, [&](int64_t x, const AxisOrder& order) {
    return l.EmitResult("CAST", {x}, order,
                        {Kind::kCast, {{0, *TfliteTypeNumber(from)}, {1, *TfliteTypeNumber(to)}}});
  });
}

struct Binary {
  const char* type;
  Kind options = Kind::kNone;
  bool takes_codes = false;
  std::vector<DType> types;
};

const std::map<std::string, Binary>& BinaryOps() {
  using enum DType;
  static const std::map<std::string, Binary> kOps = {
      {"Add", {"ADD", Kind::kAdd, true, {kFloat32, kInt32, kInt64}}},
      {"Sub", {"SUB", Kind::kSub, true, {kFloat32, kInt32, kInt64}}},
      {"Mul", {"MUL", Kind::kMul, true, {kFloat32, kInt32, kInt64}}},
      {"Div", {"DIV", Kind::kDiv, false, {kFloat32, kInt32}}},
      {"Pow", {"POW", Kind::kNone, false, {kFloat32}}},
      {"Max", {"MAXIMUM", Kind::kNone, false, {kFloat32, kInt32, kInt64}}},
      {"Min", {"MINIMUM", Kind::kNone, false, {kFloat32, kInt32, kInt64}}},
      {"PRelu", {"PRELU", Kind::kNone, true, {kFloat32}}},
      {"Equal", {"EQUAL", Kind::kNone, false, {kFloat32, kInt32, kInt64, kBool}}},
      {"Less", {"LESS", Kind::kNone, false, {kFloat32, kInt32, kInt64}}},
      {"LessOrEqual", {"LESS_EQUAL", Kind::kNone, false, {kFloat32, kInt32, kInt64}}},
      {"Greater", {"GREATER", Kind::kNone, false, {kFloat32, kInt32, kInt64}}},
      {"GreaterOrEqual", {"GREATER_EQUAL", Kind::kNone, false, {kFloat32, kInt32, kInt64}}},
      {"And", {"LOGICAL_AND", Kind::kNone, false, {kBool}}},
      {"Or", {"LOGICAL_OR", Kind::kNone, false, {kBool}}},
      {"Xor", {"NOT_EQUAL", Kind::kNone, false, {kBool}}},
      {"Mod", {"FLOOR_MOD", Kind::kNone, false, {kInt32, kInt64}}},
      {"Sum", {"ADD", Kind::kAdd, false, {kFloat32}}},
  };
  return kOps;
}

// One after the other where there are several.
void LowerBinary(TfliteLowering& l) {
  const Node& node = l.node();
  const Binary& op = BinaryOps().at(node.op_type);
  const DType dtype = l.TypeOf(l.Input(0));
  l.Require(std::ranges::find(op.types, dtype) != op.types.end(),
            node.op_type + std::string(" of ") + DTypeName(dtype));
  l.Require(node.Int("fmod", 0) == 0, "a Mod of C");
  l.Require(l.opset() >= 7, node.op_type + std::string(" of an opset before 7"));
  if (node.op_type == "PRelu") {
    const Shape x = l.ShapeOf(l.Input(0)), slope = l.ShapeOf(l.Input(1));
    l.Require(slope.empty() || slope.back() == 1 || slope.back() == x.back(),
              "a slope of " + ShapeText(slope) + " for values of " + ShapeText(x));
  }
  const auto has_codes = [&](const std::string& input) { return l.HasCodes(input); };
  if (!op.takes_codes || !std::ranges::all_of(node.inputs, has_codes)) l.LeaveCodes();
  const int64_t rank = l.RankOf(node.outputs[0]);
  const AxisOrder order = l.CommonOrder(node.inputs, rank);
  const auto operand = [&](const std::string& value) {
    return l.in_codes() ? l.Codes8(value, order) : l.Aligned(value, order);
  };
  int64_t made = operand(l.Input(0));
  TfliteOptions options = {op.options, {}};
  if (op.options != Kind::kNone) options.fields = {{0, l.activation()}};
  for (size_t i = 1; i < node.inputs.size(); ++i) {
    made = l.EmitResult(op.type, {made, operand(l.Input(i))}, order, options);
  }
  if (node.inputs.size() == 1) return l.DefineSame(l.Input(0));
  l.Define(order, made);
}

void LowerPow(TfliteLowering& l) {
  const std::optional<float> power = l.Number(l.Input(1));
  l.Require(l.TypeOf(l.Input(0)) == DType::kFloat32 && l.TypeOf(l.Input(1)) == DType::kFloat32,
            "a Pow of integers");
  const bool keeps_rank = l.RankOf(l.Input(0)) == l.RankOf(l.node().outputs[0]);
  if (power == 2.0f && keeps_rank) {
    return Map(l, [&](int64_t x, const AxisOrder&) { return l.Times(x, x); });
  }
  if (power == 0.5f && keeps_rank) {
    return Map(l, [&](int64_t x, const AxisOrder&) { return l.Float("SQRT", {x}); });
  }
  LowerBinary(l);
}

void LowerWhere(TfliteLowering& l) {
  const int64_t rank = l.RankOf(l.node().outputs[0]);
  const AxisOrder order = l.CommonOrder(l.node().inputs, rank);
  std::vector<int64_t> inputs;
  for (size_t i = 0; i < 3; ++i) inputs.push_back(l.Aligned(l.Input(i), order));
  l.Define(order, l.EmitResult("SELECT_V2", inputs, order));
}

constexpr TfliteLoweringInfo kOps[] = {
    {"Abs", LowerUnary},
    {"Ceil", LowerUnary},
    {"Cos", LowerUnary},
    {"Exp", LowerUnary},
    {"Floor", LowerUnary},
    {"HardSwish", LowerUnary},
    {"Log", LowerUnary},
    {"Neg", LowerUnary},
    {"Not", LowerUnary},
    {"Relu", LowerUnary},
    {"Round", LowerUnary},
    {"Sigmoid", LowerUnary, Codes::kComputed},
    {"Sign", LowerUnary},
    {"Sin", LowerUnary},
    {"Sqrt", LowerUnary},
    {"Tanh", LowerUnary, Codes::kComputed},
    {"Elu", LowerElu},
    {"LeakyRelu", LowerLeakyRelu, Codes::kComputed},
    {"Gelu", LowerGelu},
    {"FastGelu", LowerGelu},
    {"QuickGelu", LowerQuickGelu},
    {"Clip", LowerClip},
    {"HardSigmoid", LowerHardSigmoid},
    {"Softplus", LowerSoftplus},
    {"Mish", LowerSoftplus},
    {"Softsign", LowerSoftsign},
    {"Reciprocal", LowerReciprocal},
    {"Cast", LowerCast},
    {"CastLike", LowerCast},
    {"Add", LowerBinary, Codes::kComputed, true},
    {"Sub", LowerBinary, Codes::kComputed, true},
    {"Mul", LowerBinary, Codes::kComputed, true},
    {"Div", LowerBinary, Codes::kNever, true},
    {"PRelu", LowerBinary},
    {"Pow", LowerPow},
    {"Max", LowerBinary},
    {"Min", LowerBinary},
    {"Sum", LowerBinary, Codes::kNever, false},
    {"Equal", LowerBinary},
    {"Less", LowerBinary},
    {"LessOrEqual", LowerBinary},
    {"Greater", LowerBinary},
    {"GreaterOrEqual", LowerBinary},
    {"And", LowerBinary},
    {"Or", LowerBinary},
    {"Xor", LowerBinary},
    {"Mod", LowerBinary},
    {"Where", LowerWhere},
};

}  // namespace

std::span<const TfliteLoweringInfo> LowerElementwiseOps() { return kOps; }

}  // namespace pared
