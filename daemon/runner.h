// Claims jobs, does each in a process of its own (daemon/worker.h), records what came out.

#pragma once

#include <condition_variable>
#include <cstdint>
#include <filesystem>
#include <mutex>
#include <optional>
#include <stop_token>
#include <thread>
#include <vector>

#include "config/job_spec.h"
#include "daemon/worker.h"
#include "storage/artifacts.h"
#include "storage/store.h"

namespace pared {

struct RunnerSettings {
  std::filesystem::path program = "/proc/self/exe";  // what is started with "work --dir FOLDER"
  std::filesystem::path work_dir;                    // a folder for each job, removed at its end
  std::filesystem::path datasets_dir;
  int64_t memory_mb = 8'192;  // of a job whose spec says nothing
  int64_t time_s = 3'600;     // likewise
  int64_t threads = 0;        // of a job; 0: those of the machine, shared by jobs_max
  int64_t jobs_max = 1;       // at once; together they get memory_mb * jobs_max
  bool confine = true;        // daemon/confine.h
};

// Memory of the jobs that run at once.
class MemoryBudget {
 public:
  explicit MemoryBudget(int64_t total_mb) : total_mb_(total_mb), free_mb_(total_mb) {}

  // Waits until there is so much; a job that wants more than there ever is runs alone. Returns
  // what to give back; nullopt: stopped.
  std::optional<int64_t> Take(int64_t memory_mb, std::stop_token stop);
  void GiveBack(int64_t memory_mb);

 private:
  const int64_t total_mb_;
  std::mutex mutex_;
  std::condition_variable_any changed_;
  int64_t free_mb_;  // guarded by mutex_
};

class Runner {
 public:
  // Starts at once. `store` and `artifacts` must outlive the runner.
  Runner(Store& store, Artifacts& artifacts, RunnerSettings settings);

  // Stops: a job that is running is put back into the queue.
  ~Runner();

 private:
  void Loop(std::stop_token stop);
  void RunGuarded(const Job& job, std::stop_token stop);
  void RunJob(const Job& job, std::stop_token stop);
  std::string ModelOf(const JobSpec& spec) const;  // SHA-256
  WorkOrder OrderFor(const JobSpec& spec, const std::string& model) const;

  Store& store_;
  Artifacts& artifacts_;
  const RunnerSettings settings_;
  MemoryBudget budget_;
  std::vector<std::jthread> threads_;  // last: they use the rest; each does one job at a time
};

}  // namespace pared
