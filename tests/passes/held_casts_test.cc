#include "passes/held_casts.h"

#include <gmock/gmock.h>

#include "tests/passes/made_model.h"
#include "tests/passes/promises.h"
#include "tests/passes/run_step.h"

namespace pared {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::Not;

// Between two products. `sub`: a second Sub for the division, as old exporters write it.
Model Normalized(bool has_second_sub = false) {
  const std::string second = has_second_sub ? "[t2] t = Sub(a, m)" : "[t2] t = Identity(s)";
  std::string text = R"(g (float[2,6,16] x) => (float[2,6,8] y)
      <float e = {0.0009765625}, float two = {2}>
      { a = MatMul(x, w) [n1] m = ReduceMean <axes = [-1]> (a) [n2] s = Sub(a, m) )" +
                     second + R"(
        [n3] q = Pow(s, two) [n4] v = ReduceMean <axes = [-1]> (q) [n5] b = Add(v, e)
        [n6] d = Sqrt(b) [n7] n = Div(%, d) [n8] g = Mul(n, gamma) [n9] l = Add(g, beta)
        y = MatMul(l, u) })";
  text.replace(text.find('%'), 1, has_second_sub ? "t" : "s");
  if (!has_second_sub) text.replace(text.find(second), second.size(), "");
  return Made(text, {{"w", {16, 16}}, {"gamma", {16}}, {"beta", {16}}, {"u", {16, 8}}});
}

// The operators that read the value.
std::vector<std::string> ReadersOf(const Graph& graph, const std::string& value) {
  const GraphIndex index(graph);
  std::vector<std::string> readers;
  for (const Node* node : index.consumers(value)) readers.push_back(node->op_type);
  return readers;
}

Model WithFloat(const std::vector<std::string>& excluded, const Model& in) {
  const Dataset data = Samples(in);
  const PassResult out = RunStep("cast_fp16", {{"exclude", excluded}}, in, &data);
  EXPECT_GT(WorstSqnrDb(in, out.model), 50);
  return out.model;
}

TEST(HeldCasts, TheCastBeforeAFloatNormalizationIsHeld) {
  const Model out = WithFloat({"re:n.*"}, Normalized());
  EXPECT_THAT(ReadersOf(out.graph, "a_fp32"), ElementsAre("Sum"));
  EXPECT_THAT(ReadersOf(out.graph, "a_fp32_held"), ElementsAre("ReduceMean", "Sub"));
}

TEST(HeldCasts, TheCastBehindTheSubIsHeld) {
  const Model out = WithFloat({"re:n[3-9]"}, Normalized());
  EXPECT_THAT(ReadersOf(out.graph, "s_fp32"), ElementsAre("Sum"));
  EXPECT_THAT(ReadersOf(out.graph, "s_fp32_held"), ElementsAre("Pow", "Div"));
}

TEST(HeldCasts, TheCastBehindTheDivIsHeld) {
  const Model out = WithFloat({"n8", "n9"}, Normalized());
  EXPECT_THAT(ReadersOf(out.graph, "n_fp32"), ElementsAre("Sum"));
}

TEST(HeldCasts, ASecondSubIsPartOfTheNormalization) {
  const Model out = WithFloat({"re:n.*", "t2"}, Normalized(true));
  EXPECT_THAT(ReadersOf(out.graph, "a_fp32_held"), ElementsAre("ReduceMean", "Sub", "Sub"));
}

// All of one type, or two Casts on the way: onnxruntime's one node has one type.
TEST(HeldCasts, NothingIsHeldWhereTheTypesAgree) {
  for (const std::vector<std::string>& excluded :
       std::vector<std::vector<std::string>>{{}, {"re:n[1-7]"}, {"re:.*"}, {"n5"}, {"n9"}}) {
    EXPECT_THAT(OpTypes(WithFloat(excluded, Normalized()).graph), Not(Contains("Sum")));
  }
}

TEST(HeldCasts, AnotherReaderHoldsTheCastAlready) {
  Model in =
      Made(R"(g (float[2,6,16] x) => (float[2,6,8] y) <float e = {0.0009765625}, float two = {2}>
      { a = MatMul(x, w) [n1] m = ReduceMean <axes = [-1]> (a) [n2] s = Sub(a, m)
        [n3] q = Pow(s, two) [n4] v = ReduceMean <axes = [-1]> (q) [n5] b = Add(v, e)
        [n6] d = Sqrt(b) [n7] n = Div(s, d) [n8] g = Mul(n, gamma) [n9] l = Add(g, beta)
        [n10] k = Add(l, a) y = MatMul(k, u) })",
           {{"w", {16, 16}}, {"gamma", {16}}, {"beta", {16}}, {"u", {16, 8}}});
  EXPECT_THAT(OpTypes(WithFloat({"re:n.*"}, in).graph), Not(Contains("Sum")));
}

TEST(HeldCasts, WorksWithinBranchesAndLeavesNoTraceOtherwise) {
  Model in = Made(R"(g (bool c, float[2,6,16] x) => (float[2,6,8] y)
      <float e = {0.0009765625}, float two = {2}>
      { y = If (c) <then_branch = t () => (float[2,6,8] p)
          { a = MatMul(x, w) [n1] m = ReduceMean <axes = [-1]> (a) [n2] s = Sub(a, m)
            [n3] q = Pow(s, two) [n4] v = ReduceMean <axes = [-1]> (q) [n5] b = Add(v, e)
            [n6] d = Sqrt(b) [n7] n = Div(s, d) [n8] g = Mul(n, gamma) [n9] l = Add(g, beta)
            p = MatMul(l, u) },
                    else_branch = f () => (float[2,6,8] o) { o = MatMul(x, u) }> })",
                  {{"w", {16, 16}}, {"gamma", {16}}, {"beta", {16}}, {"u", {16, 8}}});
  const Model out = WithFloat({"re:n.*"}, in);
  const auto branch = [&](const char* name) {
    for (const Node& node : out.graph.nodes) {
      if (node.op_type == "If") return OpTypes(*node.GraphOf(name));
    }
    return std::vector<std::string>();
  };
  EXPECT_THAT(branch("then_branch"), Contains("Sum"));
  EXPECT_THAT(branch("else_branch"), Not(Contains("Sum")));
}

}  // namespace
}  // namespace pared
