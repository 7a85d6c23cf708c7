// Faults that users report of float16 converters (tests/faults.md), each as a model in which it
// would show.

#include <gmock/gmock.h>

#include <cmath>
#include <limits>

#include "evaluator/executor.h"
#include "evaluator/metrics.h"
#include "evaluator/npy.h"
#include "model/infer_shapes.h"
#include "model/onnx.h"
#include "tests/passes/made_model.h"
#include "tests/passes/run_step.h"
#include "tests/testing/random_tensor.h"
#include "tests/testing/temp_dir.h"

namespace pared {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Not;

PassResult Cast(const Model& model, Json options = Json::object(), const Dataset* data = nullptr) {
  return RunStep("cast_fp16", std::move(options), model, data);
}

// A dataset of one input x, all samples as random numbers of this deviation.
class Fp16Faults : public ::testing::Test {
 protected:
  Dataset Data(Shape shape, double deviation) {
    shape.insert(shape.begin(), 8);
    SaveNpy(Random(3).Normal(shape, deviation), folder_ / "x.npy");
    WriteFile(folder_ / "dataset.json", R"({"inputs": {"x": "x.npy"}})");
    return Dataset::Open(folder_.path());
  }
  // With float16 rounding after every node that computes in it.
  static double SqnrDb(const Model& reference, const Model& model, const Dataset& data) {
    return SqnrDbOn(data, reference, model);
  }
  TempDir folder_;
};

TEST_F(Fp16Faults, ACastToFloatAgreesWithWhatReadsIt) {
  const Model in = ModelFromText(R"(g (float[2,3] x) => (float[2,3] y) <int64[1] zero = {0}> {
    s = Shape(x) c = Cast <to = 1> (s) r = ReduceSum <keepdims = 0> (c, zero) y = Mul(x, r) })");
  const Dataset data = Data({2, 3}, 1);
  const Model out = Cast(in, {}, &data).model;
  EXPECT_EQ(InferShapes(out).at("y").dtype, DType::kFloat32);
  EXPECT_GT(SqnrDb(in, out, data), 50);
}

TEST_F(Fp16Faults, AnInitializerOfAConvertedAndAnUnconvertibleNode) {
  const Model in = ModelFromText(R"(g (float[4] x) => (float[4] y)
    <float b = {0}, float four = {4}, float one = {1}> { r = Range(b, four, one) s = Add(x, b) y = Add(s, r) })");
  const Dataset data = Data({4}, 1);
  const PassResult out = Cast(in, {}, &data);
  EXPECT_THAT(SkippedReason(out.report, "Range producing r"), Not(""));
  EXPECT_GT(SqnrDb(in, out.model, data), 50);
}

TEST_F(Fp16Faults, TheInterfaceStaysWhereTheLastNodeIsExcluded) {
  Model in = ModelFromText(R"(g (float[1,1,2,2] x) => (float[1,1,4,4] y) <float[4] s = {1,1,2,2},
    float[1,1,1,1] w = {0.5}> { c = Conv(x, w) [last] y = Resize <mode = "linear"> (c, , s) })");
  const Dataset data = Data({1, 1, 2, 2}, 1);
  for (const Json& options :
       {Json::object(), Json{{"exclude", {"last"}}}, Json{{"exclude", {"op:Conv"}}}}) {
    const Model out = Cast(in, options).model;
    EXPECT_EQ(out.graph.inputs[0].dtype, DType::kFloat32);
    EXPECT_EQ(InferShapes(out).at("y").dtype, DType::kFloat32);
    EXPECT_GT(SqnrDb(in, out, data), 50);
  }
}

