#include "evaluator/metrics.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <set>
#include <utility>

#include "base/error.h"
#include "evaluator/half_floats.h"
#include "evaluator/matmul_nbits.h"
#include "evaluator/small_formats.h"

namespace pared {
namespace {

// Which inputs of an operator are weights where they are constant, and where their zero points lie.
struct WeightInput {
  std::string_view op_type;
  size_t input;
  size_t zero_point = 0;  // 0: the operator has none for it
};

constexpr std::array<WeightInput, 29> kWeightInputs = {{{"Conv", 1},
                                                        {"ConvTranspose", 1},
                                                        {"Gemm", 0},
                                                        {"Gemm", 1},
                                                        {"MatMul", 0},
                                                        {"MatMul", 1},
                                                        {"LSTM", 1},
                                                        {"LSTM", 2},
                                                        {"GRU", 1},
                                                        {"GRU", 2},
                                                        {"RNN", 1},
                                                        {"RNN", 2},
                                                        {"Gather", 0},
                                                        {"ConvInteger", 1, 3},
                                                        {"MatMulInteger", 1, 3},
                                                        {"QLinearConv", 3, 5},
                                                        {"QLinearMatMul", 3, 5},
                                                        {"Einsum", 0},
                                                        {"Einsum", 1},
                                                        {"FusedConv", 1},
                                                        {"FusedGemm", 0},
                                                        {"FusedGemm", 1},
                                                        {"FusedMatMul", 0},
                                                        {"FusedMatMul", 1},
                                                        {"DynamicQuantizeMatMul", 1, 3},
                                                        {"DynamicQuantizeLSTM", 1, 9},
                                                        {"DynamicQuantizeLSTM", 2, 11},
                                                        {"MatMulIntegerToFloat", 1, 5},
                                                        {"QGemm", 3, 5}}};

bool PassesThrough(const Node& node) {
  static constexpr std::array<std::string_view, 8> kOps = {
      "Identity", "Reshape", "Transpose", "Unsqueeze",
      "Squeeze",  "Flatten", "Cast",      "QuantizeLinear"};
  return std::find(kOps.begin(), kOps.end(), node.op_type) != kOps.end();
}

bool IsEightBit(DType dtype) { return dtype == DType::kInt8 || dtype == DType::kUInt8; }

bool IsFloating(DType dtype) {
  return dtype == DType::kFloat32 || dtype == DType::kFloat16 || dtype == DType::kFloat64 ||
         dtype == DType::kBFloat16;
}

struct Constant {
  const Tensor* tensor = nullptr;  // null: the value is none
  std::string name;
  const Graph* graph = nullptr;
  bool is_dequantized = false;  // the rest says how
  const Tensor* zero_point = nullptr;
  int64_t axis = 0;
  int64_t block_size = 0;  // 0: zero points are of all elements, or one an index of `axis`
};

template <class T>
std::vector<T> CodesOf(const Tensor& tensor) {
  if constexpr (std::is_same_v<T, float>) {
    return DecodeSmall(tensor);
  } else {
    const std::span<const T> codes = tensor.data<T>();
    return {codes.begin(), codes.end()};
  }
}

// How many of the codes are the zero point that holds at their place.
template <class T>
int64_t CountCodes(std::span<const T> codes, const Constant& constant) {
  std::vector<T> zeros = {T{0}};
  if (constant.zero_point != nullptr && constant.zero_point->dtype() == constant.tensor->dtype()) {
    zeros = CodesOf<T>(*constant.zero_point);
  }
  const Shape& shape = constant.tensor->shape();
  const int64_t rank = constant.tensor->rank();
  const int64_t axis = constant.axis < 0 ? constant.axis + rank : constant.axis;
  if (zeros.size() <= 1 || axis < 0 || axis >= rank) {
    return std::count(codes.begin(), codes.end(), zeros.empty() ? T{0} : zeros[0]);
  }
  size_t outer = 1, inner = 1;
  for (size_t i = 0; i < shape.size(); ++i) {
    if (std::cmp_less(i, axis)) outer *= static_cast<size_t>(shape[i]);
    if (std::cmp_greater(i, axis)) inner *= static_cast<size_t>(shape[i]);
  }
  const size_t along = static_cast<size_t>(shape[static_cast<size_t>(axis)]);
  const size_t block = static_cast<size_t>(std::max<int64_t>(constant.block_size, 1));
  const bool is_blocked = constant.block_size > 0;
  const size_t blocks = (along + block - 1) / block;
  if (zeros.size() != (is_blocked ? outer * blocks * inner : along)) return 0;  // no model to run
  int64_t count = 0;
  for (size_t row = 0; row < outer * along; ++row) {
    const std::span<const T> alike = codes.subspan(row * inner, inner);
    if (!is_blocked) {
      count += std::count(alike.begin(), alike.end(), zeros[row % along]);
      continue;
    }
    const T* zero = zeros.data() + (row / along * blocks + row % along / block) * inner;
    for (size_t i = 0; i < inner; ++i) count += alike[i] == zero[i] ? 1 : 0;
  }
  return count;
}

// Both signs of a floating zero are zeros: all bits but the sign are clear.
template <class T, class Bits>
int64_t CountFloatZeros(std::span<const T> elements) {
  int64_t zeros = 0;
  for (const T& element : elements) {
    zeros += static_cast<Bits>(std::bit_cast<Bits>(element) << 1) == 0 ? 1 : 0;
  }
  return zeros;
}

int64_t CountZeros(const Constant& constant) {
  const Tensor& tensor = *constant.tensor;
  switch (tensor.dtype()) {
    case DType::kFloat32:
      return CountFloatZeros<float, uint32_t>(tensor.data<float>());
    case DType::kFloat64:
      return CountFloatZeros<double, uint64_t>(tensor.data<double>());
    case DType::kFloat16:
      return CountFloatZeros<Float16, uint16_t>(tensor.data<Float16>());
    case DType::kBFloat16:
      return CountFloatZeros<BFloat16, uint16_t>(tensor.data<BFloat16>());
    case DType::kInt8:
      return CountCodes(tensor.data<int8_t>(), constant);
    case DType::kUInt8:
      return CountCodes(tensor.data<uint8_t>(), constant);
    default:
      return CountCodes<float>(DecodeSmall(tensor), constant);
  }
}

class WeightFinder {
 public:
  std::vector<WeightInfo> Find(const Graph& graph) {
    Visit(graph);
    return std::move(weights_);
  }

