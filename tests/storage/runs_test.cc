#include <gmock/gmock.h>

#include <cmath>
#include <limits>

#include "storage/store.h"
#include "tests/testing/matchers.h"
#include "tests/testing/temp_dir.h"

namespace pared {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

RunRecord RunOf(const std::string& chain, double size, double top1) {
  RunRecord run;
  run.experiment = "nightly";
  run.model = "m";
  run.chain = chain;
  run.steps = Json::array({{{"pass", "p"}}});
  run.reports = Json::array();
  run.machine = {{"isa", "reference"}};
  run.metrics = {{"size_bytes", size}, {"top1", top1}};
  return run;
}

class RunsTest : public ::testing::Test {
 protected:
  JobId Record(const std::vector<RunRecord>& runs) {
    const JobId id = store_.Submit(Json::object());
    store_.Claim({});
    store_.Finish(id, JobState::kSucceeded, nullptr, runs);
    return id;
  }

  std::vector<std::string> Chains(const RunQuery& query) {
    std::vector<std::string> chains;
    for (const auto& run : store_.Runs(query)) chains.push_back(run.record.chain);
    return chains;
  }

  std::vector<std::string> Front(const RunQuery& query = {}) {
    std::vector<std::string> chains;
    for (const auto& run : store_.ParetoFront(query, "size_bytes", "top1")) {
      chains.push_back(run.record.chain);
    }
    return chains;
  }

  TempDir folder_;
  Store store_{folder_ / "pared.db", {}};
};

TEST_F(RunsTest, KeepsAllOfARun) {
  RunRecord run = RunOf("c", 0.1 + 0.2, 1e-300);
  run.artifact = std::string(64, 'a');
  run.error = {{"code", "unsupported"}};
  run.reports = Json::array({{{"changed", 3}}});
  run.metrics["sqnr_db"] = kNan;
  run.metrics["peak"] = std::numeric_limits<double>::infinity();
  const JobId job = Record({run});
  const auto got = store_.Runs({.job = job}).at(0);
  EXPECT_EQ(got.job, job);
  EXPECT_EQ(got.record.experiment, "nightly");
  EXPECT_EQ(got.record.steps, run.steps);
  EXPECT_EQ(got.record.reports, run.reports);
  EXPECT_EQ(got.record.machine, run.machine);
  EXPECT_EQ(got.record.artifact, run.artifact);
  EXPECT_EQ(got.record.error, run.error);
  EXPECT_EQ(got.record.metrics.at("size_bytes"), 0.1 + 0.2);
  EXPECT_EQ(got.record.metrics.at("top1"), 1e-300);
  EXPECT_TRUE(std::isnan(got.record.metrics.at("sqnr_db")));
  EXPECT_TRUE(std::isinf(got.record.metrics.at("peak")));
  EXPECT_EQ(store_.GetRun(got.id)->record.metrics.size(), 4);
  EXPECT_FALSE(store_.GetRun(got.id + 1).has_value());
}

TEST_F(RunsTest, ARepeatedChainTakesThePlaceOfTheFirst) {
  RunRecord second = RunOf("c", 2, 0.5);
  second.metrics.erase("top1");
  const JobId job = Record({RunOf("c", 1, 0.9), second});
  const auto runs = store_.Runs({.job = job});
  ASSERT_EQ(runs.size(), 1);
  EXPECT_THAT(runs[0].record.metrics, ElementsAre(std::pair("size_bytes", 2.0)));
}

TEST_F(RunsTest, RecordsNothingWhereTheJobCannotEnd) {
  const JobId job = store_.Submit(Json::object());
  EXPECT_THAT([&] { store_.Finish(job, JobState::kSucceeded, nullptr, {RunOf("c", 1, 1)}); },
              ThrowsError(ErrorCode::kConflict, "job 1"));
  EXPECT_THAT(store_.Runs({}), IsEmpty());
}

TEST_F(RunsTest, AreFilteredAndPaged) {
  RunRecord other = RunOf("other", 1, 1);
  other.experiment = "e2";
  other.model = "m2";
  const JobId first = Record({RunOf("a", 1, 1), RunOf("b", 1, 1)});
  Record({other});
  EXPECT_THAT(Chains({}), ElementsAre("a", "b", "other"));
  EXPECT_THAT(Chains({.experiment = "e2"}), ElementsAre("other"));
  EXPECT_THAT(Chains({.model = "m"}), ElementsAre("a", "b"));
  EXPECT_THAT(Chains({.model = "m", .chain = "b"}), ElementsAre("b"));
  EXPECT_THAT(Chains({.job = first}), ElementsAre("a", "b"));
  EXPECT_THAT(Chains({.limit = 1, .after = 1}), ElementsAre("b"));
  EXPECT_THAT(Chains({.experiment = "x' OR '1'='1"}), IsEmpty());
}

TEST_F(RunsTest, FrontHoldsWhatNoOtherBeats) {
  Record({RunOf("big", 100, 0.99), RunOf("mid", 50, 0.98), RunOf("beaten", 60, 0.97),
          RunOf("small", 10, 0.90), RunOf("worse", 10, 0.89)});
  EXPECT_THAT(Front(), ElementsAre("small", "mid", "big"));
}

TEST_F(RunsTest, FrontKeepsTiesAndLeavesOutWhatCannotBeCompared) {
  RunRecord failed = RunOf("failed", 1, 1);
  failed.error = {{"code", "internal"}};
  RunRecord lacking = RunOf("lacking", 1, 1);
  lacking.metrics.erase("top1");
  Record({RunOf("a", 10, 0.9), RunOf("b", 10, 0.9), RunOf("nan", kNan, 1), RunOf("nan2", 1, kNan),
          failed, lacking});
  EXPECT_THAT(Front(), ElementsAre("a", "b"));
}

TEST_F(RunsTest, FrontIsOfTheQueriedRuns) {
  RunRecord other = RunOf("other", 1, 1);
  other.model = "m2";
  Record({RunOf("a", 10, 0.9), other});
  EXPECT_THAT(Front(), ElementsAre("other"));
  EXPECT_THAT(Front({.model = "m"}), ElementsAre("a"));
  EXPECT_THAT(Front({.model = "none"}), IsEmpty());
}

}  // namespace
}  // namespace pared
