#include <gmock/gmock.h>

#include "evaluator/executor.h"
#include "tests/passes/promises.h"
#include "tests/passes/run_step.h"

namespace pared {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

PassResult Folded(const std::string& text, Json options = Json::object()) {
  return RunStep("fold_constants", std::move(options), ModelFromText(text));
}

std::vector<int64_t> Integers(const Model& model, const std::string& name) {
  const auto values = model.graph.initializers.at(name).tensor.data<int64_t>();
  return {values.begin(), values.end()};
}

TEST(FoldConstants, ComputesWhatInitializersDecide) {
  const PassResult out = Folded(R"(g (float[1,2] x) => (float[1,2] y) <float[2,2] w = {1,2,3,4}>
      { t = Transpose <perm = [1, 0]> (w) k = Constant <value_float = 2.0> () s = Mul(t, k)
        y = MatMul(x, s) })");
  EXPECT_THAT(OpTypes(out.model.graph), ElementsAre("MatMul"));
  EXPECT_THAT(Elements(out.model, "s"), ElementsAre(2, 6, 4, 8));
  EXPECT_EQ(out.model.graph.initializers.size(), 1U);
  EXPECT_EQ(Labels(out.report.at("changed")).size(), 2U);
  EXPECT_EQ(out.report.at("growth_bytes"), -4);  // w and k go, of 16 and 4 bytes; s takes 16
}

// The classifier's flattening as PyTorch exports it: the batch is free, the rest are numbers.
TEST(FoldConstants, FollowsShapesWhereTheyAreStatic) {
  const PassResult out = Folded(R"(g (float[N,2,3] x) => (float[3,M] y)
      <int64 one = {1}, int64 two = {2}, int64[1] zero = {0}, int64[1] rest = {-1}>
      { s = Shape(x) c = Gather <axis = 0> (s, two) a = Unsqueeze(c, zero)
        r = Concat <axis = 0> (a, rest) y = Reshape(x, r) })");
  EXPECT_THAT(OpTypes(out.model.graph), ElementsAre("Reshape"));
  EXPECT_THAT(Integers(out.model, "r"), ElementsAre(3, -1));
  EXPECT_THAT(out.report.at("skipped"), IsEmpty());
}

TEST(FoldConstants, LeavesAShapeThatIsNotKnown) {
  const PassResult out = Folded(R"(g (float[N,2,3] x) => (float[A,B] y)
      <int64 none = {0}, int64[1] zero = {0}, int64[1] rest = {-1}>
      { s = Shape(x) c = Gather <axis = 0> (s, none) a = Unsqueeze(c, zero)
        r = Concat <axis = 0> (a, rest) y = Reshape(x, r) })");
  EXPECT_THAT(OpTypes(out.model.graph),
              ElementsAre("Shape", "Gather", "Unsqueeze", "Concat", "Reshape"));
}

// 4 bytes become 64 KiB and 4: one byte too many where the limit is 65,536 - 4 - 1.
TEST(FoldConstants, LeavesAFoldThatInflatesTheModelBeyondTheLimit) {
  const std::string text = R"(g (float[64,256] x) => (float[64,256] y)
      <float[1] v = {3}, int64[2] s = {64, 256}> { [big] e = Expand(v, s) y = Add(x, e) })";
  const PassResult left = Folded(text, {{"growth_max_bytes", 65536 - 4 - 16 - 1}});
  EXPECT_THAT(OpTypes(left.model.graph), ElementsAre("Expand", "Add"));
  EXPECT_THAT(SkippedReason(left.report, "Expand big"), HasSubstr("would add 65516 bytes"));
  const PassResult done = Folded(text, {{"growth_max_bytes", 65536 - 4 - 16}});
  EXPECT_THAT(OpTypes(done.model.graph), ElementsAre("Add"));
  EXPECT_EQ(done.report.at("growth_bytes"), 65516);
}

