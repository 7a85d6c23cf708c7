#include <gmock/gmock.h>

#include "evaluator/executor.h"
#include "model/infer_shapes.h"
#include "model/onnx.h"
#include "tests/passes/run_pass.h"

namespace pared {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

DType TypeOf(const Model& model, const std::string& initializer) {
  return model.graph.initializers.at(initializer).tensor.dtype();
}

TEST(CastFp16, StoresWeightsInHalfAndKeepsTheInterface) {
  const PassResult out = RunPass("cast_fp16", {}, ModelFromText(R"(
    g (float[N,2] x) => (float[N,2] y) <float[2,2] w = {1,2,3,4}> { y = MatMul(x, w) })"));
  EXPECT_EQ(TypeOf(out.model, "w"), DType::kFloat16);
  EXPECT_THAT(OpTypes(out.model.graph), ElementsAre("Cast", "MatMul", "Cast"));
  EXPECT_EQ(out.model.graph.outputs[0].name, "y");
  EXPECT_EQ(InferShapes(out.model).at("y").dtype, DType::kFloat32);
}

// An output that is read inside too: the outside sees float, the readers the half copy.
TEST(CastFp16, KeepsAnOutputThatIsAlsoRead) {
  const PassResult out = RunPass("cast_fp16", {}, ModelFromText(R"(
    g (float[N] x) => (float[N] a, float[N] y) { a = Neg(x) y = Relu(a) })"));
  EXPECT_THAT(OpTypes(out.model.graph), ElementsAre("Cast", "Neg", "Cast", "Relu", "Cast"));
  EXPECT_EQ(out.model.graph.nodes[3].inputs[0], "a_fp16");
  EXPECT_EQ(out.model.graph.outputs[0].name, "a");
}

TEST(CastFp16, ValuesOutOfRangeKeepTheirNode) {
  const PassResult out = RunPass("cast_fp16", {}, ModelFromText(R"(
    g (float[N] x) => (float[N] y, float[N] z, float[N] u)
    <float b = {1e5}, float s = {1e-9}, float t = {0.5}>
    { [big] y = Add(x, b) [tiny] z = Mul(x, s) [fine] u = Mul(x, t) })"));
  EXPECT_EQ(TypeOf(out.model, "b"), DType::kFloat32);
  EXPECT_EQ(TypeOf(out.model, "s"), DType::kFloat32);
  EXPECT_EQ(TypeOf(out.model, "t"), DType::kFloat16);
  EXPECT_THAT(SkippedReason(out.report, "Add big"), HasSubstr("1 overflow"));
  EXPECT_THAT(SkippedReason(out.report, "Mul tiny"), HasSubstr("1 become zero"));
}

TEST(CastFp16, KeepsTheScalesOfResizeInFloat) {
  const PassResult out = RunPass("cast_fp16", {}, ModelFromText(R"(
    g (float[1,1,2,2] x) => (float[1,1,4,4] y) <float[4] s = {1,1,2,2}>
    { y = Resize <mode = "nearest"> (x, , s) })"));
  EXPECT_EQ(TypeOf(out.model, "s"), DType::kFloat32);
  EXPECT_THAT(out.model.graph.nodes[1].inputs, ElementsAre("x_fp16", "", "s"));
}

TEST(CastFp16, AnInitializerReadInBothTypesIsStoredInBoth) {
  const PassResult out = RunPass("cast_fp16", Json{{"exclude", {"second"}}}, ModelFromText(R"(
    g (float[N] x) => (float[N] y, float[N] z) <float b = {0.5}>
    { [first] y = Add(x, b) [second] z = Mul(x, b) })"));
  EXPECT_EQ(TypeOf(out.model, "b"), DType::kFloat32);
  EXPECT_EQ(TypeOf(out.model, "b_fp16"), DType::kFloat16);
}

TEST(CastFp16, IntegersHeldAsFloatStaySo) {
  const PassResult out = RunPass("cast_fp16", {}, ModelFromText(R"(
    g (float[N] x, float[1] i) => (float[M] y) <float one = {1}>
    { s = Add(i, one) c = Cast <to = 7> (s) y = Gather(x, c) })"));
  EXPECT_THAT(SkippedReason(out.report, "Add producing s"), HasSubstr("end as integers"));
}

TEST(CastFp16, LeavesTheIntegersOfAnEmbeddingAlone) {
  const PassResult out = RunPass("cast_fp16", {}, ModelFromText(R"(
    g (int64[N] ids) => (float[N,2] y) <float[3,2] e = {1,2,3,4,5,6}> { y = Gather(e, ids) })"));
  EXPECT_THAT(out.model.graph.nodes[0].inputs, ElementsAre("e", "ids"));
  EXPECT_THAT(OpTypes(out.model.graph), ElementsAre("Gather", "Cast"));
}

TEST(CastFp16, CastsInsideTheBranchThatNeedsIt) {
  const Model in = ModelFromText(R"(g (bool c, float[2] x) => (float[2] y) {
      h = Relu(x)
      y = If (c) <then_branch = t () => (float[2] p) { [a] p = Exp(h) },
                  else_branch = e () => (float[2] q) { [b] q = Neg(h) }> })");
  const PassResult out = RunPass("cast_fp16", {}, in);
  const Node& branches = out.model.graph.nodes.back();
  EXPECT_THAT(OpTypes(*branches.GraphOf("then_branch")), ElementsAre("Cast", "Exp"));
  EXPECT_THAT(OpTypes(*branches.GraphOf("else_branch")), ElementsAre("Neg", "Cast"));
  const std::vector<Tensor> inputs = {Tensor::Scalar<bool>(true),
                                      Tensor::Make<float>({2}, {1, -2})};
  const Tensor y = Executor(out.model).Run(inputs)[0];
  EXPECT_NEAR(y.data<float>()[0], 2.7182817f, 1e-5);
  EXPECT_EQ(y.data<float>()[1], 1.0f);
}

TEST(CastFp16, WithNothingToCastTheModelIsUnchanged) {
  const Model in = ModelFromText(R"(<ir_version: 3, opset_import: ["" : 8]>
    g (float[N] x, float b) => (float[N] y) <float b = {0.5}> { [only] y = Add(x, b) })");
  const PassResult out = RunPass("cast_fp16", Json{{"exclude", {"only"}}}, in);
  EXPECT_EQ(SerializeOnnx(out.model), SerializeOnnx(in));
}

TEST(CastFp16, UnnamedNodesGetCastsOfDifferentNames) {
  const PassResult out = RunPass("cast_fp16", {}, ModelFromText(R"(
    g (float[N] x, float[N] a) => (float[N] y, float[N] z) { y = Mul(x, a) z = Add(x, a) })"));
  std::set<std::string> names;
  for (const Node& node : out.model.graph.nodes) {
    EXPECT_TRUE(node.op_type != "Cast" || names.insert(node.name).second) << node.name;
  }
  EXPECT_EQ(names.size(), 4u);
}

PassResult Calibrated(const char* text, Json options = Json::object()) {
  const Model in = ModelFromText(text);
  const Dataset data = Dataset::Random(in.graph.inputs, 4, 1);
  return RunPass("cast_fp16", std::move(options), in, &data);
}

// v is {300, 2}, its square 90000.
TEST(CastFp16, ValuesThatLeaveTheRangeOnSamplesKeepTheirNodes) {
  const PassResult out = Calibrated(R"(g (float[2] x) => (float[2] y)
    <float none = {0}, float[2] c = {300,2}> {
      [zero] z = Mul(x, none) [shift] v = Add(z, c) [square] s = Mul(v, v) [root] y = Sqrt(s) })");
  EXPECT_THAT(SkippedReason(out.report, "Mul square"), HasSubstr("reaches 90000"));
  EXPECT_THAT(SkippedReason(out.report, "Sqrt root"), HasSubstr("reaches 90000"));
  EXPECT_EQ(SkippedReason(out.report, "Add shift"), "");
  EXPECT_THAT(Output(out.model, Tensor::Make<float>({2}, {1, 1})), ElementsAre(300, 2));
}

TEST(CastFp16, ValuesThatBecomeZeroOnSamplesKeepTheirNodes) {
  const PassResult out = Calibrated(R"(g (float[2] x) => (float[2] y)
    <float none = {0}, float[2] c = {0.0001,0.0002}> {
      z = Mul(x, none) v = Add(z, c) [square] s = Mul(v, v) [root] y = Sqrt(s) })");
  EXPECT_THAT(SkippedReason(out.report, "Mul square"), HasSubstr("8 elements"));
  EXPECT_THAT(SkippedReason(out.report, "Mul square"), HasSubstr("become zero"));
}

// The norm of 4 elements of 100 is 200, which float16 holds; the sum of squares is 40000, more than
// a quarter of its range.
TEST(CastFp16, TheSumInsideANormMustFitToo) {
  const PassResult out = Calibrated(R"(g (float[1,4] x) => (float[1,1] y)
    <float none = {0}, float hundred = {100}> {
      z = Mul(x, none) v = Add(z, hundred) [norm] y = ReduceL2<axes = [1]>(v) })");
  EXPECT_THAT(SkippedReason(out.report, "ReduceL2 norm"), HasSubstr("sum inside"));
}

// v / v^2 = {0.01, 10000}. Against 100^2 the lost square of 0.0001 weighs nothing, but the quotient
// by it is infinite: only running in float16 shows that.
TEST(CastFp16, WhatDividesByALostValueIsFoundByRunningInHalf) {
  const PassResult out = Calibrated(R"(g (float[2] x) => (float[2] y)
    <float none = {0}, float[2] c = {100,0.0001}> {
      [zero] z = Mul(x, none) [shift] v = Add(z, c) [square] s = Mul(v, v) [quotient] y = Div(v, s) })");
  EXPECT_THAT(SkippedReason(out.report, "Div quotient"), HasSubstr("infinite or NaN"));
  EXPECT_THAT(SkippedReason(out.report, "Mul square"), HasSubstr("infinite or NaN"));
  const std::vector<float> y = Output(out.model, Tensor::Make<float>({2}, {1, 1}));
  EXPECT_NEAR(y[0], 0.01f, 1e-5f);
  EXPECT_NEAR(y[1], 10000, 20);
  EXPECT_GT(out.report.at("calibration_sqnr_db"), 50);
}

TEST(CastFp16, TheInterfaceIsHalfWhereAsked) {
  const PassResult out = RunPass("cast_fp16", {{"keep_io", false}}, ModelFromText(R"(
    g (float[2] x, int64[1] i) => (float[2] y, float[1] z, int64[1] n) <float b = {0.5}>
    { y = Add(x, b) [half] n = Neg(i) z = Gather(x, n) })"));
  EXPECT_EQ(out.model.graph.inputs[0].dtype, DType::kFloat16);
  EXPECT_EQ(out.model.graph.inputs[1].dtype, DType::kInt64);
  EXPECT_EQ(out.model.graph.outputs[0].dtype, DType::kFloat16);
  EXPECT_EQ(out.model.graph.outputs[1].dtype, DType::kFloat16);
  EXPECT_EQ(out.model.graph.outputs[2].dtype, DType::kInt64);
  EXPECT_THAT(OpTypes(out.model.graph), ElementsAre("Add", "Neg", "Gather"));
  EXPECT_EQ(InferShapes(out.model).at("y").dtype, DType::kFloat16);
}

TEST(CastFp16, AnOutputOfAFloatNodeStaysFloat) {
  const PassResult out =
      RunPass("cast_fp16", {{"keep_io", false}, {"exclude", {"kept"}}}, ModelFromText(R"(
    g (float[2] x) => (float[2] y) { a = Neg(x) [kept] y = Abs(a) })"));
  EXPECT_EQ(out.model.graph.inputs[0].dtype, DType::kFloat16);
  EXPECT_EQ(out.model.graph.outputs[0].dtype, DType::kFloat32);
  EXPECT_THAT(OpTypes(out.model.graph), ElementsAre("Neg", "Cast", "Abs"));
}

std::string LargeWeight(const std::string& largest) {
  std::string text = "g (float[1,16] x) => (float[1,16] y) <float[16,16] w = {" + largest;
  for (int i = 1; i < 256; ++i) text += "," + std::to_string(i % 7);
  return text + "}> { [product] y = MatMul(x, w) }";
}

TEST(CastFp16, BFloat16IsAFormOfStorage) {
  const PassResult out =
      RunPass("cast_fp16", {{"type", "bfloat16"}}, ModelFromText(LargeWeight("1e9")));
  EXPECT_EQ(TypeOf(out.model, "w_bfloat16"), DType::kBFloat16);
  EXPECT_FALSE(out.model.graph.initializers.contains("w"));
  EXPECT_THAT(OpTypes(out.model.graph), ElementsAre("Cast", "MatMul"));
  EXPECT_THAT(out.model.graph.nodes[1].inputs, ElementsAre("x", "w"));
  std::vector<float> one(16, 0);
  one[1] = 1;
  EXPECT_THAT(Output(out.model, Tensor::Make<float>({1, 16}, one)),
              ElementsAre(2, 3, 4, 5, 6, 0, 1, 2, 3, 4, 5, 6, 0, 1, 2, 3));
}

TEST(CastFp16, ConstantsOfNodesAreStoredSoToo) {
  Model in = ModelFromText(LargeWeight("3"));
  Node constant;
  constant.op_type = "Constant";
  constant.outputs = {"w"};
  constant.attributes.set("value", {4, in.graph.initializers.at("w").tensor, "", ""});
  in.graph.initializers.erase_if([](const std::string&, const auto&) { return true; });
  in.graph.nodes.insert(in.graph.nodes.begin(), constant);
  const PassResult out = RunPass("cast_fp16", {{"type", "bfloat16"}}, in);
  EXPECT_THAT(OpTypes(out.model.graph), ElementsAre("Constant", "Cast", "MatMul"));
  EXPECT_EQ(out.model.graph.nodes[0].TensorOf("value")->dtype(), DType::kBFloat16);
}

// Of opset 7, whose Clip and Softmax have another form in the opset of bfloat16.
Model OldModel(int64_t side) {
  const std::string s = std::to_string(side);
  const std::string row = "float[1," + s + "] ", square = "float[" + s + "," + s + "] ";
  Model m =
      ParseText("<ir_version: 3, opset_import: [\"\" : 7]> g (" + row + "x, " + square + "w) => (" +
                row + "y) { c = Clip <min = 0.0> (x) m = MatMul(c, w) y = Softmax(m) }");
  const std::vector<float> ones(static_cast<size_t>(side * side), 1);
  return WithInitializer(m, "w", Tensor::Make<float>({side, side}, ones));
}

TEST(CastFp16, StorageOfNothingLeavesTheModelAsItIs) {
  const PassResult out = RunPass("cast_fp16", {{"type", "bfloat16"}}, OldModel(1));
  EXPECT_EQ(SerializeOnnx(out.model), SerializeOnnx(OldModel(1)));
  EXPECT_EQ(out.report.at("raised"), Json::array());
}

TEST(CastFp16, StorageInBFloat16RaisesAnOldModel) {
  const PassResult out = RunPass("cast_fp16", {{"type", "bfloat16"}}, OldModel(16));
  EXPECT_EQ(out.model.Opset(""), 13);
  EXPECT_THAT(OpTypes(out.model.graph), ElementsAre("Cast", "Clip", "MatMul", "Softmax"));
  EXPECT_FALSE(out.report.at("raised").empty());
}

TEST(CastFp16, StorageInFloat16KeepsWhatItDoesNotHold) {
  const Json storage = {{"compute", "float32"}};
  const PassResult out = RunPass("cast_fp16", storage, ModelFromText(LargeWeight("3")));
  EXPECT_EQ(TypeOf(out.model, "w_float16"), DType::kFloat16);
  const PassResult kept = RunPass("cast_fp16", storage, ModelFromText(LargeWeight("1e9")));
  EXPECT_EQ(TypeOf(kept.model, "w"), DType::kFloat32);
  EXPECT_EQ(kept.report.at("skipped")[0].at("weight"), "w");
  const PassResult excluded = RunPass("cast_fp16", {{"type", "bfloat16"}, {"exclude", {"product"}}},
                                      ModelFromText(LargeWeight("3")));
  EXPECT_EQ(excluded.report.at("skipped")[0].at("reason"), "an excluded node reads it");
}

TEST(CastFp16, ABiasThatIsNextToNothingKeepsNoLayerFloat) {
  const Model in = ModelFromText(R"(g (float[1,2,3,3] x) => (float[1,2,3,3] y)
    <float[2,2,1,1] w = {1, -0.5, 0.25, 2}, float[2] b = {1e-9, -3e-8}> { y = Conv(x, w, b) })");
  const PassResult out = RunPass("cast_fp16", Json::object(), in);
  EXPECT_TRUE(out.report.at("skipped").empty()) << out.report.dump();
  EXPECT_EQ(TypeOf(out.model, "w"), DType::kFloat16);
  const PassResult large = RunPass("cast_fp16", Json::object(), ModelFromText(R"(
    g (float[1,2,3,3] x) => (float[1,2,3,3] y)
    <float[2,2,1,1] w = {1, -0.5, 0.25, 2}, float[2] b = {1e9, -3e-8}> { y = Conv(x, w, b) })"));
  EXPECT_THAT(large.report.at("skipped").dump(), HasSubstr("overflow"));
}

}  // namespace
}  // namespace pared
