// What cast_fp16 leaves in float32, and that its reasons are true.

#include <gmock/gmock.h>

#include "tests/passes/made_model.h"
#include "tests/passes/promises.h"
#include "tests/passes/run_step.h"

namespace pared {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::SizeIs;

PassResult HalfOf(const Model& model) { return RunStep("cast_fp16", {}, model); }

// A model of two quantized inputs and weights `w` and `v` in INT8; `f` is a weight in float.
Model Quantized(const std::string& nodes, const std::string& outputs = "float[2,2] y") {
  Model model = ParseText(R"(<ir_version: 8, opset_import: ["" : 17]>
    g (float[2,2] x, float[2,2] z) => ()" +
                          outputs + R"() <float s = {0.1}, uint8 o = {128},
      int8[2,2] w = {3,-4,1,6}, int8[2,2] v = {5,1,-2,3}, float[2,2] f = {0.5,1.5,-0.25,1}> {
        xq = QuantizeLinear(x, s, o) xd = DequantizeLinear(xq, s, o)
        zq = QuantizeLinear(z, s, o) zd = DequantizeLinear(zq, s, o)
        wd = DequantizeLinear(w, s) vd = DequantizeLinear(v, s) )" +
                          nodes + " }");
  SortNodes(model.graph);
  Verify(model);
  return model;
}

// A Cast between DequantizeLinear and QuantizeLinear would end INT8 without a word.
TEST(CastFp16Int8, WhatStandsBetweenQuantizedValuesStays) {
  const Model in = Quantized(R"([product] p = MatMul(xd, wd) [sum] a = Add(p, zd) [relu] r = Relu(a)
    q = QuantizeLinear(r, s, o) y = DequantizeLinear(q, s, o))");
  const PassResult out = HalfOf(in);
  EXPECT_EQ(OpTypes(out.model.graph), OpTypes(in.graph));
  EXPECT_EQ(SkippedReason(out.report, "MatMul product"), "computed in INT8");
  EXPECT_THAT(SkippedReason(out.report, "Add sum"), HasSubstr("computed in INT8"));
  EXPECT_THAT(SkippedReason(out.report, "Relu relu"), HasSubstr("computed in INT8"));
}

// Runtimes multiply the codes of such a layer too.
TEST(CastFp16Int8, AProductWhoseResultIsFloatStays) {
  const PassResult out = HalfOf(Quantized(R"([last] p = Gemm <transB = 1> (xd, wd)
    t = Transpose <perm = [1,0]> (vd) m = MatMul(zd, t) h = Add(p, m) y = Sigmoid(h))"));
  EXPECT_EQ(SkippedReason(out.report, "Gemm last"), "computed in INT8");
  EXPECT_EQ(SkippedReason(out.report, "MatMul producing m"), "computed in INT8");
  EXPECT_THAT(SkippedReason(out.report, "Transpose producing t"), HasSubstr("INT8"));
  EXPECT_THAT(Labels(out.report.at("changed")),
              ElementsAre("Add producing h", "Sigmoid producing y"));
}

TEST(CastFp16Int8, WhatStaysFloatInAMixedModelIsCast) {
  const PassResult out = HalfOf(Quantized(R"([mixed] p = MatMul(xd, f) [relu] r = Relu(p)
    q = QuantizeLinear(r, s, o) d = DequantizeLinear(q, s, o) [int8] y = MatMul(d, wd))"));
  EXPECT_THAT(Labels(out.report.at("changed")), ElementsAre("MatMul mixed", "Relu relu"));
  EXPECT_EQ(SkippedReason(out.report, "MatMul int8"), "computed in INT8");
}

TEST(CastFp16Int8, AModelOfWhichOnlyTheWeightsAreQuantizedIsCast) {
  const PassResult out = HalfOf(Quantized(R"([one] p = MatMul(x, wd) [two] r = Relu(p)
    [three] y = MatMul(r, vd))"));
  EXPECT_THAT(Labels(out.report.at("changed")),
              ElementsAre("MatMul one", "Relu two", "MatMul three"));
}

// An output of the graph, or a float reader, needs the value itself.
TEST(CastFp16Int8, AValueThatIsAlsoReadInFloatIsNotBetween) {
  const PassResult out = HalfOf(Quantized(R"([sum] a = Add(xd, zd) q = QuantizeLinear(a, s, o)
    y = DequantizeLinear(q, s, o))",
                                          "float[2,2] y, float[2,2] a"));
  EXPECT_THAT(Labels(out.report.at("changed")), ElementsAre("Add sum"));
}

// Its mean and variance are float32 whatever its operands are (stash_type).
TEST(CastFp16Reasons, TheEpsilonOfANormThatComputesInFloatMayBeSmall) {
  const Model in =
      ModelFromText(R"(g (float[1,4] x, float[1,2,4] u) => (float[1,4] y, float[1,2,4] z)
    <float[4] s = {1,1,1,1}, float[4] b = {0,0,0,0}, float[2] t = {1,1}>
    { [layer] y = LayerNormalization <epsilon = 1e-12> (x, s, b)
      [instance] z = InstanceNormalization <epsilon = 1e-12> (u, t, t) })");
  const PassResult out = HalfOf(in);
  EXPECT_EQ(SkippedReason(out.report, "LayerNormalization layer"), "");
  EXPECT_EQ(SkippedReason(out.report, "InstanceNormalization instance"),
            "its epsilon 1e-12 is too small for float16");
}

TEST(CastFp16Reasons, CodesOfEightBitsAreExact) {
  const Model in = ModelFromText(R"(g (int64[4] i, int32[4] n) => (float[4,2] y, float[4] m)
    <int8[3,2] codes = {1,-128,127,4,5,6}, float s = {0.5}> {
      g = Gather(codes, i) [codes] c = Cast <to = 1> (g) [scale] y = Mul(c, s)
      [numbers] k = Cast <to = 1> (n) [more] m = Mul(k, s) })");
  const PassResult out = HalfOf(in);
  EXPECT_THAT(Labels(out.report.at("changed")), ElementsAre("Cast codes", "Mul scale"));
  EXPECT_THAT(SkippedReason(out.report, "Cast numbers"), HasSubstr("values are integers"));
  EXPECT_THAT(SkippedReason(out.report, "Mul more"), HasSubstr("made of integers"));
  const std::vector<Tensor> inputs = {Tensor::Make<int64_t>({4}, {0, 1, 2, 0}),
                                      Tensor::Make<int32_t>({4}, {1, 2, 3, 4})};
  EXPECT_THAT(Output(out.model, inputs), ElementsAre(0.5, -64, 63.5, 2, 2.5, 3, 0.5, -64));
}

TEST(CastFp16Reasons, WhatOnnxAllowsIsNotSaidToBeForbidden) {
  const Model in = ParseText(R"(<ir_version: 10, opset_import: ["" : 20]>
    g (float[1,1,8,8] x) => (float[1,1,1,1] y, float[2,3] z)
    <float s = {0.1}, uint8 o = {0}, float[1,4] r = {0,0,4,4}, int64[1] i = {0}, int64[2] n = {2,3}> { q = QuantizeLinear(x, s, o) d = DequantizeLinear(q, s, o)
      y = RoiAlign(d, r, i) z = ConstantOfShape(n) })");
  const PassResult out = HalfOf(in);
  EXPECT_THAT(out.report.at("skipped"), SizeIs(4));
  for (const Json& entry : out.report.at("skipped")) {
    EXPECT_THAT(entry.at("reason").get<std::string>(),
                AllOf(HasSubstr("float32"), Not(HasSubstr("may not take"))));
  }
}

// A convolution with real weights makes features; one that counts makes integers again.
TEST(CastFp16Reasons, FeaturesMadeOfIntegersAreNone) {
  const Model in = Made(R"(g (int64[1,2,8,8] i) => (float[1,4,6,6] y, float[1,1,6,6] n)
    <float[1,2,3,3] ones = {1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1}> {
      f = Cast <to = 1> (i) [first] c = Conv(f, w) [relu] r = Relu(c) [second] y = Conv(r, v)
      [count] k = Conv(f, ones) [abs] n = Abs(k) })",
                        {{"w", {4, 2, 3, 3}}, {"v", {4, 4, 1, 1}}});
  const PassResult out = HalfOf(in);
  EXPECT_THAT(Labels(out.report.at("changed")), ElementsAre("Relu relu", "Conv second"));
  EXPECT_THAT(SkippedReason(out.report, "Conv first"), HasSubstr("made of integers"));
  EXPECT_THAT(SkippedReason(out.report, "Abs abs"), HasSubstr("made of integers"));
}

// Angles as products of frequencies and positions, and coordinates that a small matrix turns.
TEST(CastFp16Reasons, PositionsStayIntegersBehindSmallProducts) {
  const Model in = Made(R"(g (int64[1,9] i, int64[9,3] p) => (float[4,9] y, float[9,3] z) {
      f = Cast <to = 1> (i) a = MatMul(w, f) [angle] y = Neg(a)
      g = Cast <to = 1> (p) b = MatMul(g, v) [turned] z = Neg(b) })",
                        {{"w", {4, 1}}, {"v", {3, 3}}});
  const Json report = HalfOf(in).report;
  EXPECT_THAT(SkippedReason(report, "Neg angle"), HasSubstr("made of integers"));
  EXPECT_THAT(SkippedReason(report, "Neg turned"), HasSubstr("made of integers"));
}

