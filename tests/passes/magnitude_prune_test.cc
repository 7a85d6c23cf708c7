#include <gmock/gmock.h>

#include <algorithm>
#include <limits>

#include "tests/passes/run_pass.h"

namespace pared {
namespace {

using ::testing::AllOf;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

Json With(const std::string& text) { return ParseJson(text); }

TEST(MagnitudePrune, ZeroesTheSmallestOfALayer) {
  const Model in = ModelFromText(R"(g (float[N,4] x) => (float[N,2] y)
    <float[4,2] w = {1,-8,-2,7,3,-6,-4,5}> { y = MatMul(x, w) })");
  const PassResult out = RunPass("magnitude_prune", With(R"({"sparsity": 0.5})"), in);
  EXPECT_THAT(Elements(out.model, "w"), ElementsAre(0, -8, 0, 7, 0, -6, 0, 5));
  EXPECT_THAT(Elements(in, "w"), ElementsAre(1, -8, -2, 7, 3, -6, -4, 5));
  EXPECT_EQ(out.report["sparsity"], 0.5);
}

TEST(MagnitudePrune, ZeroesExactlyAsManyAsAskedAmongEquals) {
  const Model in = ModelFromText(R"(g (float[N,7] x) => (float[N,1] y)
    <float[7,1] w = {2,2,-2,2,2,2,2}> { y = MatMul(x, w) })");
  const PassResult out = RunPass("magnitude_prune", With(R"({"sparsity": 0.43})"), in);
  EXPECT_THAT(Elements(out.model, "w"), ElementsAre(0, 0, 0, 2, 2, 2, 2));
}

// Output channels of MatMul are the columns of its weight.
TEST(MagnitudePrune, KeepsPairsOfOutputsTogetherIn2x1) {
  const Model in = ModelFromText(R"(g (float[N,3] x) => (float[N,4] y)
    <float[3,4] w = {9,1, 2,2,  1,1, 9,9,  3,3, 1,0}> { y = MatMul(x, w) })");
  const PassResult out =
      RunPass("magnitude_prune", With(R"({"sparsity": 0.5, "pattern": "2x1"})"), in);
  EXPECT_THAT(Elements(out.model, "w"), ElementsAre(9, 1, 0, 0, 0, 0, 9, 9, 3, 3, 0, 0));
}

TEST(MagnitudePrune, KeepsRunsOfInputsTogetherIn1x4WithAShorterTail) {
  const Model in = ModelFromText(R"(g (float[N,2,3,1] x) => (float[N,2,1,1] y)
    <float[2,2,3,1] w = {1,1,1,1, 5,5,  4,4,4,4, 3,3}> { y = Conv(x, w) })");
  const PassResult out =
      RunPass("magnitude_prune", With(R"({"sparsity": 0.5, "pattern": "1x4"})"), in);
  EXPECT_THAT(Elements(out.model, "w"), ElementsAre(0, 0, 0, 0, 5, 5, 4, 4, 4, 4, 0, 0));
}

TEST(MagnitudePrune, KeepsTwoOfFourAndOneOfAShorterTail) {
  const Model in = ModelFromText(R"(g (float[N,6] x) => (float[N,1] y)
    <float[1,6] w = {1,-4,3,2,  5,6}> { y = Gemm <transB = 1> (x, w) })");
  const PassResult out = RunPass("magnitude_prune", With(R"({"pattern": "2:4"})"), in);
  EXPECT_THAT(Elements(out.model, "w"), ElementsAre(0, -4, 3, 0, 0, 6));
}

// ConvTranspose counts output channels along axis 1, by group.
TEST(MagnitudePrune, CountsTheChannelsOfATransposedConvolutionByGroup) {
  const Model in = ModelFromText(R"(g (float[1,4,1,1] x) => (float[1,4,1,1] y)
    <float[4,2,1,1] w = {9,1, 1,9, 2,2, 8,8}> { y = ConvTranspose <group = 2> (x, w) })");
  const PassResult out = RunPass("magnitude_prune", With(R"({"pattern": "1:2"})"), in);
  EXPECT_THAT(Elements(out.model, "w"), ElementsAre(9, 0, 0, 9, 0, 0, 8, 8));
}

TEST(MagnitudePrune, FindsWeightsThroughConstantsAndTransposes) {
  const Model in = ModelFromText(R"(g (float[N,2] x) => (float[N,3] y)
    { c = Constant <value = float[3,2] {1,2,3,4,5,6}> () i = Identity(c)
      t = Transpose <perm = [1, 0]> (i) y = MatMul(x, t) })");
  const PassResult out =
      RunPass("magnitude_prune", With(R"({"sparsity": 0.5, "pattern": "1x4"})"), in);
  const std::span<const float> c = out.model.graph.nodes[0].TensorOf("value")->data<float>();
  EXPECT_THAT(std::vector<float>(c.begin(), c.end()), ElementsAre(0, 0, 0, 0, 5, 6));
}

TEST(MagnitudePrune, PrunesAWeightCapturedByASubgraphOnce) {
  const Model in = ModelFromText(R"(g (bool c, float[N,2] x) => (float[N,2] y)
    <float[2,2] w = {1,2,3,4}> {
      y = If (c) <then_branch = t () => (float[N,2] p) { [a] p = MatMul(x, w) },
                  else_branch = e () => (float[N,2] q) { [b] q = MatMul(x, w) }> })");
  const PassResult out = RunPass("magnitude_prune", {}, in);
  EXPECT_THAT(Elements(out.model, "w"), ElementsAre(0, 0, 3, 4));
  EXPECT_THAT(SkippedReason(out.report, "MatMul b"), HasSubstr("shares its weight with MatMul a"));
}

TEST(MagnitudePrune, PrunesTheWeightOfASubgraph) {
  const Model in = ModelFromText(R"(g (bool c, float[N,2] x) => (float[N,2] y) {
      y = If (c) <then_branch = t () => (float[N,2] p) <float[2,2] w = {1,2,3,4}>
                    { p = MatMul(x, w) },
                  else_branch = e () => (float[N,2] q) { q = Identity(x) }> })");
  const PassResult out = RunPass("magnitude_prune", {}, in);
  const GraphPtr branch = out.model.graph.nodes[0].GraphOf("then_branch");
  const std::span<const float> w = branch->initializers.at("w").tensor.data<float>();
  EXPECT_THAT(std::vector<float>(w.begin(), w.end()), ElementsAre(0, 0, 3, 4));
}

constexpr const char* kFourLayers = R"(g (float[N,2] x) => (float[N,2] y)
    <float[2,2] u = {9,9,9,9}, float[2,2] v = {1,2,3,4},
     float[2,2] w = {0.001,0.002,0.003,0.004}, float[2,2] z = {9,9,9,9}>
    { [first] a = MatMul(x, u) [large] b = MatMul(a, v) [small] c = MatMul(b, w)
      [last] y = MatMul(c, z) })";

