#include "passes/widen_halves.h"

#include <gmock/gmock.h>

#include <cmath>

#include "evaluator/half_floats.h"
#include "passes/weights.h"
#include "tests/passes/made_model.h"
#include "tests/passes/promises.h"
#include "tests/passes/run_step.h"

namespace pared {
namespace {

using ::testing::Contains;
using ::testing::Each;
using ::testing::Eq;
using ::testing::IsEmpty;
using ::testing::Not;

Model HalfNetwork() {
  return Made(R"(g (float[1,3,12,12] x) => (float[1,10] y, float[1,16,12,12] mid)
    { mid = Conv <pads = [1,1,1,1]> (x, w0, b0) r = Relu(mid)
      c = Conv <pads = [1,1,1,1], strides = [2,2]> (r, w1, b1) s = Sigmoid(c) m = Mul(c, s)
      p = GlobalAveragePool(m) f = Flatten(p) y = Gemm <transB = 1> (f, w2, b2) })",
              {{"w0", {16, 3, 3, 3}},
               {"b0", {16}},
               {"w1", {32, 16, 3, 3}},
               {"b1", {32}},
               {"w2", {10, 32}},
               {"b2", {10}}});
}

// Tokens, an added table of positions, products with weights through Transpose, and a branch.
Model Language() {
  return Made(R"(g (int64[1,6] ids, bool more) => (float[1,6,8] y) <float root = {4}>
    { e = Gather(table, ids) a = Add(e, places) q = MatMul(a, wq) k = MatMul(a, wk)
      t = Transpose <perm = [0,2,1]> (k) n = MatMul(q, t) d = Div(n, root) s = Softmax(d)
      v = MatMul(a, wv) o = MatMul(s, v) h = Add(o, a)
      g = If (more) <then_branch = t () => (float[1,6,16] u)
            { z = Constant <value = float[1] {0.5}> () i = Mul(h, z) u = Tanh(i) },
          else_branch = f () => (float[1,6,16] w) { w = Identity(h) }>
      ut = Transpose <perm = [1,0]> (wu) y = MatMul(g, ut) })",
              {{"table", {40, 16}},
               {"places", {1, 6, 16}},
               {"wq", {16, 16}},
               {"wk", {16, 16}},
               {"wv", {16, 16}},
               {"wu", {8, 16}}});
}

Dataset SamplesOf(const Model& model) { return Dataset::Random(CallerInputs(model.graph), 24, 3); }

// As another converter would leave it: nodes, weights, inputs and outputs in float16.
Model WhollyHalf(const Model& model) {
  return RunStep("cast_fp16", {{"keep_io", false}}, model).model;
}

Model StoredAs(const std::string& type, const Model& model) {
  return RunStep("cast_fp16", {{"type", type}, {"compute", "float32"}}, model).model;
}

std::vector<std::string> TypesOf(const std::vector<ValueInfo>& values) {
  std::vector<std::string> types;
  for (const ValueInfo& value : values) types.emplace_back(DTypeName(value.dtype));
  return types;
}

// The ratio that is left of two, whose noises add up.
double Joined(double a_db, double b_db) {
  return -10 * std::log10(std::pow(10, -a_db / 10) + std::pow(10, -b_db / 10));
}

// What the pass loses of the model in halves is what it loses of the float model, and what the
// halves have lost before.
void ExpectAsGood(const std::string& pass, const Model& model, const Model& half,
                  const Json& options = Json::object()) {
  const Dataset data = SamplesOf(model);
  const PassResult single = RunStep(pass, options, model, &data);
  const PassResult out = RunStep(pass, options, half, &data);
  ExpectSameInterface(half, out.model);
  EXPECT_EQ(Labels(out.report.at("changed")).size(), Labels(single.report.at("changed")).size());
  const double wanted_db = Joined(SqnrDbOn(data, model, single.model), SqnrDbOn(data, model, half));
  EXPECT_GT(SqnrDbOn(data, model, out.model), wanted_db - 1);
}

TEST(WidenHalves, WhatIsComputedInFloat16IsQuantizedAsWellAsInFloat) {
  for (const char* pass : {"quantize_int8", "quantize_dynamic"}) {
    for (const Model& model : {HalfNetwork(), Language()}) {
      SCOPED_TRACE(pass);
      const Model half = WhollyHalf(model);
      EXPECT_THAT(TypesOf(half.graph.outputs), Each(Eq("float16")));
      ExpectAsGood(pass, model, half);
      ExpectAsGood(pass, model, RunStep("cast_fp16", Json::object(), model).model);
    }
  }
}