// What is large between two small constants costs nothing.
TEST(FoldConstants, CountsWhatIsStoredAndNotWhatLiesBetween) {
  const PassResult out = Folded(R"(g (float[4] x) => (float[4] y) <int64[2] s = {1024, 4}>
      { k = ConstantOfShape <value = float[1] {0.5}> (s) f = ReduceSum <keepdims = 0> (k, a)
        y = Add(x, f) a = Constant <value_ints = [0]> () })",
                                {{"growth_max_bytes", 0}});
  EXPECT_THAT(OpTypes(out.model.graph), ElementsAre("Add"));
  EXPECT_THAT(Elements(out.model, "f"), ElementsAre(512, 512, 512, 512));
}

TEST(FoldConstants, FoldsTheInputsOfWhatIsTooLarge) {
  const PassResult out = Folded(R"(g (float[64,256] x) => (float[64,256] y)
      <float[1] v = {3}, float[1] u = {4}, int64[2] s = {64, 256}>
      { t = Add(v, u) e = Expand(t, s) y = Add(x, e) })",
                                {{"growth_max_bytes", 100}});
  EXPECT_THAT(OpTypes(out.model.graph), ElementsAre("Expand", "Add"));
  EXPECT_THAT(Elements(out.model, "t"), ElementsAre(7));
}

TEST(FoldConstants, AnOutputKeepsItsName) {
  const PassResult out = Folded(R"(g (float[2] x) => (float[2] y, float[2] z)
      <float[2] v = {3,4}> { z = Neg(v) y = Add(x, z) })");
  EXPECT_THAT(OpTypes(out.model.graph), ElementsAre("Constant", "Add"));
  const std::vector<Tensor> outputs = Executor(out.model).Run({Tensor::Make<float>({2}, {1, 1})});
  EXPECT_THAT(outputs[0].data<float>(), ElementsAre(-2, -3));
  EXPECT_THAT(outputs[1].data<float>(), ElementsAre(-3, -4));
}

TEST(FoldConstants, RandomNodesStay) {
  const PassResult out = RunPass(
      "fold_constants", {}, ModelFromText(R"(g (float[2] x) => (float[2] y) <float[2] v = {3,4}>
      { [dice] r = RandomNormalLike(v) n = RandomUniform <shape = [2]> () a = Add(r, n) y = Add(x, a) })"));
  EXPECT_EQ(out.model.graph.nodes.size(), 4U);
  EXPECT_THAT(SkippedReason(out.report, "RandomNormalLike dice"), HasSubstr("run to run"));
}

TEST(FoldConstants, StoredWeightsStayStored) {
  const PassResult out = Folded(
      R"(g (float[1,2] x) => (float[1,2] y, float[1,2] z)
      <int8[2,2] q = {1,2,3,4}, float s = {0.5}, float16[2,2] h = {1,2,3,4}>
      { [dq] w = DequantizeLinear(q, s) y = MatMul(x, w) [up] v = Cast <to = 1> (h) z = MatMul(x, v) })");
  EXPECT_EQ(out.model.graph.nodes.size(), 4U);
  EXPECT_THAT(SkippedReason(out.report, "DequantizeLinear dq"), HasSubstr("expands"));
  EXPECT_THAT(SkippedReason(out.report, "Cast up"), HasSubstr("expands"));
}

TEST(FoldConstants, ADefaultThatACallerMayOverrideIsNoConstant) {
  const std::string text = R"(<ir_version: 8, opset_import: ["" : 17]>
      g (float[2,3] x, int64[2] s) => (float[A,B] y, int64[2] z) <int64[2] s = {3,2}>
      { n = Abs(s) y = Reshape(x, n) t = Transpose(y) z = Shape(t) })";
  EXPECT_EQ(Folded(text).model.graph.nodes.size(), 4U);
  const PassResult frozen = Folded(text, {{"freeze_inputs", true}});
  EXPECT_THAT(Integers(frozen.model, "n"), ElementsAre(3, 2));
  EXPECT_EQ(frozen.model.graph.inputs.size(), 1U);
}

