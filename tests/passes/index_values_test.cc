#include "passes/index_values.h"

#include <gmock/gmock.h>

#include <set>

#include "tests/passes/run_step.h"
#include "tests/testing/random_tensor.h"

namespace pared {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Not;

std::set<std::string> Integers(const std::string& text) {
  const Model model = ModelFromText(text);
  std::set<std::string> outputs;
  for (const Node* node : NodesOfIntegers(model)) outputs.insert(node->outputs[0]);
  return outputs;
}

using Found = std::set<std::string>;

TEST(IndexValues, AreFollowedThroughWhatNumbersAreComputedBy) {
  for (const std::string node :
       {"Relu(x)", "CumSum(x, axis)", "Sum(x, x)", "MaxPool <kernel_shape = [2]> (x)",
        "Pad(x, pads)", "GatherElements(x, places)", "MatMul(x, strides)"}) {
    EXPECT_EQ(
        Integers(
            R"(g (float[1,2,2] x) => (int64[1,2,2] y) <int64 axis = {1}, float[2,2] strides = {1, 0, 0, 640},
        int64[6] pads = {0,0,0,0,0,0}, int64[1,2,2] places = {0,0,0,0}> { a = )" +
            node + " y = Cast <to = 7> (a) }"),
        Found({"a", "y"}))
        << node;
  }
}

TEST(IndexValues, LearnedWeightsMakeFeatures) {
  EXPECT_EQ(Integers("g (float[1,2] x) => (int64[1,2] y) <float[2,2] w = {0.5,1,2,3}> "
                     "{ a = MatMul(x, w) b = Relu(a) y = Cast <to = 7> (b) }"),
            Found({"b", "y"}));
}

// An image that is made whole numbers at its end: a bias of zeros makes no layer one of numbers.
TEST(IndexValues, ABiasOfZerosSaysNothingOfItsLayer) {
  EXPECT_EQ(Integers(R"(g (float[1,1,2,2] x) => (uint8[1,1,2,2] y)
    <float[1,1,1,1] w = {0.7}, float[1] b = {0}, float m = {255}>
    { c = Conv(x, w, b) r = Relu(c) d = Conv(r, w, b) s = Mul(d, m) y = Cast <to = 2> (s) })"),
            Found({"s", "y"}));
}

TEST(IndexValues, AreFollowedThroughDoublesAndWithinBranches) {
  EXPECT_EQ(Integers("g (float[4] x) => (int64[4] y) { a = Neg(x) b = Cast <to = 11> (a) "
                     "c = Abs(b) y = Cast <to = 7> (c) }"),
            Found({"a", "b", "c", "y"}));
  EXPECT_EQ(Integers(R"(g (bool q, float[4] x) => (int64[4] y) { y = If(q)
      <then_branch = t () => (int64[4] i) { a = Neg(x) i = Cast <to = 7> (a) },
       else_branch = e () => (int64[4] j) { j = Cast <to = 7> (x) }> })"),
            Found({"a", "i", "j"}));
}

// A table of 512 rows of places among 8192, which are looked up in turn.
Model PlacesInATable() {
  Model model = ModelFromText(
      R"(g (int64[N] x) => (float[N,32] y) <float[1] places = {0}, float[1] words = {0}>
    { [first] f = Gather(places, x) i = Cast <to = 7> (f) y = GatherElements(words, i) })");
  std::vector<float> places;
  for (int64_t i = 0; i < 512 * 32; ++i) places.push_back(static_cast<float>(i * 7919 % 8192));
  model.graph.initializers.set("places", {Tensor::Make<float>({512, 32}, std::move(places)), ""});
  model.graph.initializers.set("words", {Random(3).Normal({8192, 32}, 1), ""});
  return model;
}

class PlacesStay : public testing::TestWithParam<Json> {};

TEST_P(PlacesStay, WhicheverWayWeightsAreStored) {
  Json options = GetParam();
  const std::string pass = options.at("pass");
  options.erase("pass");
  const Model model = PlacesInATable();
  const Tensor x = Tensor::Make<int64_t>({3}, {5, 300, 511});
  const PassResult out = RunStep(pass, options, model);
  EXPECT_EQ(out.model.graph.initializers.at("places").tensor.dtype(), DType::kFloat32);
  EXPECT_THAT(out.report.at("skipped").dump(), HasSubstr("integers"));
  const std::vector<float> want = Output(model, x), got = Output(out.model, x);
  for (size_t i = 0; i < want.size(); ++i) ASSERT_NEAR(got[i], want[i], 0.05) << i;
}

INSTANTIATE_TEST_SUITE_P(IndexValues, PlacesStay,
                         testing::Values(Json{{"pass", "cast_fp16"}, {"type", "bfloat16"}},
                                         Json{{"pass", "cast_fp16"}, {"compute", "float32"}},
                                         Json{{"pass", "cast_fp16"}}));

TEST(IndexValues, ATableOfPlacesIsNotStoredInCodes) {
  Model model = PlacesInATable();
  model.graph.initializers.set("w", {Random(4).Normal({32, 512}, 1), ""});
  model.graph.nodes.back().outputs = {"h"};
  Node product;
  product.op_type = "MatMul";
  product.inputs = {"h", "w"};
  product.outputs = {"y"};
  model.graph.nodes.push_back(product);
  model.graph.outputs[0].shape = std::nullopt;
  for (const std::string pass : {"quantize_weights", "quantize_dynamic"}) {
    const PassResult out = RunStep(pass, Json::object(), model);
    EXPECT_THAT(SkippedReason(out.report, "Gather first"), HasSubstr("integers"))
        << pass << out.report.dump();
  }
}

TEST(IndexValues, AnInputThatEndsAsIntegersKeepsItsType) {
  const PassResult out = RunStep(
      "cast_fp16", {{"keep_io", false}},
      ModelFromText(
          R"(g (float[N] x) => (int64[N] y, float[N] z) <float two = {2}, float low = {1500}>
        { b = Greater(x, low) q = Where(b, x, two) y = Cast <to = 7> (q) z = Neg(x) })"));
  EXPECT_EQ(out.model.graph.inputs[0].dtype, DType::kFloat32);
}

TEST(IndexValues, ASoftplusOfOpset18StaysFloat) {
  const auto halves = [](const std::string& opset) {
    const Model model =
        ModelFromText("<ir_version: 8, opset_import: [\"\" : " + opset +
                      "]> g (float[4] x) => (float[4] y) { a = Neg(x) y = Softplus(a) }");
    const Dataset data = Dataset::Random(model.graph.inputs, 4, 1);
    const PassResult out = RunStep("cast_fp16", Json::object(), model, &data);
    std::vector<std::string> nodes;
    for (const Json& entry : out.report.at("changed")) nodes.push_back(entry.at("node"));
    return nodes;
  };
  EXPECT_THAT(halves("18"), Not(Contains("Softplus producing y")));
  EXPECT_THAT(halves("19"), Contains("Softplus producing y"));
}

}  // namespace
}  // namespace pared
