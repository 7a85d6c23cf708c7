#include "passes/loop_states.h"

#include <gmock/gmock.h>

#include "tests/passes/made_model.h"
#include "tests/passes/run_step.h"

namespace pared {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// A recurrent layer as tf2onnx exports it: its weight goes through the Loop as a state.
constexpr std::string_view kRecurrent = R"(g (float[1,16] x) => (float[1,16] y)
  <int64 n = {4}, bool go = {1}> {
    y, last = Loop (n, go, x, w) <body = b (int64 i, bool c, float[1,16] h, float[16,16] v)
      => (bool d, float[1,16] next, float[16,16] same) {
        d = Identity(c) m = MatMul(h, v) next = Tanh(m) same = Identity(v) }> })";

Model Recurrent(std::string_view text = kRecurrent) { return Made(text, {{"w", {16, 16}}}); }

TEST(LoopConstants, AreReadByTheBodyItself) {
  const Model before = Recurrent();
  Model after = before;
  const Json freed = FreeLoopConstants(after);
  ASSERT_EQ(freed.size(), 1U);
  EXPECT_EQ(freed[0].at("value"), "w");
  Verify(after);
  const Node& loop = after.graph.nodes[0];
  EXPECT_THAT(loop.inputs, ElementsAre("n", "go", "x"));
  EXPECT_THAT(loop.outputs, ElementsAre("y"));
  EXPECT_EQ(SubgraphsOf(loop)[0]->inputs.size(), 3U);
  EXPECT_EQ(SubgraphsOf(loop)[0]->outputs.size(), 2U);
  const Dataset data = Dataset::Random(before.graph.inputs, 4, 3);
  EXPECT_GE(SqnrDbOn(data, before, after), 199);
}

TEST(LoopConstants, StayWhereTheyChangeOrAreResults) {
  std::string changed(kRecurrent), result(kRecurrent);
  changed.replace(changed.find("same = Identity(v)"), 18, "same = Neg(v)");
  result.replace(result.find("(float[1,16] y)"), 15, "(float[1,16] y, float[16,16] last)");
  for (const std::string& text : {changed, result}) {
    Model model = Recurrent(text);
    EXPECT_THAT(FreeLoopConstants(model), IsEmpty()) << text;
    EXPECT_EQ(model.graph.nodes[0].inputs.size(), 4U);
  }
}

TEST(LoopConstants, AreWeightsToEveryPass) {
  const Model model = Recurrent();
  const Dataset data = Dataset::Random(model.graph.inputs, 4, 3);
  for (const auto& [pass, options] :
       std::vector<std::pair<const char*, Json>>{{"quantize_weights", Json::object()},
                                                 {"quantize_dynamic", Json::object()},
                                                 {"cast_fp16", Json::object()},
                                                 {"magnitude_prune", {{"sparsity", 0.5}}}}) {
    SCOPED_TRACE(pass);
    const PassResult out = RunStep(pass, options, model);
    EXPECT_EQ(out.report.at("loop_constants").at(0).at("value"), "w");
    const bool is_pruning = pass == std::string("magnitude_prune");
    EXPECT_GT(SqnrDbOn(data, model, out.model), is_pruning ? 3 : 25);
  }
  EXPECT_EQ(
      RunStep("cast_fp16", Json::object(), model).model.graph.initializers.at("w").tensor.dtype(),
      DType::kFloat16);
}

}  // namespace
}  // namespace pared