// Both branches capture t; w is read nowhere else.
TEST(FoldConstants, WhatSubgraphsCaptureIsFoldedOutsideAndInside) {
  const Model in = ModelFromText(R"(g (bool c, float[2] x) => (float[2] y) <float[2] w = {1,2}> {
       t = Neg(w)
       y = If (c) <then_branch = a () => (float[2] p) { u = Exp(t) v = Sub(u, u) p = Add(x, v) },
                   else_branch = b () => (float[2] q) { q = Add(t, t) }> })");
  const PassResult out = RunStep("fold_constants", {}, in);
  ASSERT_THAT(OpTypes(out.model.graph), ElementsAre("If"));
  EXPECT_THAT(OpTypes(*out.model.graph.nodes[0].GraphOf("then_branch")), ElementsAre("Add"));
  EXPECT_THAT(OpTypes(*out.model.graph.nodes[0].GraphOf("else_branch")), ElementsAre("Constant"));
  EXPECT_TRUE(out.model.graph.initializers.empty());
  const Tensor x = Tensor::Make<float>({2}, {5, 6});
  for (const bool c : {true, false}) {
    const auto y = Executor(out.model).Run({Tensor::Scalar<bool>(c), x});
    EXPECT_THAT(y[0].data<float>(), c ? ElementsAre(5, 6) : ElementsAre(-2, -4));
  }
}

TEST(FoldConstants, ABranchThatWouldFailIsLeft) {
  const PassResult out = Folded(R"(g (bool c, float[2] x) => (float[N] y) <float[2] w = {1,2}> {
       y = If (c) <then_branch = a () => (float[N] p) { p = Neg(x) },
                   else_branch = b () => (float[N] q) { i = Constant <value_ints = [7]> ()
                                                       [bad] q = Gather(w, i) }> })");
  EXPECT_THAT(SkippedReason(out.report, "Gather bad"), HasSubstr("7"));
}

// A size that goes through floats: only when r is known do shapes tell what t is made of.
TEST(FoldConstants, GoesOnUntilNothingIsLeft) {
  const PassResult out = Folded(R"(g (float[1,3,5,7] x) => (float[1,3,A,B] y, int64[4] t)
      <float half = {0.5}, int64[1] two = {2}, int64[1] four = {4}, float[4] up = {1,1,2,2}> {
        s = Shape(x) f = Cast <to = 1> (s) g = Mul(f, up) h = Floor(g) i = Cast <to = 7> (h)
        z = Resize <mode = "nearest"> (x, , , i) r = Shape(z) t = Neg(r)
        y = Identity(z) })");
  EXPECT_THAT(OpTypes(out.model.graph), ElementsAre("Resize", "Constant", "Identity"));
  EXPECT_THAT(out.report.at("skipped"), IsEmpty());
}

TEST(FoldConstants, ExcludedNodesStay) {
  const PassResult out = Folded(R"(g (float[2] x) => (float[2] y) <float[2] w = {1,2}>
      { [keep] t = Neg(w) y = Add(x, t) })",
                                {{"exclude", {"keep"}}});
  EXPECT_THAT(OpTypes(out.model.graph), ElementsAre("Neg", "Add"));
  EXPECT_EQ(SkippedReason(out.report, "Neg keep"), "excluded");
}

// A product with the weight [4, 4] of three elements: 64 bytes, or 3 * (4 + 8).
Model SparseProduct() {
  Model m = ParseText("g (float[2,4] x) => (float[2,4] y) { [product] y = MatMul(x, s) }");
  m.graph.sparse_initializers.set(
      "s",
      {Tensor::Make<float>({3}, {2, -1, 0.5f}), Tensor::Make<int64_t>({3}, {1, 8, 15}), {4, 4}});
  return m;
}

TEST(FoldConstants, StoresSparseConstantsWholeWithinTheLimit) {
  const PassResult out = RunStep("fold_constants", {{"growth_max_bytes", 28}}, SparseProduct());
  EXPECT_TRUE(out.model.graph.sparse_initializers.empty());
  EXPECT_THAT(Elements(out.model, "s"),
              ElementsAre(0, 2, 0, 0, 0, 0, 0, 0, -1, 0, 0, 0, 0, 0, 0, 0.5f));
  EXPECT_EQ(out.report.at("changed"), Json::array({{{"weight", "s"}}}));
  EXPECT_EQ(out.report.at("growth_bytes"), 28);
}

