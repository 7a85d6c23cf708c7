#include "model/function_call.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "model/text.h"
#include "tests/testing/matchers.h"

namespace pared {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

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

// F0 is a node, each later one two calls of the one before, the second within a branch.
Model Doublings(int count) {
  std::string text = R"(<ir_version: 8, opset_import: ["" : 17, "l" : 1]>
    g (bool c, float[1] x) => (float[1] y) { y = l.F)" +
                     std::to_string(count) + R"((c, x) }
    <domain: "l", opset_import: ["" : 17]> F0 (c, a) => (b) { b = Neg(a) })";
  for (int i = 1; i <= count; ++i) {
    const std::string callee = "l.F" + std::to_string(i - 1);
    text += "<domain: \"l\", opset_import: [\"\" : 17, \"l\" : 1]> F" + std::to_string(i) +
            " (c, a) => (b) { d = " + callee +
            "(c, a) b = If (c) <then_branch = t () => (e) { e = " + callee +
            "(c, d) }, else_branch = f () => (g) { g = Neg(d) }> }";
  }
  return ParseText(text);
}

// Of n: 5 * 2^n - 3 nodes and calls.
TEST(FunctionCall, WhatFunctionsStandForIsCountedAtTheLimit) {
  CheckWrittenOut(Doublings(17));  // 655357
  EXPECT_THAT([] { CheckWrittenOut(Doublings(18)); },
              ThrowsError(ErrorCode::kUnsupported, "", HasSubstr("1000000 nodes")));
  EXPECT_THAT([] { CheckWrittenOut(Doublings(60)); },
              ThrowsError(ErrorCode::kUnsupported, "", HasSubstr("1000000 nodes")));
  EXPECT_THAT([] { CheckWrittenOut(Doublings(64)); },
              ThrowsError(ErrorCode::kUnsupported, "", HasSubstr("64 deep")));
}

}  // namespace
}  // namespace pared
