#include "passes/log_power.h"

#include <gmock/gmock.h>

#include <cmath>
#include <set>

#include "evaluator/executor.h"
#include "tests/passes/run_step.h"
#include "tests/testing/random_tensor.h"

namespace pared {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

// Two filters of a frame, what `power` makes of their results c and s, and a network that reads it.
Model WithHead(const std::string& power) {
  return ModelFromText(R"(g (float[1,1,64,8] x) => (float[1,2,15,1] y)
    <float[1,1,1,1] re = {0}, float[1,1,1,1] im = {0}, float[2,3,2,1] v = {1,-1,0.5,1,2,-0.5,
       1,1,-1,0.5,0.25,1}, float[1] eps = {1e-6}, float two = {2}, float[3,3] mel = {1,0.5,0,
       0.5,1,0.5,0,0.5,1}, float[3,3] signed = {1,-0.5,0,-0.5,1,-0.5,0,-0.5,1}, int64[1] axis = {1},
     float[2,2,1,1] w = {1,-1,0.5,1}>
    { c = Conv<strides=[4,8]>(x, re) s = Conv<strides=[4,8]>(x, im) )" +
                       power + R"( h = Conv(l, v) r = Relu(h) y = Conv(r, w) })");
}

Model Filled(Model model) {
  const auto fill = [&](const std::string& name, const Shape& shape, float phase) {
    std::vector<float> values;
    for (int64_t i = 0; i < ElementCount(shape); ++i) {
      values.push_back(std::sin(phase + static_cast<float>(i % 32) *
                                            (0.2f + 0.3f * static_cast<float>(i / 32))));
    }
    model.graph.initializers.set(name, {Tensor::Make(shape, std::move(values)), ""});
  };
  fill("re", {3, 1, 4, 8}, 0);
  fill("im", {3, 1, 4, 8}, 1.5f);
  return model;
}

// The convolutions by their output that take part.
std::set<std::string> Int8Outputs(const Model& model) {
  const Dataset data = Dataset::Random(model.graph.inputs, 8, 1);
  const PassResult out = RunStep("quantize_int8", {{"keep_float", "off"}}, model, &data);
  std::set<std::string> outputs;
  for (const Node& node : model.graph.nodes) {
    for (const Json& entry : out.report.at("changed")) {
      if (entry.at("node") == NodeLabel(node)) outputs.insert(node.outputs[0]);
    }
  }
  return outputs;
}

using Names = std::set<std::string>;

class Powers : public testing::TestWithParam<const char*> {};

TEST_P(Powers, TheHeadStaysFloat) {
  EXPECT_EQ(Int8Outputs(Filled(WithHead(GetParam()))), Names({"h", "y"}));
}

INSTANTIATE_TEST_SUITE_P(
    LogPower, Powers,
    testing::Values(
        "a = Mul(c, c) b = Mul(s, s) p = Add(a, b) q = Add(p, eps) l = Log(q)",
        "a = Pow(c, two) b = Pow(s, two) p = Add(a, b) m = Sqrt(p) q = Max(m, eps) l = Log(q)",
        "a = Abs(c) b = Abs(s) p = Add(a, b) t = Transpose<perm=[0,3,2,1]>(p) m = MatMul(t, mel) "
        "u = Transpose<perm=[0,3,2,1]>(m) q = Add(u, eps) g = Log(q) l = Mul(g, two)"));

// Of what a Log reads that is no power; of a filter bank whose result may be negative.
TEST(LogPower, OtherLogarithmsLeaveTheirMakersInt8) {
  for (const char* power :
       {"a = Sigmoid(c) b = Softmax<axis=1>(s) p = Add(a, b) l = Log(p)",
        "a = Abs(c) b = Abs(s) p = Add(a, b) t = Transpose<perm=[0,3,2,1]>(p) "
        "m = MatMul(t, signed) u = Transpose<perm=[0,3,2,1]>(m) n = Relu(u) q = Add(n, eps) "
        "l = Log(q)"}) {
    const Names outputs = Int8Outputs(Filled(WithHead(power)));
    EXPECT_TRUE(outputs.contains("c")) << power;
    EXPECT_TRUE(outputs.contains("s")) << power;
  }
}

// What something else reads too is no head.
TEST(LogPower, AFilterThatTheNetworkReadsToo) {
  const Model model = Filled(WithHead(
      "a = Mul(c, c) b = Mul(s, s) p = Add(a, b) q = Add(p, eps) g = Log(q) l = Add(g, c)"));
  EXPECT_EQ(Int8Outputs(model), Names({"c", "h", "y"}));
}

TEST(LogPower, AModelThatEndsInItIsQuantized) {
  const Model model = ModelFromText(R"(g (float[4,2] x) => (float[4,2] y)
    <float[2,2] w = {1,-1,0.5,2}, float[1] eps = {0.1}>
    { c = MatMul(x, w) p = Mul(c, c) q = Add(p, eps) y = Log(q) })");
  EXPECT_EQ(Int8Outputs(model), Names({"c"}));
}

TEST(LogPower, TheReportSaysWhyAndTheResultHolds) {
  const Model model =
      Filled(WithHead("a = Mul(c, c) b = Mul(s, s) p = Add(a, b) q = Add(p, eps) l = Log(q)"));
  const Dataset data = Dataset::Random(model.graph.inputs, 16, 1);
  const PassResult out = RunStep("quantize_int8", Json::object(), model, &data);
  EXPECT_THAT(SkippedReason(out.report, "Conv producing c"), HasSubstr("logarithm"));
  EXPECT_GT(out.report.at("calibration_sqnr_db").get<double>(), 30);
}

// The filters by themselves, and the shape of their result, which something else may ask for.
TEST(LogPower, ShapesDoNotCount) {
  const Model model = ModelFromText(R"(g (float[4,2] x) => (int64[2] z, float[4,2] y)
    <float[2,2] w = {1,-1,0.5,2}> { c = MatMul(x, w) z = Shape(c) p = Mul(c, c) y = Log(p) })");
  EXPECT_EQ(NodesBeforeLogPower(model).size(), 3u);
  const Model none = ModelFromText("g (float[4,2] x) => (float[4,2] y) { y = Log(x) }");
  EXPECT_THAT(NodesBeforeLogPower(none), IsEmpty());
}

// Without data nobody can tell what the bits cost; they are stored, and the report says so.
TEST(LogPower, FewBitsOfTheHeadAreAWarning) {
  const Model model =
      Filled(WithHead("a = Mul(c, c) b = Mul(s, s) p = Add(a, b) q = Add(p, eps) l = Log(q)"));
  const PassResult out = RunStep("quantize_weights", Json::object(), model);
  const std::string warnings = out.report.value("warnings", Json::array()).dump();
  EXPECT_NE(warnings.find("the logarithm of a power"), std::string::npos) << warnings;
  const PassResult kept = RunStep("quantize_weights", {{"exclude", {"c", "s"}}}, model);
  EXPECT_FALSE(kept.report.contains("warnings")) << kept.report.dump();
}

// The nodes that the report calls pruned.
Names PrunedOutputs(const Model& model, const Json& options) {
  const PassResult out = RunStep("magnitude_prune", options, model);
  Names outputs;
  for (const Json& entry : out.report.at("changed")) {
    const std::string node = entry.at("node");
    outputs.insert(node.substr(node.rfind(' ') + 1));
  }
  return outputs;
}

TEST(LogPower, PruningLeavesTheHeadUnlessAnOverrideNamesIt) {
  const Model model =
      Filled(WithHead("a = Mul(c, c) b = Mul(s, s) p = Add(a, b) q = Add(p, eps) l = Log(q)"));
  EXPECT_EQ(PrunedOutputs(model, {{"sparsity", 0.5}}), Names({"h", "y"}));
  const Json overrides = {{{"match", "s"}, {"sparsity", 0.25}}};
  EXPECT_EQ(PrunedOutputs(model, {{"sparsity", 0.5}, {"overrides", overrides}}),
            Names({"h", "s", "y"}));
  const PassResult out = RunStep("magnitude_prune", {{"sparsity", 0.5}}, model);
  EXPECT_THAT(SkippedReason(out.report, "Conv producing c"), HasSubstr("logarithm"));
}

TEST(LogPower, PruningLeavesAHeadWithinABranch) {
  const Model model = ModelFromText(R"(g (bool b, float[4,2] x) => (float[4,2] y)
    <float[2,2] v = {1,-1,0.5,2}> {
    z = If(b) <then_branch = t () => (float[4,2] l) <float[2,2] w = {1,-1,0.5,2}>
                 { c = MatMul(x, w) p = Mul(c, c) l = Log(p) },
               else_branch = e () => (float[4,2] k) <float[2,2] u = {1,-1,0.5,2}>
                 { k = MatMul(x, u) }>
    y = MatMul(z, v) })");
  EXPECT_EQ(PrunedOutputs(model, {{"sparsity", 0.5}}), Names({"k", "y"}));
}

TEST(LogPower, ScalesOfARunAreAWarningToo) {
  const Model model = Filled(WithHead(
      "a = Mul(c, c) b = Mul(s, s) p = Add(a, b) t = Transpose<perm = [0, 3, 2, 1]>(p) "
      "m = MatMul(t, mel) k = Transpose<perm = [0, 3, 2, 1]>(m) q = Add(k, eps) l = Log(q)"));
  const PassResult out = RunStep("quantize_dynamic", Json::object(), model);
  EXPECT_THAT(out.report.at("warnings").dump(), HasSubstr("the logarithm of a power"));
}

// A model that is nothing but such a head is pruned. Fitted to the data a filter bank would make
// sums below zero of small powers.
TEST(LogPower, FilterBanksArePrunedButNotFitted) {
  Model model = ModelFromText(R"(g (float[4,32] x) => (float[4,24] y)
    <float[1,1] w = {0}, float[1,1] mel = {0}> { c = MatMul(x, w) p = Mul(c, c) m = MatMul(p, mel)
      y = Log(m) })");
  Random random(4);
  std::vector<float> bank(16 * 24);
  for (size_t i = 0; i < bank.size(); ++i) {
    bank[i] = static_cast<float>(std::pow(10.0, -static_cast<double>(i * 7 % 5)));
  }
  model = WithInitializer(std::move(model), "w", random.Normal({32, 16}, 1));
  model = WithInitializer(std::move(model), "mel", Tensor::Make({16, 24}, std::move(bank)));
  const Dataset data = Dataset::Random(model.graph.inputs, 32, 1);
  const PassResult out = RunStep("magnitude_prune", {{"sparsity", 0.5}}, model, &data);
  EXPECT_GT(SqnrDbOn(data, model, out.model), -200);  // each output has a logarithm
  for (const Json& entry : out.report.at("changed")) {
    const bool is_bank = entry.at("node") == "MatMul producing m";
    EXPECT_EQ(entry.contains("not_reconstructed"), is_bank) << entry.dump();
  }
}

}  // namespace
}  // namespace pared
