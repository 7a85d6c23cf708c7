#include "daemon/search.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/testing/matchers.h"

namespace pared {
namespace {

using testing::HasSubstr;
using testing::SizeIs;

JobSpec Spec(const Json& search) {
  return ReadJobSpec({{"model", "m"},
                      {"chains", {{{"name", "c"}, {"passes", {{{"pass", "magnitude_prune"}}}}}}},
                      {"search", search}});
}

const Json kSearch = ParseJson(R"({
  "objectives": [{"metric": "size"}], "bounds": [{"metric": "top1_drop", "max": 0.01}],
  "over": [{"pass": "magnitude_prune", "option": "sparsity", "values": [0.2, 0.5, 0.8]}],
  "budget": {"candidates": 3, "seconds": 10}})");

const SearchRun kBaseline = {1, "baseline", nullptr, {{"top1", 0.9}, {"size", 10}}, nullptr};

SearchRun Done(const SearchCandidate& candidate, Json metrics, Json error = nullptr,
               double seconds = 1) {
  Json about = candidate.about;
  about["seconds"] = seconds;
  return {candidate.about.at("number").get<int64_t>() + 1, candidate.chain.name, about,
          std::move(metrics), std::move(error)};
}

TEST(Search, CandidatesAreNamedAfterTheirChainAndSayWhatWasChosen) {
  const Search search(Spec(kSearch), {kBaseline});
  const auto candidate = search.Next();
  ASSERT_TRUE(candidate);
  EXPECT_EQ(candidate->chain.name, "c.1");
  EXPECT_EQ(candidate->chain.passes.at(0).at("sparsity"), 0.5);
  EXPECT_EQ(candidate->about["choice"], Json({{"magnitude_prune.sparsity", 0.5}}));
  EXPECT_EQ(candidate->about["why"], "the chain as it is written");
}

TEST(Search, SucceedsWithTheSmallestThatMeetsTheBound) {
  Search search(Spec(kSearch), {kBaseline});
  search.Add(Done(*search.Next(), {{"top1", 0.895}, {"size", 5}}));
  search.Add(Done(*search.Next(), {{"top1", 0.9}, {"size", 8}}));
  search.Add(Done(*search.Next(), {{"top1", 0.7}, {"size", 2}}));
  EXPECT_FALSE(search.Next());
  EXPECT_EQ(search.WhyEnded(), "its budget of 3 candidates is used up");
  EXPECT_EQ(search.Judge().state, JobState::kSucceeded);
  const Json status = search.Status();
  EXPECT_EQ(status["best"]["chain"], "c.1");
  EXPECT_EQ(status["best"]["run"], 2);
  EXPECT_EQ(status["best"]["values"]["size"], 5);
  EXPECT_NEAR(status["best"]["values"]["top1_drop"].get<double>(), 0.005, 1e-12);
  EXPECT_THAT(status["front"], SizeIs(1));
  EXPECT_EQ(status["goal_met"], true);
}

TEST(Search, WithoutOneThatMeetsTheBoundTheFrontIsStillThere) {
  Search search(Spec(kSearch), {kBaseline});
  search.Add(Done(*search.Next(), {{"top1", 0.8}, {"size", 5}}));
  search.Add(Done(*search.Next(), {{"top1", 0.85}, {"size", 8}}));
  const Verdict verdict = search.Judge();
  EXPECT_EQ(verdict.state, JobState::kGoalNotMet);
  EXPECT_EQ(verdict.error["where"], "/search/bounds/0");
  EXPECT_THAT(verdict.error["message"].get<std::string>(),
              HasSubstr("the nearest, c.2, has top1_drop"));
  EXPECT_THAT(search.Status()["front"], SizeIs(2));
  EXPECT_EQ(search.Status()["best"]["broken"], Json({"top1_drop at most 0.01"}));
}

TEST(Search, NothingButFailuresIsAFailure) {
  Search search(Spec(kSearch), {kBaseline});
  search.Add(Done(*search.Next(), Json::object(), {{"code", "internal"}, {"message", "broke"}}));
  EXPECT_EQ(search.Judge().state, JobState::kFailed);
  EXPECT_THAT(search.Judge().error["message"].get<std::string>(), HasSubstr("c.1: broke"));
  EXPECT_EQ(search.Status()["failed"][0]["reason"], "broke");
  EXPECT_EQ(search.Status()["best"], nullptr);
}

TEST(Search, SecondsOfEarlierStartsCount) {
  Search first(Spec(kSearch), {kBaseline});
  const SearchRun done = Done(*first.Next(), {{"top1", 0.9}, {"size", 5}}, nullptr, 10);
  const Search second(Spec(kSearch), {done, kBaseline});
  EXPECT_FALSE(second.Next());
  EXPECT_EQ(second.WhyEnded(), "its budget of 10 s is used up");
}

TEST(Search, AMetricThatTheBaselineLacksIsToldOf) {
  const Search search(Spec(kSearch), {{1, "baseline", nullptr, {{"size", 10}}, nullptr}});
  EXPECT_THAT([&] { search.CheckMetrics(); },
              ThrowsError(ErrorCode::kInvalidArgument, "/search/bounds/0/metric"));
}

}  // namespace
}  // namespace pared
