#include "passes/unit_axes.h"

#include <gmock/gmock.h>

#include "tests/passes/made_model.h"
#include "tests/passes/run_step.h"

namespace pared {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

// Two convolutions along time as tf2onnx spells them, the axis that is no axis in front and behind.
constexpr std::string_view kAlongTime = R"(<ir_version: 8, opset_import: ["" : 13]>
  g (float[N,6,20] x) => (float[N,5,20] y) <int64[1] second = {2}, int64[1] last = {-1}> {
    u = Unsqueeze(x, second) [first] c = Conv <kernel_shape = [1,3], pads = [0,2,0,2],
                                               dilations = [1,2], strides = [1,1]> (u, w)
    s = Squeeze(c, second) b = Add(s, bias) r = Relu(b)
    v = Unsqueeze(r, last) [other] d = Conv <kernel_shape = [3,1], pads = [1,0,1,0]> (v, k)
    y = Squeeze(d, last) })";

Model AlongTime() {
  return Made(kAlongTime, {{"w", {8, 6, 1, 3}}, {"bias", {1, 8, 1}}, {"k", {5, 8, 3, 1}}});
}

std::vector<std::string> Drop(Model& model) {
  return DropUnitAxes(model, [](const Node&) { return false; });
}

TEST(UnitAxes, GoWithTheirAttributesAndComputeTheSame) {
  const Model before = AlongTime();
  Model after = before;
  EXPECT_THAT(Drop(after), ElementsAre("Conv first", "Conv other"));
  Verify(after);
  EXPECT_THAT(OpTypes(after.graph), ElementsAre("Conv", "Add", "Relu", "Conv"));
  EXPECT_THAT(after.graph.nodes[0].Ints("pads"), ElementsAre(2, 2));
  EXPECT_THAT(after.graph.nodes[0].Ints("dilations"), ElementsAre(2));
  EXPECT_THAT(after.graph.nodes[3].Ints("kernel_shape"), ElementsAre(3));
  const Dataset data = Dataset::Random(before.graph.inputs, 4, 3);
  EXPECT_GT(SqnrDbOn(data, before, after), 120);
}

TEST(UnitAxes, StayWhereSomethingReadsThem) {
  for (const auto& [from, to] : std::vector<std::pair<std::string, std::string>>{
           {"(float[N,5,20] y)", "(float[N,5,20] y, float[N,8,1,20] c)"},
           {"s = Squeeze(c, second)", "s = Squeeze(c, second) n = Neg(c)"},
           {"pads = [0,2,0,2]", "pads = [1,2,1,2], strides = [3,1]"}}) {
    std::string text(kAlongTime);
    text.replace(text.find(from), from.size(), to);
    if (to.find("[3,1]") != std::string::npos) text.erase(text.find(", strides = [1,1]"), 17);
    Model model = ParseText(text);
    for (const auto& [name, shape] : std::vector<std::pair<std::string, Shape>>{
             {"w", {8, 6, 1, 3}}, {"bias", {1, 8, 1}}, {"k", {5, 8, 3, 1}}}) {
      model = WithInitializer(std::move(model), name, Random(1).Normal(shape, 1));
    }
    EXPECT_THAT(Drop(model), ElementsAre("Conv other")) << to;
  }
}

// As two convolutions of one dimension, whose bias and Relu are theirs.
TEST(UnitAxes, QuantizedLikeAConvolutionOfOneDimension) {
  const Model model = AlongTime();
  const Dataset data = Dataset::Random(model.graph.inputs, 16, 3);
  const PassResult out = RunStep("quantize_int8", {{"keep_float", "off"}}, model, &data);
  EXPECT_THAT(out.report.at("unit_axes"), ElementsAre("Conv first", "Conv other"));
  EXPECT_THAT(out.report.at("folded"), testing::SizeIs(1));
  EXPECT_EQ(std::ranges::count(OpTypes(out.model.graph), "Add"), 0);
  EXPECT_EQ(std::ranges::count(OpTypes(out.model.graph), "Squeeze"), 0);
  EXPECT_GT(SqnrDbOn(data, model, out.model), 30);
  const PassResult kept = RunStep("quantize_int8", {{"exclude", {"other"}}}, model, &data);
  EXPECT_THAT(kept.report.at("unit_axes"), ElementsAre("Conv first"));
}

}  // namespace
}  // namespace pared
