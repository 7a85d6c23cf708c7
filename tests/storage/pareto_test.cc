#include "storage/pareto.h"

#include <gmock/gmock.h>
#include <time.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <functional>
#include <limits>
#include <map>
#include <random>
#include <string>

#include "storage/sqlite.h"
#include "storage/store.h"
#include "tests/testing/temp_dir.h"

namespace pared {
namespace {

using ::testing::ElementsAre;

// By the definition: some other point is nowhere worse and somewhere better.
std::vector<bool> DominatedByDefinition(const ParetoPoints& points) {
  std::vector<bool> dominated(points.size());
  for (size_t i = 0; i < points.size(); ++i) {
    for (size_t j = 0; j < points.size(); ++j) {
      bool is_worse = false;
      bool is_better = false;
      for (size_t k = 0; k < points.dimensions(); ++k) {
        is_worse |= points.values(j)[k] > points.values(i)[k];
        is_better |= points.values(j)[k] < points.values(i)[k];
      }
      if (!is_worse && is_better) dominated[i] = true;
    }
  }
  return dominated;
}

ParetoPoints PointsOf(const std::vector<std::vector<double>>& rows) {
  ParetoPoints points(rows.front().size());
  for (const std::vector<double>& row : rows) {
    points.Add(static_cast<int64_t>(points.size()), row);
  }
  return points;
}

TEST(Pareto, IsWhatTheDefinitionSaysForOneToFiveObjectives) {
  std::mt19937 random(7);
  for (size_t objectives = 1; objectives <= 5; ++objectives) {
    for (int round = 0; round < 40; ++round) {
      std::uniform_int_distribution<int> value(0, round % 2 == 0 ? 4 : 1000);  // with many ties
      std::vector<std::vector<double>> rows(120, std::vector<double>(objectives));
      for (std::vector<double>& row : rows) {
        std::ranges::generate(row, [&] { return value(random); });
      }
      const ParetoPoints points = PointsOf(rows);
      ASSERT_EQ(Dominated(points), DominatedByDefinition(points)) << objectives << " " << round;
    }
  }
}

TEST(Pareto, OfNothingIsNothing) {
  EXPECT_TRUE(Dominated(ParetoPoints(2)).empty());
  EXPECT_FALSE(KneeOf(ParetoPoints(2)).has_value());
}

TEST(Pareto, KneeIsNearestToTheBestOfEachScaledToItsRange) {
  // Scaled: (0, 1), (0.1, 0.2), (1, 0); distances 1, 0.22, 1.
  EXPECT_EQ(KneeOf(PointsOf({{100, 1}, {200, 0.2}, {1100, 0}})), 1U);
  EXPECT_EQ(KneeOf(PointsOf({{5, 5}, {5, 5}})), 0U);
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
  ParetoPoints halves(2);
  for (const char* half : {"even", "odd"}) {
    query.runs.filter = std::string("machine.cpu = '") + half + "'";
    for (const FrontRun& run : store_.FrontOf(query).runs) {
      halves.Add(run.id, std::vector{run.values[0], -run.values[1]});
    }
  }
  std::vector<int64_t> expected;
  const std::vector<bool> dominated = DominatedByDefinition(halves);
  for (size_t i = 0; i < halves.size(); ++i) {
    if (!dominated[i]) expected.push_back(halves.run(i));
  }
  EXPECT_THAT(Ids(whole), ::testing::UnorderedElementsAreArray(expected));
  EXPECT_EQ(whole.excluded_count, 1'500);
}

// By one statement each: ties, NaN (as NULL), failed runs, and reports that make a row as long as
// they are.
void FillWithRuns(const std::filesystem::path& file, int64_t count) {
  Database writer(file, DatabaseAccess::kWrite);
  const std::string numbers =
      "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n "
      "WHERE i < " +
      std::to_string(count) + ") ";
  writer.Execute("INSERT INTO jobs (id, state, spec, created_ms) VALUES (1, 'succeeded', '{}', 0)");
  writer.Execute(numbers +
                 "INSERT INTO runs (id, job, experiment, model, chain, steps, reports, machine, "
                 "error, created_ms) SELECT i, 1, 'e', 'm', i, '[]', hex(zeroblob(1000)), '{}', "
                 "CASE WHEN i % 100 = 0 THEN '{}' END, i FROM n");
  for (const auto& [name, value] : std::map<std::string, std::string>{
           {"size", "i * 7919 % 1000"},
           {"loss", "CASE WHEN i % 50 <> 7 THEN i * 104729 % 100003 END"},
           {"time", "i * 7919 % 1000 / 2 + i * 1299709 % 2003"}}) {
    writer.Execute(numbers + "INSERT INTO metrics SELECT i, '" + name + "', " + value + " FROM n");
  }
}

// Of this thread: what others take from a busy machine does not count. The least of a few calls.
double CpuMs(const std::function<void()>& call) {
  const auto now = [] {
    timespec time = {};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return static_cast<double>(time.tv_sec) * 1e3 + static_cast<double>(time.tv_nsec) / 1e6;
  };
  double least = std::numeric_limits<double>::infinity();
  for (int i = 0; i < 5; ++i) {
    const double begin = now();
    call();
    least = std::min(least, now() - begin);
  }
  return least;
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr double kFrontMsMax = 2'000;
#else
constexpr double kFrontMsMax = 70;
#endif

TEST_F(FrontTest, OfAHundredThousandRunsTakesNoTenthOfASecond) {
  FillWithRuns(folder_ / "pared.db", 100'000);
  const FrontQuery query = {{}, {{"size", false}, {"loss", false}, {"time", false}}, false};
  Front front;
  EXPECT_LT(CpuMs([&] { front = store_.FrontOf(query); }), kFrontMsMax);
  EXPECT_EQ(front.candidate_count, 99'000);
  EXPECT_EQ(front.excluded_count, 2'000);
  EXPECT_GT(front.runs.size(), 10);
  // With a run more before each call.
  int written = 0;
  const auto record = [&] {
    Record({RunOf(std::to_string(++written), "c", {{"size", 0}, {"loss", -1}, {"time", -1}})});
  };
  const double recording_ms = CpuMs(record);
  EXPECT_LT(CpuMs([&] {
              record();
              front = store_.FrontOf(query);
            }),
            kFrontMsMax + 2 * recording_ms);
  EXPECT_EQ(front.runs.size(), static_cast<size_t>(written));  // they tie, and beat all others
}

}  // namespace
}  // namespace pared
