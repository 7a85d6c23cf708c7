#include "model/rewrite.h"

#include <gtest/gtest.h>

#include "tests/testing/matchers.h"
#include "tests/testing/models.h"

namespace pared {
namespace {

using ::testing::ElementsAre;

TEST(FreshNames, AvoidsNamesOfSubgraphsAndFunctions) {
  const Model m = ParseText(R"(<ir_version: 8, opset_import: ["" : 17, "f" : 1]>
    g (bool c, float x) => (float y) {
      y = If (c) <then_branch = t () => (float p) { [w_1] p = Abs(x) },
                  else_branch = e () => (float p) { p = Neg(x) }> }
    <domain: "f", opset_import: ["" : 17]> F (a) => (b) { w = Neg(a) b = Abs(w) })");
  FreshNames names(m);
  EXPECT_EQ(names.Make("v"), "v");
  EXPECT_EQ(names.Make("v"), "v_1");
  EXPECT_EQ(names.Make("p"), "p_1");
  EXPECT_EQ(names.Make("w"), "w_2");
  EXPECT_EQ(names.Make("w"), "w_3");
  EXPECT_EQ(names.Make(""), "_1");
}

TEST(ReplaceUses, ReachesSubgraphsButNotGraphOutputs) {
  Model m = ModelFromText(R"(g (bool c, float x) => (float a, float y) {
    a = Neg(x)
    b = Abs(x)
    y = If (c) <then_branch = t () => (float p) { p = Mul(a, a) },
                else_branch = e () => (float a) { }> })");
  const GraphPtr untouched = m.graph.nodes[2].GraphOf("then_branch");
  ReplaceUses(m.graph, "a", "b");
  EXPECT_EQ(m.graph.outputs[0].name, "a");
  EXPECT_THAT(m.graph.nodes[2].GraphOf("then_branch")->nodes[0].inputs, ElementsAre("b", "b"));
  EXPECT_EQ(m.graph.nodes[2].GraphOf("else_branch")->outputs[0].name, "b");
  EXPECT_THAT(untouched->nodes[0].inputs, ElementsAre("a", "a"));
  Verify(m);
}

TEST(ReplaceUses, LeavesShadowedNamesAlone) {
  Model m = ParseText(R"(g (bool c, float a, float b) => (float y) {
    y = If (c) <then_branch = t () => (float p) { a = Neg(b) p = Abs(a) },
                else_branch = e () => (float p) { p = Abs(b) }> })");
  ReplaceUses(m.graph, "a", "b");
  EXPECT_THAT(m.graph.nodes[0].GraphOf("then_branch")->nodes[1].inputs, ElementsAre("a"));
}

TEST(EraseDead, RemovesWhatNothingReads) {
  Model m = ModelFromText(R"(g (float x, bool c, float unread) => (float y)
    <float w = {1}, float dead_w = {2}, float captured = {3}, float a, float dead> {
      dead = Neg(dead_w)
      dead2 = Abs(dead)
      a = Add(x, w)
      y = If (c) <then_branch = t () => (float p) { p = Mul(a, captured) },
                  else_branch = e () => (float p) { p = Neg(a) }>
    })");
  EraseDead(m.graph);
  EXPECT_EQ(m.graph.nodes.size(), 2U);
  EXPECT_EQ(m.graph.inputs.size(), 3U);
  EXPECT_TRUE(m.graph.initializers.contains("captured"));
  EXPECT_FALSE(m.graph.initializers.contains("dead_w"));
  EXPECT_TRUE(m.graph.values.contains("a"));
  EXPECT_FALSE(m.graph.values.contains("dead"));
  Verify(m);
}

TEST(EraseDead, KeepsANodeOfWhichOneOutputIsRead) {
  Model m = ModelFromText("g (float[4] x) => (float[2] b) { a, b = Split <axis = 0> (x) }");
  EraseDead(m.graph);
  EXPECT_EQ(m.graph.nodes.size(), 1U);
}

TEST(EraseDead, KeepsInitializersThatAreOutputsOrInputs) {
  Model m = ModelFromText("g (float d = {1}) => (float w) <float w = {1}, float v = {2}> { }");
  EraseDead(m.graph);
  EXPECT_TRUE(m.graph.initializers.contains("w"));
  EXPECT_TRUE(m.graph.initializers.contains("d"));
  EXPECT_FALSE(m.graph.initializers.contains("v"));
}

}  // namespace
}  // namespace pared
