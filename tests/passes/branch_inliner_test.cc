#include "passes/branch_inliner.h"

#include <gmock/gmock.h>

#include "evaluator/executor.h"
#include "tests/passes/made_model.h"
#include "tests/passes/promises.h"
#include "tests/passes/run_step.h"

namespace pared {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

PassResult Resolved(const std::string& text, Json options = Json::object()) {
  const Model in = ModelFromText(text);
  PassResult out = RunStep("fold_constants", std::move(options), in);
  ExpectUniqueNames(out.model);
  ExpectSameInterface(in, out.model);
  EXPECT_GE(WorstSqnrDb(in, out.model), 200);
  return out;
}

constexpr const char* kNegOrExp =
    "<then_branch = t () => (float[2] p) { p = Neg(x) }, "
    "else_branch = e () => (float[2] p) { r = Exp(x) p = Neg(r) }>";

TEST(BranchInliner, TakesTheBranchOfAConstantCondition) {
  const std::string branches = kNegOrExp;
  for (const char* made : {"c = Constant <value = bool {%}> ()",
                           "i = Constant <value_int = %> () "
                           "c = Cast <to = 9> (i)"}) {
    for (const char* value : {"0", "1"}) {
      std::string condition = made;
      condition.replace(condition.find('%'), 1, value);
      const PassResult out = Resolved("g (float[2] x) => (float[2] y) { " + condition +
                                      " [choice] y = If (c) " + branches + " }");
      const bool is_then = value[0] == '1';
      EXPECT_EQ(OpTypes(out.model.graph).size(), is_then ? 1U : 2U) << condition;
      EXPECT_THAT(out.report.at("changed"),
                  Contains(Json({{"node", "If choice"},
                                 {"branch", is_then ? "then_branch" : "else_branch"}})));
      EXPECT_THAT(out.report.at("skipped"), IsEmpty());
    }
  }
}

TEST(BranchInliner, TakesTheBranchThatShapesDecide) {
  const PassResult out = Resolved(R"(g (float[2] x) => (float[2] y) <int64[1] two = {2}>
      { s = Shape(x) c = Equal(s, two) y = If (c) )" +
                                  std::string(kNegOrExp) + " }");
  EXPECT_THAT(OpTypes(out.model.graph), ElementsAre("Neg"));
}

// Both Ifs, and a node outside, use the names that the branches do.
TEST(BranchInliner, MakesNamesFreshThatStandElsewhere) {
  const std::string branches =
      "<then_branch = t () => (float[2] p) { [n] r = Neg(x) p = Exp(r) }, "
      "else_branch = e () => (float[2] p) { [n] r = Exp(x) p = Neg(r) }>";
  const PassResult out = Resolved(R"(g (float[2] x) => (float[2] y) <bool c = {1}, bool d = {0}>
      { a = If (c) )" + branches + " b = If (d) " +
                                  branches + " [p] m = Add(a, b) y = Abs(m) }");
  EXPECT_THAT(OpTypes(out.model.graph), ElementsAre("Neg", "Exp", "Exp", "Neg", "Add", "Abs"));
}

TEST(BranchInliner, NamesThatStandNowhereElseStay) {
  const PassResult out = Resolved(R"(g (float[2] x) => (float[2] y) <bool c = {1}>
      { y = If (c) <then_branch = t () => (float[2] p) <float[2] k = {1,2}>
                      { [first] q = Mul(x, k) [second] p = Neg(q) },
                    else_branch = e () => (float[2] p) { p = Abs(x) }> })");
  ASSERT_THAT(out.model.graph.nodes, SizeIs(2));
  EXPECT_EQ(out.model.graph.nodes[0].name, "first");
  EXPECT_THAT(out.model.graph.nodes[0].inputs, ElementsAre("x", "k"));
  EXPECT_THAT(out.model.graph.nodes[0].outputs, ElementsAre("q"));
  EXPECT_THAT(out.model.graph.nodes[1].outputs, ElementsAre("y"));
}

TEST(BranchInliner, WhatABranchHandsOnIsReadAsItIs) {
  const PassResult out = Resolved(R"(g (float[2] x) => (float[2] y, float[2] z)
      <bool c = {1}, float[2] w = {1,2}>
      { h = Relu(x)
        v, u = If (c) <then_branch = t () => (float[2] h, float[2] w) { },
                       else_branch = e () => (float[2] q, float[2] q) { q = Neg(h) }>
        y = Mul(v, u) z = Neg(v) })");
  EXPECT_THAT(OpTypes(out.model.graph), ElementsAre("Relu", "Mul", "Neg"));
  EXPECT_THAT(out.model.graph.nodes[1].inputs, ElementsAre("h", "w"));
}

// An output of the graph keeps its name whatever stands behind it: a value of the graph, an input,
// a constant of the graph, one of the branch, one value twice.
TEST(BranchInliner, OutputsOfTheGraphKeepTheirNames) {
  const PassResult out = Resolved(R"(
      g (float[2] x) => (float[2] a, float[2] b, float[2] d, float[2] f, float[2] k, float[2] m)
      <bool c = {0}, float[2] w = {1,2}>
      { h = Relu(x)
        a, b, d, f, k, m = If (c)
          <then_branch = t () => (float[2] q, float[2] q, float[2] q, float[2] q, float[2] q,
                                  float[2] q) { q = Neg(h) },
           else_branch = e () => (float[2] h, float[2] x, float[2] w, float[2] i, float[2] n,
                                  float[2] n) <float[2] i = {3,4}> { n = Neg(h) }> })");
  EXPECT_THAT(out.report.at("skipped"), IsEmpty());
  EXPECT_THAT(OpTypes(out.model.graph), ::testing::Not(Contains("If")));
}

TEST(BranchInliner, FollowsIfsWithinEachOther) {
  const std::string text = R"(g (float[2] x%) => (float[2] y) <bool d = {0}>
      { y = If (c) <then_branch = t () => (float[2] p)
          { n = Not(d)
            p = If (n) <then_branch = a () => (float[2] m) <float k = {2}> { m = Mul(x, k) },
                        else_branch = b () => (float[2] x) { }> },
                    else_branch = e () => (float[2] q) { q = Exp(x) }> })";
  std::string decided = text, open = text;
  decided.replace(text.find('%'), 1, "").insert(decided.find("<bool d") + 1, "bool c = {1}, ");
  open.replace(text.find('%'), 1, ", bool c");
  EXPECT_THAT(OpTypes(Resolved(decided).model.graph), ElementsAre("Mul"));
  const PassResult out = Resolved(open);
  ASSERT_THAT(OpTypes(out.model.graph), ElementsAre("If"));
  EXPECT_THAT(OpTypes(*out.model.graph.nodes[0].GraphOf("then_branch")), ElementsAre("Mul"));
}

