// INT8 operators: results written out, and equality with the same model run operator by operator in
// float, where a code may differ by one step: sums in another order fall on the other side of a
// tie.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <ostream>
#include <string>
#include <vector>

#include "evaluator/executor.h"
#include "evaluator/fuse.h"
#include "tests/testing/matchers.h"
#include "tests/testing/models.h"
#include "tests/testing/random_tensor.h"

namespace pared {
namespace {

using testing::ElementsAre;

template <class T>
std::vector<int> Codes(const Tensor& tensor) {
  const auto data = tensor.data<T>();
  return {data.begin(), data.end()};
}

Tensor RunOne(const Model& model, const std::vector<Tensor>& inputs, ExecutorOptions options = {}) {
  return Executor(model, options).Run(inputs).at(0);
}

int64_t CountFused(const Model& model) {
  const Model fused = FuseForExecution(model, {});
  return std::count_if(fused.graph.nodes.begin(), fused.graph.nodes.end(),
                       [](const Node& node) { return node.domain == "pared"; });
}

// Runs the model fused by one thread and two, and unfused. Expects equal shapes, equal bits of the
// fused runs, and codes that differ from the unfused ones by one at most, in `share` of them at
// most.
void ExpectFusedIsUnfused(const Model& model, const std::vector<Tensor>& inputs,
                          double share = 0.01) {
  EXPECT_GT(CountFused(model), 2);
  const Tensor fused = RunOne(model, inputs);
  const Tensor plain = RunOne(model, inputs, {.fuse = false});
  const Tensor parallel = RunOne(model, inputs, {.threads = 2});
  ASSERT_EQ(fused.shape(), plain.shape());
  ASSERT_EQ(fused.dtype(), DType::kUInt8);
  EXPECT_EQ(Codes<uint8_t>(fused), Codes<uint8_t>(parallel));
  const std::vector<int> a = Codes<uint8_t>(fused), b = Codes<uint8_t>(plain);
  int64_t different = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    EXPECT_LE(std::abs(a[i] - b[i]), 1) << "element " << i;
    different += a[i] != b[i] ? 1 : 0;
  }
  EXPECT_LE(static_cast<double>(different), share * static_cast<double>(a.size()) + 1);
}

// (real) 0.5 * (code - 10), as the models below quantize x.
constexpr char kX[] = " q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) ";
constexpr char kY[] = " y = QuantizeLinear(f, s, z) ";
constexpr char kScales[] = "float s = {0.05}, uint8 z = {100}, float ws = {0.01}, int8 wz = {0}";

Model Int8Model(const std::string& signature, const std::string& body,
                const std::string& more = "") {
  return ParseText("g " + signature + " <" + kScales + (more.empty() ? "" : ", ") + more + "> {" +
                   kX + body + kY + "}");
}

// A tile costs less than that many vectors where the weights are nearly all zeros.
TEST(Int8Ops, FewRowsTakeASparseKernelWhereItIsFaster) {
  if (SelectedIsa() == Isa::kReference) GTEST_SKIP() << "the reference has no sparse kernel";
  Random random(3);
  std::vector<int8_t> w(256 * 128);
  for (size_t i = 0; i < w.size(); ++i) w[i] = i / 128 * 31 % 64 == i % 64 ? 7 : 0;
  const auto kernel = [&](const std::string& rows, bool sparse, std::vector<int>& codes) {
    Model model = ParseText("g (float[" + rows + ",256] x) => (uint8[" + rows + ",128] y) <" +
                            kScales + ", int8[1] w = {0}> {" + kX +
                            "v = DequantizeLinear(w, ws, wz) f = MatMul(d, v)" + kY + "}");
    model.graph.initializers.set("w", {Tensor::Make<int8_t>({256, 128}, w), ""});
    const Executor executor(model, {.sparse = sparse});
    const Tensor x = Random(4).Normal({std::stoll(rows), 256}, 1);
    codes = Codes<uint8_t>(executor.Run({x}).at(0));
    for (const LayerStats& layer : executor.Profile({x}, 1)) {
      if (layer.op_type.find("MatMul") != std::string::npos) return layer.kernel;
    }
    return std::string("none");
  };
  std::vector<int> codes, dense;
  EXPECT_THAT(kernel("12", true, codes), testing::HasSubstr("sparse"));
  EXPECT_THAT(kernel("12", false, dense), testing::HasSubstr("gemv"));
  EXPECT_EQ(codes, dense);
  EXPECT_THAT(kernel("1", true, codes), testing::HasSubstr("gemv"));
}

// What is foreseen for unknown rows is not what few rows take.
TEST(Int8Ops, TheProfileNamesTheKernelOfTheRowsThatRan) {
  Random random(5);
  const auto kernels = [&](const std::string& declared, const std::vector<int64_t>& rows) {
    Model model = ParseText("g (float[" + declared + ",64] x) => (uint8[" + declared + ",32] y) <" +
                            kScales + ", int8[1] w = {0}> {" + kX +
                            "v = DequantizeLinear(w, ws, wz) f = MatMul(d, v)" + kY + "}");
    model.graph.initializers.set("w", {Random(6).Uniform<int8_t>({64, 32}, -128, 127), ""});
    const Executor executor(model);
    std::vector<std::string> names;
    for (const int64_t count : rows) {
      for (const LayerStats& layer : executor.Profile({random.Normal({count, 64}, 1)}, 2)) {
        if (layer.op_type.find("MatMul") != std::string::npos) {
          names.push_back(layer.kernel.substr(0, layer.kernel.find('_')));
        }
      }
    }
    return names;
  };
  const bool is_reference = SelectedIsa() == Isa::kReference;
  const std::string tile = is_reference ? "reference" : "dense";
  EXPECT_THAT(kernels("N", {1, 16, 17, 1, 200}), ElementsAre("gemv", "gemv", tile, "gemv", tile));
  EXPECT_THAT(kernels("1", {1}), ElementsAre("gemv"));
  EXPECT_THAT(kernels("40", {40}), ElementsAre(tile));
}

TEST(Int8Ops, ConvolutionByHand) {
  // Codes of x: 2 3 / 4 5 with zero point 1, so 1 2 3 4. Weights 1 2 / 3 -4 give 1 + 4 + 9 - 16 =
  // -2; with bias 12: 10. Scale 0.5 * 0.5 / 0.25 = 1, zero point 7: 17.
  const Model model = ModelFromText(R"(g (uint8[1,1,2,2] x) => (uint8[1,1,1,1] y)
    <float s = {0.5}, uint8 z = {1}, int8[1,1,2,2] w = {1,2,3,-4}, int32[1] b = {12},
     float bs = {0.25}, float ys = {0.25}, uint8 yz = {7}>
    { d = DequantizeLinear(x, s, z) v = DequantizeLinear(w, s) c = DequantizeLinear(b, bs)
      f = Conv(d, v, c) y = QuantizeLinear(f, ys, yz) })");
  EXPECT_THAT(Codes<uint8_t>(RunOne(model, {Tensor::Make<uint8_t>({1, 1, 2, 2}, {2, 3, 4, 5})})),
              ElementsAre(17));
}

TEST(Int8Ops, PaddingIsTheZeroPoint) {
  // Codes of x are all the zero point: every sum is 0, at the border too.
  const Model model = ModelFromText(R"(g (uint8[1,1,2,2] x) => (uint8[1,1,2,2] y)
    <float s = {0.5}, uint8 z = {100}, int8[1,1,3,3] w = {9,9,9,9,9,9,9,9,9}, uint8 yz = {7}>
    { d = DequantizeLinear(x, s, z) v = DequantizeLinear(w, s)
      f = Conv <pads = [1,1,1,1]> (d, v) y = QuantizeLinear(f, s, yz) })");
  EXPECT_THAT(
      Codes<uint8_t>(RunOne(model, {Tensor::Make<uint8_t>({1, 1, 2, 2}, {100, 100, 100, 100})})),
      ElementsAre(7, 7, 7, 7));
}

TEST(Int8Ops, SignedActivationsSaturateOnBothSides) {
  // Weights 127 and -127 times x = -128, -1, 0, 127 less zero point -1: -127, 0, 1, 128. At unit
  // scales all but 0 and 127 pass the ends -128 and 127.
  const Model model = ModelFromText(R"(g (int8[1,1,4] x) => (int8[1,2,4] y)
    <float s = {1}, int8 z = {-1}, int8[2,1,1] w = {127,-127}, int8 yz = {0}>
    { d = DequantizeLinear(x, s, z) v = DequantizeLinear(w, s) f = Conv(d, v)
      y = QuantizeLinear(f, s, yz) })");
  EXPECT_THAT(Codes<int8_t>(RunOne(model, {Tensor::Make<int8_t>({1, 1, 4}, {-128, -1, 0, 127})})),
              ElementsAre(-128, 0, 127, 127, 127, 0, -127, -128));
}

TEST(Int8Ops, MatrixProductRoundsHalfToEven) {
  // Sums 1, 2, 3, 5 times 0.5: 0.5 -> 0, 1, 1.5 -> 2, 2.5 -> 2.
  const Model model = ModelFromText(R"(g (uint8[4,1] x) => (uint8[4,1] y)
    <float s = {1}, uint8 z = {0}, int8[1,1] w = {1}, float ys = {2}>
    { d = DequantizeLinear(x, s, z) v = DequantizeLinear(w, s) f = MatMul(d, v)
      y = QuantizeLinear(f, ys, z) })");
  EXPECT_THAT(Codes<uint8_t>(RunOne(model, {Tensor::Make<uint8_t>({4, 1}, {1, 2, 3, 5})})),
              ElementsAre(0, 1, 2, 2));
}

TEST(Int8Ops, BiasBeyondTheAccumulatorGetsACoarserUnit) {
  // Bias 1000 in units of 0.5 * 1e-8 is 2e11, far past int32. y = 1000 / 10.
  const Model model = ModelFromText(R"(g (uint8[1,1] x) => (uint8[1,1] y)
    <float s = {0.5}, uint8 z = {0}, int8[1,1] w = {100}, float ws = {1e-8}, float[1] b = {1000},
     float ys = {10}>
    { d = DequantizeLinear(x, s, z) v = DequantizeLinear(w, ws) f = Gemm(d, v, b)
      y = QuantizeLinear(f, ys, z) })");
  EXPECT_THAT(Codes<uint8_t>(RunOne(model, {Tensor::Make<uint8_t>({1, 1}, {200})})),
              ElementsAre(100));
}

TEST(Int8Ops, SigmoidTableEqualsTheOperatorOnEveryCode) {
  const Model model = ModelFromText(R"(g (uint8[256] x) => (uint8[256] y)
    <float s = {0.05}, uint8 z = {128}, float ys = {0.00390625}, uint8 yz = {0}>
    { d = DequantizeLinear(x, s, z) f = Sigmoid(d) y = QuantizeLinear(f, ys, yz) })");
  std::vector<uint8_t> all(256);
  std::vector<int> expected(256);
  for (size_t i = 0; i < all.size(); ++i) {
    all[i] = static_cast<uint8_t>(i);
    const double real = 0.05 * (static_cast<double>(i) - 128);
    expected[i] = static_cast<int>(std::min(255.0, std::nearbyint(256 / (1 + std::exp(-real)))));
  }
  EXPECT_EQ(Codes<uint8_t>(RunOne(model, {Tensor::Make<uint8_t>({256}, std::move(all))})),
            expected);
}

TEST(Int8Ops, ConvolutionRefusesChannelsThatDoNotFit) {
  const Model model = ModelFromText(R"(g (uint8[1,C,H,W] x) => (uint8[1,1,h,w] y)
    <float s = {1}, uint8 z = {0}, int8[1,2,1,1] k = {1,1}>
    { d = DequantizeLinear(x, s, z) v = DequantizeLinear(k, s) [conv] f = Conv(d, v)
      y = QuantizeLinear(f, s, z) })");
  const Executor executor(model);
  EXPECT_THAT(
      [&] {
        executor.Run({Tensor::Make<uint8_t>({1, 3, 1, 1}, {1, 2, 3})});
      },
      ThrowsError(ErrorCode::kInvalidArgument, "Conv conv"));
}

// --- fused against unfused, over shapes at and beside the edges of tiles ---

struct ConvCase {
  const char* name;
  Shape x, w;
  const char* attributes;
};

void PrintTo(const ConvCase& c, std::ostream* os) { *os << c.name; }

class Int8Conv : public testing::TestWithParam<ConvCase> {};

TEST_P(Int8Conv, EqualsFloatOperators) {
  const ConvCase& c = GetParam();
  Random random(3);
  const std::string x = ShapeText(c.x);
  const std::string y = c.x.size() == 4 ? "[a,b,c,e]" : "[a,b,c]";
  Model model = Int8Model("(float" + x + " x) => (uint8" + y + " y)",
                          "v = DequantizeLinear(w, ws, wz) c = DequantizeLinear(b, bs)"
                          "f = Conv " +
                              std::string(c.attributes) + " (d, v, c)",
                          "float bs = {0.0005}");
  model = WithInitializer(model, "w", random.Uniform<int8_t>(c.w, -60, 60));
  model = WithInitializer(model, "b", random.Uniform<int32_t>({c.w[0]}, -900, 900));
  ExpectFusedIsUnfused(model, {random.Uniform<float>(c.x, -4, 6)});
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, Int8Conv,
    testing::Values(
        ConvCase{"pointwise", {1, 16, 8, 8}, {24, 16, 1, 1}, ""},
        ConvCase{"pointwise_batch", {3, 5, 7, 9}, {6, 5, 1, 1}, ""},
        ConvCase{"pointwise_batch_of_tiles", {3, 24, 14, 14}, {100, 24, 1, 1}, ""},
        ConvCase{"pointwise_batch_of_whole_tiles", {3, 24, 8, 16}, {100, 24, 1, 1}, ""},
        ConvCase{"pointwise_stride", {1, 8, 9, 9}, {8, 8, 1, 1}, "<strides = [2, 2]>"},
        ConvCase{"one_pixel", {1, 32, 1, 1}, {8, 32, 1, 1}, ""},
        ConvCase{"three_by_three", {1, 3, 13, 11}, {16, 3, 3, 3}, "<pads = [1, 1, 1, 1]>"},
        ConvCase{
            "uneven_pads", {2, 3, 10, 8}, {4, 3, 3, 3}, "<pads = [0, 1, 2, 1], strides = [2, 2]>"},
        ConvCase{"same_upper",
                 {1, 2, 10, 7},
                 {3, 2, 3, 3},
                 "<auto_pad = \"SAME_UPPER\", strides = [2, 2]>"},
        ConvCase{
            "dilated", {1, 4, 15, 15}, {4, 4, 3, 3}, "<dilations = [3, 2], pads = [3, 2, 3, 2]>"},
        ConvCase{"depthwise", {1, 20, 14, 14}, {20, 1, 3, 3}, "<group = 20, pads = [1, 1, 1, 1]>"},
        ConvCase{"depthwise_five", {2, 7, 9, 23}, {7, 1, 5, 5}, "<group = 7, pads = [2, 2, 2, 2]>"},
        ConvCase{"depthwise_stride",
                 {1, 9, 17, 17},
                 {9, 1, 3, 3},
                 "<group = 9, strides = [2, 2], pads = [0, 0, 1, 1]>"},
        ConvCase{"depthwise_multiplier",
                 {1, 6, 8, 8},
                 {12, 1, 3, 3},
                 "<group = 6, pads = [1, 1, 1, 1]>"},
        ConvCase{
            "depthwise_wide", {1, 3, 5, 130}, {3, 1, 3, 3}, "<group = 3, pads = [1, 1, 1, 1]>"},
        ConvCase{"grouped", {1, 12, 9, 9}, {8, 3, 3, 3}, "<group = 4, pads = [1, 1, 1, 1]>"},
        ConvCase{"one_axis", {2, 4, 70}, {6, 4, 5}, "<pads = [2, 2]>"},
        ConvCase{"larger_than_a_thread", {1, 64, 28, 28}, {40, 64, 3, 3}, "<pads = [1, 1, 1, 1]>"}),
    [](const auto& test) { return test.param.name; });

struct BodyCase {
  const char* name;
  const char* x;
  const char* body;     // from d to f
  double share = 0.01;  // of codes that may differ
};

void PrintTo(const BodyCase& c, std::ostream* os) { *os << c.name; }

class Int8Body : public testing::TestWithParam<BodyCase> {};

TEST_P(Int8Body, EqualsFloatOperators) {
  Random random(5);
  const std::string x = GetParam().x;
  const bool is_image = std::count(x.begin(), x.end(), ',') == 3;
  const std::string y = is_image ? "[a,b,c,e]" : "[a,b,c]";
  const Model model = Int8Model("(float" + x + " x) => (uint8" + y + " y)", GetParam().body,
                                "float t = {0.03}, uint8 u = {77}, float[1] half = {0.5}");
  const Shape shape = is_image ? Shape{2, 6, 9, 13} : Shape{3, 5, 6};
  ExpectFusedIsUnfused(model, {random.Uniform<float>(shape, -5, 7)}, GetParam().share);
}

// A second quantized value e, with parameters of its own.
#define PARED_E "m = Sin(x) p = QuantizeLinear(m, t, u) e = DequantizeLinear(p, t, u) "

// A mean of few codes often lies halfway between two, where float sums of reals fall on either
// side.
INSTANTIATE_TEST_SUITE_P(
    Bodies, Int8Body,
    testing::Values(
        BodyCase{"add", "[2,6,9,13]", PARED_E "f = Add(d, e)"},
        BodyCase{"add_relu", "[2,6,9,13]", PARED_E "a = Add(d, e) f = Relu(a)"},
        BodyCase{"sub", "[2,6,9,13]", PARED_E "f = Sub(d, e)"},
        BodyCase{"mul", "[3,5,6]", PARED_E "f = Mul(d, e)"},
        BodyCase{"squeeze_and_excite", "[2,6,9,13]",
                 "a = GlobalAveragePool(d) b = QuantizeLinear(a, t, u)"
                 "c = DequantizeLinear(b, t, u) k = MaxPool <kernel_shape = [1, 1]> (d)"
                 "l = QuantizeLinear(k, s, z) o = DequantizeLinear(l, s, z) f = Mul(o, c)"},
        BodyCase{"excite_first", "[2,6,9,13]",
                 "a = GlobalAveragePool(d) b = QuantizeLinear(a, t, u)"
                 "c = DequantizeLinear(b, t, u) k = MaxPool <kernel_shape = [1, 1]> (d)"
                 "l = QuantizeLinear(k, s, z) o = DequantizeLinear(l, s, z) f = Mul(c, o)"},
        BodyCase{"broadcast", "[3,5,6]",
                 "a = ReduceMax <axes = [1]> (x) b = QuantizeLinear(a, t, u)"
                 "c = DequantizeLinear(b, t, u) f = Add(d, c)"},
        BodyCase{"row_added", "[3,5,6]",
                 "a = ReduceMax <axes = [0, 1]> (x) b = QuantizeLinear(a, t, u)"
                 "c = DequantizeLinear(b, t, u) f = Add(d, c)"},
        BodyCase{"taken_from_a_row", "[3,5,6]",
                 "a = ReduceMax <axes = [0, 1]> (x) b = QuantizeLinear(a, t, u)"
                 "c = DequantizeLinear(b, t, u) f = Sub(c, d)"},
        BodyCase{"max_pool", "[2,6,9,13]",
                 "f = MaxPool <kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]> (d)"},
        BodyCase{"max_pool_ceil", "[2,6,9,13]",
                 "f = MaxPool <kernel_shape = [2, 2], strides = [2, 2], ceil_mode = 1> (d)"},
        BodyCase{"max_pool_five", "[2,6,9,13]",
                 "f = MaxPool <kernel_shape = [5, 5], pads = [2, 2, 2, 2]> (d)"},
        BodyCase{"max_pool_dilated", "[2,6,9,13]",
                 "f = MaxPool <kernel_shape = [3, 2], dilations = [2, 3]> (d)"},
        BodyCase{"average_pool", "[2,6,9,13]",
                 "f = AveragePool <kernel_shape = [3, 2], pads = [1, 0, 1, 1]> (d)", 0.1},
        BodyCase{"average_pool_counts_padding", "[2,6,9,13]",
                 "f = AveragePool <kernel_shape = [3, 3], pads = [1, 1, 1, 1], "
                 "count_include_pad = 1> (d)",
                 0.1},
        BodyCase{"concat_channels", "[2,6,9,13]",
                 PARED_E "a = MaxPool <kernel_shape = [1, 1]> (d) b = QuantizeLinear(a, s, z)"
                         "c = DequantizeLinear(b, s, z) k = MaxPool <kernel_shape = [1, 1]> (e)"
                         "l = QuantizeLinear(k, t, u) o = DequantizeLinear(l, t, u)"
                         "f = Concat <axis = 1> (c, o)"},
        BodyCase{"concat_rows", "[2,6,9,13]", PARED_E "f = Concat <axis = -2> (d, e)"},
        BodyCase{"split_channels", "[2,6,9,13]",
                 "a = MaxPool <kernel_shape = [1, 1]> (d) b = QuantizeLinear(a, s, z)"
                 "c = DequantizeLinear(b, s, z) k, l = Split <axis = 1> (c)"
                 "n = QuantizeLinear(k, s, z) o = DequantizeLinear(n, s, z)"
                 "v = QuantizeLinear(l, t, u) w = DequantizeLinear(v, t, u) f = Sub(o, w)"},
        BodyCase{"transpose", "[2,6,9,13]", "f = Transpose <perm = [3, 1, 0, 2]> (d)"},
        BodyCase{"resize", "[2,6,9,13]",
                 "k = Constant <value = float[4] {1, 1, 2, 2}> ()"
                 "a = MaxPool <kernel_shape = [1, 1]> (d) b = QuantizeLinear(a, s, z)"
                 "c = DequantizeLinear(b, s, z)"
                 "f = Resize <mode = \"nearest\", nearest_mode = \"floor\", "
                 "coordinate_transformation_mode = \"asymmetric\"> (c, , k)"},
        BodyCase{"hard_swish", "[2,6,9,13]",
                 "k = Constant <value = float {3}> () l = Constant <value = float {0}> ()"
                 "o = Constant <value = float {6}> () a = Add(d, k) b = Clip(a, l, o)"
                 "c = Mul(d, b) f = Div(c, o)"},
        BodyCase{"leaky_relu_after_half", "[3,5,6]", "a = Mul(d, half) f = LeakyRelu(a)"}),
    [](const auto& test) { return test.param.name; });

TEST(Int8Ops, MatrixProductsOfManyRowsEqualFloatOperators) {
  for (const int64_t rows : {1, 2, 16, 17, 64, 65, 130}) {
    Random random(7);
    Model model = Int8Model("(float[2," + std::to_string(rows) + ",48] x) => (uint8[a,b,c] y)",
                            "v = DequantizeLinear(w, ws, wz) f = MatMul(d, v)");
    model = WithInitializer(model, "w", random.Uniform<int8_t>({48, 37}, -60, 60));
    ExpectFusedIsUnfused(model, {random.Uniform<float>({2, rows, 48}, -4, 6)});
  }
}

TEST(Int8Ops, PrunedWeightsGiveTheSameCodes) {
  Random random(9);
  Tensor dense = random.Uniform<int8_t>({96, 128, 3, 3}, -60, 60);
  std::vector<int8_t> pruned(dense.data<int8_t>().begin(), dense.data<int8_t>().end());
  for (int8_t& code : pruned) code = random.Integer(0, 9) == 0 ? code : int8_t{0};
  Model model = Int8Model("(float[1,128,14,14] x) => (uint8[a,b,c,e] y)",
                          "v = DequantizeLinear(w, ws, wz) f = Conv <pads = [1, 1, 1, 1]> (d, v)");
  model = WithInitializer(model, "w", Tensor::Make<int8_t>({96, 128, 3, 3}, std::move(pruned)));
  ExpectFusedIsUnfused(model, {random.Uniform<float>({1, 128, 14, 14}, -4, 6)});
}

TEST(Int8Ops, FloatResultIsTheSumTimesItsScale) {
  // (3 - 1) * 5 * 0.5 * 0.25 = 1.25.
  const Model model = ModelFromText(R"(g (uint8[1,1] x) => (float[1,1] y)
    <float s = {0.5}, uint8 z = {1}, int8[1,1] w = {5}, float ws = {0.25}>
    { d = DequantizeLinear(x, s, z) v = DequantizeLinear(w, ws) y = MatMul(d, v) })");
  EXPECT_THAT(RunOne(model, {Tensor::Make<uint8_t>({1, 1}, {3})}).data<float>(),
              ElementsAre(1.25f));
}

}  // namespace
}  // namespace pared
