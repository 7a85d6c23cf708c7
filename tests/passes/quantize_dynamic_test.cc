#include <gmock/gmock.h>

#include "evaluator/executor.h"
#include "tests/passes/run_step.h"

namespace pared {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

PassResult QuantizeDynamic(const char* text, Json options = Json::object()) {
  return RunStep("quantize_dynamic", std::move(options), ModelFromText(text));
}

// From 0 to 255 the scale is 1: activations are their own codes. So are weights whose largest is
// 127, and sums are those of the float model.
const std::vector<Tensor> kCodes = {Tensor::Make<float>({1, 4}, {0, 255, 3, 100})};

TEST(QuantizeDynamic, MultipliesIntegersAndScalesTheSums) {
  const PassResult out = QuantizeDynamic(R"(g (float[1,4] x) => (float[1,2] y)
    <float[4,2] w = {0,127,127,0,0,0,5,-254}> { y = MatMul(x, w) })");
  EXPECT_THAT(OpTypes(out.model.graph),
              ElementsAre("DynamicQuantizeLinear", "MatMulInteger", "Cast", "Mul", "Mul"));
  EXPECT_THAT(Elements(out.model, "w_quantized"), ElementsAre(0, 64, 127, 0, 0, 0, 5, -127));
  EXPECT_THAT(Elements(out.model, "w_scale"), ElementsAre(1, 2));
  EXPECT_FALSE(out.model.graph.initializers.contains("w"));
  EXPECT_THAT(Output(out.model, kCodes), ElementsAre(255 * 127 + 500, -25400));
  EXPECT_EQ(out.report.at("quantized_weight_share"), 1.0);
}

TEST(QuantizeDynamic, QuantizesAValueOnceForAllThatReadIt) {
  const PassResult out = QuantizeDynamic(R"(g (float[1,4] x) => (float[1,1] y)
    <float[4,1] w = {127,0,0,0}, float[4,1] v = {0,127,0,0}>
    { a = MatMul(x, w) b = MatMul(x, v) y = Add(a, b) })");
  const std::vector<std::string> ops = OpTypes(out.model.graph);
  EXPECT_EQ(std::ranges::count(ops, "DynamicQuantizeLinear"), 1);
  EXPECT_THAT(Output(out.model, kCodes), ElementsAre(255 * 127));
}

// y = 0.5 x w' + 2 c
TEST(QuantizeDynamic, AGemmKeepsItsFactorsItsBiasAndItsOrder) {
  const PassResult out = QuantizeDynamic(R"(g (float[1,4] x) => (float[1,2] y)
    <float[2,4] w = {127,0,0,2, 0,1,127,0}, float[2] c = {1,-3}>
    { y = Gemm<alpha = 0.5, beta = 2.0, transB = 1>(x, w, c) })");
  EXPECT_THAT(Elements(out.model, "w_quantized"), ElementsAre(127, 0, 0, 1, 0, 127, 2, 0));
  EXPECT_THAT(Output(out.model, kCodes), ElementsAre(102, (255 + 381) / 2 - 6));
}

TEST(QuantizeDynamic, AConvolutionIsOneWhereAskedFor) {
  constexpr const char* kModel = R"(g (float[1,1,2,2] x) => (float[1,2,2,2] y)
    <float[2,1,1,2] w = {127,0, 0,254}, float[2] b = {1,2}>
    { y = Conv<pads = [0,0,0,1]>(x, w, b) })";
  const PassResult out = QuantizeDynamic(kModel, {{"op_types", {"Conv"}}});
  EXPECT_THAT(OpTypes(out.model.graph), Contains("ConvInteger"));
  const Tensor x = Tensor::Make<float>({1, 1, 2, 2}, {0, 255, 3, 100});
  EXPECT_THAT(Output(out.model, {x}), ElementsAre(1, 32386, 382, 12701, 64772, 2, 25402, 2));
  EXPECT_THAT([&] { QuantizeDynamic(kModel); },
              ThrowsError(ErrorCode::kUnsupported, "", HasSubstr("Conv is not in op_types")));
}

TEST(QuantizeDynamic, SevenBitsWhereAsked) {
  const PassResult out = QuantizeDynamic(R"(g (float[1,4] x) => (float[1,1] y)
    <float[4,1] w = {63,-1,0,9}> { y = MatMul(x, w) })",
                                         {{"reduce_range", true}});
  EXPECT_THAT(Elements(out.model, "w_quantized"), ElementsAre(63, -1, 0, 9));
}