TEST(WidenHalves, WhatIsStoredInHalfIsQuantizedAsWellAsInFloat) {
  for (const char* pass : {"quantize_int8", "quantize_dynamic"}) {
    for (const char* type : {"float16", "bfloat16"}) {
      SCOPED_TRACE(std::string(pass) + " " + type);
      const Model model = HalfNetwork();
      const Model stored = StoredAs(type, model);
      ExpectAsGood(pass, model, stored);
    }
  }
}

TEST(WidenHalves, WeightsReadThroughCastsAndOtherNodesAreWeights) {
  const Model in = Made(
      R"(g (float[4,8] x) => (float[4,8] a, float[4,8] b, float[4,8] c) <int64[2] s = {8, 8}>
      { u = Cast <to = 10> (w) v = Cast <to = 1> (u) a = MatMul(x, v)
        p = Transpose <perm = [1,0]> (u) q = Cast <to = 1> (p) b = MatMul(x, q)
        k = Cast <to = 16> (flat) r = Reshape(k, s) l = Cast <to = 1> (r) c = MatMul(x, l) })",
      {{"w", {8, 8}}, {"flat", {4, 16}}});
  const Dataset data = SamplesOf(in);
  for (const char* pass : {"quantize_int8", "quantize_dynamic", "magnitude_prune",
                           "second_order_prune", "quantize_weights"}) {
    const PassResult out = RunStep(pass, Json::object(), in, &data);
    EXPECT_THAT(Labels(out.report.at("changed")), Not(IsEmpty())) << pass;
    EXPECT_EQ(Labels(out.report.at("changed")).size() + Labels(out.report.at("skipped")).size(), 3u)
        << pass << out.report;
    for (const Json& skipped : out.report.at("skipped")) {
      EXPECT_THAT(skipped.at("reason").get<std::string>(), testing::HasSubstr("shares its weight"))
          << pass;
    }
  }
}

TEST(WidenHalves, WhatStaysFloatIsStoredAsItWas) {
  const Model half = WhollyHalf(HalfNetwork());
  const Dataset data = SamplesOf(half);
  const PassResult out = RunStep("quantize_int8", {{"exclude", {"c"}}}, half, &data);
  std::vector<std::string> kept;
  for (const auto& [name, initializer] : out.model.graph.initializers) {
    if (initializer.tensor.dtype() == DType::kFloat16) kept.push_back(name);
    EXPECT_TRUE(initializer.tensor.dtype() != DType::kFloat32 || initializer.tensor.count() < 256)
        << name;
  }
  EXPECT_EQ(kept.size(), 1u);
  EXPECT_EQ(out.report.at("widened").at("stored_as_before"), 1);
  EXPECT_EQ(out.report.at("widened").at("computes_in"), "float32 instead of half");
}

TEST(WidenHalves, AModelWithoutHalvesIsLeftAlone) {
  Model model = HalfNetwork();
  const std::string before = SerializeOnnx(model);
  const HalfStorage none(model, {});
  Json report = Json::object();
  none.Restore(model, report);
  EXPECT_EQ(SerializeOnnx(model), before);
  EXPECT_TRUE(report.empty());
}

TEST(WidenHalves, ADefaultOfAnInputStaysOne) {
  Model half = WhollyHalf(HalfNetwork());
  half.ir_version = 8;
  ValueInfo input;
  input.name = "b2";
  input.dtype = half.graph.initializers.at("b2").tensor.dtype();
  input.shape = {{Dim{.value = 10, .param = "", .unknown = ""}}};
  half.graph.inputs.push_back(input);
  const Dataset data = SamplesOf(half);
  const PassResult out = RunStep("quantize_int8", Json::object(), half, &data);
  EXPECT_EQ(out.model.graph.initializers.at("b2").tensor.dtype(), input.dtype);
  EXPECT_EQ(out.model.graph.inputs.back().dtype, input.dtype);
  EXPECT_GT(SqnrDbOn(data, half, out.model), 25);
}

