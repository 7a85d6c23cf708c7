// What is joined to float products, and that results stay those of the operators one by one.

#include "evaluator/fuse_float.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "evaluator/executor.h"
#include "tests/testing/models.h"

namespace pared {
namespace {

using testing::ElementsAre;

Tensor RandomOf(const Shape& shape, uint32_t seed) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<float> uniform(-2, 2);
  std::vector<float> values(static_cast<size_t>(ElementCount(shape)));
  for (float& value : values) value = uniform(random);
  return Tensor::Make<float>(shape, std::move(values));
}

constexpr char kFloatConstants[] = R"(
  <float[4,2,1,1] w = {1,-2,0.5,3,-1,0.25,2,1}, float[4] cb = {1,-1,0.5,0},
   float[4,1,3,3] dw = {1,2,3,4,5,6,7,8,9,1,2,3,4,5,6,7,8,9,1,2,3,4,5,6,7,8,9,1,2,3,4,5,6,7,8,9},
   float[4] s = {1,2,0.5,-1}, float[4] t = {0,1,2,3}, float[4] m = {0.5,0,-1,1},
   float[4] v = {1,4,0.25,2}, float[1,4,1,1] pb = {1,2,3,4}, float[4,1,1] pc = {1,2,3,4},
   float[4,4] mw = {1,2,0,1,-1,0.5,2,1,0,1,-2,1,1,1,0.5,0}, float zero = {0}, float six = {6},
   float three = {3}, float[1] factor = {0.5}, float one = {1}, float half = {0.5},
   float two = {2}, float root = {1.41421356}, float eps = {0.00001}>)";

// The operators of the model after joining, each with its activation.
std::vector<std::string> Joined(const std::string& signature, const std::string& body) {
  const Model joined =
      FuseFloat(ModelFromText("g " + signature + kFloatConstants + "{" + body + "}"));
  std::vector<std::string> result;
  for (const Node& node : joined.graph.nodes) {
    const std::string activation = node.String("activation", "");
    result.push_back(activation.empty() ? node.op_type : node.op_type + "+" + activation);
  }
  return result;
}

// The largest difference between the model as it is run and its operators one by one.
double FusedError(const std::string& signature, const std::string& body,
                  const std::vector<Tensor>& inputs) {
  const Model model = ModelFromText("g " + signature + kFloatConstants + "{" + body + "}");
  ExecutorOptions unfused;
  unfused.fuse = false;
  const Tensor expected = Executor(model, unfused).Run(inputs)[0];
  const Tensor got = Executor(model).Run(inputs)[0];
  EXPECT_EQ(got.shape(), expected.shape());
  double error = 0;
  for (size_t i = 0; i < expected.data<float>().size(); ++i) {
    const double e = static_cast<double>(expected.data<float>()[i]);
    const double d = std::abs(static_cast<double>(got.data<float>()[i]) - e);
    error = std::max(error, d / std::max(1.0, std::abs(e)));
  }
  return error;
}

struct Case {
  const char* name;
  const char* signature;
  const char* body;
  std::vector<std::string> joined;
};

constexpr char kImage[] = "(float[2,2,5,7] x) => (float[2,4,5,7] y)";
constexpr char kRows[] = "(float[2,3,4] x) => (float[2,3,4] y)";

