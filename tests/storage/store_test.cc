#include "storage/store.h"

#include <gmock/gmock.h>

#include <stop_token>
#include <thread>

#include "storage/sqlite.h"
#include "tests/testing/matchers.h"
#include "tests/testing/temp_dir.h"

namespace pared {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class StoreTest : public ::testing::Test {
 protected:
  void Reopen(StoreLimits limits = {}) {
    store_.reset();
    store_ = std::make_unique<Store>(folder_ / "pared.db", limits);
  }

  void SetUp() override { Reopen(); }

  Store& store() { return *store_; }
  Job Claim() { return *store().Claim({}); }
  JobState StateOf(JobId id) { return store().GetJob(id)->state; }

  // A new job in this state, by the shortest way there.
  JobId JobIn(JobState state) {
    const JobId id = store().Submit(Json::object());
    if (state == JobState::kQueued) return id;
    if (state == JobState::kCancelled) {
      store().RequestCancel(id);
      return id;
    }
    while (Claim().id != id) {
    }
    if (state != JobState::kRunning) store().Finish(id, state, nullptr, {});
    return id;
  }

  TempDir folder_;
  std::unique_ptr<Store> store_;
};

constexpr JobState kStates[] = {JobState::kQueued, JobState::kRunning, JobState::kSucceeded,
                                JobState::kFailed, JobState::kCancelled};

TEST_F(StoreTest, ClaimsTheOldestFirst) {
  const JobId first = store().Submit({{"n", 1}});
  const JobId second = store().Submit({{"n", 2}});
  const Job job = Claim();
  EXPECT_EQ(job.id, first);
  EXPECT_EQ(job.state, JobState::kRunning);
  EXPECT_EQ(job.tries, 1);
  EXPECT_EQ(job.spec["n"], 1);
  EXPECT_TRUE(job.started_ms.has_value());
  EXPECT_EQ(Claim().id, second);
}

TEST_F(StoreTest, ClaimWaitsForASubmission) {
  std::optional<Job> job;
  std::jthread claimer([&] { job = store().Claim({}); });
  const JobId id = store().Submit(Json::object());
  claimer.join();
  EXPECT_EQ(job->id, id);
}

TEST_F(StoreTest, ClaimEndsWithoutAJobWhenStopped) {
  std::stop_source stop;
  std::optional<Job> job = Job{};
  std::jthread claimer([&] { job = store().Claim(stop.get_token()); });
  stop.request_stop();
  claimer.join();
  EXPECT_FALSE(job.has_value());
  const JobId id = store().Submit(Json::object());
  EXPECT_FALSE(store().Claim(stop.get_token()).has_value());
  EXPECT_EQ(StateOf(id), JobState::kQueued);
}

TEST_F(StoreTest, RefusesEveryIllegalEnd) {
  for (JobState from : kStates) {
    for (JobState to : kStates) {
      if (from == JobState::kRunning && HasEnded(to)) continue;
      const JobId id = JobIn(from);
      EXPECT_THAT([&] { store().Finish(id, to, nullptr, {}); },
                  ThrowsError(ErrorCode::kConflict, "job " + std::to_string(id)))
          << JobStateName(from) << " to " << JobStateName(to);
      EXPECT_EQ(StateOf(id), from);
    }
  }
}

TEST_F(StoreTest, RefusesToCancelRequeueOrReportWhatHasEnded) {
  for (JobState from : {JobState::kSucceeded, JobState::kFailed, JobState::kCancelled}) {
    const JobId id = JobIn(from);
    const std::string where = "job " + std::to_string(id);
    EXPECT_THAT([&] { store().RequestCancel(id); }, ThrowsError(ErrorCode::kConflict, where));
    EXPECT_THAT([&] { store().Requeue(id); }, ThrowsError(ErrorCode::kConflict, where));
    EXPECT_THAT([&] { store().SetProgress(id, {}); }, ThrowsError(ErrorCode::kConflict, where));
    EXPECT_EQ(StateOf(id), from);
  }
  EXPECT_THAT([&] { store().RequestCancel(99); }, ThrowsError(ErrorCode::kNotFound, "job 99"));
}

TEST(JobTransitions, AreTheSevenOfTheDiagram) {
  EXPECT_EQ(std::size(kJobTransitions), 7);
  EXPECT_FALSE(IsLegal(JobState::kQueued, JobState::kSucceeded));
  EXPECT_FALSE(IsLegal(JobState::kSucceeded, JobState::kQueued));
  EXPECT_TRUE(IsLegal(JobState::kRunning, JobState::kQueued));
}

TEST_F(StoreTest, CancelsAQueuedJobAtOnceAndAsksARunningOne) {
  const JobId queued = JobIn(JobState::kQueued);
  store().RequestCancel(queued);
  EXPECT_EQ(StateOf(queued), JobState::kCancelled);
  EXPECT_TRUE(store().GetJob(queued)->finished_ms.has_value());

  const JobId running = JobIn(JobState::kRunning);
  EXPECT_FALSE(store().CancelRequested(running));
  store().RequestCancel(running);
  EXPECT_TRUE(store().CancelRequested(running));
  EXPECT_EQ(StateOf(running), JobState::kRunning);
  store().Finish(running, JobState::kCancelled, nullptr, {});
  EXPECT_EQ(StateOf(running), JobState::kCancelled);
}

TEST_F(StoreTest, RefusesAJobBeyondTheQueuesLimit) {
  Reopen({.queued_max = 2});
  store().Submit(Json::object());
  store().Submit(Json::object());
  EXPECT_THAT([&] { store().Submit(Json::object()); },
              ThrowsError(ErrorCode::kUnavailable, "", HasSubstr("2 jobs wait")));
  Claim();
  EXPECT_EQ(store().Submit(Json::object()), 3);
}

TEST_F(StoreTest, TakesAKeyOnce) {
  const JobId id = store().SubmitOnce({{"n", 1}}, "k");
  EXPECT_EQ(store().SubmitOnce({{"n", 1}}, "k"), id);
  EXPECT_NE(store().SubmitOnce({{"n", 1}}, "l"), id);
  EXPECT_THAT(
      [&] {
        store().SubmitOnce({{"n", 2}}, "k");
      },
      ThrowsError(ErrorCode::kConflict, "job 1"));
}

TEST_F(StoreTest, RequeueDoesNotCountTheTry) {
  const JobId id = JobIn(JobState::kRunning);
  store().Requeue(id);
  EXPECT_EQ(StateOf(id), JobState::kQueued);
  EXPECT_EQ(Claim().tries, 1);
}

TEST_F(StoreTest, RequeueCancelsAJobThatWasToBeCancelled) {
  const JobId id = JobIn(JobState::kRunning);
  store().RequestCancel(id);
  store().Requeue(id);
  EXPECT_EQ(StateOf(id), JobState::kCancelled);
}

TEST_F(StoreTest, RecoverTriesAgainAndThenGivesUp) {
  const JobId id = JobIn(JobState::kRunning);
  const JobId cancelled = JobIn(JobState::kRunning);
  store().RequestCancel(cancelled);
  const JobId done = JobIn(JobState::kSucceeded);
  Reopen();
  store().Recover(2);
  EXPECT_EQ(StateOf(id), JobState::kQueued);
  EXPECT_EQ(StateOf(cancelled), JobState::kCancelled);
  EXPECT_EQ(StateOf(done), JobState::kSucceeded);
  EXPECT_EQ(Claim().tries, 2);
  Reopen();
  store().Recover(2);
  EXPECT_EQ(StateOf(id), JobState::kFailed);
  EXPECT_EQ(store().GetJob(id)->error["code"], "internal");
}

TEST_F(StoreTest, RecoverNamesTheSettingAndTheTries) {
  const JobId id = JobIn(JobState::kRunning);
  store().Recover(1);
  const Json error = store().GetJob(id)->error;
  EXPECT_THAT(error["message"].get<std::string>(),
              AllOf(HasSubstr("the daemon died"), HasSubstr("1 tries in a row came no further"),
                    HasSubstr("tries_max, 1"), HasSubstr("--tries_max"), HasSubstr("--config")));
}

// Each try ends one part more than the one before it.
TEST_F(StoreTest, ATryThatCameFurtherDoesNotCount) {
  const JobId id = JobIn(JobState::kRunning);
  for (int64_t parts = 1; parts <= 5; ++parts) {
    for (int64_t ended = 0; ended <= parts; ++ended) store().SetProgress(id, {{"n", ended}}, ended);
    EXPECT_EQ(store().GetJob(id)->tries, 1);
    store().Recover(2);
    ASSERT_EQ(StateOf(id), JobState::kQueued);
    EXPECT_EQ(Claim().tries, 2);
  }
  // As far as before is no further.
  for (int64_t ended = 0; ended <= 5; ++ended) store().SetProgress(id, {{"n", ended}}, ended);
  EXPECT_EQ(store().GetJob(id)->tries, 2);
  store().Recover(2);
  EXPECT_EQ(StateOf(id), JobState::kFailed);
  EXPECT_EQ(store().GetJob(id)->requeues, 6);
}

TEST_F(StoreTest, PartsCountAnewAfterARunIsRecorded) {
  const JobId id = JobIn(JobState::kRunning);
  store().SetProgress(id, {}, 3);
  RunRecord run;
  run.chain = "c.1";
  store().RecordRun(id, run);
  store().Recover(2);
  EXPECT_EQ(Claim().tries, 2);
  store().SetProgress(id, {}, 1);
  EXPECT_EQ(store().GetJob(id)->tries, 1);
}

TEST_F(StoreTest, ATryThatWaitedForItsTurnDoesNotCount) {
  const JobId id = JobIn(JobState::kRunning);
  for (int i = 0; i < 4; ++i) {
    store().SetProgress(id, {{"step", kWaitsStep}});
    store().Recover(1);
    ASSERT_EQ(StateOf(id), JobState::kQueued);
    EXPECT_EQ(Claim().tries, 1);
  }
  store().Recover(1);
  EXPECT_EQ(StateOf(id), JobState::kFailed);
}

TEST_F(StoreTest, KeepsProgressUntilTheNextTry) {
  const JobId id = JobIn(JobState::kRunning);
  EXPECT_TRUE(store().GetJob(id)->progress.is_null());
  store().SetProgress(id, {{"fraction", 0.5}});
  EXPECT_EQ(store().GetJob(id)->progress["fraction"], 0.5);
  store().Requeue(id);
  EXPECT_TRUE(Claim().progress.is_null());
}

TEST_F(StoreTest, ListsJobsByPageAndState) {
  for (int i = 0; i < 5; ++i) store().Submit({{"n", i}});
  Claim();
  const auto ids = [&](const JobQuery& query) {
    std::vector<JobId> found;
    for (const Job& job : store().Jobs(query)) found.push_back(job.id);
    return found;
  };
  EXPECT_THAT(ids({.limit = 2}), ElementsAre(1, 2));
  EXPECT_THAT(ids({.limit = 2, .after = 2}), ElementsAre(3, 4));
  EXPECT_THAT(ids({.after = 5}), IsEmpty());
  EXPECT_THAT(ids({.state = JobState::kRunning}), ElementsAre(1));
  EXPECT_THAT(ids({.state = JobState::kQueued, .limit = 2}), ElementsAre(2, 3));
}

TEST_F(StoreTest, CountsJobsOfEveryState) {
  JobIn(JobState::kSucceeded);
  JobIn(JobState::kQueued);
  store().PutModel("m", "abc", 1);
  const StoreCounts counts = store().Counts();
  EXPECT_EQ(counts.jobs.at(JobState::kQueued), 1);
  EXPECT_EQ(counts.jobs.at(JobState::kSucceeded), 1);
  EXPECT_EQ(counts.jobs.at(JobState::kFailed), 0);
  EXPECT_EQ(counts.models, 1);
}

TEST_F(StoreTest, IsOpenOnceAtATime) {
  EXPECT_THAT([&] { Store(folder_ / "pared.db", {}); },
              ThrowsError(ErrorCode::kUnavailable, HasSubstr("pared.db.lock")));
}

TEST_F(StoreTest, KeepsNodeNamesThatAreNotUtf8OutOfItsWay) {
  const JobId id = JobIn(JobState::kRunning);
  store().Finish(id, JobState::kFailed, {{"where", "a\xff"}}, {});
  EXPECT_EQ(store().GetJob(id)->error["where"], "a\xEF\xBF\xBD");
}

TEST_F(StoreTest, RefusesADatabaseOfANewerPared) {
  store_.reset();
  {
    Database database(folder_ / "pared.db", DatabaseAccess::kWrite);
    database.Execute("PRAGMA user_version = 1000");
  }
  EXPECT_THAT([&] { Store(folder_ / "pared.db", {}); },
              ThrowsError(ErrorCode::kInvalidArgument, "", HasSubstr("schema 1000")));
}

TEST_F(StoreTest, RefusesAFileOfSomebodyElse) {
  {
    Database database(folder_ / "other.db", DatabaseAccess::kWrite);
    database.Execute("CREATE TABLE t (x)");
  }
  EXPECT_THAT([&] { Store(folder_ / "other.db", {}); },
              ThrowsError(ErrorCode::kInvalidArgument, "", "this database is not pared's"));
  WriteFile(folder_ / "text.db", std::string(5000, 'x'));
  EXPECT_THAT([&] { Store(folder_ / "text.db", {}); },
              ThrowsError(ErrorCode::kInternal, HasSubstr("text.db")));
}

TEST_F(StoreTest, ReplacesAModelOfTheSameName) {
  store().PutModel("m", "aa", 1);
  store().PutModel("b", "bb", 2);
  store().PutModel("m", "cc", 3);
  EXPECT_EQ(store().GetModel("m")->sha256, "cc");
  EXPECT_EQ(store().GetModel("m")->bytes, 3);
  EXPECT_EQ(store().Models().size(), 2);
  EXPECT_EQ(store().Models()[0].name, "b");
  EXPECT_FALSE(store().GetModel("x").has_value());
}

}  // namespace
}  // namespace pared