// Zeros of all weights, and how many they are of.
std::pair<int64_t, int64_t> ZerosOf(const Model& model) {
  int64_t zeros = 0, all = 0;
  for (const WeightSite& site : FindWeights(model).sites) {
    const std::vector<float> values = ToFloat(site.stored);
    zeros += std::ranges::count(values, 0.0f);
    all += std::ssize(values);
  }
  return {zeros, all};
}

TEST(WidenHalves, PruningLeavesTypesAndNodesAsTheyAreAndFitsAsWellAsInFloat) {
  for (const char* pass : {"magnitude_prune", "second_order_prune"}) {
    const Model model = HalfNetwork();
    for (const Model& half :
         {WhollyHalf(model), StoredAs("float16", model), StoredAs("bfloat16", model)}) {
      SCOPED_TRACE(pass);
      const Dataset data = SamplesOf(model);
      const PassResult single = RunStep(pass, {{"sparsity", 0.5}}, model, &data);
      const PassResult out = RunStep(pass, {{"sparsity", 0.5}}, half, &data);
      EXPECT_EQ(OpTypes(out.model.graph), OpTypes(half.graph));
      ExpectSameInterface(half, out.model);
      for (const auto& [name, initializer] : half.graph.initializers) {
        const Initializer* kept = out.model.graph.initializers.find(name);
        if (initializer.tensor.rank() == 1 && kept == nullptr) continue;  // a bias, shifted
        ASSERT_NE(kept, nullptr) << name;
        EXPECT_EQ(kept->tensor.dtype(), initializer.tensor.dtype()) << name;
      }
      EXPECT_EQ(ZerosOf(out.model), ZerosOf(single.model));
      EXPECT_GT(SqnrDbOn(data, model, out.model), SqnrDbOn(data, model, single.model) - 1);
      EXPECT_FALSE(out.report.dump().find("no float32") != std::string::npos) << out.report;
    }
  }
}

TEST(WidenHalves, ABiasThatPruningAddsIsOfTheTypeThatTheNodeComputesIn) {
  const Model model = Made(R"(g (float[1,3,8,8] x) => (float[1,8,8,8] y)
    { c = Conv <pads = [1,1,1,1]> (x, w0) r = Relu(c) y = Conv (r, w1) })",
                           {{"w0", {16, 3, 3, 3}}, {"w1", {8, 16, 1, 1}}});
  const Model half = WhollyHalf(model);
  const Dataset data = SamplesOf(model);
  const Json options = {{"sparsity", 0.5}, {"damping", 0.01}};
  const PassResult out = RunStep("magnitude_prune", options, half, &data);
  int64_t biases = 0;
  for (const Node& node : out.model.graph.nodes) {
    if (node.op_type != "Conv" || node.inputs.size() < 3) continue;
    ++biases;
    EXPECT_EQ(out.model.graph.initializers.at(node.inputs[2]).tensor.dtype(), DType::kFloat16);
  }
  EXPECT_EQ(biases, 2);
}

TEST(CastFp16, SaysOfNodesOfOtherFloatsThatTheyAre) {
  const Model half = WhollyHalf(HalfNetwork());
  const PassResult again = RunStep("cast_fp16", Json::object(), half);
  EXPECT_EQ(SerializeOnnx(again.model), SerializeOnnx(half));
  EXPECT_EQ(SkippedReason(again.report, "Conv producing c"), "computes in float16");
  EXPECT_EQ(Labels(again.report.at("skipped")).size(), half.graph.nodes.size());
  const PassResult wide = RunStep("cast_fp16", Json::object(), ModelFromText(R"(
    g (double[2,2] x) => (double[2,2] y) <double[2,2] w = {1,2,3,4}> { y = MatMul(x, w) })"));
  EXPECT_EQ(SkippedReason(wide.report, "MatMul producing y"), "computes in double");
}

TEST(CastFp16, SaysHowManySmallConstantsItLeaves) {
  const PassResult out = RunStep("cast_fp16", {{"compute", "float32"}}, HalfNetwork());
  EXPECT_THAT(out.report.at("skipped"),
              Contains(Json({{"weight", "3 constants of 58 elements in all"},
                             {"reason",
                              "each has fewer than 256: a Cast costs more than they "
                              "would save"}})));
}

}  // namespace
}  // namespace pared
