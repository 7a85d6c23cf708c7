#include <gmock/gmock.h>

#include "tests/passes/promises.h"
#include "tests/passes/run_step.h"
#include "tests/testing/random_tensor.h"

namespace pared {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr const char* kNorm = R"(
    g (float[2,3,4] x) => (float[2,3,4] y)
    <float two = {2}, float e = {1e-5}, float[4] gamma = {1,2,3,4}, float[4] beta = {0.5,0,1,-1}>
    { m = ReduceMean <axes = [AXIS]> (x) c = Sub(x, m) q = Pow(c, two)
      v = ReduceMean <axes = [AXIS]> (q) t = Add(v, e) s = Sqrt(t) n = Div(c, s)
      k = Mul(n, gamma) [last] y = Add(k, beta) })";
constexpr const char* kGelu = R"(
    g (float[2,3] x) => (float[2,3] y) <float r = {1.41421356}, float one = {1}, float h = {0.5}>
    { d = Div(x, r) f = Erf(d) p = Add(f, one) m = Mul(x, p) [last] y = Mul(m, h) })";

Model Of(const std::string& graph, int64_t opset) {
  return ModelFromText("<ir_version: 8, opset_import: [\"\" : " + std::to_string(opset) + "]>" +
                       graph);
}

std::string WithAxis(const std::string& axis) {
  std::string text = kNorm;
  for (size_t at; (at = text.find("AXIS")) != std::string::npos;) text.replace(at, 4, axis);
  return text;
}

void ExpectSameResults(const Model& in, const Model& out) { EXPECT_GT(WorstSqnrDb(in, out), 110); }

TEST(FusePatterns, RecognizesADecomposedLayerNormalization) {
  for (const char* axis : {"-1", "2"}) {
    const Model in = Of(WithAxis(axis), 17);
    const PassResult out = RunStep("fuse_patterns", {}, in);
    ASSERT_THAT(OpTypes(out.model.graph), ElementsAre("LayerNormalization"));
    const Node& node = out.model.graph.nodes[0];
    EXPECT_THAT(node.inputs, ElementsAre("x", "gamma", "beta"));
    EXPECT_EQ(node.name, "last");
    EXPECT_FLOAT_EQ(node.Float("epsilon", 0), 1e-5F);
    ExpectSameResults(in, out.model);
  }
}

TEST(FusePatterns, LeavesANormalizationOverAnotherAxis) {
  const PassResult out = RunStep("fuse_patterns", {}, Of(WithAxis("1"), 17));
  EXPECT_EQ(out.model.graph.nodes.size(), 9U);
}

TEST(FusePatterns, RaisesTheOpsetByConvertingItsNodes) {
  const Model in = Of(WithAxis("-1"), 12);
  const PassResult out = RunStep("fuse_patterns", {}, in);
  ASSERT_THAT(OpTypes(out.model.graph), ElementsAre("LayerNormalization"));
  EXPECT_EQ(out.model.Opset(""), 17);
  EXPECT_EQ(out.report.at("opset").at(0), "opset 12 to 17");
  ExpectSameResults(in, out.model);
}

TEST(FusePatterns, SaysWhatALaterOpsetWouldAllow) {
  const PassResult kept = RunStep("fuse_patterns", {{"opset_max", 16}}, Of(WithAxis("-1"), 12));
  EXPECT_EQ(kept.model.graph.nodes.size(), 9U);
  EXPECT_EQ(kept.model.Opset(""), 12);
  EXPECT_THAT(SkippedReason(kept.report, "Add last"), HasSubstr("needs opset 17"));
  const PassResult gelu = RunStep("fuse_patterns", {}, Of(kGelu, 17));
  EXPECT_THAT(SkippedReason(gelu.report, "Mul last"), HasSubstr("needs opset 20"));
}

TEST(FusePatterns, RecognizesGeluByTheErrorFunction) {
  const Model in = Of(kGelu, 17);
  const PassResult out = RunStep("fuse_patterns", {{"opset_max", 20}}, in);
  ASSERT_THAT(OpTypes(out.model.graph), ElementsAre("Gelu"));
  EXPECT_EQ(out.model.graph.nodes[0].domain, "");
  EXPECT_EQ(out.model.Opset(""), 20);
  ExpectSameResults(in, out.model);
}

