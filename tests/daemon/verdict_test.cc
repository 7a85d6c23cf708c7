#include "daemon/verdict.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "config/fields.h"

namespace pared {
namespace {

RunRecord Chain(const std::string& chain, double latency_ms, Json error = nullptr) {
  RunRecord run;
  run.chain = chain;
  run.metrics = {{"latency_ms_p50", latency_ms}, {"size_bytes", 100}};
  run.error = std::move(error);
  return run;
}

const Json kCollapsed = {{"code", "degraded"}, {"message", "sqnr_db is 1"}, {"where", "a"}};
const Json kBroken = {{"code", "unsupported"}, {"message", "no"}, {"where", "conv"}};

TEST(Verdict, ADegradedChainBesideAGoodOneLeavesTheJobItsSuccess) {
  const std::vector<RunRecord> runs = {Chain("baseline", 3), Chain("a", 1, kCollapsed),
                                       Chain("b", 2)};
  EXPECT_EQ(JudgeRuns(runs).state, JobState::kSucceeded);
  const Json said = FinalProgress(runs);
  EXPECT_EQ(said["best"], "b");
  EXPECT_EQ(said["degraded"], Json({{{"chain", "a"}, {"reason", "sqnr_db is 1"}}}));
}

TEST(Verdict, NothingButDegradedChainsIsNoSuccessAndTheBaselineIsBest) {
  const std::vector<RunRecord> runs = {Chain("baseline", 3), Chain("a", 1, kCollapsed)};
  const Verdict verdict = JudgeRuns(runs);
  EXPECT_EQ(verdict.state, JobState::kFailed);
  EXPECT_EQ(verdict.error["code"], "degraded");
  EXPECT_EQ(verdict.error["message"], "chain a: sqnr_db is 1");
  EXPECT_EQ(FinalProgress(runs)["best"], "baseline");
}

TEST(Verdict, WhatWasNotEvaluatedIsNoSuccessThoughThereIsAModel) {
  const Json unknown = {{"code", "not_evaluated"}, {"message", "no Twirl"}, {"where", "t"}};
  const std::vector<RunRecord> runs = {Chain("baseline", 3), Chain("a", 1, unknown)};
  EXPECT_EQ(JudgeRuns(runs).state, JobState::kFailed);
  EXPECT_EQ(FinalProgress(runs)["degraded"], Json({{{"chain", "a"}, {"reason", "no Twirl"}}}));
}

TEST(Verdict, AFailureWinsOverADegradedChain) {
  const Verdict verdict = JudgeRuns(
      {Chain("baseline", 3), Chain("a", 1, kCollapsed), Chain("b", 1, kBroken), Chain("c", 1)});
  EXPECT_EQ(verdict.state, JobState::kFailed);
  EXPECT_EQ(verdict.error["message"], "chain b: no");
}

TEST(Verdict, SizeDecidesWhereNoLatencyWasMeasured) {
  std::vector<RunRecord> runs = {Chain("baseline", 0), Chain("a", 0)};
  for (RunRecord& run : runs) run.metrics.erase("latency_ms_p50");
  runs[1].metrics["size_bytes"] = 40;
  EXPECT_EQ(FinalProgress(runs)["best"], "a");
}

}  // namespace
}  // namespace pared
