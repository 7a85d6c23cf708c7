#include "passes/int8_branches.h"

#include <gmock/gmock.h>

#include "tests/passes/made_model.h"
#include "tests/passes/promises.h"
#include "tests/passes/run_step.h"

namespace pared {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using ::testing::UnorderedElementsAre;

// Everything within the branches, each with its own weights and one that both share.
Model AllWithin() {
  return Made(R"(g (bool c, float[1,4,6,6] x) => (float[1,8,6,6] y) {
    y = If (c) <then_branch = t () => (float[1,8,6,6] p) {
        [first] a = Conv <pads = [1,1,1,1]> (x, w1, b1) b = Relu(a) [second] p = Conv(b, both) },
      else_branch = e () => (float[1,8,6,6] q) {
        [third] a2 = Conv(x, w2) [fourth] q = Conv(a2, both) }> })",
              {{"w1", {8, 4, 3, 3}}, {"b1", {8}}, {"w2", {8, 4, 1, 1}}, {"both", {8, 8, 1, 1}}});
}

PassResult Quantize(const Model& model, Json options = Json::object()) {
  const Dataset data = Samples(model);
  return RunStep("quantize_int8", std::move(options), model, &data);
}

std::vector<std::string> WeightTypes(const Model& model) {
  std::vector<std::string> types;
  for (const auto& [name, initializer] : model.graph.initializers) {
    if (initializer.tensor.rank() > 1) types.emplace_back(DTypeName(initializer.tensor.dtype()));
  }
  return types;
}

TEST(Int8Branches, BranchesAreQuantizedOnTheSamplesThatTakeThem) {
  const Model in = AllWithin();
  const PassResult out = Quantize(in);
  EXPECT_THAT(Labels(out.report.at("changed")),
              UnorderedElementsAre("Conv first", "Conv second", "Conv third", "Conv fourth"));
  EXPECT_THAT(out.report.at("skipped"), IsEmpty());
  EXPECT_EQ(out.report.at("int8_weight_share"), 1.0);
  EXPECT_GT(out.report.at("calibration_sqnr_db"), 30.0);
  ASSERT_THAT(out.report.at("branches"), SizeIs(2));
  const int64_t then_count = out.report.at("branches")[0].at("report").at("samples");
  const int64_t else_count = out.report.at("branches")[1].at("report").at("samples");
  EXPECT_GT(then_count, 0);
  EXPECT_EQ(then_count + else_count, 16);
  EXPECT_GT(WorstSqnrDb(in, out.model), 30);
  ExpectUniqueNames(out.model);
}

TEST(Int8Branches, AWeightThatTwoBranchesCaptureIsStoredOnce) {
  const PassResult out = Quantize(AllWithin(), {{"rounding", "nearest"}});
  // Three weights; none is left in float, in no graph.
  EXPECT_THAT(WeightTypes(out.model), UnorderedElementsAre("int8", "int8", "int8"));
  ForEachNode(out.model.graph, [](const Node& node) {
    for (const GraphPtr& graph : SubgraphsOf(node)) EXPECT_THAT(graph->initializers, IsEmpty());
  });
}

TEST(Int8Branches, WhatIsAroundTheBranchesIsQuantizedToo) {
  const Model in = Made(R"(g (bool c, float[2,4] x) => (float[2,4] y) {
    [before] h = MatMul(x, v)
    m = If (c) <then_branch = t () => (float[2,4] p) { [inside] p = MatMul(h, w) },
                else_branch = e () => (float[2,4] q) { q = Tanh(h) }>
    r = Relu(m) [after] y = MatMul(r, u) })",
                        {{"v", {4, 4}}, {"w", {4, 4}}, {"u", {4, 4}}});
  const PassResult out = Quantize(in);
  EXPECT_THAT(Labels(out.report.at("changed")),
              UnorderedElementsAre("MatMul before", "MatMul inside", "MatMul after"));
  EXPECT_GT(WorstSqnrDb(in, out.model), 25);
}

TEST(Int8Branches, ExclusionsHoldInBranches) {
  for (const char* name : {"third", "re:thi.*"}) {
    const PassResult out = Quantize(AllWithin(), {{"exclude", {name}}});
    EXPECT_EQ(SkippedReason(out.report, "Conv third"), "excluded");
    EXPECT_THAT(Labels(out.report.at("changed")), SizeIs(3));
    EXPECT_EQ(out.model.graph.initializers.at("w2").tensor.dtype(), DType::kFloat32);
  }
}

TEST(Int8Branches, AnExcludedIfKeepsItsBranches) {
  Model in = AllWithin();
  in.graph.nodes[0].name = "either";
  EXPECT_THAT(
      [&] {
        Quantize(in, {{"exclude", {"either"}}});
      },
      ThrowsError(ErrorCode::kUnsupported, "", HasSubstr("in then_branch of If either: excluded")));
}

