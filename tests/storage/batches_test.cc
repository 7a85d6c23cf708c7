#include "storage/batches.h"

#include <gmock/gmock.h>

#include <stop_token>
#include <thread>

#include "storage/store.h"
#include "tests/testing/matchers.h"
#include "tests/testing/temp_dir.h"

namespace pared {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Pair;

class BatchesTest : public ::testing::Test {
 protected:
  BatchesTest() { Reopen(); }
  void Reopen() {
    store_.reset();
    store_ = std::make_unique<Store>(folder_ / "pared.db", StoreLimits{.queued_max = 2});
  }
  Store& store() { return *store_; }

  BatchId Submit(const std::string& name = "nightly", bool is_dry = false) {
    return store().SubmitBatch({{"name", name}, {"dry_run", is_dry}});
  }
  static BatchItem Item(const std::string& model) {
    BatchItem item;
    item.path = model + ".onnx";
    item.model = model;
    item.sha256 = "sha-" + model;
    item.recipe = "r";
    return item;
  }
  JobId Plan(BatchId batch, const std::string& model) {
    store().PutBatchItem(batch, Item(model));
    return store().SubmitBatchJob(batch, model + ".onnx", {{"model", model}});
  }
  void Finish(JobState state, int runs = 1) {
    const JobId job = store().Claim({})->id;
    std::vector<RunRecord> records(static_cast<size_t>(runs));
    for (int i = 0; i < runs; ++i) records[static_cast<size_t>(i)].chain = "c" + std::to_string(i);
    store().Finish(job, state, nullptr, records);
  }
  BatchState StateOf(BatchId id) { return store().GetBatch(id)->state; }

