// Products as TensorFlow Lite operators.

#include <algorithm>

#include "model/permute.h"
#include "model/tflite_lowering.h"
#include "model/tflite_weights.h"

namespace pared {
namespace {

using Kind = TfliteOptionsKind;
using Codes = TfliteLowering::Codes;

// What is multiplied: with its last two axes exchanged where that is there and the plain order not.
struct Factor {
  int64_t t = -1;
  bool is_adjoint = false;
};

Factor FactorOf(TfliteLowering& l, const std::string& value) {
  const int64_t rank = l.RankOf(value);
  const std::vector<AxisOrder> orders = l.OrdersOf(value);
  AxisOrder swapped = PlainOrder(rank);
  std::swap(swapped[swapped.size() - 2], swapped[swapped.size() - 1]);
  const auto has = [&](const AxisOrder& order) {
    return std::ranges::find(orders, order) != orders.end();
  };
  const bool is_adjoint = has(swapped) && !has(PlainOrder(rank));
  const AxisOrder order = is_adjoint ? swapped : PlainOrder(rank);
  return {l.in_codes() ? l.Codes8(value, order) : l.Get(value, order), is_adjoint};
}

// y = x * w + bias of rows.
void MultiplyRows(TfliteLowering& l, const AxisOrder& input, const AxisOrder& weight,
                  const std::string& bias) {
  const std::string& w = l.Input(1);
  const Shape shape = Permuted(l.ShapeOf(w), weight);  // [outputs, inputs]
  const TfliteWeights weights = MakeWeights(l, w, bias, weight[0], weight, shape);
  const int64_t x = l.Get(l.Input(0), input);
  const AxisOrder order = PlainOrder(l.RankOf(l.node().outputs[0]));
  const TfliteOptions options = {Kind::kFullyConnected,
                                 {{0, l.activation()}, {2, std::ssize(input) != 2}}};
  l.Define(order,
           l.EmitResult("FULLY_CONNECTED", {x, weights.weight, weights.bias}, order, options));
}

bool IsConstantMatrix(const TfliteLowering& l, const std::string& value) {
  return l.RankOf(value) == 2 && (l.Constant(value) != nullptr || l.StoredCodes(value));
}

void AddBias(TfliteLowering& l, int64_t product, const std::string& bias) {
  const AxisOrder order = PlainOrder(l.RankOf(l.node().outputs[0]));
  l.Define(order, l.EmitResult("ADD", {product, l.Aligned(bias, order)}, order,
                               {Kind::kAdd, {{0, l.activation()}}}));
}

void LowerMatMul(TfliteLowering& l) {
  const int64_t left = l.RankOf(l.Input(0)), right = l.RankOf(l.Input(1));
  l.Require(left >= 2 && right >= 2, "a product with a vector");
  if (IsConstantMatrix(l, l.Input(1))) return MultiplyRows(l, PlainOrder(left), {1, 0}, l.bias());
  const bool is_plain = l.bias().empty() && l.activation() == 0;
  if (!is_plain || !l.HasCodes(l.Input(0)) || !l.HasCodes(l.Input(1))) l.LeaveCodes();
  const Factor a = FactorOf(l, l.Input(0)), b = FactorOf(l, l.Input(1));
  const AxisOrder order = PlainOrder(l.RankOf(l.node().outputs[0]));
  const TfliteOptions options = {Kind::kBatchMatMul, {{0, a.is_adjoint}, {1, b.is_adjoint}}};
  const int64_t product = l.EmitResult("BATCH_MATMUL", {a.t, b.t}, order, options);
  if (is_plain) return l.Define(order, product);
  if (l.bias().empty()) {
    return l.Define(order, l.EmitResult("ADD", {product, l.AddFloat(0)}, order,
                                        {Kind::kAdd, {{0, l.activation()}}}));
  }
  AddBias(l, product, l.bias());
}

// Codes of activations that are found while the model runs: what the operator does with floats and
// a weight of int8.
void LowerDynamicMatMul(TfliteLowering& l) {
  const Tensor* codes = l.Constant(l.Input(1));
  const bool is_matrix = codes != nullptr && codes->rank() == 2;
  const std::string zero_point = l.HasInput(3) ? l.node().inputs[3] : "";
  auto stored = is_matrix ? l.MakeStored(*codes, l.Input(2), zero_point, 1) : std::nullopt;
  l.Require(SuitsCodes(stored, 1), "a weight that is computed, no matrix or not symmetric");
  l.Require(!l.HasInput(4) || l.bias().empty(), "two biases");
  const std::string bias = l.HasInput(4) ? l.node().inputs[4] : l.bias();
  const int64_t columns = codes->shape()[1], rank = l.RankOf(l.Input(0));
  const auto floats = BiasFloats(l, bias, columns);
  l.Require(floats.has_value(), "a bias that is computed");
  stored->tensor = Permuted(stored->tensor, {1, 0});
  stored->axis = 0;
  const int64_t added =
      l.AddConstant(l.result() + "/bias", Tensor::Make<float>({columns}, *floats));
  const AxisOrder order = PlainOrder(rank);
  const TfliteOptions options = {Kind::kFullyConnected,
                                 {{0, l.activation()}, {2, rank != 2}, {3, true}}};
  const int64_t weight = l.AddCodes(l.Input(1), *stored);
  l.Define(order,
           l.EmitResult("FULLY_CONNECTED", {l.Plain(l.Input(0)), weight, added}, order, options));
}

void LowerGemm(TfliteLowering& l) {
  const Node& node = l.node();
  const float alpha = node.Float("alpha", 1), beta = node.Float("beta", 1);
  const bool left = node.Int("transA", 0) != 0, right = node.Int("transB", 0) != 0;
  const AxisOrder a = left ? AxisOrder{1, 0} : AxisOrder{0, 1};
  const std::string bias = l.HasInput(2) ? node.inputs[2] : "";
  l.Require(l.RankOf(node.outputs[0]) == 2, "a Gemm of other than matrices");
  const int64_t outputs = l.ShapeOf(node.outputs[0])[1];
  bool is_row = bias.empty();
  if (!bias.empty()) {
    const Shape shape = l.ShapeOf(bias);
    is_row = BiasFloats(l, bias, outputs).has_value() &&
             (shape.empty() || shape.size() == 1 || shape[0] == 1);
  }
  if (is_row && alpha == 1 && beta == 1 && IsConstantMatrix(l, l.Input(1))) {
    return MultiplyRows(l, a, right ? AxisOrder{0, 1} : AxisOrder{1, 0}, bias);
  }
  l.LeaveCodes();
  int64_t x = l.Get(l.Input(0), a);
  if (alpha != 1) x = l.Emit("MUL", {x, l.AddFloat(alpha)}, l.tensor(x).shape, x, {Kind::kMul, {}});
  const Shape shape = l.ShapeOf(node.outputs[0]);
  int64_t made = l.Emit("BATCH_MATMUL", {x, l.Plain(l.Input(1))}, shape, x,
                        {Kind::kBatchMatMul, {{1, right}}});
  int64_t added = bias.empty() ? l.AddFloat(0) : l.Aligned(bias, {0, 1});
  if (beta != 1 && !bias.empty()) {
    added =
        l.Emit("MUL", {added, l.AddFloat(beta)}, l.tensor(added).shape, added, {Kind::kMul, {}});
  }
  l.Define({0, 1}, l.EmitResult("ADD", {made, added}, {0, 1}, {Kind::kAdd, {{0, l.activation()}}}));
}

constexpr TfliteLoweringInfo kOps[] = {
    {"MatMul", LowerMatMul, Codes::kComputed, true},
    {"DynamicQuantizeMatMul", LowerDynamicMatMul, Codes::kNever, true},
    {"Gemm", LowerGemm, Codes::kComputed, true},
};

}  // namespace

std::span<const TfliteLoweringInfo> LowerMatMulOps() { return kOps; }

}  // namespace pared
