#include <gmock/gmock.h>

#include "evaluator/executor.h"
#include "tests/passes/run_pass.h"
#include "tests/testing/random_tensor.h"

namespace pared {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

PassResult Store(const Model& model, Json options = Json::object()) {
  return RunPass("quantize_weights", std::move(options), model);
}

constexpr const char* kSparseProduct = R"(g (float[1,4] x) => (float[1,2] y)
  <float[4,2] w = {0,0,3,0,0,0,0,-2}> { y = MatMul(x, w) })";

TEST(QuantizeWeights, HasAScaleForEachOutputChannelAndKeepsZeros) {
  const PassResult out = Store(ModelFromText(kSparseProduct));
  EXPECT_THAT(Elements(out.model, "w_quantized"), ElementsAre(0, 0, 127, 0, 0, 0, 0, -127));
  EXPECT_THAT(Elements(out.model, "w_scale"), ElementsAre(3.0f / 127, 2.0f / 127));
  EXPECT_THAT(OpTypes(out.model.graph), ElementsAre("DequantizeLinear", "MatMul"));
  EXPECT_EQ(out.report.at("quantized_weight_share"), 1.0);
}

// Where it stands among the inputs only because every initializer had to.
TEST(QuantizeWeights, StoresTheWeightsOfIrVersion3) {
  const PassResult out = Store(ModelFromText(R"(<ir_version: 3, opset_import: ["" : 9]>
    g (float[1,4] x, float[4,2] w) => (float[1,2] y)
    <float[4,2] w = {0,0,3,0,0,0,0,-2}> { y = MatMul(x, w) })"));
  EXPECT_THAT(Elements(out.model, "w_quantized"), ElementsAre(0, 0, 127, 0, 0, 0, 0, -127));
  EXPECT_EQ(out.model.graph.inputs.size(), 1u);
  EXPECT_FALSE(out.model.graph.initializers.contains("w"));
}

TEST(QuantizeWeights, FindsTheChannelsOfATransposedWeight) {
  const PassResult out = Store(ModelFromText(R"(g (float[1,4] x) => (float[1,2] y)
    <float[2,4] w = {0,3,0,0,0,0,0,-2}> { t = Transpose(w) y = MatMul(x, t) })"));
  EXPECT_THAT(Elements(out.model, "w_scale"), ElementsAre(3.0f / 127, 2.0f / 127));
  EXPECT_EQ(out.model.graph.nodes[0].Int("axis", -1), 0);
}

TEST(QuantizeWeights, TablesAreLookedUpAsCodes) {
  const PassResult out = Store(ModelFromText(R"(g (int64[2] ids) => (float[2,4] y)
    <float[3,4] table = {1,2,3,127, 254,-2,0,4, 0,0,0,0}> { y = Gather(table, ids) })"));
  EXPECT_THAT(OpTypes(out.model.graph), ElementsAre("Gather", "Gather", "Cast", "Mul"));
  EXPECT_FALSE(out.model.graph.initializers.contains("table"));
  EXPECT_THAT(Output(out.model, Tensor::Make<int64_t>({2}, {1, 2})),
              ElementsAre(254, -2, 0, 4, 0, 0, 0, 0));
}

TEST(QuantizeWeights, ATiedTableStaysOneTensor) {
  const PassResult out = Store(ModelFromText(R"(g (int64[1] ids) => (float[1,3] y)
    <float[3,4] table = {1,2,3,127, 254,-2,0,4, 0,0,0,127}>
    { e = Gather(table, ids) t = Transpose(table) y = MatMul(e, t) })"));
  EXPECT_THAT(Elements(out.model, "table_scale"), ElementsAre(1, 2, 1));
  EXPECT_EQ(out.model.graph.initializers.size(), 2u);
  EXPECT_THAT(Output(out.model, Tensor::Make<int64_t>({1}, {0})), ElementsAre(16143, 758, 16129));
}

// Columns of 16, each a block. Where the largest is 7, the scale 1 makes no error.
TEST(QuantizeWeights, FourBitsHaveAScaleForEachBlockAlongTheSum) {
  const PassResult out = Store(ModelFromText(R"(g (float[1,16] x) => (float[1,2] y)
    <float[16,2] w = {7,0, 6,0, 5,0, 4,0, 3,0, 2,0, 1,0, 0,0, -1,0, -2,0, -3,0, -4,0, -5,0, -6,0,
                      -7,14, 0,-2}> { y = MatMul(x, w) })"),
                               {{"bits", "4"}, {"block_size", 16}});
  EXPECT_THAT(Elements(out.model, "w_scale"), ElementsAre(1, 2));
  EXPECT_EQ(out.model.Opset(""), 21);
  const Tensor x =
      Tensor::Make<float>({1, 16}, {1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 10, 100});
  EXPECT_THAT(Output(out.model, x), ElementsAre(-63, -60));
}

TEST(QuantizeWeights, AWeightThatAnExcludedNodeSharesStaysFloat) {
  const PassResult out = Store(ModelFromText(R"(g (float[1,4] x) => (float[1,4] z)
    <float[4,4] w = {1,0,0,0,0,1,0,0,0,0,1,0,0,0,0,1}, float[4,4] v = {1,0,0,0,0,1,0,0,0,0,1,0,0,0,0,1}>
    { [first] a = MatMul(x, w) [second] b = MatMul(a, w) [third] z = MatMul(b, v) })"),
                               {{"exclude", {"second"}}});
  EXPECT_TRUE(out.model.graph.initializers.contains("w"));
  EXPECT_FALSE(out.model.graph.initializers.contains("v"));
  EXPECT_THAT(SkippedReason(out.report, "MatMul first"), HasSubstr("shares its weight"));
}

TEST(QuantizeWeights, StoresWeightsThatSubgraphsCaptureOrHold) {
  const PassResult out = Store(ModelFromText(R"(g (bool c, float[1,4] x) => (float[1,4] y)
    <float[4,4] w = {127,0,0,0,0,127,0,0,0,0,127,0,0,0,0,127}> {
      y = If (c) <then_branch = t () => (float[1,4] p) { p = MatMul(x, w) },
                  else_branch = e () => (float[1,4] q)
                    <float[4,4] v = {0,0,0,127,0,0,127,0,0,127,0,0,127,0,0,0}>
                    { q = MatMul(x, v) }> })"));
  EXPECT_THAT(OpTypes(out.model.graph), ElementsAre("DequantizeLinear", "If"));
  const Executor executor(out.model);
  const Tensor x = Tensor::Make<float>({1, 4}, {1, 2, 3, 4});
  const auto branch = [&](bool taken) {
    const Tensor y = executor.Run({Tensor::Scalar<bool>(taken), x})[0];
    return std::vector<float>(y.data<float>().begin(), y.data<float>().end());
  };
  EXPECT_THAT(branch(true), ElementsAre(127, 254, 381, 508));
  EXPECT_THAT(branch(false), ElementsAre(508, 381, 254, 127));
  EXPECT_EQ(out.report.at("quantized_weight_share"), 1.0);
}

TEST(QuantizeWeights, EachRowOfARecurrentLayerHasItsScale) {
  const PassResult out = Store(ModelFromText(R"(g (float[5,1,2] x) => (float[5,1,1,1] y)
    <float[1,4,2] w = {127,1,-12.7,1,1.27,1.27,0.127,0}, float[1,4,1] r = {127,12.7,1.27,-0.127}> {
      y, h, c = LSTM <hidden_size = 1> (x, w, r) })"));
  EXPECT_THAT(
      Elements(out.model, "w_scale"),
      ElementsAre(1, testing::FloatEq(0.1f), testing::FloatEq(0.01f), testing::FloatEq(0.001f)));
}

// A depthwise convolution of one tap, whose weight is stored as a vector, has nothing to gain.
TEST(QuantizeWeights, AVectorThatIsShownAsAWeightStays) {
  Model model = ModelFromText(R"(g (float[1,12,5,5] x) => (float[1,64] y)
    <float[12] w0 = {1,2,3,4,5,6,7,8,9,10,11,12}, int64[4] s = {12,1,1,1}, float[1] v = {0}>
    { w = Reshape(w0, s) [dw] h = Conv <group = 12> (x, w) p = GlobalAveragePool(h) f = Flatten(p)
      y = Gemm(f, v) })");
  model.graph.initializers.set("v", {Random(1).Normal({12, 64}, 1), ""});
  const PassResult out = RunPass("quantize_weights", {{"bits", "4"}}, model);
  EXPECT_THAT(SkippedReason(out.report, "Conv dw"), HasSubstr("smaller"));
  EXPECT_EQ(out.report.at("changed").size(), 1u);
}

// A scale a column for both matrices would make zeros of the first.
TEST(QuantizeWeights, AStackHasScalesAlongTheAxisThatLosesLeast) {
  const auto stored = [](float first, float second) {
    std::vector<float> w;
    for (int i = 0; i < 2 * 8 * 4; ++i) {
      w.push_back((i < 32 ? first : second) * static_cast<float>(i * 7 % 11 - 5));
    }
    return WithInitializer(
        ModelFromText(
            "g (float[2,3,8] x) => (float[2,3,4] y) <float[1] w = {0}> { y = MatMul(x, w) }"),
        "w", Tensor::Make<float>({2, 8, 4}, w));
  };
  const Model uneven = stored(0.001f, 100);
  const PassResult out = RunPass("quantize_weights", Json::object(), uneven);
  EXPECT_EQ(out.model.graph.nodes[0].Int("axis", -1), 0);
  const Tensor x = Random(1).Normal({2, 3, 8}, 1);
  const std::vector<float> want = Output(uneven, x), got = Output(out.model, x);
  for (size_t i = 0; i < want.size(); ++i) {
    EXPECT_NEAR(got[i], want[i], i < 12 ? 2e-4 : 20) << i;
  }
  const PassResult even = RunPass("quantize_weights", Json::object(), stored(1, 1));
  EXPECT_EQ(even.model.graph.nodes[0].Int("axis", -1), 2);
}

TEST(QuantizeWeights, AStackWithoutElementsIsLeftAlone) {
  Model model = ModelFromText(
      "g (float[2,5,0] x, float[4,64] z) => (float[2,5,4] y, float[4,64] v) "
      "<float[1] w = {0}, float[1] u = {0}> { [none] y = MatMul(x, w) v = MatMul(z, u) }");
  model.graph.initializers.set("w", {Tensor::Make<float>({2, 0, 4}, std::vector<float>()), ""});
  model.graph.initializers.set("u", {Random(1).Normal({64, 64}, 1), ""});
  const PassResult out = RunPass("quantize_weights", Json::object(), model);
  EXPECT_NE(SkippedReason(out.report, "MatMul none"), "");
}

TEST(QuantizeWeights, AModelWithNothingToStoreIsAnError) {
  const Model in = ModelFromText("g (float[2] x) => (float[2] y) { y = Relu(x) }");
  EXPECT_THAT([&] { Store(in); }, ThrowsError(ErrorCode::kInvalidArgument, ""));
}

TEST(QuantizeWeights, RaisingToFourBitsConvertsReductionsAndSplits) {
  const PassResult out = Store(
      ModelFromText(
          R"(g (float[1,16] x) => (float[1,1] y)
    <float[16,16] w = {)" +
          [] {
            std::string ones = "1";
            for (int i = 1; i < 256; ++i) ones += ",1";
            return ones;
          }() +
          R"(}> { p = MatMul(x, w) a, b = Split<axis = 1>(p) s = Add(a, b) y = ReduceMean<axes = [1]>(s) })"),
      {{"bits", "4"}, {"block_size", 16}});
  const Tensor x = Tensor::Make<float>({1, 16}, std::vector<float>(16, 0.5f));
  EXPECT_THAT(Output(out.model, x), ElementsAre(testing::FloatNear(16, 1e-4f)));
}

}  // namespace
}  // namespace pared
