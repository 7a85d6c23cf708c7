// Integer products with constant weights run on packed kernels: equal, bit for bit, to the same
// operators with the weights as inputs, which the public ONNX cases test and which run plain loops.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <type_traits>
#include <vector>

#include "evaluator/executor.h"
#include "evaluator/fuse.h"
#include "tests/testing/models.h"
#include "tests/testing/random_tensor.h"

namespace pared {
namespace {

using testing::ElementsAre;

template <class T>
Tensor RandomTensor(const Shape& shape, uint64_t seed) {
  const double low = std::is_same_v<T, uint8_t> ? 0 : std::is_same_v<T, int8_t> ? -128 : -2;
  const double high = std::is_same_v<T, uint8_t> ? 255 : std::is_same_v<T, int8_t> ? 127 : 2;
  return Random(seed).Uniform<T>(shape, low, high);
}

std::vector<std::byte> Bytes(const Tensor& tensor) {
  return {tensor.bytes().begin(), tensor.bytes().end()};
}

struct Operand {
  std::string name;
  Tensor value;
};

// `text` with `operands` as inputs of the model, or as initializers.
Model WithOperands(const std::string& text, const std::vector<Operand>& operands, bool constant) {
  Model model = ParseText(text);
  for (const Operand& operand : operands) {
    if (constant) {
      model.graph.initializers.set(operand.name,
                                   Initializer{.tensor = operand.value, .unknown = {}});
    } else {
      ValueInfo info;
      info.name = operand.name;
      info.dtype = operand.value.dtype();
      model.graph.inputs.push_back(info);
    }
  }
  return model;
}

void ExpectPackedIsPlain(const std::string& text, const Tensor& x,
                         const std::vector<Operand>& operands) {
  std::vector<Tensor> inputs = {x};
  for (const Operand& operand : operands) inputs.push_back(operand.value);
  const Tensor plain =
      Executor(WithOperands(text, operands, false), {.fuse = false}).Run(inputs).at(0);
  const Model packed = WithOperands(text, operands, true);
  for (const int64_t threads : {1, 2}) {
    const Tensor y = Executor(packed, {.threads = threads}).Run({x}).at(0);
    EXPECT_EQ(y.dtype(), plain.dtype());
    ASSERT_EQ(y.shape(), plain.shape());
    EXPECT_EQ(Bytes(y), Bytes(plain)) << threads << " threads";
  }
}

TEST(IntegerProduct, ConvIntegerByHand) {
  // x - 1: 1 2 / 3 4. Weights - 5: -4 -3 / -2 -1. -4 - 6 - 6 - 4 = -20.
  const Model model = ModelFromText(R"(g (uint8[1,1,2,2] x) => (int32[1,1,1,1] y)
    <uint8[1,1,2,2] w = {1,2,3,4}, uint8 xz = {1}, uint8 wz = {5}>
    { y = ConvInteger(x, w, xz, wz) })");
  const Tensor y = Executor(model).Run({Tensor::Make<uint8_t>({1, 1, 2, 2}, {2, 3, 4, 5})}).at(0);
  EXPECT_THAT(y.data<int32_t>(), ElementsAre(-20));
}

TEST(IntegerProduct, ConvolutionsOfEveryTypeAndZeroPoint) {
  const std::string text =
      "g (uint8[2,6,9,11] x) => (int32[2,8,9,11] y) { y = ConvInteger <pads = [1,1,1,1]> "
      "(x, w, xz, wz) }";
  const Tensor x = RandomTensor<uint8_t>({2, 6, 9, 11}, 1);
  const Tensor unsigned_w = RandomTensor<uint8_t>({8, 6, 3, 3}, 2);
  const Tensor signed_w = RandomTensor<int8_t>({8, 6, 3, 3}, 3);
  const Operand xz{"xz", Tensor::Scalar<uint8_t>(77)};
  ExpectPackedIsPlain(text, x, {{"w", unsigned_w}, xz, {"wz", Tensor::Scalar<uint8_t>(143)}});
  ExpectPackedIsPlain(text, x, {{"w", unsigned_w}, xz, {"wz", Tensor::Scalar<uint8_t>(0)}});
  ExpectPackedIsPlain(text, x, {{"w", signed_w}, xz, {"wz", Tensor::Scalar<int8_t>(0)}});
  ExpectPackedIsPlain(text, x, {{"w", signed_w}, xz, {"wz", RandomTensor<int8_t>({8}, 4)}});
}

TEST(IntegerProduct, ConvolutionsWithGroupsStridesAndDilations) {
  ExpectPackedIsPlain(
      "g (uint8[1,8,12,10] x) => (int32[1,8,5,3] y) "
      "{ y = ConvInteger <group = 4, strides = [2,3], dilations = [1,2], pads = [0,1,0,1]> "
      "(x, w, xz, wz) }",
      RandomTensor<uint8_t>({1, 8, 12, 10}, 5),
      {{"w", RandomTensor<uint8_t>({8, 2, 3, 3}, 6)},
       {"xz", Tensor::Scalar<uint8_t>(200)},
       {"wz", Tensor::Scalar<uint8_t>(100)}});
}

TEST(IntegerProduct, SignedActivations) {
  ExpectPackedIsPlain(
      "g (int8[1,3,8] x) => (int32[1,4,6] y) { y = ConvInteger(x, w, xz) }",
      RandomTensor<int8_t>({1, 3, 8}, 7),
      {{"w", RandomTensor<int8_t>({4, 3, 3}, 8)}, {"xz", Tensor::Scalar<int8_t>(-9)}});
}

TEST(IntegerProduct, MatricesOfFewAndOfManyRows) {
  for (const int64_t rows : {1, 16, 17, 130}) {
    const std::string r = std::to_string(rows);
    ExpectPackedIsPlain("g (uint8[2," + r + ",37] x) => (int32[2," + r +
                            ",21] y) "
                            "{ y = MatMulInteger(x, w, xz, wz) }",
                        RandomTensor<uint8_t>({2, rows, 37}, 9),
                        {{"w", RandomTensor<uint8_t>({37, 21}, 10)},
                         {"xz", Tensor::Scalar<uint8_t>(3)},
                         {"wz", RandomTensor<uint8_t>({21}, 11)}});
  }
}

constexpr char kQLinear[] = "(x, xs, xz, w, ws, wz, ys, yz";

TEST(IntegerProduct, TheProfileNamesTheKernelOfTheRowsThatRan) {
  const Model model = WithOperands(
      "g (uint8[N,16] x) => (int32[N,8] y) <uint8 z = {3}> { y = MatMulInteger(x, w, z) }",
      {{"w", RandomTensor<int8_t>({16, 8}, 2)}}, true);
  const Executor executor(model);
  const auto kernel = [&](int64_t rows) {
    return executor.Profile({RandomTensor<uint8_t>({rows, 16}, 1)}, 1).at(0).kernel;
  };
  EXPECT_THAT(kernel(1), testing::StartsWith("gemv"));
  EXPECT_THAT(kernel(17), testing::Not(testing::StartsWith("gemv")));
  EXPECT_THAT(kernel(16), testing::StartsWith("gemv"));
}

TEST(IntegerProduct, QLinearFormsWithWeightsThatHaveZeroPoints) {
  const std::vector<Operand> common = {{"xs", Tensor::Scalar<float>(0.02F)},
                                       {"xz", Tensor::Scalar<uint8_t>(120)},
                                       {"wz", Tensor::Scalar<uint8_t>(131)},
                                       {"ys", Tensor::Scalar<float>(0.9F)},
                                       {"yz", Tensor::Scalar<uint8_t>(128)}};
  std::vector<Operand> conv = common, product = common;
  conv.push_back({"w", RandomTensor<uint8_t>({5, 4, 3, 3}, 12)});
  conv.push_back({"ws", Tensor::Make<float>({5}, {0.01F, 0.02F, 0.03F, 0.005F, 0.015F})});
  conv.push_back({"b", Tensor::Make<int32_t>({5}, {100, -5000, 0, 77, 31})});
  ExpectPackedIsPlain(
      std::string("g (uint8[1,4,10,10] x) => (uint8[1,5,8,8] y) { y = QLinearConv") + kQLinear +
          ", b) }",
      RandomTensor<uint8_t>({1, 4, 10, 10}, 13), conv);
  product.push_back({"w", RandomTensor<uint8_t>({30, 6}, 14)});
  product.push_back({"ws", Tensor::Scalar<float>(0.01F)});
  ExpectPackedIsPlain(
      std::string("g (uint8[40,30] x) => (uint8[40,6] y) { y = QLinearMatMul") + kQLinear + ") }",
      RandomTensor<uint8_t>({40, 30}, 15), product);
}

// What onnxruntime's quantize_dynamic writes.
constexpr char kDynamic[] = R"(g (float[1,4,9,9] x) => (float[1,6,9,9] y)
  <uint8 wz = {140}, float ws = {0.02}, float[6] b = {0.5,-1,2,0,-3,1}, int64[4] bs = {1,6,1,1}>
  { q, s, z = DynamicQuantizeLinear(x)
    i = ConvInteger <pads = [1,1,1,1]> (q, w, z, wz)
    c = Cast <to = 1> (i)
    scale = Mul(s, ws)
    m = Mul(c, scale)
    bias = Reshape(b, bs)
    a = Add(m, bias)
    y = Relu(a) })";

TEST(FuseDynamic, IsOneNodeAndTheSameBits) {
  Model model = ParseText(kDynamic);
  model.graph.initializers.set(
      "w", Initializer{.tensor = RandomTensor<uint8_t>({6, 4, 3, 3}, 16), .unknown = {}});
  const Tensor x = RandomTensor<float>({1, 4, 9, 9}, 17);
  const Model fused = FuseForExecution(model, {});
  const auto is_product = [](const Node& node) { return node.op_type == "ConvIntegerToFloat"; };
  const auto is_rest = [](const Node& node) {
    return node.op_type == "Cast" || node.op_type == "Add" || node.op_type == "Relu";
  };
  EXPECT_EQ(std::count_if(fused.graph.nodes.begin(), fused.graph.nodes.end(), is_product), 1);
  EXPECT_EQ(std::count_if(fused.graph.nodes.begin(), fused.graph.nodes.end(), is_rest), 0);
  EXPECT_EQ(Bytes(Executor(model).Run({x}).at(0)),
            Bytes(Executor(model, {.fuse = false}).Run({x}).at(0)));
}

TEST(FuseDynamic, DeclinesASumThatAnotherNodeReads) {
  Model model = ParseText(kDynamic);
  model.graph.initializers.set(
      "w", Initializer{.tensor = RandomTensor<uint8_t>({6, 4, 3, 3}, 16), .unknown = {}});
  ValueInfo info;
  info.name = "i";
  info.dtype = DType::kInt32;
  model.graph.outputs.push_back(info);
  const Model fused = FuseForExecution(model, {});
  EXPECT_TRUE(std::none_of(fused.graph.nodes.begin(), fused.graph.nodes.end(),
                           [](const Node& node) { return node.op_type == "ConvIntegerToFloat"; }));
}

}  // namespace
}  // namespace pared