TEST(FoldConstants, SparseConstantsBeyondTheLimitStayAndAreNamed) {
  const PassResult out = RunStep("fold_constants", {{"growth_max_bytes", 27}}, SparseProduct());
  EXPECT_EQ(SerializeOnnx(out.model), SerializeOnnx(SparseProduct()));
  EXPECT_EQ(out.report.at("skipped")[0].at("weight"), "s");
  EXPECT_THAT(out.report.at("skipped")[0].at("reason"), HasSubstr("growth_max_bytes leaves 27"));
}

TEST(FoldConstants, APassTellsThatAWeightIsSparseAndWhoExpandsIt) {
  const PassResult out = RunStep("magnitude_prune", {}, SparseProduct());
  EXPECT_THAT(SkippedReason(out.report, "MatMul product"),
              HasSubstr("stored sparse already; fold_constants"));
}

// As any runtime computes it when the model runs.
TEST(FoldConstants, WhatIsNoNumberIsStoredWithAWarning) {
  const PassResult out = Folded(R"(g (float[3] x) => (float[3] y, float[3] z, float[3] u)
      <float[3] a = {0, 1, -1}, float[3] o = {0, 0, 0}, float[3] big = {3e38, 1, -3e38}>
      { [div] d = Div(a, o) y = Add(x, d) [log] l = Log(a) [sigmoid] m = Sigmoid(l) z = Mul(x, m)
        [twice] t = Add(big, big) u = Mul(x, t) })");
  EXPECT_THAT(OpTypes(out.model.graph), ElementsAre("Add", "Mul", "Mul"));
  EXPECT_THAT(WarningOf(out.report, "Div div"),
              HasSubstr("makes 1 NaN and 2 infinite of 3 elements of finite numbers"));
  EXPECT_THAT(WarningOf(out.report, "Log log"), HasSubstr("makes 1 NaN and 1 infinite of 3"));
  EXPECT_THAT(WarningOf(out.report, "Add twice"), HasSubstr("makes 0 NaN and 2 infinite of 3"));
  EXPECT_EQ(out.report.at("warnings").size(), 3U);  // not of the Sigmoid, which reads what is none
}

TEST(FoldConstants, WarnsOfOtherTypesAndWithinSubgraphs) {
  const PassResult out = Folded(R"(g (bool c, float[2] x) => (float[2] y)
      <double[2] w = {1e300, 1}, float16[2] h = {60000, 1}> {
       [narrow] v = Cast <to = 1> (w) [square] s = Mul(h, h) k = Cast <to = 1> (s)
       y = If (c) <then_branch = a () => (float[2] p) { [root] r = Sqrt(n) p = Add(x, r)
                     n = Constant <value_floats = [-1.0, 4.0]> () },
                   else_branch = b () => (float[2] q) { t = Add(v, k) q = Add(t, x) }> })");
  EXPECT_THAT(WarningOf(out.report, "Cast narrow"), HasSubstr("0 NaN and 1 infinite of 2"));
  EXPECT_THAT(WarningOf(out.report, "Mul square"), HasSubstr("0 NaN and 1 infinite of 2"));
  EXPECT_THAT(WarningOf(out.report, "Sqrt root"), HasSubstr("1 NaN and 0 infinite of 2"));
}

// A mask is meant; what is not folded, and what no one reads, is not told.
TEST(FoldConstants, DoesNotWarnOfInfinitiesThatWereGiven) {
  const PassResult out = Folded(R"(g (float[2,2] x) => (float[2,2] y)
      <float low = {-inf}, float zero = {0}, bool[2,2] m = {1,0,1,1}, int64[2] s = {2, 2}>
      { w = Where(m, zero, low) f = ConstantOfShape <value = float[1] {-inf}> (s) a = Add(x, w)
        y = Max(a, f) [kept] k = Log(zero) u = Mul(k, x) })",
                                {{"exclude", {"kept"}}});
  EXPECT_FALSE(out.report.contains("warnings"));
  EXPECT_THAT(OpTypes(out.model.graph), ElementsAre("Add", "Max"));
}

}  // namespace
}  // namespace pared
