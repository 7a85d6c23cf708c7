#include "daemon/estimate.h"

#include <gtest/gtest.h>

namespace pared {
namespace {

const std::string kSha(64, 'a');

JobSpec Spec(int64_t runs = 0) {
  JobSpec spec = ReadJobSpec(ParseJson(R"({"model": "m", "chains": [
      {"name": "fp16", "passes": [{"pass": "cast_fp16"}]},
      {"name": "p", "passes": [{"pass": "magnitude_prune", "sparsity": 0.5}]},
      {"name": "p-fp16", "passes": [{"pass": "magnitude_prune", "sparsity": 0.5},
                                    {"pass": "cast_fp16"}]}]})"));
  spec.evaluate.runs = runs;
  return BindPasses(spec);
}

Json Line(const std::string& step, double fraction, const std::string& chain = "") {
  Json line = {{"step", step}, {"fraction", fraction}};
  if (!chain.empty()) line["chain"] = chain;
  return line;
}

// A run of `chain` whose passes took so many seconds each, and its evaluation 4.
Run Ran(const std::string& chain, const std::vector<double>& seconds, bool is_cached = false) {
  Run run;
  run.record.steps = ChainSteps(MakePlan(Spec()), chain);
  run.record.reports = Json::array();
  for (size_t i = 0; i < seconds.size(); ++i) {
    run.record.reports.push_back(
        {{"pass", run.record.steps[i].at("pass")}, {"seconds", seconds[i]}});
    if (is_cached) run.record.reports.back()["cached"] = true;
  }
  run.record.reports.push_back({{"pass", "evaluate"}, {"seconds", 4.0}});
  run.record.lineage = {{"model", {{"name", "m"}, {"sha256", kSha}}},
                        {"evaluation", {{"dataset", ""}, {"samples", 16}}}};
  run.record.metrics = {{"latency_ms_mean", 20}};
  return run;
}

TEST(Estimate, KnowsNothingBeforeAnythingHasHappened) {
  Estimate estimate(Spec(), {});
  EXPECT_EQ(estimate.percent(), 0);
  EXPECT_FALSE(estimate.SecondsLeft(1).has_value());
  estimate.Take(Line("evaluate baseline", 0), 0);
  EXPECT_FALSE(estimate.SecondsLeft(1).has_value());
}

TEST(Estimate, GoesByWhatIsDoneWithoutHistory) {
  // Parts: three steps (the prefix is one), four evaluations.
  Estimate estimate(Spec(), {});
  estimate.Take(Line("evaluate baseline", 0), 0);
  estimate.Take(Line("evaluate baseline", 0.5), 1);  // it will take 2 s, and so will each part
  EXPECT_NEAR(estimate.percent(), 100 * 1 / 14.0, 1e-9);
  EXPECT_NEAR(*estimate.SecondsLeft(1), 13, 1e-9);
  estimate.Take(Line("ended baseline", 1), 2);
  EXPECT_NEAR(estimate.percent(), 100 * 2 / 14.0, 1e-9);
  estimate.Take(Line("magnitude_prune", 0, "p"), 2);
  estimate.Take(Line("magnitude_prune", 0.25, "p"), 4);   // 8 s; other passes too
  EXPECT_NEAR(estimate.percent(), 100 * 2 / 14.0, 1e-9);  // 4 of 32 s would be less than before
  EXPECT_NEAR(*estimate.SecondsLeft(4), 28, 1e-9);
}

TEST(Estimate, GoesByEarlierRunsOfTheSameModel) {
  const StepHistory history({Ran("fp16", {9}), Ran("p-fp16", {10, 6})}, kSha);
  // 10 + 6 + 6 of steps, 4 * 4 of evaluations, 4 * 100 runs of 20 ms.
  Estimate estimate(Spec(100), history);
  estimate.Take(Line("evaluate baseline", 0), 0);
  EXPECT_NEAR(*estimate.SecondsLeft(0), 46, 1e-9);
  estimate.Take(Line("ended baseline", 1), 4);
  EXPECT_NEAR(estimate.percent(), 100 * 4 / 46.0, 1e-9);
  EXPECT_NEAR(*estimate.SecondsLeft(4), 42, 1e-9);
}

TEST(Estimate, OtherBytesAndCachedStepsTellNothing) {
  const StepHistory others({Ran("fp16", {9})}, std::string(64, 'b'));
  EXPECT_FALSE(others.StepSeconds({{"pass", "cast_fp16"}}).has_value());
  const StepHistory cached({Ran("fp16", {9}), Ran("fp16", {0.01}, true)}, kSha);
  EXPECT_EQ(cached.StepSeconds({{"pass", "cast_fp16"}}), 9);
}

TEST(Estimate, NeverGoesBackAndLeavesTheLastPercentToTheEnd) {
  Estimate estimate(Spec(), {});
  estimate.Take(Line("evaluate baseline", 0), 0);
  estimate.Take(Line("ended baseline", 1), 1);
  const double before = estimate.percent();
  estimate.Take(Line("magnitude_prune", 0, "p"), 1);
  estimate.Take(Line("magnitude_prune", 0.1, "p"), 100);  // far longer than all thought
  EXPECT_EQ(estimate.percent(), before);
  for (const char* chain : {"fp16", "p", "p-fp16"}) {
    estimate.Take(Line(std::string("ended ") + chain, 1), 200);
  }
  EXPECT_EQ(estimate.percent(), 99);
  EXPECT_EQ(estimate.SecondsLeft(200), 0);
}

TEST(Estimate, StepsThatAFailedChainDoesNotComeToCountAsDone) {
  Estimate estimate(Spec(), {});
  estimate.Take(Line("evaluate baseline", 0), 0);
  estimate.Take(Line("ended baseline", 1), 1);
  estimate.Take(Line("magnitude_prune", 0, "p"), 1);
  estimate.Take(Line("ended p", 1), 2);
  estimate.Take(Line("ended p-fp16", 1), 2);
  // What is left: cast_fp16 and the evaluation of chain fp16, thought to take 1/2 s, the mean of
  // the steps (1 s and 0 s), and 1/3 s, that of the evaluations (1 s, 0 s and 0 s).
  EXPECT_NEAR(*estimate.SecondsLeft(2), 1.0 / 2 + 1.0 / 3, 1e-9);
}

TEST(Estimate, StepsSideBySideShareTheTimeThatIsLeft) {
  Estimate estimate(Spec(), {});
  estimate.Take(Line("cast_fp16", 0, "fp16"), 0);
  estimate.Take(Line("magnitude_prune", 0, "p"), 0);
  estimate.Take(Line("cast_fp16", 1, "fp16"), 10);
  estimate.Take(Line("magnitude_prune", 1, "p"), 10);
  EXPECT_NEAR(*estimate.SecondsLeft(10), 5 * 10 / 2.0, 1e-9);
}

}  // namespace
}  // namespace pared