TEST(Int8Branches, ABranchThatNoSampleTakesStaysFloatAndSaysSo) {
  Model in = Made(R"(g (float[1,4,6,6] x) => (float[1,8,6,6] y) <bool c = {1}> {
    y = If (c) <then_branch = t () => (float[1,8,6,6] p) { [taken] p = Conv(x, w) },
                else_branch = e () => (float[1,8,6,6] q) { [never] q = Conv(x, v) }> })",
                  {{"w", {8, 4, 1, 1}}, {"v", {8, 4, 1, 1}}});
  const PassResult out = Quantize(in);
  EXPECT_THAT(Labels(out.report.at("changed")), UnorderedElementsAre("Conv taken"));
  EXPECT_EQ(SkippedReason(out.report, "Conv never"),
            "in else_branch of If producing y: no calibration sample takes it");
  EXPECT_EQ(out.report.at("int8_weight_share"), 0.5);
}

TEST(Int8Branches, ABranchOfConstantsStaysFloatAndSaysSo) {
  const Model in = Made(R"(g (bool c, float[2,4] x) => (float[2,4] y) {
    y = If (c) <then_branch = t () => (float[2,4] p) { [read] p = MatMul(x, w) },
      else_branch = e () => (float[2,4] q) { [fixed] q = MatMul(k, w) }> })",
                        {{"w", {4, 4}}, {"k", {2, 4}}});
  const PassResult out = Quantize(in);
  EXPECT_THAT(Labels(out.report.at("changed")), UnorderedElementsAre("MatMul read"));
  EXPECT_EQ(SkippedReason(out.report, "MatMul fixed"),
            "in else_branch of If producing y: it reads constants only");
  EXPECT_GT(WorstSqnrDb(in, out.model), 30);
}

TEST(Int8Branches, BranchesWithinBranchesAreQuantized) {
  const Model in = Made(R"(g (bool c, bool d, float[2,4] x) => (float[2,4] y) {
    y = If (c) <then_branch = t () => (float[2,4] p) {
        [outer] h = MatMul(x, v)
        p = If (d) <then_branch = tt () => (float[2,4] r) { [inner] r = MatMul(h, w) },
                    else_branch = te () => (float[2,4] s) { [other] s = MatMul(h, v) }> },
      else_branch = e () => (float[2,4] q) { q = Neg(x) }> })",
                        {{"v", {4, 4}}, {"w", {4, 4}}});
  const PassResult out = Quantize(in);
  EXPECT_THAT(Labels(out.report.at("changed")),
              UnorderedElementsAre("MatMul outer", "MatMul inner", "MatMul other"));
  EXPECT_GT(WorstSqnrDb(in, out.model), 30);
  EXPECT_THAT(WeightTypes(out.model), testing::Each(testing::Eq("int8")));
  ExpectUniqueNames(out.model);
}

TEST(Int8Branches, WeightsHeldInABranchAreQuantizedThere) {
  const Model in = Made(R"(g (bool c, float[2,4] x) => (float[2,4] y) {
    y = If (c) <then_branch = t () => (float[2,4] p) {
        k = Constant <value = float[4,4] {1,2,3,4,-1,5,2,7,8,-3,1,2,4,4,6,-2}> ()
        [inside] p = MatMul(x, k) },
      else_branch = e () => (float[2,4] q) { q = Neg(x) }> })",
                        {});
  const PassResult out = Quantize(in);
  EXPECT_THAT(Labels(out.report.at("changed")), UnorderedElementsAre("MatMul inside"));
  EXPECT_GT(WorstSqnrDb(in, out.model), 30);
}

TEST(Int8Branches, OtherFormatsAndHalvesHoldBranchesToo) {
  const Model in = AllWithin();
  EXPECT_GT(WorstSqnrDb(in, Quantize(in, {{"format", "qoperator"}}).model), 30);
  const Model half = RunStep("cast_fp16", Json::object(), in).model;
  const PassResult out = Quantize(half);
  EXPECT_THAT(Labels(out.report.at("changed")), SizeIs(4));
  EXPECT_GT(WorstSqnrDb(in, out.model), 30);
}

TEST(Int8Branches, SamplesOfOtherShapesThanTheFirstAreLeftOut) {
  const Model in = Made(R"(g (bool c, float[N,4] x) => (float[M,4] y) {
    t = NonZero(x) n = Transpose <perm = [1,0]> (t) k = Cast <to = 1> (n) p2 = MatMul(k, lift)
    y = If (c) <then_branch = t () => (float[M,4] p) { [inside] p = MatMul(p2, w) },
                else_branch = e () => (float[M,4] q) { r = Relu(x) v = NonZero(r)
                  u = Transpose <perm = [1,0]> (v) f = Cast <to = 1> (u) [last] q = MatMul(f, lift) }> })",
                        {{"lift", {2, 4}}, {"w", {4, 4}}});
  const PassResult out = Quantize(in);
  EXPECT_THAT(Labels(out.report.at("changed")), testing::IsSupersetOf({"MatMul inside"}));
  EXPECT_GT(WorstSqnrDb(in, out.model), 25);
}

}  // namespace
}  // namespace pared