const std::vector<Case> kCases = {
    {"BatchNormClip",
     kImage,
     "c = Conv(x, w) n = BatchNormalization(c, s, t, m, v) y = Clip(n, zero, six)",
     {"FloatConv+Clip"}},
    {"BiasThenBatchNorm",
     kImage,
     "c = Conv(x, w, cb) y = BatchNormalization(c, s, t, m, v)",
     {"FloatConv"}},
    {"BiasOfRank4", kImage, "c = Conv(x, w) a = Add(c, pb) y = Relu(a)", {"FloatConv+Relu"}},
    {"BiasOfRank3", kImage, "c = Conv(x, w) a = Add(pc, c) y = Tanh(a)", {"FloatConv+Tanh"}},
    {"ScaleByAnElement",
     kImage,
     "c = Conv(x, w, cb) p = Mul(factor, c) y = Add(p, factor)",
     {"FloatConv"}},
    {"Residual",
     kImage,
     "c = Conv(x, w, cb) d = Conv(x, w) e = Relu(d) a = Add(e, c) y = Relu(a)",
     {"FloatConv+Relu", "FloatConv+Relu"}},
    {"ResidualMadeAfterTheProduct",
     kImage,
     "c = Conv(x, w) d = Conv(x, w, cb) y = Add(c, d)",
     {"Conv", "FloatConv"}},
    {"Silu", kImage, "c = Conv(x, w) g = Sigmoid(c) y = Mul(c, g)", {"FloatConv+Silu"}},
    {"LeakyRelu",
     kImage,
     "c = Conv(x, w) y = LeakyRelu <alpha = 0.3> (c)",
     {"FloatConv+LeakyRelu"}},
    {"HardSigmoid",
     kImage,
     "c = Conv(x, w) y = HardSigmoid <alpha = 0.3> (c)",
     {"FloatConv+HardSigmoid"}},
    {"HardSwishDividedLast",
     kImage,
     "c = Conv(x, w) p = Add(c, three) q = Clip(p, zero, six) r = Mul(c, q) y = Div(r, six)",
     {"FloatConv+HardSwish"}},
    {"HardSwishDividedFirst",
     kImage,
     "c = Conv(x, w) p = Add(three, c) q = Clip(p, zero, six) r = Div(q, six) y = Mul(r, c)",
     {"FloatConv+HardSwish"}},
    {"DepthwiseBatchNormClip",
     kImage,
     "e = Conv(x, w) d = Conv <group = 4, pads = [1,1,1,1]> (e, dw) "
     "n = BatchNormalization(d, s, t, m, v) y = Clip(n, zero, six)",
     {"Conv", "FloatConv+Clip"}},
    {"DepthwiseResidual",
     kImage,
     "e = Conv(x, w) d = Conv <group = 4, pads = [1,1,1,1]> (e, dw) y = Add(d, e)",
     {"Conv", "FloatConv"}},
    {"MatMulBias", kRows, "c = MatMul(x, mw) y = Add(c, cb)", {"FloatMatMul"}},
    {"Gelu",
     kRows,
     "p = MatMul(x, mw) c = Add(cb, p) d = Div(c, root) e = Erf(d) f = Add(e, one) "
     "g = Mul(c, f) y = Mul(g, half)",
     {"FloatMatMul+Gelu"}},
    {"GeluHalvedFirst",
     kRows,
     "c = MatMul(x, mw) h = Mul(c, half) d = Div(c, root) e = Erf(d) f = Add(e, one) y = Mul(h, f)",
     {"FloatMatMul+Gelu"}},
    {"LayerNorm",
     kRows,
     "a = ReduceMean <axes = [-1]> (x) d = Sub(x, a) p = Pow(d, two) q = ReduceMean <axes = [-1]> "
     "(p) r = Add(q, eps) e = Sqrt(r) n = Div(d, e) k = Mul(n, s) y = Add(k, t)",
     {"LayerNormalization"}},
    {"AddThatBroadcastsStays",
     kRows,
     "c = MatMul(x, mw) a = ReduceMean <axes = [-1]> (x) "
     "y = Add(c, a)",
     {"MatMul", "ReduceMean", "Add"}},
    {"TwoReaders",
     kRows,
     "c = MatMul(x, mw) r = Relu(c) t2 = Tanh(c) y = Add(r, t2)",
     {"MatMul", "Relu", "Tanh", "Add"}},
};

class FuseFloatTest : public ::testing::TestWithParam<Case> {};

TEST_P(FuseFloatTest, JoinsWhatFollows) {
  EXPECT_EQ(Joined(GetParam().signature, GetParam().body), GetParam().joined);
}

TEST_P(FuseFloatTest, ComputesWhatTheOperatorsDo) {
  const Shape shape = GetParam().signature == kRows ? Shape{2, 3, 4} : Shape{2, 2, 5, 7};
  EXPECT_LE(FusedError(GetParam().signature, GetParam().body, {RandomOf(shape, 1)}), 1e-5);
}

INSTANTIATE_TEST_SUITE_P(Cases, FuseFloatTest, ::testing::ValuesIn(kCases),
                         [](const auto& tested) { return std::string(tested.param.name); });

TEST(FuseFloat, AGraphOutputInBetweenStays) {
  EXPECT_THAT(Joined("(float[1,2,3,3] x) => (float[1,4,3,3] y, float[1,4,3,3] c)",
                     "c = Conv(x, w) y = Relu(c)"),
              ElementsAre("Conv", "Relu"));
}

TEST(FuseFloat, WeightsThatAreAnInputStay) {
  EXPECT_THAT(Joined("(float[1,2,3,3] x, float[4,2,1,1] k) => (float[1,4,3,3] y)",
                     "c = Conv(x, k) y = Relu(c)"),
              ElementsAre("Conv", "Relu"));
}

TEST(FuseFloat, AnEmptyGraphStays) {
  EXPECT_THAT(Joined("(float[1] x) => (float[1] x)", ""), ElementsAre());
}

// The cut of the work among threads must not show.
TEST(FloatExecutor, GivesTheSameBitsForAnyThreadCount) {
  const Model model = WithInitializer(
      WithInitializer(
          ModelFromText("g (float[1,8,33,29] x, float[70,1100] a) => (float[1,30,33,29] y, "
                        "float[70,130] p) <float[1] w = {0}, float[1] b = {0}> { c = Conv <pads = "
                        "[1,1,1,1]> (x, w) y = Relu(c) p = MatMul(a, b) }"),
          "w", RandomOf({30, 8, 3, 3}, 2)),
      "b", RandomOf({1100, 130}, 3));
  const std::vector<Tensor> inputs = {RandomOf({1, 8, 33, 29}, 4), RandomOf({70, 1100}, 5)};
  const auto run = [&](int64_t threads) {
    ExecutorOptions options;
    options.threads = threads;
    std::vector<std::vector<float>> result;
    for (const Tensor& tensor : Executor(model, options).Run(inputs)) {
      result.emplace_back(tensor.data<float>().begin(), tensor.data<float>().end());
    }
    return result;
  };
  const std::vector<std::vector<float>> alone = run(1);
  EXPECT_EQ(run(2), alone);
  EXPECT_EQ(run(4), alone);
}

}  // namespace
}  // namespace pared