 private:
  // A graph and who makes its values; those around a subgraph stand before it.
  struct Scope {
    const Graph* graph;
    GraphIndex index;
  };

  void Visit(const Graph& graph) {
    scopes_.push_back({&graph, GraphIndex(graph)});
    for (const Node& node : graph.nodes) {
      for (const WeightInput& rule : kWeightInputs) {
        if (rule.op_type == node.op_type && rule.input < node.inputs.size()) Consider(node, rule);
      }
      if (node.op_type == "MatMulNBits") ConsiderBlocks(node);
      for (const auto& [name, attribute] : node.attributes) {
        if (const GraphPtr* sub = std::get_if<GraphPtr>(&attribute.value)) Visit(**sub);
      }
    }
    scopes_.pop_back();
  }

  enum class LookedUp { kValues, kCodes, kScales };

  // Codes and scales that are looked up alike and multiplied are one table: Cast(c) * s.
  LookedUp WhatIsLookedUp(const Node& gather) const {
    const bool is_lookup = gather.op_type == "Gather" && gather.domain.empty() &&
                           gather.inputs.size() == 2 && !gather.outputs.empty();
    if (!is_lookup) return LookedUp::kValues;
    const GraphIndex& index = scopes_.back().index;
    const auto reader = [&](const std::string& value, const char* op_type) -> const Node* {
      const std::vector<const Node*>& all = index.consumers(value);
      return all.size() == 1 && all[0]->op_type == op_type ? all[0] : nullptr;
    };
    const Node* cast = reader(gather.outputs[0], "Cast");
    if (cast != nullptr && cast->outputs.empty()) return LookedUp::kValues;
    const std::string& factor = cast == nullptr ? gather.outputs[0] : cast->outputs[0];
    const Node* product = reader(factor, "Mul");
    if (product == nullptr || product->inputs.size() != 2) return LookedUp::kValues;
    const Node* other = index.producer(product->inputs[product->inputs[0] == factor ? 1 : 0]);
    if (cast == nullptr && other != nullptr && other->op_type == "Cast") {
      other = index.producer(other->inputs.at(0));
    }
    const bool is_pair = other != nullptr && other->op_type == "Gather" &&
                         other->inputs.size() == 2 && other->inputs[1] == gather.inputs[1];
    if (!is_pair) return LookedUp::kValues;
    const Constant codes = Trace((cast == nullptr ? *other : gather).inputs[0]);
    if (codes.tensor == nullptr || !IsEightBit(codes.tensor->dtype())) return LookedUp::kValues;
    return cast == nullptr ? LookedUp::kScales : LookedUp::kCodes;
  }