// The branch reads what the body carries, and its subgraph what the branch makes.
TEST(BranchInliner, WorksWithinTheBodyOfALoop) {
  const PassResult out = Resolved(R"(g (float[2] x, bool b) => (float[2] y)
      <int64 n = {3}, bool go = {1}, bool c = {1}>
      { y = Loop (n, go, x) <body = body (int64 i, bool cond, float[2] s) => (bool on, float[2] r)
          { on = Identity(cond)
            r = If (c) <then_branch = t () => (float[2] p)
                  { s2 = Neg(s) p = If (b) <then_branch = t2 () => (float[2] u) { u = Exp(s2) },
                                            else_branch = e2 () => (float[2] v) { v = Abs(s2) }> },
                        else_branch = e () => (float[2] s2) { s2 = Exp(s) }> }> })");
  const GraphPtr body = out.model.graph.nodes[0].GraphOf("body");
  EXPECT_THAT(OpTypes(*body), ElementsAre("Identity", "Neg", "If"));
}

TEST(BranchInliner, ExcludedNodesStayWhereverTheyAre) {
  const std::string text = R"(g (float[2] x) => (float[2] y) <bool c = {1}, float[2] w = {1,2}>
      { [choice] y = If (c)
          <then_branch = t () => (float[2] p) { [taken] n = Neg(w) p = Add(x, n) },
           else_branch = e () => (float[2] q) { [other] q = Exp(x) }> })";
  const PassResult kept = Resolved(text, {{"exclude", {"choice"}}});
  EXPECT_THAT(OpTypes(kept.model.graph), ElementsAre("If"));
  EXPECT_EQ(SkippedReason(kept.report, "If choice"), "excluded");
  const PassResult other = Resolved(text, {{"exclude", {"other"}}});
  EXPECT_THAT(OpTypes(other.model.graph), ElementsAre("If"));
  EXPECT_THAT(SkippedReason(other.report, "If choice"), HasSubstr("excluded node"));
  const PassResult taken = Resolved(text, {{"exclude", {"taken"}}});
  EXPECT_THAT(OpTypes(taken.model.graph), ElementsAre("Neg", "Add"));
}