// What masks attention: float16 has neither -1e9 nor -3.4e38.
TEST_F(Fp16Faults, AMaskOfMinusABillionStillMasks) {
  for (const char* mask : {"-1e9", "-3.4e38"}) {
    const Model in = ModelFromText(std::string(R"(g (float[1,4] x) => (float[1,4] y)
      <float[4] m = {0,0,)") + mask +
                                   R"(,0}, float[4,4] w = {1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16}>
      { a = Add(x, m) s = Softmax <axis = -1> (a) y = MatMul(s, w) })");
    const Dataset data = Data({1, 4}, 1);
    for (const Dataset* given : {static_cast<const Dataset*>(nullptr), &data}) {
      const Model out = Cast(in, {}, given).model;
      EXPECT_GT(SqnrDb(in, out, data), 45) << mask;
    }
  }
}

TEST_F(Fp16Faults, SquaresThatLeaveTheRangeStaySingle) {
  const Model in = ModelFromText(R"(g (float[1,3,8] x) => (float[1,3,8] y)
    <float k = {600}, float two = {2}, float e = {1e-5}>
    { h = Mul(x, k) m = ReduceMean <axes = [-1]> (h) c = Sub(h, m) [square] q = Pow(c, two)
      v = ReduceMean <axes = [-1]> (q) t = Add(v, e) s = Sqrt(t) y = Div(c, s) })");
  const Dataset data = Data({1, 3, 8}, 1);
  const PassResult out = Cast(in, {}, &data);
  EXPECT_THAT(SkippedReason(out.report, "Pow square"), HasSubstr("reaches"));
  EXPECT_GT(SqnrDb(in, out.model, data), 45);
  // Without data nothing tells how large they get.
  const PassResult blind = Cast(in);
  EXPECT_THAT(SkippedReason(blind.report, "Pow square"), HasSubstr("no calibration data"));
  EXPECT_GT(SqnrDb(in, blind.model, data), 45);
}

TEST_F(Fp16Faults, SumsOverManyElementsStaySingle) {
  const Model in = ModelFromText(R"(g (float[1,1,128,128] x) => (float[1,1,1,1] y, float[1,1,1,1] z)
    <float ten = {10}> { a = Add(x, ten) [mean] y = ReduceMean <axes = [2,3]> (a) [norm] z = ReduceL2 <axes = [2,3]> (a) })");
  const Dataset data = Data({1, 1, 128, 128}, 1);
  const PassResult out = Cast(in, {}, &data);
  EXPECT_THAT(SkippedReason(out.report, "ReduceMean mean"), HasSubstr("sum inside"));
  EXPECT_GT(SqnrDb(in, out.model, data), 45);
}

// A variance as E[x^2] - E[x]^2, of values far from zero: each term is in range, and in float16
// their difference is mostly rounding. JAX and Flax write LayerNorm so.
// The results are run by onnxruntime elsewhere (tests/parity/pass_outputs.py), whose process such a
// float16 model ends.
TEST_F(Fp16Faults, ATransposeThatOnnxruntimeDoesNotTakeIntoAProductStaysSingle) {
  const auto model = [](const std::string& perm, const std::string& between) {
    Model in = ParseText("g (float[3,2,4] x) => (y) { s = Mul(x, x) t = Transpose <perm = " + perm +
                         "> (s) " + between + " y = MatMul(r, w) }");
    in.graph.outputs[0].dtype = DType::kFloat32;
    in = WithInitializer(std::move(in), "again", Tensor::Make<int64_t>({3}, {1, -1, 4}));
    in = WithInitializer(std::move(in), "one", Tensor::Scalar<float>(1));
    in = WithInitializer(std::move(in), "flat", Tensor::Make<int64_t>({2}, {-1, 4}));
    return WithInitializer(std::move(in), "w", Random(5).Normal({4, 5}, 1));
  };
  const Dataset data = Data({3, 2, 4}, 1);
  for (const auto& [perm, between, is_kept] :
       {std::tuple{"[1,0,2]", "r = Identity(t)", true},
        {"[1,0,2]", "r = Reshape(t, again)", true},
        {"[1,0,2]", "r = Dropout(t)", true},
        {"[1,0,2]", "r = Cast <to = 1> (t)", true},
        {"[1,0,2]", "r = Concat <axis = 0> (t, t)", true},
        {"[1,0,2]", "r = Mul(one, t)", true},
        {"[0,2,1]", "r = Transpose <perm = [0,2,1]> (t)", true},
        {"[1,0,2]", "n = Neg(s) u = Transpose <perm = [1,0,2]> (n) r = Max(u, t)", true},
        {"[1,0,2]", "r = Tanh(t)", false},
        {"[1,0,2]", "r = Reshape(t, flat)", false},
        {"[0,1,2]", "r = Identity(t)", false}}) {
    const Model in = model(perm, between);
    const PassResult out = Cast(in, {}, &data);
    const std::string why = SkippedReason(out.report, "Transpose producing t");
    EXPECT_EQ(why, is_kept ? "onnxruntime does not load MatMul producing y behind it" : "")
        << perm << between;
    EXPECT_EQ(SkippedReason(out.report, "MatMul producing y"), "");
    EXPECT_GT(SqnrDb(in, out.model, data), 50);
    const PassResult again = Cast(out.model, {}, &data);
    EXPECT_EQ(SkippedReason(again.report, "Transpose producing t").starts_with("onnxruntime"),
              is_kept)
        << perm << between;
  }
}

TEST_F(Fp16Faults, AVarianceThatCancelsStaysSingle) {
  const Model in = ModelFromText(R"(g (float[4,32] x) => (float[4,32] y)
    <float far = {8}, float e = {0.001}> { f = Add(x, far) q = Mul(f, f)
      m = ReduceMean <axes = [1]> (f) s = ReduceMean <axes = [1]> (q) n = Mul(m, m)
      [variance] v = Sub(s, n) w = Add(v, e) d = Sqrt(w) c = Sub(f, m) y = Div(c, d) })");
  const Dataset data = Data({4, 32}, 0.2);
  const PassResult out = Cast(in, {}, &data);
  EXPECT_THAT(SkippedReason(out.report, "Sub variance"), HasSubstr("dB smaller"));
  // The squares as well: rounded, they would have lost the difference already.
  EXPECT_THAT(SkippedReason(out.report, "Mul producing q"), HasSubstr("dB smaller"));
  EXPECT_GT(SqnrDb(in, out.model, data), 40);
  EXPECT_GT(out.report.at("calibration_sqnr_db").get<double>(), 40);
  // What does not cancel computes in float16.
  const Dataset wide = Data({4, 32}, 20);
  const PassResult other = Cast(in, {}, &wide);
  EXPECT_EQ(SkippedReason(other.report, "Sub variance"), "");
  EXPECT_GT(SqnrDb(in, other.model, wide), 45);
}

// A weight that a caller may override is cast at run time, and the report says so.
TEST_F(Fp16Faults, AWeightAmongTheInputsStaysUnlessFrozen) {
  const Model in = ModelFromText(R"(<ir_version: 8, opset_import: ["" : 13]>
    g (float[2,3] x, float[3,2] w) => (float[2,2] y) <float[3,2] w = {1,2,3,4,5,6}>
    { y = MatMul(x, w) })");
  const PassResult kept = Cast(in);
  EXPECT_EQ(kept.model.graph.initializers.at("w").tensor.dtype(), DType::kFloat32);
  EXPECT_EQ(kept.report.at("inputs").at(0).at("name"), "w");
  const PassResult frozen = Cast(in, {{"freeze_inputs", true}});
  EXPECT_EQ(frozen.model.graph.initializers.at("w").tensor.dtype(), DType::kFloat16);
  EXPECT_EQ(frozen.model.graph.inputs.size(), 1U);
  EXPECT_FALSE(frozen.report.contains("inputs"));
}

TEST_F(Fp16Faults, AnEpsilonThatFloat16DoesNotHoldKeepsItsNode) {
  const Model in = ModelFromText(R"(g (float[1,2,4] x) => (float[1,2,4] y, float[1,2,4] z)
    <float[2] s = {1,1}, float[2] b = {0,0}>
    { [tiny] y = InstanceNormalization <epsilon = 1e-12> (x, s, b) [fine] z = InstanceNormalization <epsilon = 0.001> (x, s, b) })");
  const PassResult out = Cast(in);
  EXPECT_THAT(SkippedReason(out.report, "InstanceNormalization tiny"), HasSubstr("epsilon"));
  EXPECT_EQ(SkippedReason(out.report, "InstanceNormalization fine"), "");
}

TEST_F(Fp16Faults, WithEveryNodeExcludedTheBytesAreTheSame) {
  const Model in =
      ModelFromText(R"(<ir_version: 8, opset_import: ["" : 17], metadata_props: ["k" : "v"]>
    g (float[N,2] x) => (float[N,2] y) <float[2,2] w = {1,2,3,4}> { [a] h = MatMul(x, w) [b] y = Softmax(h) })");
  EXPECT_EQ(SerializeOnnx(Cast(in, {{"exclude", {"re:.*"}}}).model), SerializeOnnx(in));
}

TEST_F(Fp16Faults, IndicesBeyondElevenBitsStayExact) {
  const Model in = ModelFromText(R"(g (float[1] x, float[4000] table) => (float[1] y)
    <float k = {3001}, float[1] zero = {0}> { z = Mul(x, zero) s = Add(z, k) i = Cast <to = 7> (s) y = Gather(table, i) })");
  const Model out = Cast(in).model;
  std::vector<float> table(4000);
  for (size_t i = 0; i < table.size(); ++i) table[i] = i == 3001 ? 5.0f : 0.0f;
  const std::vector<Tensor> inputs = {Tensor::Make<float>({1}, {1}),
                                      Tensor::Make<float>({4000}, table)};
  EXPECT_EQ(Executor(out).Run(inputs)[0].data<float>()[0], 5);
}

// The data say nothing of what is within a branch: what grows there stays float32 as without data.
TEST(CastFp16, NothingIsMeasuredWithinABranch) {
  const Model model = Made(R"(g (bool c, float[1,32] x) => (float[1,16] y) {
      y = If (c) <then_branch = t () => (float[1,16] p) <float two = {2}, float one = {1}> {
                    m = MatMul(x, w) q = Pow(m, two) g = Mul(q, k) h = Add(g, one) l = Log(h)
                    p = MatMul(l, v) },
                  else_branch = e () => (float[1,16] r) { r = MatMul(x, u) }> })",
                           {{"w", {32, 32}}, {"v", {32, 16}}, {"u", {32, 16}}, {"k", {1}}});
  Model scaled = WithInitializer(model, "k", Tensor::Make<float>({1}, {1048576}));
  const Dataset data = Dataset::Random(scaled.graph.inputs, 8, 3);
  const PassResult out = RunStep("cast_fp16", {}, scaled, &data);
  EXPECT_GT(out.report.at("calibration_sqnr_db"), 40);
  EXPECT_THAT(out.report.at("skipped").dump(), HasSubstr("no calibration data tells"));
}