  void Consider(const Node& node, const WeightInput& rule) {
    Constant constant = Trace(node.inputs[rule.input]);
    if (constant.tensor == nullptr || constant.tensor->rank() < 1) return;
    const LookedUp looked_up = WhatIsLookedUp(node);
    if (looked_up == LookedUp::kScales) return;
    constant.is_dequantized = constant.is_dequantized || looked_up == LookedUp::kCodes;
    if (rule.zero_point > 0 && rule.zero_point < node.inputs.size()) {
      constant.is_dequantized = true;
      constant.zero_point = Trace(node.inputs[rule.zero_point]).tensor;
      const bool has_rows = node.op_type.ends_with("Conv") || node.op_type == "ConvInteger" ||
                            (node.op_type == "QGemm" && node.Int("transB", 0) != 0);
      constant.axis = has_rows ? 0 : -1;
    }
    // Bytes that nothing dequantizes are data to look up, not weights.
    const DType dtype = constant.tensor->dtype();
    const bool is_int8 = IsEightBit(dtype) && (constant.is_dequantized || rule.zero_point > 0);
    const bool is_small = IsSmallFormat(dtype) && constant.is_dequantized;
    if (!is_int8 && !is_small && !IsFloating(dtype)) return;
    if (!seen_.emplace(constant.graph, constant.name).second) return;
    weights_.push_back(
        {NodeLabel(node), constant.name, constant.tensor->count(), CountZeros(constant), is_int8});
  }

  // Codes packed in bytes, whatever their number of bits.
  void ConsiderBlocks(const Node& node) {
    std::vector<const Tensor*> inputs;
    for (const std::string& input : node.inputs) inputs.push_back(Trace(input).tensor);
    const Constant codes = Trace(node.inputs[1]);
    if (codes.tensor == nullptr || inputs.size() < 3 || inputs[2] == nullptr) return;
    if (!seen_.emplace(codes.graph, codes.name).second) return;
    const std::vector<float> weight = ExpandMatMulNBits(node, inputs);
    weights_.push_back({NodeLabel(node), codes.name, std::ssize(weight),
                        std::count(weight.begin(), weight.end(), 0.0f), node.Int("bits", 4) == 8});
  }

  // Follows `value` upwards to a constant, from the innermost scope that knows the name.
  Constant Trace(std::string value) const {
    Constant constant;
    for (size_t depth = scopes_.size(); depth > 0;) {
      const Scope& scope = scopes_[depth - 1];
      if (const Initializer* found = scope.graph->initializers.find(value)) {
        constant.tensor = &found->tensor;
        constant.name = value;
        constant.graph = scope.graph;
        return constant;
      }
      const Node* producer = scope.index.producer(value);
      if (producer == nullptr) {
        --depth;
        continue;
      }
      if (producer->op_type == "Constant") {
        constant.tensor = producer->TensorOf("value");
        constant.name = value;
        constant.graph = scope.graph;
        return constant;
      }
      if (producer->op_type == "DequantizeLinear") {
        constant.is_dequantized = true;
        constant.axis = producer->Int("axis", 1);
        constant.block_size = producer->Int("block_size", 0);
        constant.zero_point =
            producer->inputs.size() > 2 ? Trace(producer->inputs[2]).tensor : nullptr;
      } else if (!PassesThrough(*producer)) {
        return {};
      }
      if (producer->inputs.empty()) return {};
      value = producer->inputs[0];
    }
    return {};
  }