TEST(BranchInliner, AConditionThatACallerMayOverrideDecidesNothing) {
  const std::string text = R"(<ir_version: 8, opset_import: ["" : 17]>
      g (float[2] x, bool c) => (float[2] y) <bool c = {1}> { y = If (c) )" +
                           std::string(kNegOrExp) + " }";
  EXPECT_THAT(OpTypes(RunStep("fold_constants", {}, ModelFromText(text)).model.graph),
              ElementsAre("If"));
  EXPECT_THAT(
      OpTypes(
          RunStep("fold_constants", {{"freeze_inputs", true}}, ModelFromText(text)).model.graph),
      ElementsAre("Neg"));
}

TEST(BranchInliner, WhatTheModelSaysOfTheOtherBranchIsForgotten) {
  Model in = ModelFromText(R"(g (float[1,2] x) => (float[2] z) <bool c = {0}, int64[1] a = {0}>
      { y = If (c) <then_branch = t () => (float[1,2] p) { p = Neg(x) },
                    else_branch = e () => (float[2] q) { q = Squeeze(x, a) }>
        z = Exp(y) })");
  ValueInfo info = in.graph.inputs[0];
  info.name = "y";
  in.graph.values.set("y", info);
  const PassResult out = RunStep("fold_constants", {}, in);
  EXPECT_THAT(OpTypes(out.model.graph), ElementsAre("Squeeze", "Exp"));
  EXPECT_EQ(InferShapes(out.model).at("y").shape->size(), 1U);
}

// The graph says [1, 2] of its output, and the branch makes [2].
TEST(BranchInliner, ABranchThatContradictsTheGraphStays) {
  const Model in = ModelFromText(R"(g (float[1,2] x) => (float[1,2] y)
      <bool c = {0}, int64[1] a = {0}>
      { [choice] y = If (c) <then_branch = t () => (float[1,2] p) { p = Neg(x) },
                             else_branch = e () => (float[2] q) { q = Squeeze(x, a) }> })");
  const PassResult out = RunStep("fold_constants", {}, in);
  EXPECT_THAT(OpTypes(out.model.graph), ElementsAre("If"));
  EXPECT_THAT(SkippedReason(out.report, "If choice"), HasSubstr("contradicts"));
}

TEST(BranchInliner, ThePassesBehindSeeTheWeights) {
  const Model in = Made(R"(g (float[4,16] x) => (float[4,24] y) <bool c = {1}>
      { h = If (c) <then_branch = t () => (float[4,24] p) { [product] p = MatMul(x, w) },
                    else_branch = e () => (float[4,24] q) { q = MatMul(x, v) }>
        y = Relu(h) })",
                        {{"w", {16, 24}}, {"v", {16, 24}}});
  const Model folded = RunStep("fold_constants", {}, in).model;
  EXPECT_EQ(folded.graph.initializers.size(), 1U);
  const Dataset data = Samples(in);
  for (const char* pass : {"quantize_int8", "quantize_dynamic", "quantize_weights", "cast_fp16",
                           "magnitude_prune", "second_order_prune"}) {
    const PassResult out = RunStep(pass, {}, folded, &data);
    EXPECT_THAT(Labels(out.report.at("changed")), Contains("MatMul product")) << pass;
  }
}

}  // namespace
}  // namespace pared