TEST(QuantizeDynamic, BodiesOfSubgraphsComputeInIntegersToo) {
  const PassResult out = QuantizeDynamic(R"(g (bool c, float[1,4] x) => (float[1,1] y)
    <float[4,1] w = {0,127,0,0}, float[2,4] table = {127,0,0,0, 0,0,254,0}, int64[1] row = {1}> {
      y = If (c) <then_branch = t () => (float[1,1] p)
                    { p = MatMul(x, w) },
                  else_branch = e () => (float[1,1] q)
                    <float[4,1] v = {0,0,0,127}>
                    { r = Gather(table, row) s = Add(x, r) q = MatMul(s, v) }> })");
  const Graph& graph = out.model.graph;
  EXPECT_TRUE(graph.initializers.contains("w_quantized"));  // captured: stored where it was
  EXPECT_FALSE(graph.initializers.contains("w"));
  EXPECT_FALSE(graph.initializers.contains("table"));
  const Graph& other = *std::get<GraphPtr>(graph.nodes[0].attributes.find("else_branch")->value);
  EXPECT_TRUE(other.initializers.contains("v_quantized"));
  EXPECT_FALSE(other.initializers.contains("v"));
  const auto branch = [&](bool taken) {
    return Output(out.model, {Tensor::Scalar<bool>(taken), kCodes[0]});
  };
  EXPECT_THAT(branch(true), ElementsAre(255 * 127));
  // 257 is the largest now: the scale is 257 / 255, and 100 has the code 99.
  EXPECT_THAT(branch(false), ElementsAre(testing::FloatNear(99 * 127 * 257 / 255.0f, 0.01f)));
}

TEST(QuantizeDynamic, SaysWhyAWeightStaysFloat) {
  const PassResult out = QuantizeDynamic(R"(g (float[1,4] x) => (float[1,4] y)
    <float[4,4] w = {1,0,0,0, 0,1,0,0, 0,0,1,0, 0,0,0,127}, float[1,1] left = {3}>
    { [first] a = MatMul(x, w) [third] y = MatMul(left, a) })");
  EXPECT_THAT(SkippedReason(out.report, "MatMul third"), HasSubstr("left operand"));
}

// Gates lie in rows of ONNX's weights and in columns of the codes.
TEST(QuantizeDynamic, AnLstmGetsCodesForEachGate) {
  const Model in = ModelFromText(R"(g (float[3,1,2] x) => (float[3,1,1,1] y)
    <float[1,4,2] w = {127,0, 254,2, 0,-127, 1.27,0.02}, float[1,4,1] r = {0.5,0,-0.25,1}>
    { y = LSTM<hidden_size = 1, layout = 0>(x, w, r) })");
  const PassResult out = RunStep("quantize_dynamic", {}, in);
  ASSERT_THAT(OpTypes(out.model.graph), ElementsAre("DynamicQuantizeLSTM"));
  const Node& node = out.model.graph.nodes[0];
  EXPECT_EQ(node.domain, "com.microsoft");
  EXPECT_EQ(out.model.Opset("com.microsoft"), 1);
  EXPECT_FALSE(node.attributes.contains("layout"));
  EXPECT_THAT(node.inputs, ElementsAre("x", "w_quantized", "r_quantized", "", "", "", "", "",
                                       "w_scale", "w_zero_point", "r_scale", "r_zero_point"));
  const auto shape = [&](const char* name) {
    return out.model.graph.initializers.find(name)->tensor.shape();
  };
  EXPECT_THAT(Elements(out.model, "w_quantized"), ElementsAre(127, 127, 0, 127, 0, 1, -127, 2));
  EXPECT_EQ(shape("w_quantized"), (Shape{1, 2, 4}));
  EXPECT_EQ(shape("r_quantized"), (Shape{1, 1, 4}));
  EXPECT_EQ(shape("w_scale"), (Shape{1, 4}));
  EXPECT_THAT(Elements(out.model, "r_zero_point"), ElementsAre(0, 0, 0, 0));
  EXPECT_EQ(out.report.at("quantized_weight_share"), 1.0);
  const Tensor x = Tensor::Make<float>({3, 1, 2}, {0.01f, -0.02f, 0.005f, 0.01f, 0.0f, -0.01f});
  const std::vector<float> was = Output(in, {x}), is = Output(out.model, {x});
  for (size_t i = 0; i < was.size(); ++i) EXPECT_NEAR(was[i], is[i], 0.02) << i;
}

TEST(QuantizeDynamic, AnLstmIsQuantizedWholeOrNotAtAll) {
  // The weight w is of three cells. The second has a computed r, so that w stays float, and with it
  // the first and the third and their own r.
  const PassResult out = QuantizeDynamic(R"(g (float[3,1,2] x, float[1,4,1] q) => (float[3,1,1,4] y)
    <float[1,4,2] w = {1,2,3,4,5,6,7,8}, float[1,4,1] r = {1,2,3,4}, float[1,4,1] s = {4,3,2,1},
     float[1,4,2] v = {8,7,6,5,4,3,2,1}, float[1,4,1] t = {4,3,2,1}>
    { [one] a = LSTM<hidden_size = 1>(x, w, r)
      [two] b = LSTM<hidden_size = 1>(x, w, q)
      [three] c = LSTM<hidden_size = 1>(x, w, s)
      [four] d = LSTM<hidden_size = 1>(x, v, t)
      y = Concat<axis = 3>(a, b, c, d) })");
  EXPECT_THAT(OpTypes(out.model.graph),
              ElementsAre("LSTM", "LSTM", "LSTM", "DynamicQuantizeLSTM", "Concat"));
  for (const char* node : {"LSTM one", "LSTM two", "LSTM three"}) {
    EXPECT_THAT(SkippedReason(out.report, node), HasSubstr("stays float")) << node;
  }
}