TEST(FusePatterns, RecognizesHardSwish) {
  const char* kNodes[] = {"a = Add(x, three) b = Clip(a, zero, six) m = Mul(x, b) y = Div(m, six)",
                          "a = Add(three, x) b = Clip(a, zero, six) d = Div(b, six) y = Mul(d, x)",
                          "b = HardSigmoid <alpha = 0.16666667, beta = 0.5> (x) y = Mul(x, b)"};
  for (const char* nodes : kNodes) {
    const Model in = Of(std::string("g (float[3,4] x) => (float[3,4] y) <float three = {3}, "
                                    "float zero = {0}, float six = {6}> {") +
                            nodes + "}",
                        11);
    const PassResult out = RunStep("fuse_patterns", {}, in);
    ASSERT_THAT(OpTypes(out.model.graph), ElementsAre("HardSwish")) << nodes;
    EXPECT_EQ(out.model.Opset(""), 14);
    ExpectSameResults(in, out.model);
  }
}

TEST(FusePatterns, RecognizesTheClipOfOldOpsets) {
  const Model in = Of(R"(g (float[3,4] x) => (float[3,4] y) <float three = {3}, float six = {6}>
      { a = Add(x, three) b = Clip <min = 0.0, max = 6.0> (a) m = Mul(x, b) y = Div(m, six) })",
                      10);
  const PassResult out = RunStep("fuse_patterns", {}, in);
  ASSERT_THAT(OpTypes(out.model.graph), ElementsAre("HardSwish"));
  ExpectSameResults(in, out.model);
}

TEST(FusePatterns, LeavesWhatOthersRead) {
  const Model in = Of(R"(g (float[3,4] x) => (float[3,4] y, float[3,4] z) <float three = {3},
      float zero = {0}, float six = {6}>
      { a = Add(x, three) b = Clip(a, zero, six) m = Mul(x, b) y = Div(m, six) z = Neg(b) })",
                      14);
  EXPECT_EQ(RunStep("fuse_patterns", {}, in).model.graph.nodes.size(), 5U);
}

// A model that cannot be raised stays, and the report says why.
TEST(FusePatterns, AModelThatCannotBeRaisedStays) {
  const Model in = Of(R"(g (float[1,2,4,4] x) => (float[1,2,4,4] y)
      <float[2] s = {1,1}, float[2] t = {0,0}, float[2] m = {0,0}, float[2] v = {1,1}, float three = {3}, float six = {6}>
      { [norm] n = BatchNormalization <spatial = 0> (x, s, t, m, v) a = Add(n, three)
        b = Clip <min = 0.0, max = 6.0> (a) k = Mul(n, b) [last] y = Div(k, six) })",
                      8);
  const PassResult out = RunPass("fuse_patterns", {}, in);
  EXPECT_EQ(out.model.Opset(""), 8);
  EXPECT_THAT(SkippedReason(out.report, "Div last"), HasSubstr("BatchNormalization norm"));
}

TEST(FusePatterns, WorksInSubgraphsAndByOperator) {
  const Model in = Of(R"(g (bool c, float[3,4] x) => (float[3,4] y) {
       y = If (c) <then_branch = a () => (float[3,4] p)
                     { h = HardSigmoid <alpha = 0.16666667, beta = 0.5> (x) p = Mul(x, h) },
                   else_branch = b () => (float[3,4] q) { q = Neg(x) }> })",
                      17);
  const PassResult out = RunStep("fuse_patterns", {}, in);
  EXPECT_THAT(OpTypes(*out.model.graph.nodes[0].GraphOf("then_branch")), ElementsAre("HardSwish"));
  const PassResult other = RunStep("fuse_patterns", {{"op_types", {"Gelu"}}}, in);
  EXPECT_EQ(other.model.graph.nodes[0].GraphOf("then_branch")->nodes.size(), 2U);
  EXPECT_THAT(
      [&] {
        RunStep("fuse_patterns", {{"op_types", {"Swish"}}}, in);
      },
      ThrowsError(ErrorCode::kInvalidArgument, "op_types"));
}

TEST(FusePatterns, ExcludedPatternsStay) {
  const PassResult out = RunStep("fuse_patterns", {{"exclude", {"last"}}}, Of(WithAxis("-1"), 12));
  EXPECT_EQ(SkippedReason(out.report, "Add last"), "excluded");
  EXPECT_EQ(out.model.Opset(""), 12);
}

}  // namespace
}  // namespace pared