// Loads in onnxruntime, and fails when it runs.
TEST(CastFp16, AScatterThatReducesStaysFloat) {
  for (const char* reduction : {"add", "mul", "max", "none"}) {
    for (const std::string op : {"ScatterElements", "ScatterND"}) {
      const std::string at =
          op == "ScatterND" ? "int64[2,1] at = {0,2}" : "int64[2,4] at = {0,0,1,2,2,1,0,1}";
      const Model model =
          Made("<ir_version: 8, opset_import: [\"\" : 18]> g (float[2,4] u) => (float[3,4] y) <" +
                   at + "> { [moved] s = " + op + " <reduction = \"" + reduction +
                   "\"> (d, at, u) y = Abs(s) }",
               {{"d", {3, 4}}});
      const PassResult out = RunStep("cast_fp16", {}, model);
      const bool sums = reduction == std::string("add") || reduction == std::string("mul");
      const bool stays = sums || (op == "ScatterND" && reduction == std::string("max"));
      EXPECT_EQ(out.report.at("skipped").dump().find("with reduction") != std::string::npos, stays)
          << op << ' ' << reduction;
    }
  }
}

// As CenterNet and SuperPoint keep the peaks of a heat map: rounded, plateaus would be all peaks.
TEST(CastFp16, PeaksAreFoundInFloat) {
  const Model model = Made(R"(g (float[1,4,32,32] x) => (float[1,2,32,32] y) {
      [features] f = Conv <pads = [2,2,2,2]> (x, w) r = Relu(f) [blur] h = Conv <pads = [2,2,2,2]> (r, v)
      s = Sigmoid(h) m = MaxPool <kernel_shape = [3,3], pads = [1,1,1,1]> (s) [same] e = Equal(s, m)
      k = Cast <to = 1> (e) y = Mul(s, k) })",
                           {{"w", {8, 4, 5, 5}}, {"v", {2, 8, 5, 5}}});
  const Dataset data = Dataset::Random(model.graph.inputs, 8, 3);
  for (const Dataset* given : {static_cast<const Dataset*>(nullptr), &data}) {
    const PassResult out = RunStep("cast_fp16", {}, model, given);
    EXPECT_THAT(SkippedReason(out.report, "Equal same"), HasSubstr("their own maximum"));
    EXPECT_THAT(SkippedReason(out.report, "Conv blur"), HasSubstr("their own maximum"));
    EXPECT_EQ(SkippedReason(out.report, "Conv features"), "");
    EXPECT_GT(SqnrDbOn(data, model, out.model), 45);
  }
}

}  // namespace
}  // namespace pared