TEST(QuantizeDynamic, RecurrentLayersWithoutAnIntegerFormStayFloat) {
  const PassResult out = QuantizeDynamic(R"(g (float[3,1,4] x) => (float[3,1,1,1] y)
    <float[4,4] m = {1,0,0,0, 0,1,0,0, 0,0,1,0, 0,0,0,127},
     float[1,3,4] v = {1,1,1,1,1,1,1,1,1,1,1,1}, float[1,3,1] s = {1,1,1}>
    { p = MatMul(x, m) [only] y = GRU<hidden_size = 1>(p, v, s) })");
  EXPECT_THAT(SkippedReason(out.report, "GRU only"), HasSubstr("GRU is not in op_types"));
  EXPECT_THAT(
      [] {
        QuantizeDynamic(R"(g (float[1,3,4] x) => (float[1,3,1,1] y)
          <float[1,4,4] w = {1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1}, float[1,4,1] r = {1,1,1,1}>
          { y = LSTM<hidden_size = 1, layout = 1>(x, w, r) })");
      },
      ThrowsError(ErrorCode::kUnsupported, "", HasSubstr("batch comes first")));
}

TEST(QuantizeDynamic, ExclusionsHoldAndAreNamed) {
  constexpr const char* kModel = R"(g (float[1,4] x) => (float[1,4] z)
    <float[4,4] w = {1,0,0,0, 0,1,0,0, 0,0,1,0, 0,0,0,127},
     float[4,4] v = {1,0,0,0, 0,1,0,0, 0,0,1,0, 0,0,0,127}>
    { [first] a = MatMul(x, w) [second] z = MatMul(a, v) })";
  const PassResult out = QuantizeDynamic(kModel, {{"exclude", {"first"}}});
  EXPECT_THAT(SkippedReason(out.report, "MatMul first"), HasSubstr("excluded"));
  EXPECT_TRUE(out.model.graph.initializers.contains("w"));
  EXPECT_FALSE(out.model.graph.initializers.contains("v"));
  EXPECT_THAT(
      [&] {
        QuantizeDynamic(kModel, {{"exclude", {"frist"}}});
      },
      ThrowsError(ErrorCode::kInvalidArgument, "exclude", HasSubstr("first")));
}

// One channel is a hundred times the others and its weights are a hundredth of theirs: in one scale
// the others have next to no codes.
TEST(QuantizeDynamic, CalibrationDataMovesTheSpreadOfChannelsIntoTheWeights) {
  const Model in = ModelFromText(R"(g (float[8,4] x) => (float[8,2] y)
    <float[4] spread = {1,1,1,100}, float[4,2] w = {1,-0.5, 0.7,1, -0.3,0.8, 0.01,-0.006}>
    { a = Mul(x, spread) y = MatMul(a, w) })");
  const Dataset data = Dataset::Random(in.graph.inputs, 16, 1);
  const Dataset other = Dataset::Random(in.graph.inputs, 8, 2);
  const PassResult out = RunStep("quantize_dynamic", {}, in, &data);
  const PassResult off = RunStep("quantize_dynamic", {{"smooth", "off"}}, in, &data);
  const PassResult without = RunStep("quantize_dynamic", {}, in);
  EXPECT_THAT(out.report.at("smoothed"), ElementsAre("a"));
  EXPECT_GT(SqnrDbOn(other, in, out.model), 35);
  EXPECT_LT(SqnrDbOn(other, in, off.model), 20);
  EXPECT_EQ(SqnrDbOn(other, in, off.model), SqnrDbOn(other, in, without.model));
  EXPECT_FALSE(off.report.contains("smoothed"));
}

// Both products read the value; where one stays float it would read the smoothed one unchanged.
TEST(QuantizeDynamic, AnExcludedReaderKeepsItsInput) {
  const Model in = ModelFromText(R"(g (float[8,4] x) => (float[8,2] y, float[8,2] z)
    <float[4] spread = {1,1,1,100}, float[4,2] w = {1,-0.5, 0.7,1, -0.3,0.8, 0.01,-0.006},
     float[4,2] v = {1,2,3,4,5,6,7,8}>
    { a = Mul(x, spread) y = MatMul(a, w) [float] z = MatMul(a, v) })");
  const Dataset data = Dataset::Random(in.graph.inputs, 16, 1);
  const PassResult out = RunStep("quantize_dynamic", {{"exclude", {"float"}}}, in, &data);
  EXPECT_THAT(out.report.at("smoothed"), ElementsAre("a"));
  EXPECT_THAT(out.model.graph.initializers.at("v").tensor,
              SameTensor(in.graph.initializers.at("v").tensor));
  EXPECT_GT(SqnrDbOn(data, in, out.model), 35);
}

}  // namespace
}  // namespace pared
