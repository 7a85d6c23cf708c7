#include "passes/float_casts.h"

#include <gmock/gmock.h>

#include <map>

#include "passes/weights.h"
#include "tests/passes/made_model.h"
#include "tests/passes/promises.h"
#include "tests/passes/run_step.h"

namespace pared {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;

// The tensor in another type; integers are hundredths.
Tensor StoredIn(DType dtype, const Tensor& tensor) {
  Model cast = ParseText("g () => (y) { h = Mul(w, f) y = Cast(h) }");
  const float factor = dtype == DType::kFloat64 ? 1 : 100;
  cast.graph.nodes[1].attributes.set("to", {2, static_cast<int64_t>(dtype), "", ""});
  cast.graph.initializers.set("w", {tensor, ""});
  cast.graph.initializers.set("f", {Tensor::Scalar<float>(factor), ""});
  return Executor(cast).Run({})[0];
}

// The model with its weights of these names stored in another type.
Model Recast(Model model, DType dtype, const std::vector<std::string>& weights) {
  for (const std::string& weight : weights) {
    Tensor& tensor = model.graph.initializers.find(weight)->tensor;
    tensor = StoredIn(dtype, tensor);
  }
  return model;
}

std::map<std::string, Model> CastModels() {
  return {{"MatMul", Made("g (float[4,16] x) => (float[4,24] y) "
                          "{ v = Cast <to = 1> (w) y = MatMul(x, v) }",
                          {{"w", {16, 24}}})},
          {"Gemm", Made("g (float[4,16] x) => (float[4,24] y) "
                        "{ v = Cast <to = 1> (w) u = Cast <to = 1> (b) y = Gemm(x, v, u) }",
                        {{"w", {16, 24}}, {"b", {24}}})},
          {"Conv", Made("g (float[2,4,8,8] x) => (float[2,8,8,8] y) { v = Cast <to = 1> (w) "
                        "u = Cast <to = 1> (b) y = Conv <pads = [1,1,1,1]> (x, v, u) }",
                        {{"w", {8, 4, 3, 3}}, {"b", {8}}})},
          {"views", Made("g (float[4,16] x) => (float[4,24] y) <int64[2] s = {24, 16}> "
                         "{ r = Reshape(w, s) t = Transpose(r) i = Identity(t) "
                         "v = Cast <to = 1> (i) y = MatMul(x, v) }",
                         {{"w", {4, 96}}})}};
}

TEST(FloatCasts, WeightsOfOtherTypesAreWeightsToEveryPass) {
  for (const auto& [name, model] : CastModels()) {
    for (const DType dtype : {DType::kFloat64, DType::kInt32, DType::kInt64}) {
      std::vector<std::string> weights = {"w"};
      if (model.graph.initializers.contains("b")) weights.emplace_back("b");
      const Model in = Recast(model, dtype, weights);
      const Dataset data = Samples(in);
      for (const char* pass : {"quantize_int8", "quantize_dynamic", "quantize_weights", "cast_fp16",
                               "magnitude_prune", "second_order_prune"}) {
        SCOPED_TRACE(name + " " + pass + " " + DTypeName(dtype));
        Json options = Json::object();
        if (std::string(pass) == "quantize_dynamic")
          options["op_types"] = {"Conv", "Gemm", "MatMul"};
        const PassResult out = RunStep(pass, options, in, &data);
        EXPECT_THAT(Labels(out.report.at("changed")), Not(IsEmpty()));
        EXPECT_THAT(Labels(out.report.at("computed_weights")), Contains("Cast producing v"));
        EXPECT_THAT(OpTypes(out.model.graph), Not(Contains("Transpose")));
        EXPECT_GT(SqnrDbOn(data, in, out.model), 10);
        EXPECT_FALSE(out.model.graph.initializers.contains("w"));
      }
    }
  }
}

TEST(FloatCasts, IntegersOfFewBitsAreWeightsToWhatQuantizesThem) {
  for (const auto& [name, model] : CastModels()) {
    for (const DType dtype : {DType::kInt8, DType::kInt16}) {
      const Model in = Recast(model, dtype, {"w"});
      const Dataset data = Samples(in);
      for (const char* pass : {"quantize_int8", "quantize_dynamic"}) {
        SCOPED_TRACE(name + " " + pass + " " + DTypeName(dtype));
        const Json options = {{"op_types", {"Conv", "Gemm", "MatMul"}}};
        const PassResult out = RunStep(pass, options, in, &data);
        EXPECT_THAT(Labels(out.report.at("changed")), SizeIs(1));
        EXPECT_GT(SqnrDbOn(data, in, out.model), 25);
      }
      const PassResult pruned = RunStep("magnitude_prune", {}, in, &data);
      EXPECT_EQ(SkippedReason(pruned.report, NodeLabel(in.graph.nodes.back())),
                std::string("its weight is stored as ") + DTypeName(dtype));
    }
  }
}

TEST(FloatCasts, CastsOfOneConstantAreStoredOnce) {
  const Model in = Recast(Made(R"(g (float[4,16] x) => (float[4,24] a, float[4,24] b)
      { v = Cast <to = 1> (w) a = MatMul(x, v) i = Identity(w) u = Cast <to = 1> (i)
        b = MatMul(a2, u) a2 = Neg(x) })",
                               {{"w", {16, 24}}}),
                          DType::kFloat64, {"w"});
  const Dataset data = Samples(in);
  for (const char* pass : {"quantize_int8", "quantize_dynamic", "quantize_weights"}) {
    const PassResult out = RunStep(pass, {}, in, &data);
    EXPECT_THAT(Labels(out.report.at("changed")),
                ::testing::UnorderedElementsAre("MatMul producing a", "MatMul producing b"))
        << pass;
    int64_t matrices = 0;
    for (const auto& [name, initializer] : out.model.graph.initializers) {
      matrices += initializer.tensor.count() == 16 * 24 ? 1 : 0;
    }
    EXPECT_EQ(matrices, 1) << pass;
  }
}

