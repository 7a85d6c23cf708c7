// Claims jobs, does each in a process of its own (daemon/worker.h), records what came out.

#pragma once

#include <cstdint>
#include <filesystem>
#include <stop_token>
#include <thread>

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
  int64_t threads = 0;        // of a job; 0: as many as the machine has
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
  std::jthread thread_;  // last: it uses the rest
};

}  // namespace pared
