// Columns in memory never say anything but what the tables say.

#include "storage/columns.h"

#include <gmock/gmock.h>

#include <atomic>
#include <cmath>
#include <map>
#include <random>
#include <thread>

#include "storage/store.h"
#include "tests/testing/temp_dir.h"

namespace pared {
namespace {

using ::testing::ElementsAre;

TEST(Column, FindsRunsBetweenGaps) {
  const Column dense = {{5, 6, 7}, {0.5, 0.6, 0.7}};
  EXPECT_EQ(dense.At(5), 0.5);
  EXPECT_EQ(dense.At(7), 0.7);
  EXPECT_TRUE(std::isnan(dense.At(4)));
  EXPECT_TRUE(std::isnan(dense.At(8)));
  const Column sparse = {{5, 9, 100, 1'000'000}, {1, 2, 3, 4}};
  EXPECT_EQ(sparse.At(9), 2);
  EXPECT_EQ(sparse.At(100), 3);
  EXPECT_EQ(sparse.At(1'000'000), 4);
  EXPECT_TRUE(std::isnan(sparse.At(6)));
  EXPECT_TRUE(std::isnan(sparse.At(999'999)));
  EXPECT_TRUE(std::isnan(Column{}.At(1)));
}

class ColumnsTest : public ::testing::Test {
 protected:
  static RunRecord Named(const std::string& chain, std::map<std::string, double> metrics) {
    RunRecord run;
    run.experiment = "e";
    run.model = "m";
    run.chain = chain;
    run.steps = Json::array();
    run.metrics = std::move(metrics);
    return run;
  }

  void Record(const std::vector<RunRecord>& runs) {
    store_.Submit(Json::object());
    store_.Finish(store_.Claim({})->id, JobState::kSucceeded, nullptr, runs);
  }

  std::vector<int64_t> Ids(const std::string& filter, const std::string& sort = "id") const {
    RunQuery query;
    query.filter = filter;
    query.sort = {{sort, false}};
    std::vector<int64_t> ids;
    for (const auto& run : store_.Runs(query)) ids.push_back(run.id);
    return ids;
  }

  // The same question without columns: run by run, from what the store gives of each.
  std::vector<int64_t> SlowIds(const std::string& metric, double below, bool is_drop) const {
    std::map<JobId, double> baselines;
    RunQuery all;
    all.limit = 100'000;
    const auto runs = store_.Runs(all);
    for (const auto& run : runs) {
      if (run.record.chain == "baseline" && run.record.metrics.contains(metric)) {
        baselines[run.job] = run.record.metrics.at(metric);
      }
    }
    std::vector<int64_t> ids;
    for (const auto& run : runs) {
      if (!run.record.metrics.contains(metric)) continue;
      if (is_drop && !baselines.contains(run.job)) continue;
      const double own = run.record.metrics.at(metric);
      if ((is_drop ? baselines.at(run.job) - own : own) < below) ids.push_back(run.id);
    }
    return ids;
  }

  TempDir dir_;
  Store store_{dir_ / "pared.db", {}};
};

TEST_F(ColumnsTest, SeeRunsThatCameLater) {
  Record({Named("baseline", {{"top1", 0.9}}), Named("a", {{"top1", 0.5}})});
  EXPECT_THAT(Ids("top1 < 0.6"), ElementsAre(2));
  EXPECT_THAT(Ids("top1_drop > 0.3"), ElementsAre(2));
  Record({Named("baseline", {{"top1", 0.8}}), Named("a", {{"top1", 0.4}})});
  EXPECT_THAT(Ids("top1 < 0.6"), ElementsAre(2, 4));
  EXPECT_THAT(Ids("top1_drop > 0.3"), ElementsAre(2, 4));
  EXPECT_THAT(Ids("", "top1"), ElementsAre(4, 2, 3, 1));
}

TEST_F(ColumnsTest, ForgetRunsThatAreGoneThoughAnotherTakesTheirId) {
  Record({Named("baseline", {{"top1", 0.9}}), Named("a", {{"top1", 0.5}})});
  EXPECT_THAT(Ids("top1 < 0.6"), ElementsAre(2));
  store_.DeleteRun(2);
  EXPECT_THAT(Ids("top1 < 0.6"), ElementsAre());
  Record({Named("baseline", {{"size_bytes", 7}})});  // takes the id 2
  EXPECT_THAT(Ids("top1 < 0.6"), ElementsAre());
  EXPECT_THAT(Ids("size_bytes < 8"), ElementsAre(2));
}

TEST_F(ColumnsTest, SeeTheNumbersOfAJobThatRanAgain) {
  const JobId job = store_.Submit(Json::object());
  store_.Claim({});
  store_.Finish(job, JobState::kFailed, nullptr, {Named("a", {{"top1", 0.5}})});
  EXPECT_THAT(Ids("top1 < 0.6"), ElementsAre(1));
}

TEST_F(ColumnsTest, FailedRunsAreFoundByTheirIndex) {
  RunRecord failed = Named("a", {});
  failed.error = {{"code", "internal"}};
  Record({Named("baseline", {}), failed, Named("b", {})});
  EXPECT_THAT(Ids("error is null"), ElementsAre(1, 3));
  EXPECT_THAT(Ids("error is not null"), ElementsAre(2));
  EXPECT_THAT(Ids("not error is null and chain = \"a\""), ElementsAre(2));
}

TEST_F(ColumnsTest, AgreeWithTheTablesThroughARandomHistory) {
  std::mt19937 random(3);
  std::uniform_real_distribution<double> uniform(0, 1);
  for (int step = 0; step < 120; ++step) {
    std::vector<RunRecord> runs;
    for (const char* chain : {"baseline", "a", "b", "c"}) {
      std::map<std::string, double> metrics = {{"size_bytes", uniform(random)}};
      if (uniform(random) < 0.7) metrics["top1"] = uniform(random);
      if (uniform(random) < 0.9) runs.push_back(Named(chain, metrics));
    }
    Record(runs);
    if (step % 3 == 0) store_.DeleteRun(Ids("", "size_bytes").front());
    if (step % 10 != 0) continue;
    RunQuery query;
    query.limit = 100'000;
    for (const bool is_drop : {false, true}) {
      query.filter = is_drop ? "top1_drop < 0.25" : "top1 < 0.25";
      std::vector<int64_t> ids;
      for (const auto& run : store_.Runs(query)) ids.push_back(run.id);
      EXPECT_EQ(ids, SlowIds("top1", 0.25, is_drop)) << "step " << step;
      EXPECT_EQ(store_.CountRuns(query), static_cast<int64_t>(ids.size()));
    }
  }
}

TEST_F(ColumnsTest, ManyReadersAndAWriterAgree) {
  Record({Named("baseline", {{"top1", 0.5}})});
  std::jthread writer([&](std::stop_token stop) {
    for (int i = 0; i < 200 && !stop.stop_requested(); ++i) {
      Record({Named("baseline", {{"top1", 0.5}}), Named("a", {{"top1", 0.25}})});
      if (i % 7 == 0) store_.DeleteExperiment("e");
    }
  });
  std::vector<std::jthread> readers;
  std::atomic<int> faults = 0;
  for (int r = 0; r < 4; ++r) {
    readers.emplace_back([&] {
      for (int i = 0; i < 200; ++i) {
        RunQuery query;
        query.filter = "top1 < 0.4";
        for (const auto& run : store_.Runs(query)) faults += run.record.chain == "a" ? 0 : 1;
        query.filter = "top1_drop > 0.2";
        for (const auto& run : store_.Runs(query)) faults += run.record.chain == "a" ? 0 : 1;
      }
    });
  }
  readers.clear();
  EXPECT_EQ(faults, 0);
}

}  // namespace
}  // namespace pared
