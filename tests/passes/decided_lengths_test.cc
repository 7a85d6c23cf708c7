#include "passes/decided_lengths.h"

#include <gmock/gmock.h>

#include "evaluator/executor.h"
#include "passes/weights.h"
#include "tests/passes/promises.h"
#include "tests/passes/run_step.h"
#include "tests/testing/random_tensor.h"

namespace pared {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

// As speech is made: as many steps as the durations that the first two products predict, each of
// them what the last product makes of its number.
constexpr const char* kSpoken = R"(g (float[1,6,8] x) => (float[M,8] y, float[1,6,8] z)
    <float many = {40}, int64 zero = {0}, int64 one = {1}, int64[1] last = {1}> {
  [encoder] h = MatMul(x, u) [durations] d = MatMul(h, w) e = Sigmoid(d) k = Mul(e, many) c = Ceil(k)
  s = ReduceSum <keepdims = 0> (c) n = Cast <to = 7> (s) r = Range(zero, n, one)
  f = Cast <to = 1> (r) t = Unsqueeze(f, last) v = Mul(t, v8) b = Sin(v) [voice] y = MatMul(b, q)
  [beside] z = MatMul(x, q) })";

Model Spoken() {
  Random random(5);
  Model model = ParseText(kSpoken);
  for (const auto& [name, shape] : std::vector<std::pair<std::string, Shape>>{
           {"u", {8, 8}}, {"w", {8, 1}}, {"v8", {1, 8}}, {"q", {8, 8}}}) {
    model = WithInitializer(std::move(model), name, random.Normal(shape, 0.5));
  }
  SortNodes(model.graph);
  Verify(model);
  return model;
}

TEST(DecidedLengths, WhatPredictsDurationsStaysFloat) {
  const Model in = Spoken();
  const Dataset data = Samples(in);
  for (const char* pass : {"quantize_int8", "quantize_dynamic", "cast_fp16"}) {
    const PassResult out = RunStep(pass, {}, in, &data);
    EXPECT_THAT(SkippedReason(out.report, "MatMul encoder"), HasSubstr("length")) << pass;
    EXPECT_THAT(SkippedReason(out.report, "MatMul durations"), HasSubstr("length")) << pass;
    EXPECT_THAT(Labels(out.report.at("changed")), testing::Contains("MatMul beside")) << pass;
    EXPECT_GT(WorstSqnrDb(in, out.model), 25) << pass;
  }
}

// The encoder alone: with its weights in float, nothing would be quantized.
TEST(DecidedLengths, WhereEverythingPredictsThemTheResultIsJudgedAllTheSame) {
  Model in = ModelFromText(R"(g (float[1,6,8] x) => (float[M] y)
      <float many = {1000}, float zero = {0}, float one = {1}, int64[1] flat = {-1}, float[8,1] w =
       {0.31,-0.12,0.47,0.33,-0.21,0.18,0.05,0.94}> {
    [durations] d = MatMul(x, w) e = Sigmoid(d) k = Mul(e, many) c = Ceil(k) s = ReduceSum <keepdims = 0> (c)
    n = Cast <to = 7> (s) m = Reshape(n, flat) y = ConstantOfShape <value = float[1] {0.5}> (m) })");
  const Dataset data = Samples(in);
  const PassResult out = RunStep("quantize_int8", {}, in, &data);
  EXPECT_THAT(Labels(out.report.at("changed")), testing::ElementsAre("MatMul durations"));
  EXPECT_LT(out.report.at("calibration_sqnr_db").get<double>(), 3);
  EXPECT_THAT(out.report.at("warnings"), testing::Contains(HasSubstr("collapsed")));
}

// Those with weights among them.
std::vector<std::string> Found(const Model& model) {
  const WeightScan scan = FindWeights(model);
  const auto found = NodesThatDecideLengths(model);
  std::vector<std::string> labels;
  for (const WeightSite& site : scan.sites) {
    if (found.contains(site.node)) labels.push_back(NodeLabel(*site.node));
  }
  return labels;
}

TEST(DecidedLengths, TheirMakersAreFound) {
  EXPECT_THAT(Found(Spoken()), testing::ElementsAre("MatMul encoder", "MatMul durations"));
}

TEST(DecidedLengths, SizesThatFollowFromSizesAreNone) {
  const Model model = ModelFromText(R"(g (float[1,2,H,W] x) => (float[1,2,A,B] y)
      <float[2,2,1,1] w = {1,2,3,4}, float two = {2}, int64[1] z = {0}, int64[1] two1 = {2}, int64[1] four = {4}> {
    c = Conv(x, w) s = Shape(c) f = Cast <to = 1> (s) d = Mul(f, two) g0 = Floor(d) i = Cast <to = 7> (g0)
    head = Slice(s, z, two1) tail = Slice(i, two1, four) t = Concat <axis = 0> (head, tail)
    e = Expand(one, t) r = Conv(x, w) k = Mul(e, e) p = Resize <mode = "nearest"> (r, , , t) y = Mul(p, k)
    one = Constant <value_float = 1.0> () })");
  EXPECT_THAT(Found(model), IsEmpty());
}

// What suppresses boxes reads the whole model; so would everything be float.
TEST(DecidedLengths, PlacesThatAreFoundAreNone) {
  const Model model = ModelFromText(R"(g (float[1,9,4] x) => (float[M,4] y)
      <float[4,4] w = {1,2,3,4,5,6,7,8,9,1,2,3,4,5,6,7}, int64[1] three = {3}, int64[1] flat = {-1},
       int64[1] one = {1}, int64[1] two = {2}, int64[1] zero = {0}> {
    boxes = MatMul(x, w) m = ReduceMax <axes = [2], keepdims = 0> (boxes) scores = Unsqueeze(m, one)
    picked = NonMaxSuppression(boxes, scores, three) at = Slice(picked, two, three, one) i = Reshape(at, flat)
    all = Squeeze(boxes, zero) g0 = Gather <axis = 0> (all, i) n = Shape(g0) y = Reshape(g0, n) })");
  EXPECT_THAT(Found(model), IsEmpty());
}

}  // namespace
}  // namespace pared