  std::vector<Scope> scopes_;
  std::vector<WeightInfo> weights_;
  std::set<std::pair<const Graph*, std::string>> seen_;
};

template <class T>
std::vector<float> Cast(std::span<const T> values) {
  std::vector<float> floats(values.size());
  for (size_t i = 0; i < values.size(); ++i) {
    if constexpr (std::is_same_v<T, Float16> || std::is_same_v<T, BFloat16>) {
      floats[i] = ToFloat(values[i]);
    } else {
      floats[i] = static_cast<float>(values[i]);
    }
  }
  return floats;
}

}  // namespace

std::vector<WeightInfo> MeasureWeights(const Model& model) {
  return WeightFinder().Find(model.graph);
}

bool HoldsIndices(DType dtype) {
  return dtype == DType::kInt64 || dtype == DType::kInt32 || dtype == DType::kBool ||
         dtype == DType::kString;
}

std::vector<float> ToFloats(const Tensor& tensor) {
  switch (tensor.dtype()) {
    case DType::kFloat32:
      return Cast(tensor.data<float>());
    case DType::kFloat16:
      return Cast(tensor.data<Float16>());
    case DType::kBFloat16:
      return Cast(tensor.data<BFloat16>());
    case DType::kFloat64:
      return Cast(tensor.data<double>());
    case DType::kInt64:
      return Cast(tensor.data<int64_t>());
    case DType::kInt32:
      return Cast(tensor.data<int32_t>());
    case DType::kInt8:
      return Cast(tensor.data<int8_t>());
    case DType::kUInt8:
      return Cast(tensor.data<uint8_t>());
    case DType::kBool:
      return Cast(tensor.data<bool>());
    default:
      throw Error(ErrorCode::kUnsupported,
                  std::string("cannot compare outputs of type ") + DTypeName(tensor.dtype()));
  }
}

int64_t ArgMax(std::span<const float> values) {
  int64_t best = -1;
  for (size_t i = 0; i < values.size(); ++i) {
    if (std::isnan(values[i])) continue;
    if (best < 0 || values[i] > values[static_cast<size_t>(best)]) best = static_cast<int64_t>(i);
  }
  return best;
}

void FidelitySums::Add(std::span<const float> reference, std::span<const float> output) {
  const bool fits = reference.size() == output.size();
  for (size_t i = 0; i < reference.size(); ++i) {
    if (!std::isfinite(reference[i])) continue;
    double y = fits ? static_cast<double>(output[i]) : 0.0;
    if (!std::isfinite(y)) {
      has_nonfinite = true;
      y = 0;
    }
    const double x = static_cast<double>(reference[i]);
    reference_squares += x * x;
    squares += y * y;
    products += x * y;
    error_squares += (x - y) * (x - y);
  }
}

void FidelitySums::Add(const FidelitySums& other) {
  reference_squares += other.reference_squares;
  squares += other.squares;
  products += other.products;
  error_squares += other.error_squares;
  has_nonfinite = has_nonfinite || other.has_nonfinite;
}

double FidelitySums::SqnrDb() const {
  constexpr double kLimitDb = 200;
  if (error_squares == 0) return kLimitDb;
  if (reference_squares == 0) return -kLimitDb;
  return std::clamp(10 * std::log10(reference_squares / error_squares), -kLimitDb, kLimitDb);
}

double FidelitySums::Cosine() const {
  if (reference_squares == 0 && squares == 0) return 1;
  if (reference_squares == 0 || squares == 0) return 0;
  return products / std::sqrt(reference_squares) / std::sqrt(squares);
}

double Percentile(std::span<const double> sorted, double share) {
  PARED_CHECK(!sorted.empty());
  const double position = share * static_cast<double>(sorted.size() - 1);
  const size_t below = static_cast<size_t>(position);
  const size_t above = std::min(below + 1, sorted.size() - 1);
  const double fraction = position - static_cast<double>(below);
  return sorted[below] + fraction * (sorted[above] - sorted[below]);
}

}  // namespace pared
