#include "model/function_call.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "model/text.h"

namespace pared {
namespace {

using ::testing::ElementsAre;

std::vector<Node> InlineFirst(const Model& model) {
  FreshNames names(model);
  return InlineCall(model.graph.nodes[0], model.functions[0], names);
}

TEST(FunctionCall, ValuesOfTheBodyGetNamesThatNobodyHas) {
  const std::vector<Node> body = InlineFirst(ParseText(R"(
    <ir_version: 8, opset_import: ["" : 17, "l" : 1]> g (float[2] t) => (float[2] y)
    { [call] u = l.F <alpha = 0.5> (t) y = Neg(u) }
    <domain: "l", opset_import: ["" : 17]> F <alpha : float = 2.0, beta> (a) => (b)
    { [one] t = Elu <alpha : float = @alpha> (a) u = Clip(t) [two] b = Gemm <beta : float = @beta> (u, a) })"));
  ASSERT_EQ(body.size(), 3u);
  EXPECT_THAT(body[0].inputs, ElementsAre("t"));     // the caller's
  EXPECT_THAT(body[0].outputs, ElementsAre("t_1"));  // not the caller's t
  EXPECT_THAT(body[1].outputs, ElementsAre("u_1"));
  EXPECT_THAT(body[2].inputs, ElementsAre("u_1", "t"));
  EXPECT_THAT(body[2].outputs, ElementsAre("u"));
  EXPECT_EQ(body[0].name, "call/one");
  EXPECT_EQ(body[0].Float("alpha", 0), 0.5f);
  EXPECT_FALSE(body[2].attributes.contains("beta"));  // neither given nor with a default
}

TEST(FunctionCall, SubgraphsReadWhatTheBodyReads) {
  const std::vector<Node> body = InlineFirst(ParseText(R"(
    <ir_version: 8, opset_import: ["" : 17, "l" : 1]> g (bool c, float[2] x) => (float[2] y) { y = l.F(c, x) }
    <domain: "l", opset_import: ["" : 17]> F (c, a) => (b) {
      x = Neg(a)
      b = If (c) <then_branch = t () => (float[2] o) { x = Add(x, a) o = Neg(x) },
                  else_branch = e () => (float[2] p) { p = Identity(x) }> })"));
  ASSERT_EQ(body.size(), 2u);
  EXPECT_THAT(body[0].outputs, ElementsAre("x_1"));
  const GraphPtr& then = std::get<GraphPtr>(body[1].attributes.find("then_branch")->value);
  EXPECT_THAT(then->nodes[0].outputs, ElementsAre("x_2"));
  EXPECT_THAT(then->nodes[1].inputs, ElementsAre("x_2"));
  const GraphPtr& other = std::get<GraphPtr>(body[1].attributes.find("else_branch")->value);
  EXPECT_THAT(other->nodes[0].inputs, ElementsAre("x_1"));
}

TEST(FunctionCall, OutputsThatAreInputsAreCopied) {
  const std::vector<Node> body = InlineFirst(ParseText(R"(
    <ir_version: 8, opset_import: ["" : 17, "l" : 1]> g (float[2] x) => (float[2] y, float[2] z) { y, z = l.F(x) }
    <domain: "l", opset_import: ["" : 17]> F (a) => (a, b) { b = Neg(a) })"));
  ASSERT_EQ(body.size(), 2u);
  EXPECT_EQ(body[1].op_type, "Identity");
  EXPECT_THAT(body[1].inputs, ElementsAre("x"));
  EXPECT_THAT(body[1].outputs, ElementsAre("y"));
}

}  // namespace
}  // namespace pared
