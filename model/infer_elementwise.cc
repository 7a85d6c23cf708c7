// Operators whose output has the shape of an input, or of inputs broadcast together.

#include "model/infer_context.h"

namespace pared {
namespace {

std::optional<Dims> ShapeOf(const InferContext& c, size_t i) {
  const Dims* dims = c.dims(i);
  return dims == nullptr ? std::nullopt : std::optional<Dims>(*dims);
}

void LikeInput(InferContext& c) { c.Set(0, c.dtype(0), ShapeOf(c, 0)); }

// Where no axis is stated, the default of the opset may be one that a runtime corrects.
void LikeInputAlongAxis(InferContext& c) {
  LikeInput(c);
  const Dims* x = c.dims(0);
  if (x != nullptr && c.node.attributes.contains("axis")) c.Axis(c.node.Int("axis", 0), x->size());
}

void LikeInputAsBool(InferContext& c) { c.Set(0, DType::kBool, ShapeOf(c, 0)); }

void Identity(InferContext& c) {
  LikeInput(c);
  if (const Dims* elements = c.elements(0)) c.outputs[0].elements = *elements;
}

void Dropout(InferContext& c) {
  LikeInput(c);
  c.Set(1, c.opset < 10 ? c.dtype(0) : DType::kBool, ShapeOf(c, 0));
}

std::optional<Dims> BroadcastAll(const InferContext& c, size_t first) {
  std::optional<Dims> shape;
  for (size_t i = first; i < c.input_count(); ++i) {
    const Dims* dims = c.dims(i);
    if (dims == nullptr) return {};
    shape = shape.has_value() ? Broadcast(c, *shape, *dims) : *dims;
  }
  return shape;
}

DType FirstKnownDType(const InferContext& c, size_t first) {
  for (size_t i = first; i < c.input_count(); ++i) {
    if (c.dtype(i) != DType::kUndefined) return c.dtype(i);
  }
  return DType::kUndefined;
}

void Broadcasting(InferContext& c) { c.Set(0, FirstKnownDType(c, 0), BroadcastAll(c, 0)); }

void BroadcastingToBool(InferContext& c) { c.Set(0, DType::kBool, BroadcastAll(c, 0)); }

// The base decides the type; the exponent may have another.
void Pow(InferContext& c) { c.Set(0, c.dtype(0), BroadcastAll(c, 0)); }

void Where(InferContext& c) {
  c.Set(0, c.dtype(1) != DType::kUndefined ? c.dtype(1) : c.dtype(2), BroadcastAll(c, 0));
}

// Integer arithmetic on shapes: element by element where both sides are numbers.
template <class Compute>
void Arithmetic(InferContext& c, Compute compute) {
  Broadcasting(c);
  const auto a = c.numbers(0);
  const auto b = c.numbers(1);
  if (!a || !b || a->empty() || b->empty()) return;
  if (a->size() != b->size() && a->size() != 1 && b->size() != 1) return;
  Dims elements;
  for (size_t i = 0; i < std::max(a->size(), b->size()); ++i) {
    const std::optional<int64_t> value =
        compute((*a)[a->size() == 1 ? 0 : i], (*b)[b->size() == 1 ? 0 : i]);
    elements.push_back(value.has_value() ? Element(*value) : AnyDim());
  }
  c.outputs[0].elements = std::move(elements);
}

void Add(InferContext& c) {
  Arithmetic(c, [](int64_t a, int64_t b) -> std::optional<int64_t> {
    int64_t sum = 0;
    if (__builtin_add_overflow(a, b, &sum)) return {};
    return sum;
  });
}

void Sub(InferContext& c) {
  Arithmetic(c, [](int64_t a, int64_t b) -> std::optional<int64_t> {
    int64_t difference = 0;
    if (__builtin_sub_overflow(a, b, &difference)) return {};
    return difference;
  });
}

void Mul(InferContext& c) {
  Arithmetic(c, [](int64_t a, int64_t b) -> std::optional<int64_t> {
    int64_t product = 0;
    if (__builtin_mul_overflow(a, b, &product)) return {};
    return product;
  });
}

void Div(InferContext& c) {
  Arithmetic(c, [](int64_t a, int64_t b) -> std::optional<int64_t> {
    if (b == 0 || (a == INT64_MIN && b == -1)) return {};
    return a / b;
  });
}

DType DTypeAttribute(const InferContext& c, const std::string& name, DType fallback) {
  const int64_t number = c.node.Int(name, static_cast<int64_t>(fallback));
  if (number < 0 || number > static_cast<int64_t>(DType::kInt2)) {
    c.Fail("there is no element type " + std::to_string(number));
  }
  return static_cast<DType>(number);
}

void Cast(InferContext& c) {
  const DType to = DTypeAttribute(c, "to", DType::kUndefined);
  c.Set(0, to, ShapeOf(c, 0));
  const bool is_integer = to == DType::kInt64 || to == DType::kInt32;
  if (is_integer && c.elements(0) != nullptr) c.outputs[0].elements = *c.elements(0);
}

void CastLike(InferContext& c) { c.Set(0, c.dtype(1), ShapeOf(c, 0)); }

void RandomLike(InferContext& c) {
  c.Set(0, DTypeAttribute(c, "dtype", c.dtype(0)), ShapeOf(c, 0));
}

void Random(InferContext& c) {
  Dims dims;
  for (const int64_t dim : c.node.Ints("shape")) {
    if (dim < 0) c.Fail("shape has a dimension below 0");
    dims.push_back(Number(dim));
  }
  c.Set(0, DTypeAttribute(c, "dtype", DType::kFloat32), std::move(dims));
}

void QuantizeLinear(InferContext& c) {
  DType dtype = c.dtype(2);
  if (!c.has_input(2)) dtype = DTypeAttribute(c, "output_dtype", DType::kUndefined);
  if (!c.has_input(2) && dtype == DType::kUndefined) dtype = DType::kUInt8;
  c.Set(0, dtype, ShapeOf(c, 0));
}

void DequantizeLinear(InferContext& c) {
  const DType stated = DTypeAttribute(c, "output_dtype", DType::kUndefined);
  c.Set(0, stated != DType::kUndefined ? stated : c.dtype(1), ShapeOf(c, 0));
}

void DynamicQuantizeLinear(InferContext& c) {
  c.Set(0, DType::kUInt8, ShapeOf(c, 0));
  c.Set(1, DType::kFloat32, Dims());
  c.Set(2, DType::kUInt8, Dims());
}

// Y, and in training mode outputs of which only the type is certain.
void BatchNormalization(InferContext& c) {
  LikeInput(c);
  for (size_t i = 1; i < c.outputs.size(); ++i) c.Set(i, c.dtype(0), std::nullopt);
  const Dims* x = c.dims(0);
  const bool is_by_channel = c.opset >= 9 || c.node.Int("spatial", 1) != 0;
  if (x == nullptr || x->size() < 2 || !IsNumber((*x)[1]) || !is_by_channel) return;
  for (size_t i = 1; i < c.input_count(); ++i) {
    const Dims* parameter = c.dims(i);
    if (parameter == nullptr) continue;
    const bool is_list = parameter->size() == 1;
    if (is_list && (!IsNumber((*parameter)[0]) || (*parameter)[0].value == (*x)[1].value)) continue;
    c.Fail("input " + std::to_string(i) + " should have one number for each of the " +
           std::to_string((*x)[1].value) + " channels");
  }
}

void LayerNormalization(InferContext& c) {
  LikeInput(c);
  const Dims* x = c.dims(0);
  if (x == nullptr) return;
  Dims statistics = *x;
  for (size_t i = c.Axis(c.node.Int("axis", -1), x->size()); i < x->size(); ++i) {
    statistics[i] = Number(1);
  }
  for (size_t i = 1; i < c.outputs.size(); ++i) c.Set(i, DType::kFloat32, statistics);
}

}  // namespace

const InferTable& ElementwiseInference() {
  static const InferTable kTable = [] {
    InferTable table = {{"Identity", Identity},
                        {"Dropout", Dropout},
                        {"Pow", Pow},
                        {"Where", Where},
                        {"Add", Add},
                        {"Sub", Sub},
                        {"Mul", Mul},
                        {"Div", Div},
                        {"Cast", Cast},
                        {"CastLike", CastLike},
                        {"QuantizeLinear", QuantizeLinear},
                        {"DequantizeLinear", DequantizeLinear},
                        {"DynamicQuantizeLinear", DynamicQuantizeLinear},
                        {"BatchNormalization", BatchNormalization},
                        {"LayerNormalization", LayerNormalization}};
    for (const char* op : {"Abs",
                           "Acos",
                           "Acosh",
                           "Asin",
                           "Asinh",
                           "Atan",
                           "Atanh",
                           "BitwiseNot",
                           "Ceil",
                           "Celu",
                           "Clip",
                           "Cos",
                           "Cosh",
                           "CumProd",
                           "CumSum",
                           "Elu",
                           "Erf",
                           "Exp",
                           "Floor",
                           "Gelu",
                           "GroupNormalization",
                           "HardSigmoid",
                           "HardSwish",
                           "InstanceNormalization",
                           "LRN",
                           "LeakyRelu",
                           "Log",
                           "MeanVarianceNormalization",
                           "Mish",
                           "Neg",
                           "Not",
                           "PRelu",
                           "Reciprocal",
                           "Relu",
                           "ReverseSequence",
                           "RotaryEmbedding",
                           "Round",
                           "ScatterND",
                           "Selu",
                           "Shrink",
                           "Sigmoid",
                           "Sign",
                           "Sin",
                           "Sinh",
                           "Softplus",
                           "Softsign",
                           "Sqrt",
                           "Swish",
                           "Tan",
                           "Tanh",
                           "TensorScatter",
                           "ThresholdedRelu",
                           "Trilu"}) {
      table.emplace(op, LikeInput);
    }
    for (const char* op : {"Hardmax", "LogSoftmax", "LpNormalization", "RMSNormalization",
                           "Scatter", "ScatterElements", "Softmax"}) {
      table.emplace(op, LikeInputAlongAxis);
    }
    for (const char* op : {"BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Max", "Mean",
                           "Min", "Mod", "Sum"}) {
      table.emplace(op, Broadcasting);
    }
    for (const char* op :
         {"And", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Or", "Xor"}) {
      table.emplace(op, BroadcastingToBool);
    }
    for (const char* op : {"IsInf", "IsNaN"}) table.emplace(op, LikeInputAsBool);
    for (const char* op : {"Bernoulli", "EyeLike", "RandomNormalLike", "RandomUniformLike"}) {
      table.emplace(op, RandomLike);
    }
    for (const char* op : {"RandomNormal", "RandomUniform"}) table.emplace(op, Random);
    return table;
  }();
  return kTable;
}

}  // namespace pared
