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

}  // namespace
}  // namespace pared