TEST(MagnitudePrune, RanksOverTheModelButLeavesEachLayerItsFloor) {
  const PassResult out =
      RunPass("magnitude_prune", With(R"({"scope": "model", "sparsity": 0.5, "keep_min": 0.25})"),
              ModelFromText(kFourLayers));
  EXPECT_THAT(Elements(out.model, "u"), Each(9));
  EXPECT_THAT(Elements(out.model, "v"), ElementsAre(0, 2, 3, 4));
  EXPECT_THAT(Elements(out.model, "w"), ElementsAre(0, 0, 0, 0.004f));
  EXPECT_THAT(SkippedReason(out.report, "MatMul first"), HasSubstr("first or last"));
}

TEST(MagnitudePrune, TheLastOverrideThatMatchesHolds) {
  const PassResult out =
      RunPass("magnitude_prune", With(R"({"overrides": [{"match": "op:MatMul", "sparsity": 0},
                                                        {"match": "re:l.*e", "sparsity": 0.75}]})"),
              ModelFromText(kFourLayers));
  EXPECT_THAT(Elements(out.model, "u"), Each(9));
  EXPECT_THAT(Elements(out.model, "v"), ElementsAre(0, 0, 0, 4));
}

TEST(MagnitudePrune, AnExclusionKeepsTheWeightAndAMisspeltOneIsAnError) {
  const PassResult out =
      RunPass("magnitude_prune", With(R"({"exclude": ["large"]})"), ModelFromText(kFourLayers));
  EXPECT_THAT(Elements(out.model, "v"), ElementsAre(1, 2, 3, 4));
  EXPECT_EQ(SkippedReason(out.report, "MatMul large"), "excluded");
  EXPECT_THAT(
      [] {
        RunPass("magnitude_prune", With(R"({"exclude": ["lrge"]})"), ModelFromText(kFourLayers));
      },
      ThrowsError(ErrorCode::kInvalidArgument, "exclude",
                  AllOf(HasSubstr("lrge"), HasSubstr("nearest: \"large\""))));
}

TEST(MagnitudePrune, SaysWhyANodeHasNoWeight) {
  const PassResult out = RunPass("magnitude_prune", {}, ModelFromText(R"(
    g (float[N,2] x, float[2,2] a) => (float[N,2] y, float[N,2] z)
    <int8[2,2] q = {1,2,3,4}, float s = {0.5}>
    { n = Neg(a) [p] y = MatMul(x, n) d = DequantizeLinear(q, s) [r] z = MatMul(x, d) })"));
  EXPECT_THAT(SkippedReason(out.report, "MatMul p"), HasSubstr("computed by Neg"));
  EXPECT_THAT(SkippedReason(out.report, "MatMul r"), HasSubstr("quantized already"));
  EXPECT_EQ(out.report["changed"], Json::array());
}

TEST(MagnitudePrune, RefusesAWeightThatIsNotFinite) {
  Model in = ModelFromText(
      "g (float[N,2] x) => (float[N,1] y) <float[2,1] w = {1,2}> "
      "{ y = MatMul(x, w) }");
  in = WithInitializer(in, "w",
                       Tensor::Make<float>({2, 1}, {1, std::numeric_limits<float>::quiet_NaN()}));
  EXPECT_THAT([&] { RunPass("magnitude_prune", {}, in); },
              ThrowsError(ErrorCode::kInvalidArgument, "tensor w", HasSubstr("index 1")));
}

TEST(MagnitudePrune, LeavesDepthwiseConvolutionsUnlessAsked) {
  const Model in = ModelFromText(R"(g (float[1,2,1,2] x) => (float[1,2,1,1] y)
    <float[2,1,1,2] w = {1,2,3,4}> { [d] y = Conv <group = 2> (x, w) })");
  EXPECT_THAT(Elements(RunPass("magnitude_prune", {}, in).model, "w"), ElementsAre(1, 2, 3, 4));
  EXPECT_THAT(Elements(RunPass("magnitude_prune", With(R"({"depthwise": true})"), in).model, "w"),
              ElementsAre(0, 0, 3, 4));
}

}  // namespace
}  // namespace pared
