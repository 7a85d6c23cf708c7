#include <gmock/gmock.h>

#include "tests/passes/run_pass.h"

namespace pared {
namespace {

using ::testing::ElementsAre;
using ::testing::FloatNear;
using ::testing::HasSubstr;

constexpr const char* kParameters =
    "float[2] s = {2,3}, float[2] t = {1,-1}, float[2] m = {0.5,1}, float[2] v = {4,9}";

Model Normalized(const std::string& graph, const std::string& nodes) {
  return ModelFromText(graph + " <" + kParameters + ", float[2,1,1,1] w = {1,-2}> {" + nodes + "}");
}

// factor = s / sqrt(v + 1e-5): 2 / 2 and 3 / 3; bias = t - m * factor.
TEST(FoldBatchNorm, MultipliesIntoTheConvolution) {
  const PassResult out =
      RunPass("fold_batch_norm", {},
              Normalized("g (float[1,1,2,2] x) => (float[1,2,2,2] y)",
                         "c = Conv(x, w) y = BatchNormalization(c, s, t, m, v)"));
  ASSERT_THAT(OpTypes(out.model.graph), ElementsAre("Conv"));
  const Node& conv = out.model.graph.nodes[0];
  EXPECT_THAT(conv.outputs, ElementsAre("y"));
  EXPECT_THAT(Elements(out.model, conv.inputs[1]),
              ElementsAre(FloatNear(1, 1e-5f), FloatNear(-2, 1e-5f)));
  EXPECT_THAT(Elements(out.model, conv.inputs[2]),
              ElementsAre(FloatNear(0.5f, 1e-5f), FloatNear(-2, 1e-5f)));
  EXPECT_EQ(out.model.graph.initializers.size(), 2u);
}

// Before IR version 4 every initializer is an input: what was folded would stay there, unread.
TEST(FoldBatchNorm, LeavesNoFoldedInputsBehind) {
  const PassResult out =
      RunPass("fold_batch_norm", {}, ModelFromText(R"(<ir_version: 3, opset_import: ["" : 9]>
      g (float[1,1,2,2] x, float[2,1,1,1] w, float[2] s, float[2] t, float[2] m, float[2] v)
        => (float[1,2,2,2] y)
      <float[2,1,1,1] w = {1,-2}, float[2] s = {2,3}, float[2] t = {1,-1}, float[2] m = {0.5,1},
       float[2] v = {4,9}>
      { c = Conv(x, w) y = BatchNormalization(c, s, t, m, v) })"));
  ASSERT_THAT(OpTypes(out.model.graph), ElementsAre("Conv"));
  ASSERT_EQ(out.model.graph.inputs.size(), 1u);
  EXPECT_EQ(out.model.graph.inputs[0].name, "x");
  EXPECT_EQ(out.model.graph.initializers.size(), 2u);
  EXPECT_EQ(out.model.ir_version, 4);
}

TEST(FoldBatchNorm, DeclinesWhereTheConvolutionHasAnotherReader) {
  const PassResult out =
      RunPass("fold_batch_norm", {},
              Normalized("g (float[1,1,2,2] x) => (float[1,2,2,2] y, float[1,2,2,2] z)",
                         "c = Conv(x, w) [n] y = BatchNormalization(c, s, t, m, v) z = Relu(c)"));
  EXPECT_THAT(SkippedReason(out.report, "BatchNormalization n"), HasSubstr("another reader"));
  EXPECT_EQ(out.model.graph.nodes.size(), 3u);
}

TEST(FoldBatchNorm, TellsHowWeightsThatACallerMayOverrideAreFrozen) {
  for (const char* overridable : {"float[2,2,1,1] w", "float[2] s"}) {
    const PassResult out = RunPass("fold_batch_norm", {},
                                   ModelFromText(std::string("g (float[1,2,3,3] x, ") +
                                                 overridable + R"() => (float[1,2,3,3] y)
      <float[2,2,1,1] w = {1,0,0,1}, float[2] s = {1,2}, float[2] v = {1,4}>
      { c = Conv(x, w) [n] y = BatchNormalization(c, s, v, v, v) })"));
    EXPECT_THAT(SkippedReason(out.report, "BatchNormalization n"),
                HasSubstr("\"freeze_inputs\" of fold_constants"));
  }
}

TEST(FoldBatchNorm, DeclinesWhereItTrains) {
  const PassResult out = RunPass("fold_batch_norm", {},
                                 Normalized("g (float[1,1,2,2] x) => (float[1,2,2,2] y)",
                                            "c = Conv(x, w) [n] y, mean, var = BatchNormalization "
                                            "<training_mode = 1> (c, s, t, m, v)"));
  EXPECT_THAT(SkippedReason(out.report, "BatchNormalization n"), HasSubstr("trains"));
}

TEST(FoldBatchNorm, ASharedWeightIsScaledForEachReader) {
  const PassResult out =
      RunPass("fold_batch_norm", {},
              Normalized("g (float[1,1,2,2] x) => (float[1,2,2,2] y, float[1,2,2,2] z)",
                         "c = Conv(x, w) y = BatchNormalization(c, s, t, m, v) z = Conv(x, w)"));
  EXPECT_THAT(OpTypes(out.model.graph), ElementsAre("Conv", "Conv"));
  EXPECT_THAT(Elements(out.model, "w"), ElementsAre(1, -2));
}

struct Arithmetic {
  std::string nodes;
  std::vector<float> weights, bias;  // of the convolution afterwards, which had 1 and -2, and none
};

class FoldArithmetic : public testing::TestWithParam<Arithmetic> {};

TEST_P(FoldArithmetic, MultipliesIntoTheConvolution) {
  const Model model = ModelFromText(
      "g (float[1,1,2,2] x) => (float[1,2,2,2] y) <float[2,1,1,1] w = {1,-2},"
      "float[2,1,1] k = {4,8}, float h = {0.5}, float[2] s = {1,1},"
      "float[2] t = {1,-1}, float[2] m = {0,0}, float[2] v = {1,1}> {" +
      GetParam().nodes + "}");
  const PassResult out = RunPass("fold_batch_norm", {}, model);
  ASSERT_THAT(OpTypes(out.model.graph), ElementsAre("Conv"));
  const Node& conv = out.model.graph.nodes[0];
  EXPECT_THAT(conv.outputs, ElementsAre("y"));
  EXPECT_THAT(Elements(out.model, conv.inputs[1]),
              testing::Pointwise(testing::FloatNear(1e-4f), GetParam().weights));
  EXPECT_THAT(Elements(out.model, conv.inputs[2]),
              testing::Pointwise(testing::FloatNear(1e-4f), GetParam().bias));
  const Tensor x = Tensor::Make<float>({1, 1, 2, 2}, {1, -3, 0.5f, 0});
  EXPECT_THAT(Output(out.model, x),
              testing::Pointwise(testing::FloatNear(1e-4f), Output(model, x)));
}

INSTANTIATE_TEST_SUITE_P(
    Each, FoldArithmetic,
    testing::Values(Arithmetic{"c = Conv(x, w) y = Mul(c, k)", {4, -16}, {0, 0}},
                    Arithmetic{"c = Conv(x, w) y = Div(c, k)", {0.25f, -0.25f}, {0, 0}},
                    Arithmetic{"c = Conv(x, w) y = Sub(k, c)", {-1, 2}, {4, 8}},
                    Arithmetic{"c = Conv(x, w) y = Sub(c, h)", {1, -2}, {-0.5f, -0.5f}},
                    Arithmetic{"c = Conv(x, w) a = Add(h, c) d = Mul(k, a) y = Add(d, h)",
                               {4, -16},
                               {2.5f, 4.5f}},
                    Arithmetic{"c = Conv(x, w) a = Mul(c, h) y = BatchNormalization(a, s, t, m, v)",
                               {0.5f, -1},
                               {1, -1}}));

TEST(FoldBatchNorm, LeavesArithmeticThatIsNotByChannel) {
  for (const std::string node : {"Div(k, c)", "Mul(c, row)", "Div(c, zero)", "Mul(c, c)"}) {
    const PassResult out = RunPass(
        "fold_batch_norm", {},
        ModelFromText("g (float[1,1,2,2] x) => (float[1,2,2,2] y) <float[2,1,1,1] w = {1,-2},"
                      "float[2,1,1] k = {4,8}, float[2] row = {1,2}, float zero = {0}>"
                      "{ c = Conv(x, w) y = " +
                      node + " }"));
    EXPECT_EQ(out.model.graph.nodes.size(), 2u) << node;
  }
}

TEST(FoldBatchNorm, KeepsExcludedArithmeticAndConvolutions) {
  for (const char* excluded : {"p", "q"}) {
    const PassResult out = RunPass(
        "fold_batch_norm", {{"exclude", {excluded}}},
        ModelFromText("g (float[1,1,2,2] x) => (float[1,2,2,2] y) <float[2,1,1,1] w = {1,-2},"
                      "float[2,1,1] k = {4,8}> { [p] c = Conv(x, w) [q] y = Mul(k, c) }"));
    EXPECT_EQ(out.model.graph.nodes.size(), 2u) << excluded;
  }
}

}  // namespace
}  // namespace pared
