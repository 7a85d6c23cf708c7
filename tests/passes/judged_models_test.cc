// By what the result of a pass is judged, where the outputs themselves say nothing of it; and what
// is reported of it.

#include <gmock/gmock.h>

#include "tests/passes/made_model.h"
#include "tests/passes/promises.h"
#include "tests/passes/run_step.h"

namespace pared {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// A detector whose boxes are picked and then scaled to the picture; `last` makes y of them.
Model Detector(const std::string& last) {
  return Made(R"(g (float[1,3,24,24] x) => (float[M,4] y) <int64[3] by_box = {1,-1,4},
      int64[3] by_score = {1,1,-1}, int64[1] most = {1000}, float[1] overlap = {0.5},
      float[1] least = {0.5}, int64[1] third = {2}, int64[1] one = {1}, int64[1] zero = {0},
      float[4] corners = {-4,-4,4,4}, float ratio = {1.7}> {
        [c1] a = Conv <pads = [1,1,1,1]> (x, w1) ar = Relu(a)
        [box] b = Conv(ar, wb) [score] s = Conv(ar, ws)
        bt = Transpose <perm = [0,2,3,1]> (b) bq = Reshape(bt, by_box) c = Add(bq, anchors)
        boxes = Add(c, corners) sr = Reshape(s, by_score) scores = Sigmoid(sr)
        places = NonMaxSuppression(boxes, scores, most, overlap, least)
        at = Gather <axis = 1> (places, third) i = Squeeze(at, one)
        all = Squeeze(boxes, zero) picked = Gather(all, i) )" +
                  last + " }",
              {{"w1", {16, 3, 3, 3}},
               {"wb", {4, 16, 1, 1}},
               {"ws", {1, 16, 1, 1}},
               {"anchors", {1, 576, 4}}});
}

std::string WarningsOf(const Json& report) {
  return report.value("warnings", Json::array()).dump();
}

TEST(JudgedModels, WhatFollowsThePickingCollapsesNothing) {
  for (const char* last : {"y = Identity(picked)", "y = Mul(picked, ratio)"}) {
    const Model in = Detector(last);
    const Dataset data = Dataset::Random(in.graph.inputs, 8, 3);
    for (const char* pass : {"quantize_int8", "cast_fp16"}) {
      const PassResult out = RunStep(pass, {}, in, &data);
      EXPECT_GT(out.report.at("calibration_sqnr_db"), 30) << pass << ' ' << last;
      EXPECT_THAT(WarningsOf(out.report), ::testing::Not(HasSubstr("collapsed")))
          << pass << ' ' << last;
    }
  }
}

// The second stage of a detector computes for each box that the first one selects.
TEST(JudgedModels, WhatIsComputedOfASelectionIsComparedOnOneSelection) {
  const Model in = Made(R"(g (float[64,16] x) => (float[48,8] y) <int64[1] most = {48}> {
      [first] h = MatMul(x, w1) a = Relu(h) [score] s = MatMul(a, ws) t, i = TopK <axis = 0> (s, most)
      f = Flatten <axis = 0> (i) r = Transpose(f) one = GatherND(a, r) [second] m = MatMul(one, w2)
      e = Mul(m, t) n = Relu(e) [last] y = MatMul(n, w3) })",
                        {{"w1", {16, 32}}, {"ws", {32, 1}}, {"w2", {32, 16}}, {"w3", {16, 8}}});
  const Dataset data = Dataset::Random(in.graph.inputs, 16, 3);
  const Json options = {{"keep_float", "off"}};
  EXPECT_GT(RunStep("quantize_int8", options, in, &data).report.at("calibration_sqnr_db"), 25);
  EXPECT_GT(RunStep("cast_fp16", {}, in, &data).report.at("calibration_sqnr_db"), 50);
}

// A phase of thousands has no digits left for the angle.
TEST(JudgedModels, CastFp16WarnsOfACollapse) {
  const Model in = Made(
      "g (float[4,32] x) => (float[4,8] y) <float far = {6000}> "
      "{ p = MatMul(x, w) t = Tanh(p) m = Mul(t, far) y = Sin(m) }",
      {{"w", {32, 8}}});
  const Dataset data = Dataset::Random(in.graph.inputs, 8, 3);
  const Json report = RunStep("cast_fp16", {}, in, &data).report;
  EXPECT_LT(report.at("calibration_sqnr_db"), 3);
  EXPECT_THAT(WarningsOf(report), HasSubstr("collapsed"));
}

TEST(JudgedModels, OfOutputsThatAreAllZeroThereIsNoFigure) {
  const Model in = Made(
      "g (float[4,32] x) => (float[4,8] y) <float two = {2}> "
      "{ p = MatMul(x, w) s = Sigmoid(p) d = Sub(s, two) y = Relu(d) }",
      {{"w", {32, 8}}});
  const Dataset data = Dataset::Random(in.graph.inputs, 8, 3);
  for (const char* pass : {"quantize_int8", "cast_fp16"}) {
    const Json report = RunStep(pass, {}, in, &data).report;
    EXPECT_FALSE(report.contains("calibration_sqnr_db")) << pass;
    EXPECT_THAT(WarningsOf(report), HasSubstr("nothing was compared")) << pass;
  }
}

// Of two products the first returns to float: one input channel is a thousand times the other, and
// its weight as much less.
constexpr const char* kUneven = R"(<float[2] gamma = {1000,1},
    float[2,2] w = {0.001,0.002,1,-2}, float[2,3] v = {1,0.5,-1,0.25,1,2}> {)";
constexpr const char* kProducts =
    "n = Mul(x, gamma) c = MatMul(n, w) s = Softplus(c) r = MatMul(s, v)";
const Json kBound = {{"min_sqnr_db", 30}, {"smooth", "off"}, {"rounding", "nearest"}};

TEST(JudgedModels, TheShareOfWeightsIsThatOfTheResult) {
  const Model in =
      ModelFromText(std::string("g (float[4,2] x) => (float[4,3] r) ") + kUneven + kProducts + "}");
  const Dataset data = Samples(in);
  const Json report = RunStep("quantize_int8", kBound, in, &data).report;
  ASSERT_THAT(report.at("returned_to_float"), ElementsAre("MatMul producing c"));
  EXPECT_EQ(report.at("int8_weight_count"), 6);
  EXPECT_EQ(report.at("int8_weight_share"), 0.6);
}

TEST(JudgedModels, TheShareOfWeightsInBranchesToo) {
  const Model in =
      ModelFromText(std::string("g (float[4,2] x, bool k) => (float[4,3] y) ") + kUneven +
                    "y = If (k) <then_branch = t () => (float[4,3] r) {" + kProducts +
                    "}, else_branch = o () => (float[4,3] q) { q = MatMul(x, v) }> }");
  const Dataset data = Samples(in);
  const Json report = RunStep("quantize_int8", kBound, in, &data).report;
  const Json& branch = report.at("branches")[0].at("report");
  ASSERT_THAT(branch.at("returned_to_float"), ElementsAre("MatMul producing c"));
  EXPECT_EQ(branch.at("int8_weight_share"), 0.6);
  EXPECT_EQ(report.at("int8_weight_count"), 12);
  EXPECT_EQ(report.at("int8_weight_share"), 0.75);
}

}  // namespace
}  // namespace pared
