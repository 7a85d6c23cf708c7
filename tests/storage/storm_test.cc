// Many writers and readers at once: nobody sees a locked database, and nothing is lost or done
// twice.

#include <gmock/gmock.h>

#include <atomic>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

#include "storage/store.h"
#include "tests/testing/temp_dir.h"

namespace pared {
namespace {

constexpr int kWriters = 16;
constexpr int kReaders = 64;
constexpr int kJobsEach = 15;

TEST(StoreStorm, LosesNothingAndLocksNobodyOut) {
  TempDir folder;
  Store store(folder / "pared.db", {});
  std::mutex mutex;
  std::multiset<JobId> claimed;  // guarded by mutex
  std::atomic<bool> is_over = false;
  std::atomic<int64_t> reads = 0;

  std::vector<std::jthread> readers;
  for (int i = 0; i < kReaders; ++i) {
    readers.emplace_back([&] {
      while (!is_over) {
        for (const auto& run : store.Runs({})) ASSERT_EQ(run.record.metrics.size(), 2);
        store.Jobs({.state = JobState::kRunning});
        ++reads;
      }
    });
  }
  std::vector<std::jthread> writers;
  for (int i = 0; i < kWriters; ++i) {
    writers.emplace_back([&] {
      for (int j = 0; j < kJobsEach; ++j) {
        store.Submit({{"n", j}});
        const Job job = *store.Claim({});
        store.SetProgress(job.id, {{"fraction", 0.5}});
        RunRecord run;
        run.chain = "c";
        run.metrics = {{"size_bytes", 1}, {"top1", 1}};
        store.Finish(job.id, JobState::kSucceeded, nullptr, {run});
        std::lock_guard lock(mutex);
        claimed.insert(job.id);
      }
    });
  }
  writers.clear();  // joins; an Error in a thread would end the test's process
  is_over = true;
  readers.clear();

  EXPECT_EQ(claimed.size(), kWriters * kJobsEach);
  EXPECT_EQ(std::set<JobId>(claimed.begin(), claimed.end()).size(), kWriters * kJobsEach);
  EXPECT_EQ(store.Counts().jobs.at(JobState::kSucceeded), kWriters * kJobsEach);
  EXPECT_EQ(store.Counts().runs, kWriters * kJobsEach);
  EXPECT_GT(reads, 0);
}

}  // namespace
}  // namespace pared