// A Cast for a Shape would be for nothing.
TEST(CastFp16Shapes, AreReadOfWhateverTypeThereIs) {
  const Model in = Made(R"(g (float[N,8] x) => (float[N,8] y, int64[2] s, int64[2] t) {
      [excluded] e = Neg(x) s = Shape(e) y = MatMul(e, w) t = Shape(y) })",
                        {{"w", {8, 8}}});
  const PassResult out = RunStep("cast_fp16", {{"exclude", {"excluded"}}}, in);
  EXPECT_THAT(OpTypes(out.model.graph),
              ElementsAre("Neg", "Shape", "Cast", "MatMul", "Cast", "Shape"));
  EXPECT_EQ(out.model.graph.nodes[1].inputs[0], "e");
}

// A norm that may overflow reads the weight in float32, the product with it in float16.
TEST(CastFp16Growth, IsReported) {
  const Model in = Made(R"(g (float[1,64] x) => (float[1,64] y) { n = ReduceL2 <axes = [0]> (w)
      u = Mul(w, n) d = Div(u, n) p = MatMul(x, w) y = Max(p, n) })",
                        {{"w", {64, 64}}});
  const Json report = HalfOf(in).report;
  ASSERT_EQ(report.at("warnings").size(), 1U);
  EXPECT_THAT(report.at("warnings")[0].get<std::string>(),
              AllOf(HasSubstr("the file grows"), HasSubstr("1 constants"), HasSubstr("\"w\"")));
  const Model plain =
      Made("g (float[1,64] x) => (float[1,64] y) { y = MatMul(x, w) }", {{"w", {64, 64}}});
  EXPECT_FALSE(HalfOf(plain).report.contains("warnings"));
  const Model bare = ModelFromText("g (float[1,64] x) => (float[1,64] y) { y = Relu(x) }");
  EXPECT_THAT(HalfOf(bare).report.at("warnings")[0].get<std::string>(), HasSubstr("2 Casts"));
}

// What ONNX 23 and image models have between layers must not hide its type from those behind it.
TEST(CastFp16Types, LayersBehindRarerOperatorsAreCast) {
  const Model attention = Made(R"(<ir_version: 11, opset_import: ["" : 23]>
    g (float[1,2,4,8] x) => (float[1,2,4,8] y) { q = MatMul(x, w) a = Attention(q, q, q)
      [behind] y = MatMul(a, w) })",
                               {{"w", {8, 8}}});
  EXPECT_THAT(Labels(HalfOf(attention).report.at("changed")), Contains("MatMul behind"));
  const Model grid = Made(R"(<ir_version: 8, opset_import: ["" : 17]>
    g (float[1,3,8,8] x, float[1,8,8,2] p) => (float[1,4,8,8] y) { s = GridSample(x, p)
      [behind] y = Conv(s, w) })",
                          {{"w", {4, 3, 1, 1}}});
  const PassResult out = HalfOf(grid);
  EXPECT_THAT(Labels(out.report.at("changed")), Contains("Conv behind"));
  // The places stay float32.
  EXPECT_THAT(out.model.graph.nodes[1].inputs, ElementsAre("x_fp16", "p"));
}

}  // namespace
}  // namespace pared
