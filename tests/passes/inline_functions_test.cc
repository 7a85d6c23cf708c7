#include "passes/inline_functions.h"

#include <gmock/gmock.h>

#include "evaluator/executor.h"
#include "tests/passes/run_step.h"

namespace pared {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// The same numbers with the functions written out.
Model Inlined(const Model& model, const std::vector<Tensor>& inputs) {
  Model out = model;
  EXPECT_TRUE(InlineFunctions(out).empty());
  EXPECT_TRUE(out.functions.empty());
  Verify(out);
  EXPECT_EQ(Output(model, inputs), Output(out, inputs));
  return out;
}

TEST(InlineFunctions, EachCallHasItsOwnNamesAndAttributes) {
  const Model out = Inlined(ModelFromText(R"(
    <ir_version: 8, opset_import: ["" : 17, "l" : 1]> g (float[2] x) => (float[2] y)
    { [first] t = l.F <alpha = 0.5> (x) m = Neg(t) [second] y = l.F(m) }
    <domain: "l", opset_import: ["" : 17]> F <alpha : float = 2.0> (a) => (b)
    { [elu] t = Elu <alpha : float = @alpha> (a) b = Add(t, a) })"),
                            {Tensor::Make<float>({2}, {-1, 2})});
  EXPECT_THAT(OpTypes(out.graph), ElementsAre("Elu", "Add", "Neg", "Elu", "Add"));
  EXPECT_EQ(out.graph.nodes[0].name, "first/elu");
  EXPECT_EQ(out.graph.nodes[3].name, "second/elu");
  EXPECT_EQ(out.graph.nodes[0].Float("alpha", 0), 0.5f);
  EXPECT_EQ(out.graph.nodes[3].Float("alpha", 0), 2.0f);
}

TEST(InlineFunctions, FunctionsCallFunctionsWithinSubgraphs) {
  Inlined(ModelFromText(R"(
    <ir_version: 8, opset_import: ["" : 17, "l" : 1]> g (bool c, float[2] x) => (float[2] y)
    { b = Neg(x) y = If (c) <then_branch = t () => (float[2] o) { o = l.Outer(b) },
                               else_branch = e () => (float[2] p) { p = Identity(x) }> }
    <domain: "l", opset_import: ["" : 17]> Inner (a) => (b) { b = Exp(a) }
    <domain: "l", opset_import: ["" : 17, "l" : 1]> Outer (x) => (y) {
      c = Constant <value = bool {1}> () b = l.Inner(x)
      y = If (c) <then_branch = t () => (float[2] o) { o = Add(b, x) },
                  else_branch = e () => (float[2] p) { p = Neg(b) }> })"),
          {Tensor::Scalar<bool>(true), Tensor::Make<float>({2}, {-1, 2})});
}

TEST(InlineFunctions, WhatIsOnlyHandedOnAndWhatIsLeftOut) {
  Inlined(ModelFromText(R"(
    <ir_version: 8, opset_import: ["" : 17, "l" : 1]> g (float[2] x) => (float[2] y)
    { u, v = l.F(x) w, = l.F(v) y = Add(u, w) }
    <domain: "l", opset_import: ["" : 17]> F (a, low) => (a, b) { b = Clip(a, low) })"),
          {Tensor::Make<float>({2}, {-1, 2})});
}

TEST(InlineFunctions, AFunctionOfAnotherOpsetStaysACallAndIsNamed) {
  Model model = ModelFromText(R"(
    <ir_version: 8, opset_import: ["" : 17, "l" : 1]> g (float[1,2] x) => (float[1,2] y)
    <float[2,2] w = {1,2,3,4}> { h = l.F(x, w) y = MatMul(h, w) }
    <domain: "l", opset_import: ["" : 13]> F (a, b) => (c) { [inner] c = MatMul(a, b) })");
  const PassResult out = RunStep("magnitude_prune", {}, model);
  EXPECT_EQ(out.model.functions.size(), 1u);
  EXPECT_THAT(SkippedReason(out.report, "MatMul inner"), HasSubstr("imports opset 13"));
}

TEST(InlineFunctions, WhatGrowsWithoutBoundIsRefused) {
  // The innermost has a node, or none: calls count too.
  for (const std::string inner : {"(a) => (b) { b = Neg(a) }", "(a) => () {}"}) {
    std::string text =
        R"(<ir_version: 8, opset_import: ["" : 17, "l" : 1]> g (float[1] x) => (float[1] y) { y = l.F30(x) }
    <domain: "l", opset_import: ["" : 17]> F0 )" +
        inner;
    for (int i = 1; i <= 30; ++i) {
      const std::string callee = "l.F" + std::to_string(i - 1);
      text += "<domain: \"l\", opset_import: [\"\" : 17, \"l\" : 1]> F" + std::to_string(i) +
              " (a) => (b) { c = " + callee + "(a) b = " + callee + "(c) }";
    }
    Model bomb = ParseText(text);
    EXPECT_THAT([&] { InlineFunctions(bomb); },
                ThrowsError(ErrorCode::kUnsupported, "", HasSubstr("1000000 nodes")));
    EXPECT_THAT(OpTypes(bomb.graph), ElementsAre("F30"));  // nothing was written out for it
  }
  Model endless = ParseText(R"(<ir_version: 8, opset_import: ["" : 17, "l" : 1]>
    g (float[1] x) => (float[1] y) { y = l.F(x) }
    <domain: "l", opset_import: ["" : 17, "l" : 1]> F (a) => (b) { b = l.F(a) })");
  EXPECT_THAT([&] { InlineFunctions(endless); },
              ThrowsError(ErrorCode::kUnsupported, "", HasSubstr("64 deep")));
}

}  // namespace
}  // namespace pared