// The branches cast the same constant, one through a view.
TEST(FloatCasts, BranchesHaveWeightsToo) {
  const Model in = Recast(Made(R"(g (bool c, float[4,16] x) => (float[4,24] y) {
      y = If (c) <then_branch = t () => (float[4,24] p) { v = Cast <to = 1> (w) p = MatMul(x, v) },
                  else_branch = e () => (float[4,24] q)
                    { u = Cast <to = 1> (w) r = MatMul(x, u) q = Neg(r) }> })",
                               {{"w", {16, 24}}}),
                          DType::kFloat64, {"w"});
  const Dataset data = Samples(in);
  for (const char* pass : {"quantize_int8", "quantize_dynamic", "quantize_weights"}) {
    const PassResult out = RunStep(pass, {}, in, &data);
    EXPECT_THAT(Labels(out.report.at("changed")),
                ::testing::UnorderedElementsAre("MatMul producing p", "MatMul producing r"))
        << pass;
    EXPECT_GT(SqnrDbOn(data, in, out.model), 25) << pass;
    for (const auto& [name, initializer] : out.model.graph.initializers) {
      EXPECT_NE(initializer.tensor.dtype(), DType::kFloat64) << pass << name;
    }
  }
}

TEST(FloatCasts, FunctionsHaveWeightsToo) {
  Model in = ParseText(R"(<ir_version: 8, opset_import: ["" : 17, "loc" : 1]>
      g (float[4,16] x) => (float[4,24] y) { h = loc.F(x, w) y = Relu(h) }
      <domain: "loc", opset_import: ["" : 17]> F (a, m) => (b) { c = Cast <to = 1> (m) b = MatMul(a, c) })");
  in = WithInitializer(std::move(in), "w",
                       StoredIn(DType::kFloat64, Random(3).Normal({16, 24}, 0.4)));
  const Dataset data = Samples(in);
  for (const char* pass : {"quantize_int8", "quantize_dynamic", "quantize_weights"}) {
    const PassResult out = RunStep(pass, {}, in, &data);
    EXPECT_THAT(Labels(out.report.at("changed")), SizeIs(1)) << pass;
    EXPECT_GT(SqnrDbOn(data, in, out.model), 25) << pass;
  }
}

TEST(FloatCasts, WhatStaysFloatIsStoredInFewBitsAsBefore) {
  const Model in = Recast(Made(R"(g (float[4,16] x) => (float[4,16] y)
      { v = Cast <to = 1> (w) [kept] h = MatMul(x, v) u = Cast <to = 1> (m) y = MatMul(h, u) })",
                               {{"w", {16, 24}}, {"m", {24, 16}}}),
                          DType::kInt8, {"w", "m"});
  const Dataset data = Samples(in);
  for (const char* pass : {"quantize_int8", "quantize_dynamic"}) {
    const PassResult out = RunStep(pass, {{"exclude", {"kept"}}}, in, &data);
    EXPECT_THAT(Labels(out.report.at("changed")), ElementsAre("MatMul producing y")) << pass;
    for (const auto& [name, initializer] : out.model.graph.initializers) {
      EXPECT_TRUE(initializer.tensor.dtype() == DType::kInt8 || initializer.tensor.count() < 256)
          << pass << name;
    }
    EXPECT_GT(SqnrDbOn(data, in, out.model), 25) << pass;
  }
}

TEST(FloatCasts, ADefaultAnOutputAndWhatIsComputedStayCasts) {
  Model model = ModelFromText(R"(<ir_version: 8, opset_import: ["" : 17]>
      g (float[1,2] x, double[2,2] w) => (float[1,2] y, float[2,2] v, float[1,2] z)
      <double[2,2] w = {1,2,3,4}, double[2,2] k = {1,2,3,4}>
      { u = Cast <to = 1> (w) y = MatMul(x, u) v = Cast <to = 1> (k) n = Neg(w)
        m = Cast <to = 1> (n) z = MatMul(x, m) })");
  const std::string before = SerializeOnnx(model);
  const FloatCasts casts = FoldFloatCasts(model, CastSources::kAll, {});
  EXPECT_THAT(casts.folded, IsEmpty());
  EXPECT_EQ(SerializeOnnx(model), before);
}

// Half of the double is not float32's nearest: it is rounded once, as the Cast does.
TEST(FloatCasts, IsWhatTheCastsMake) {
  Model model = ModelFromText(R"(g (float[3] x) => (float[3] y)
      <double[3] w = {0.1, 65520, 1e-46}> { h = Cast <to = 10> (w) v = Cast <to = 1> (h)
        u = Cast <to = 1> (w) a = Add(x, v) y = Add(a, u) })");
  FoldFloatCasts(model, CastSources::kWide, {});
  EXPECT_THAT(OpTypes(model.graph), ElementsAre("Cast", "Add", "Add"));
  EXPECT_THAT(Elements(model, "u"), ElementsAre(0.1f, 65520, 0));
  EXPECT_EQ(model.graph.initializers.at("h").tensor.dtype(), DType::kFloat16);
}

}  // namespace
}  // namespace pared
