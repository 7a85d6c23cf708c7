// Claims jobs, does each in a process of its own (daemon/worker.h), records what came out.

#pragma once

#include <cstdint>
#include <filesystem>
#include <mutex>
#include <stop_token>
#include <thread>
#include <vector>

#include "base/log.h"
#include "config/job_spec.h"
#include "daemon/budget.h"
#include "daemon/work_order.h"
#include "storage/artifacts.h"
#include "storage/disk_reserve.h"
#include "storage/job_logs.h"
#include "storage/store.h"

namespace pared {

class SearchRecorder;
struct Verdict;

// What may change while jobs run; a job has the limits of the time it began.
struct RunnerLimits {
  int64_t cache_mb = 0;         // 0: no cache
  int64_t memory_mb = 8'192;    // of a job whose spec says nothing
  int64_t time_s = 3'600;       // likewise
  int64_t memory_total_mb = 0;  // of all jobs that run at once; 0: memory_mb * jobs_max
  int64_t tries_max = 5;        // a job whose worker was killed so many times in vain is failed
};

struct RunnerSettings {
  std::filesystem::path program = "/proc/self/exe";  // what is started with "work --dir FOLDER"
  std::filesystem::path work_dir;                    // a folder for each job, removed at its end
  std::filesystem::path datasets_dir;
  std::filesystem::path cache_dir = {};  // storage/pass_cache.h; empty: none
  std::filesystem::path logs_dir = {};   // storage/job_logs.h
  std::filesystem::path reserve = {};    // storage/disk_reserve.h, on the store's disk
  int64_t threads = 0;                   // of a job; 0: those of the machine, shared by jobs_max
  int64_t jobs_max = 1;  // at once; together they get memory_total_mb and threads * jobs_max
  bool confine = true;   // daemon/confine.h
  RunnerLimits limits = {};
};

class Runner {
 public:
  // Starts at once. `store` and `artifacts` must outlive the runner.
  Runner(Store& store, Artifacts& artifacts, RunnerSettings settings);

  // Stops: a job that is running is put back into the queue.
  ~Runner();

  void SetLimits(RunnerLimits limits);  // of the jobs that begin from now on

 private:
  void Loop(std::stop_token stop);
  void RunGuarded(const Job& job, std::stop_token stop);
  void RunJob(const Job& job, std::stop_token stop);
  void EndFailed(JobId job, const Json& failure, std::stop_token stop);
  bool FinishFailed(JobId job, const Json& failure);
  std::string ModelOf(const JobSpec& spec) const;  // SHA-256
  WorkOrder OrderFor(const JobSpec& spec, const OpenArtifact& model,
                     const std::string& sha256) const;
  RunnerLimits Limits() const;
  bool HasCache() const { return !settings_.cache_dir.empty() && Limits().cache_mb > 0; }
  void TrimCache() const;
  void End(JobId job, const Verdict& verdict, const std::vector<RunRecord>& runs);
  bool GoesOn(JobId job, SearchRecorder& search, const Json& fault, bool was_killed);
  void EndSearch(JobId job, const SearchRecorder& search, const Verdict& verdict);
  // An event of the job, in its log and the daemon's own.
  void Tell(JobId job, LogLevel level, const std::string& event, const Json& fields) const;

  Store& store_;
  Artifacts& artifacts_;
  const RunnerSettings settings_;
  mutable std::mutex mutex_;
  RunnerLimits limits_;  // guarded by mutex_
  Budget budget_;
  const JobLogs logs_;
  const DiskReserve reserve_;
  std::vector<std::jthread> threads_;  // last: they use the rest; each does one job at a time
};

}  // namespace pared
