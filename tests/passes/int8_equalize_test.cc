#include "passes/int8_equalize.h"

#include <gmock/gmock.h>

#include <cmath>

#include "tests/passes/run_step.h"
#include "tests/testing/random_tensor.h"

namespace pared {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// A convolution, one by channel and a third, with activations between; the channels of the first
// are from 1 to 128 times as large, and the second one's as much smaller.
Model Spread(const std::string& first, const std::string& second) {
  Model model = ModelFromText(
      "g (float[1,3,9,9] x) => (float[1,4,9,9] y) <float[1,1,1,1] w = {0}, float[1,1,1,1] d = {0}, "
      "float[1,1,1,1] v = {0}, float[8] b = {1,-2,3,4,10,-20,30,40}, float six = {6}, float zero = "
      "{0}> "
      "{ [one] c = Conv<pads=[1,1,1,1]>(x, w, b) r = " +
      first + "(c) [two] e = Conv<pads=[1,1,1,1], group=8>(r, d) q = " + second +
      "(e) [three] y = Conv(q, v) }");
  const auto scaled = [](const Tensor& tensor, float base) {
    std::vector<float> values(tensor.data<float>().begin(), tensor.data<float>().end());
    const size_t each = values.size() / 8;
    for (size_t i = 0; i < values.size(); ++i) {
      values[i] *= std::pow(base, static_cast<float>(i / each));
    }
    return Tensor::Make(tensor.shape(), std::move(values));
  };
  model = WithInitializer(std::move(model), "w", scaled(Random(1).Normal({8, 3, 3, 3}, 1), 2));
  model = WithInitializer(std::move(model), "d", scaled(Random(2).Normal({8, 1, 3, 3}, 1), 0.5f));
  return WithInitializer(std::move(model), "v", Random(3).Normal({4, 8, 1, 1}, 1));
}

PassResult QuantizeEqualized(const Model& model, const std::string& equalize) {
  const Dataset data = Dataset::Random(model.graph.inputs, 16, 3);
  return RunStep("quantize_int8",
                 {{"granularity", "per_tensor"},
                  {"equalize", equalize},
                  {"keep_float", "off"},
                  {"method", "minmax"},
                  {"rounding", "nearest"}},
                 model, &data);
}

double LargestOf(const Model& model, const std::string& name, int64_t channel) {
  const std::vector<float> values = Elements(model, name);
  const int64_t each = std::ssize(values) / 8;
  double largest = 0;
  for (int64_t i = channel * each; i < (channel + 1) * each; ++i) {
    largest = std::max(largest, std::fabs(static_cast<double>(values[static_cast<size_t>(i)])));
  }
  return largest;
}

TEST(Int8Equalize, BothSidesOfAChannelGetTheSameRangeAndTheFunctionStays) {
  const Model model = Spread("Relu", "LeakyRelu");
  const GraphIndex index(model.graph);
  const WeightScan scan = FindWeights(model);
  const Int8ChoiceContext context = {&model, &index, &scan, InferShapes(model), {}};
  const Equalization out = EqualizeInt8(context, ChooseInt8(context));
  EXPECT_THAT(out.pairs, ElementsAre("Conv one", "Conv two"));
  EXPECT_THAT(out.skipped, IsEmpty());
  const std::string w = out.model.graph.nodes[0].inputs[1], d = out.model.graph.nodes[2].inputs[1];
  for (int64_t channel = 0; channel < 8; ++channel) {
    const double made = LargestOf(out.model, w, channel), read = LargestOf(out.model, d, channel);
    EXPECT_NEAR(made / read, 1, 0.05) << channel;
  }
  const Dataset data = Dataset::Random(model.graph.inputs, 4, 1);
  EXPECT_GT(SqnrDbOn(data, model, out.model), 100);
}

TEST(Int8Equalize, OneScaleForAWeightGains) {
  const Model model = Spread("Relu", "Relu");
  const Dataset data = Dataset::Random(model.graph.inputs, 8, 7);
  const PassResult off = QuantizeEqualized(model, "off"), out = QuantizeEqualized(model, "auto");
  EXPECT_THAT(out.report.at("equalized"), ElementsAre("Conv one", "Conv two"));
  EXPECT_FALSE(off.report.contains("equalized"));
  EXPECT_GT(SqnrDbOn(data, model, out.model), SqnrDbOn(data, model, off.model) + 6);
}

// A bound of six would be another one for each channel.
TEST(Int8Equalize, AClipIsLeftAloneAndNamed) {
  const Model model = Spread("Relu", "Relu");
  Model clipped = model;
  clipped.graph.nodes[1].op_type = "Clip";
  clipped.graph.nodes[1].inputs = {"c", "zero", "six"};
  const PassResult out = QuantizeEqualized(clipped, "auto");
  for (const Json& pair : out.report.at("equalized")) EXPECT_EQ(pair, "Conv two");
  EXPECT_EQ(out.report.at("not_equalized").at(0).at("node"), "Conv one");
  EXPECT_THAT(out.report.at("not_equalized").at(0).at("reason"), HasSubstr("Clip"));
}

TEST(Int8Equalize, AChannelThatSomethingElseReadsStays) {
  Model model = Spread("Relu", "Relu");
  model.graph.nodes.back().inputs[0] = "s";
  Node sum;
  sum.op_type = "Add";
  sum.inputs = {"q", "r"};
  sum.outputs = {"s"};
  model.graph.nodes.insert(model.graph.nodes.end() - 1, sum);
  Verify(model);
  EXPECT_THAT(QuantizeEqualized(model, "auto").report.at("equalized"), IsEmpty());
}

TEST(Int8Equalize, ZerosStay) {
  Model model = Spread("Relu", "Relu");
  std::vector<float> pruned = Elements(model, "w");
  for (size_t i = 0; i < pruned.size(); i += 2) pruned[i] = 0;
  for (size_t i = 0; i < 27; ++i) pruned[i] = 0;  // a whole channel
  model = WithInitializer(std::move(model), "w", Tensor::Make<float>({8, 3, 3, 3}, pruned));
  const PassResult out = QuantizeEqualized(model, "auto");
  EXPECT_THAT(out.report.at("equalized"), ElementsAre("Conv one", "Conv two"));
  const std::vector<float> codes = Elements(out.model, "w_equalized_quantized");
  for (size_t i = 0; i < pruned.size(); ++i) {
    if (pruned[i] != 0) continue;
    EXPECT_EQ(codes[i], 0) << i;
  }
}

}  // namespace
}  // namespace pared
