#include "storage/pareto.h"

#include <gmock/gmock.h>

#include <cmath>
#include <random>

#include "storage/store.h"
#include "tests/testing/temp_dir.h"

namespace pared {
namespace {

using ::testing::ElementsAre;

// By the definition: some other point is nowhere worse and somewhere better.
std::vector<bool> DominatedByDefinition(const std::vector<ParetoPoint>& points) {
  std::vector<bool> dominated(points.size());
  for (size_t i = 0; i < points.size(); ++i) {
    for (const ParetoPoint& other : points) {
      bool is_worse = false;
      bool is_better = false;
      for (size_t k = 0; k < other.values.size(); ++k) {
        is_worse |= other.values[k] > points[i].values[k];
        is_better |= other.values[k] < points[i].values[k];
      }
      if (!is_worse && is_better) dominated[i] = true;
    }
  }
  return dominated;
}

TEST(Pareto, IsWhatTheDefinitionSaysForOneToFiveObjectives) {
  std::mt19937 random(7);
  for (size_t objectives = 1; objectives <= 5; ++objectives) {
    for (int round = 0; round < 40; ++round) {
      std::uniform_int_distribution<int> value(0, round % 2 == 0 ? 4 : 1000);  // with many ties
      std::vector<ParetoPoint> points(120);
      for (ParetoPoint& point : points) {
        for (size_t k = 0; k < objectives; ++k) point.values.push_back(value(random));
      }
      ASSERT_EQ(Dominated(points), DominatedByDefinition(points)) << objectives << " " << round;
    }
  }
}

TEST(Pareto, OfNothingIsNothing) {
  EXPECT_TRUE(Dominated({}).empty());
  EXPECT_FALSE(KneeOf({}).has_value());
}

TEST(Pareto, KneeIsNearestToTheBestOfEachScaledToItsRange) {
  // Scaled: (0, 1), (0.1, 0.2), (1, 0); distances 1, 0.22, 1.
  EXPECT_EQ(KneeOf({{1, {100, 1}}, {2, {200, 0.2}}, {3, {1100, 0}}}), 1U);
  EXPECT_EQ(KneeOf({{1, {5, 5}}, {2, {5, 5}}}), 0U);
}

class FrontTest : public ::testing::Test {
 protected:
  RunRecord RunOf(const std::string& chain, const std::string& cpu,
                  const std::map<std::string, double>& metrics) {
    RunRecord run;
    run.experiment = "e";
    run.model = "m";
    run.chain = chain;
    run.machine = {{"cpu", cpu}};
    run.metrics = metrics;
    return run;
  }

  void Record(const std::vector<RunRecord>& runs) {
    const JobId id = store_.Submit(Json::object());
    store_.Claim({});
    store_.Finish(id, JobState::kSucceeded, nullptr, runs);
  }

  static std::vector<int64_t> Ids(const Front& front) {
    std::vector<int64_t> ids;
    for (const FrontRun& run : front.runs) ids.push_back(run.id);
    return ids;
  }

  TempDir folder_;
  Store store_{folder_ / "pared.db", {}};
};

TEST_F(FrontTest, HasDirectionsConstraintsCountsAndTheDominated) {
  RunRecord failed = RunOf("6", "c", {{"size_bytes", 1}, {"top1", 1}, {"latency_ms_p50", 1}});
  failed.error = {{"code", "internal"}};
  Record({RunOf("1", "c", {{"size_bytes", 100}, {"top1", 0.9}, {"latency_ms_p50", 9}}),
          RunOf("2", "c", {{"size_bytes", 30}, {"top1", 0.85}, {"latency_ms_p50", 5}}),
          RunOf("3", "c", {{"size_bytes", 20}, {"top1", 0.1}, {"latency_ms_p50", 5}}),
          RunOf("4", "c", {{"size_bytes", 30}, {"top1", 0.85}, {"latency_ms_p50", 6}}),
          RunOf("5", "d", {{"size_bytes", 10}, {"top1", std::nan("")}, {"latency_ms_p50", 1}}),
          failed});
  FrontQuery query = {
      {}, {{"size_bytes", false}, {"top1", true}, {"latency_ms_p50", false}}, false};
  Front front = store_.FrontOf(query);
  EXPECT_THAT(Ids(front), ElementsAre(3, 2, 1));
  EXPECT_THAT(front.runs[1].values, ElementsAre(30, 0.85, 5));
  EXPECT_EQ(front.knee, 2);
  EXPECT_EQ(front.candidate_count, 5);
  EXPECT_EQ(front.excluded_count, 1);
  EXPECT_THAT(front.machines, ElementsAre(Json{{"cpu", "c"}}, Json{{"cpu", "d"}}));

  query.has_dominated = true;
  query.runs.filter = "machine.cpu = 'c' and top1 > 0.5";
  front = store_.FrontOf(query);
  EXPECT_THAT(Ids(front), ElementsAre(2, 4, 1));
  EXPECT_TRUE(front.runs[1].is_dominated);
  EXPECT_THAT(front.machines, ElementsAre(Json{{"cpu", "c"}}));
  EXPECT_EQ(front.candidate_count, 3);
}

TEST_F(FrontTest, IsTheSameByWalkAndByLookUp) {
  std::mt19937 random(3);
  std::uniform_real_distribution<double> value(0, 1);
  std::vector<RunRecord> runs;
  for (int i = 0; i < 10'500; ++i) {
    const std::string half = i % 2 == 0 ? "even" : "odd";
    runs.push_back(RunOf(std::to_string(i), half, {{"a", value(random)}, {"b", value(random)}}));
    if (i % 7 == 0) runs.back().metrics.erase("b");
  }
  Record(runs);
  // Constrained to fewer than a walk is worth, twice; the front of both halves' fronts is the
  // whole.
  FrontQuery query = {{}, {{"a", false}, {"b", true}}, false};
  const Front whole = store_.FrontOf(query);
  std::vector<ParetoPoint> halves;
  for (const char* half : {"even", "odd"}) {
    query.runs.filter = std::string("machine.cpu = '") + half + "'";
    for (const FrontRun& run : store_.FrontOf(query).runs) {
      halves.push_back({run.id, {run.values[0], -run.values[1]}});
    }
  }
  std::vector<int64_t> expected;
  const std::vector<bool> dominated = DominatedByDefinition(halves);
  for (size_t i = 0; i < halves.size(); ++i) {
    if (!dominated[i]) expected.push_back(halves[i].run);
  }
  EXPECT_THAT(Ids(whole), ::testing::UnorderedElementsAreArray(expected));
  EXPECT_EQ(whole.excluded_count, 1'500);
}

}  // namespace
}  // namespace pared