  TempDir folder_;
  std::unique_ptr<Store> store_;
};

TEST_F(BatchesTest, StateFollowsFromTheScanAndTheJobs) {
  const BatchId batch = Submit();
  EXPECT_EQ(StateOf(batch), BatchState::kScanning);
  Plan(batch, "a");
  Plan(batch, "b");
  EXPECT_EQ(StateOf(batch), BatchState::kScanning);
  store().EndScan(batch, nullptr);
  EXPECT_EQ(StateOf(batch), BatchState::kRunning);
  Finish(JobState::kSucceeded);
  EXPECT_EQ(StateOf(batch), BatchState::kRunning);
  EXPECT_EQ(store().GetBatch(batch)->finished_ms, std::nullopt);
  Finish(JobState::kFailed);
  EXPECT_EQ(StateOf(batch), BatchState::kEnded);
  EXPECT_THAT(store().GetBatch(batch)->counts,
              ElementsAre(Pair("failed", 1), Pair("succeeded", 1)));
  EXPECT_GE(store().GetBatch(batch)->finished_ms, store().GetBatch(batch)->scanned_ms);
}

TEST_F(BatchesTest, AnUnfinishedScanIsFoundAgainAfterARestart) {
  const BatchId first = Submit();
  Submit();
  store().PutBatchItem(first, Item("a"));
  Reopen();
  EXPECT_EQ(store().NextBatch({})->id, first);
  EXPECT_EQ(store().BatchItems(first).size(), 1);
  store().EndScan(first, nullptr);
  EXPECT_EQ(store().NextBatch({})->id, first + 1);
}

TEST_F(BatchesTest, AFailedScanFailsTheBatch) {
  const BatchId batch = Submit();
  store().EndScan(batch, {{"code", "not_found"}});
  EXPECT_EQ(StateOf(batch), BatchState::kFailed);
  EXPECT_EQ(store().GetBatch(batch)->error["code"], "not_found");
}

TEST_F(BatchesTest, ItemsAreKeptOnceAPath) {
  const BatchId batch = Submit();
  BatchItem item = Item("a");
  item.decision = BatchDecision::kRefused;
  item.reason = {{"code", "unsupported"}};
  store().PutBatchItem(batch, item);
  store().PutBatchItem(batch, item);
  ASSERT_EQ(store().BatchItems(batch).size(), 1);
  EXPECT_EQ(store().BatchItems(batch)[0].reason["code"], "unsupported");
  EXPECT_THAT(store().GetBatch(batch)->counts, ElementsAre(Pair("refused", 1)));
}

TEST_F(BatchesTest, AJobThatSucceededStandsForItsModelAndRecipe) {
  const BatchId batch = Submit();
  EXPECT_EQ(store().StandingJob(Item("a")), std::nullopt);
  const JobId job = Plan(batch, "a");
  EXPECT_EQ(store().StandingJob(Item("a"))->id, job);  // it has not ended
  Finish(JobState::kSucceeded);
  EXPECT_EQ(store().StandingJob(Item("a"))->id, job);
  BatchItem other = Item("a");
  other.recipe = "s";
  EXPECT_EQ(store().StandingJob(other), std::nullopt);
  other = Item("a");
  other.sha256 = "changed";
  EXPECT_EQ(store().StandingJob(other), std::nullopt);
  store().DeleteRunsBefore(INT64_MAX);
  EXPECT_EQ(store().StandingJob(Item("a")), std::nullopt);  // its results are gone
}

TEST_F(BatchesTest, AJobThatFailedOrWasCancelledStandsForNothing) {
  const BatchId batch = Submit();
  Plan(batch, "a");
  Finish(JobState::kFailed);
  EXPECT_EQ(store().StandingJob(Item("a")), std::nullopt);
  const JobId job = Plan(batch, "b");
  store().RequestCancel(job);
  EXPECT_EQ(store().StandingJob(Item("b")), std::nullopt);
}

TEST_F(BatchesTest, AFullQueueTakesNoFurtherJob) {
  const BatchId batch = Submit();
  Plan(batch, "a");
  Plan(batch, "b");
  EXPECT_THAT([&] { Plan(batch, "c"); }, ThrowsError(ErrorCode::kUnavailable, ""));
  EXPECT_EQ(store().GetBatch(batch)->counts.at("planned"), 1);
  EXPECT_EQ(store().BatchItems(batch)[2].job, std::nullopt);
}

TEST_F(BatchesTest, CancelEndsTheScanAndStopsItsOwnJobsOnly) {
  const BatchId other = Submit();
  const JobId shared = Plan(other, "s");
  store().EndScan(other, nullptr);
  const BatchId batch = Submit();
  const JobId own = Plan(batch, "a");
  BatchItem item = Item("s");
  item.decision = BatchDecision::kShared;
  item.job = shared;
  store().PutBatchItem(batch, item);
  store().CancelBatch(batch);
  EXPECT_EQ(store().GetJob(own)->state, JobState::kCancelled);
  EXPECT_EQ(store().GetJob(shared)->state, JobState::kQueued);
  EXPECT_THAT([&] { store().PutBatchItem(batch, Item("b")); },
              ThrowsError(ErrorCode::kConflict, "batch 2"));
  EXPECT_THAT([&] { store().SubmitBatchJob(batch, "a.onnx", Json::object()); },
              ThrowsError(ErrorCode::kConflict, "batch 2"));
  Finish(JobState::kSucceeded);
  EXPECT_EQ(StateOf(batch), BatchState::kCancelled);
  EXPECT_THAT([&] { store().CancelBatch(batch); }, ThrowsError(ErrorCode::kConflict, "batch 2"));
  EXPECT_THAT([&] { store().CancelBatch(9); }, ThrowsError(ErrorCode::kNotFound, "batch 9"));
}

TEST_F(BatchesTest, EarlierNightsAreOfTheSameSeriesAndWereNoDryRuns) {
  const auto scanned = [&](const std::string& name, bool is_dry, const Json& error) {
    const BatchId id = Submit(name, is_dry);
    store().EndScan(id, error);
    return id;
  };
  const BatchId first = scanned("nightly", false, nullptr);
  scanned("weekly", false, nullptr);
  scanned("nightly", true, nullptr);
  scanned("nightly", false, {{"code", "internal"}});
  const BatchId fifth = scanned("nightly", false, nullptr);
  const BatchId last = Submit();
  EXPECT_THAT(store().BatchesBefore(last, 10), ElementsAre(fifth, first));
  EXPECT_THAT(store().BatchesBefore(last, 1), ElementsAre(fifth));
  EXPECT_THAT(store().BatchesBefore(first, 10), IsEmpty());
  EXPECT_EQ(store().Batches({.name = "weekly"}).size(), 1);
  EXPECT_EQ(store().Batches({.limit = 2, .after = 1}).size(), 2);
}

TEST_F(BatchesTest, RunsAreThoseOfTheJobsThatStand) {
  const BatchId batch = Submit();
  Plan(batch, "a");
  Plan(batch, "b");
  Finish(JobState::kSucceeded, 3);
  Finish(JobState::kSucceeded, 2);
  store().Submit(Json::object());
  Finish(JobState::kSucceeded);
  EXPECT_EQ(store().BatchRuns(batch).size(), 5);
}

TEST_F(BatchesTest, ArtifactsOfAScanAreReferenced) {
  const BatchId batch = Submit();
  store().PutBatchItem(batch, Item("a"));
  EXPECT_THAT(store().ReferencedArtifacts(), ElementsAre("sha-a"));
  store().EndScan(batch, nullptr);
  EXPECT_THAT(store().ReferencedArtifacts(), IsEmpty());
}

TEST_F(BatchesTest, IsMarkedOnceWhenAllItsJobsHaveEnded) {
  const BatchId batch = Submit();
  Plan(batch, "a");
  Plan(batch, "b");
  store().EndScan(batch, nullptr);
  Finish(JobState::kSucceeded);
  std::stop_source stopped;
  stopped.request_stop();
  EXPECT_EQ(store().NextBatch(stopped.get_token()), std::nullopt);
  std::optional<Batch> next;
  std::jthread waiter([&] { next = store().NextBatch({}); });
  Finish(JobState::kSucceeded);
  waiter.join();
  ASSERT_TRUE(next);
  EXPECT_EQ(next->id, batch);
  EXPECT_EQ(next->state, BatchState::kEnded);
  // Run 99 has been deleted meanwhile.
  store().MarkBatch(batch, {{2, {{"regression", "top1"}}}, {99, {{"regression", "top1"}}}});
  RunQuery query;
  query.filter = "tags.regression = \"top1\"";
  ASSERT_EQ(store().Runs(query).size(), 1u);
  EXPECT_EQ(store().Runs(query)[0].id, 2);
  const BatchId scanned_later = Submit("later");
  EXPECT_EQ(store().NextBatch({})->id, scanned_later);
}

}  // namespace
}  // namespace pared
