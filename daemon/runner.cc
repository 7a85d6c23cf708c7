#include "daemon/runner.h"

#include <signal.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <fstream>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <utility>

#include "base/error.h"
#include "base/log.h"
#include "daemon/child.h"
#include "daemon/estimate.h"
#include "daemon/pause.h"
#include "daemon/record.h"
#include "daemon/search_recorder.h"
#include "daemon/verdict.h"
#include "storage/pass_cache.h"

namespace pared {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::milliseconds kPollInterval{50};
// From SIGTERM to SIGKILL; with one poll it keeps a cancel within a second.
constexpr std::chrono::milliseconds kGrace{500};
// Beyond the resident limit: heaps and stacks that are reserved and never touched.
constexpr int64_t kReservedMb = 512;
constexpr int64_t kReservedThreadMb = 16;
// No model file is longer; a runaway writer stops before the disk is full.
constexpr int64_t kFileMb = 64 * 1024;

// Why the runner ends a worker before its time.
enum class EndReason { kNone, kStop, kCancel, kTime, kMemory };

struct JobLimits {
  int64_t memory_mb = 0;
  int64_t time_s = 0;
};

// The system's limits stand behind the watch: they hold between two polls.
ChildLimits LimitsOf(const JobLimits& limits, int64_t threads) {
  return {.memory_mb = limits.memory_mb + kReservedMb + threads * kReservedThreadMb,
          .cpu_s = (limits.time_s + 1) * threads + 1,
          .file_mb = kFileMb};
}

Error LimitError(EndReason reason, const JobLimits& limits) {
  if (reason == EndReason::kTime) {
    return Error(ErrorCode::kUnavailable,
                 "the job ran beyond its time limit of " + std::to_string(limits.time_s) + " s",
                 "/limits/time_s");
  }
  return Error(
      ErrorCode::kUnavailable,
      "the job used more than its memory limit of " + std::to_string(limits.memory_mb) + " MB",
      "/limits/memory_mb");
}

// Watches a worker, ends it where it must. Those that follow each other share one time limit.
class Watch {
 public:
  Watch(const Store& store, JobId job, JobLimits limits, std::stop_token stop)
      : store_(store), job_(job), limits_(limits), stop_(std::move(stop)) {}

  // Until the child has ended. Each progress line goes to `on_line`, each line of its log to
  // `on_error_line`.
  void Run(Child& child, const LineSink& on_line, const LineSink& on_error_line) {
    reason_ = EndReason::kNone;
    was_asked_ = false;
    while (!child.Wait(kPollInterval, on_line, on_error_line)) {
      if (reason_ == EndReason::kNone) reason_ = FindReason(child);
      if (reason_ != EndReason::kNone) End(child);
    }
  }

  EndReason reason() const { return reason_; }
  const JobLimits& limits() const { return limits_; }

 private:
  EndReason FindReason(const Child& child) const {
    if (stop_.stop_requested()) return EndReason::kStop;
    if (store_.CancelRequested(job_)) return EndReason::kCancel;
    if (Clock::now() - begin_ > std::chrono::seconds(limits_.time_s)) return EndReason::kTime;
    if (child.ResidentBytes() > limits_.memory_mb << 20) return EndReason::kMemory;
    return EndReason::kNone;
  }

  // Asks once, then kills. A process out of memory is not asked.
  void End(const Child& child) {
    if (!was_asked_) {
      was_asked_ = true;
      asked_ = Clock::now();
      child.Signal(reason_ == EndReason::kMemory ? SIGKILL : SIGTERM);
    } else if (Clock::now() - asked_ > kGrace) {
      child.Signal(SIGKILL);
    }
  }

  const Store& store_;
  const JobId job_;
  const JobLimits limits_;
  const std::stop_token stop_;
  const Clock::time_point begin_ = Clock::now();
  bool was_asked_ = false;
  Clock::time_point asked_;
  EndReason reason_ = EndReason::kNone;
};

// Keeps the store's progress and the worker's last word on why it failed.
class Listener {
 public:
  // `search`: null where the job has none.
  Listener(Store& store, JobId job, SearchRecorder* search, Estimate estimate)
      : store_(store), job_(job), search_(search), estimate_(std::move(estimate)) {}

  // Returns whether the line says that a step has ended.
  bool Take(std::string_view line) {
    Json json = ParseJson(line);
    if (json.contains("error")) {
      error_ = json.at("error");
      return false;
    }
    const bool is_recorded = json.contains("kept");
    if (search_ != nullptr) search_->Take(json);
    AddEstimate(json);
    const bool has_ended = json.value("fraction", 0.0) >= 1;
    if (has_ended) ended_.emplace(json.value("step", ""), json.value("chain", ""));
    if (is_recorded) ended_.clear();  // the candidate is in the store
    store_.SetProgress(job_, json, static_cast<int64_t>(ended_.size()));
    return has_ended;
  }

  const Json& error() const { return error_; }

 private:
  void AddEstimate(Json& line) {
    const std::chrono::duration<double> elapsed = Clock::now() - begin_;
    estimate_.Take(line, elapsed.count());
    line["percent"] = std::round(10 * estimate_.percent()) / 10;
    const std::optional<double> left_s = estimate_.SecondsLeft(elapsed.count());
    if (left_s) line["estimated_end_ms"] = NowMs() + std::llround(1000 * *left_s);
  }

  Store& store_;
  const JobId job_;
  SearchRecorder* const search_;
  const Clock::time_point begin_ = Clock::now();
  Estimate estimate_;
  std::set<std::pair<std::string, std::string>> ended_;  // steps, with their chains, of this try
  Json error_;
};

// From outside, by the system that is short of memory most likely. A worker that a fault of its own
// ends, by SIGSEGV say, would do so again.
bool WasKilled(const ChildExit& exit) { return exit.signal == SIGKILL || exit.signal == SIGTERM; }

void WriteOrder(const WorkOrder& order, const std::filesystem::path& path) {
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  out << DumpJson(WriteFields(order));
  out.close();
  if (!out) throw Error(ErrorCode::kUnavailable, "cannot write", path.string());
}

// A folder of the job's own, removed with all that is in it.
class JobFolder {
 public:
  explicit JobFolder(std::filesystem::path path) : path_(std::move(path)) {
    std::error_code fault;
    std::filesystem::remove_all(path_, fault);
    if (!fault) std::filesystem::create_directories(path_, fault);
    if (fault) {
      throw Error(ErrorCode::kUnavailable, "cannot make a folder: " + fault.message(),
                  path_.string());
    }
  }
  ~JobFolder() {
    std::error_code ignored;  // what is left is cleared at the next start
    std::filesystem::remove_all(path_, ignored);
  }
  JobFolder(const JobFolder&) = delete;
  JobFolder& operator=(const JobFolder&) = delete;
  const std::filesystem::path& path() const { return path_; }

 private:
  const std::filesystem::path path_;
};

// A job's share of the budget, for the scope.
class Reservation {
 public:
  Reservation(Budget& budget, std::optional<Resources> held) : budget_(budget), held_(held) {}
  ~Reservation() {
    if (held_) budget_.GiveBack(*held_);
  }
  Reservation(const Reservation&) = delete;
  Reservation& operator=(const Reservation&) = delete;
  bool is_held() const { return held_.has_value(); }

 private:
  Budget& budget_;
  const std::optional<Resources> held_;
};

// Of a worker that did not get to its end.
Verdict JudgeEnd(const Watch& watch, const Child& child, const Json& said) {
  switch (watch.reason()) {
    case EndReason::kCancel:
      return {JobState::kCancelled, nullptr};
    case EndReason::kTime:
    case EndReason::kMemory:
      return {JobState::kFailed, ErrorJson(LimitError(watch.reason(), watch.limits()))};
    case EndReason::kNone:
    case EndReason::kStop:
      break;
  }
  return {JobState::kFailed, CrashError(child, said)};
}

// What a worker died of that nobody asked to stop; null: it did not.
Json FaultOf(const Watch& watch, const Child& child, const Json& said) {
  if (child.exit()->signal == 0 && child.exit()->code == 0) return nullptr;
  switch (watch.reason()) {
    case EndReason::kNone:
      return CrashError(child, said);
    case EndReason::kMemory:
      return ErrorJson(LimitError(watch.reason(), watch.limits()));
    default:
      return nullptr;
  }
}

// Why a search ended that its budget did not end; empty: that did.
std::string WhyEnded(const Watch& watch) {
  if (watch.reason() == EndReason::kCancel) return "it was cancelled";
  if (watch.reason() != EndReason::kTime) return "";
  return "its time limit of " + std::to_string(watch.limits().time_s) + " s came";
}

RunnerSettings Completed(RunnerSettings settings) {
  if (settings.threads == 0) {
    settings.threads =
        std::max<int64_t>(1, std::thread::hardware_concurrency() / settings.jobs_max);
  }
  return settings;
}

Resources TotalOf(const RunnerSettings& settings, const RunnerLimits& limits) {
  const int64_t memory_mb =
      limits.memory_total_mb == 0 ? limits.memory_mb * settings.jobs_max : limits.memory_total_mb;
  return {memory_mb, settings.threads * settings.jobs_max};
}

}  // namespace

Runner::Runner(Store& store, Artifacts& artifacts, RunnerSettings settings)
    : store_(store),
      artifacts_(artifacts),
      settings_(Completed(std::move(settings))),
      limits_(settings_.limits),
      budget_(TotalOf(settings_, limits_)),
      logs_(settings_.logs_dir),
      reserve_(settings_.reserve) {
  std::error_code absent;  // what a crash left behind
  std::filesystem::remove_all(settings_.work_dir, absent);
  if (HasCache()) ClearPassCacheParts(settings_.cache_dir, "");
  reserve_.Take();
  for (int64_t i = 0; i < settings_.jobs_max; ++i) {
    threads_.emplace_back([this](std::stop_token stop) { Loop(stop); });
  }
}

// Asks all before it waits for the first: they stop together.
Runner::~Runner() {
  for (std::jthread& thread : threads_) thread.request_stop();
}

RunnerLimits Runner::Limits() const {
  const std::lock_guard lock(mutex_);
  return limits_;
}

void Runner::SetLimits(RunnerLimits limits) {
  {
    const std::lock_guard lock(mutex_);
    limits_ = limits;
  }
  budget_.SetTotal(TotalOf(settings_, limits));
}

void Runner::Loop(std::stop_token stop) {
  while (!stop.stop_requested()) {
    try {
      const std::optional<Job> job = store_.Claim(stop);
      if (job) RunGuarded(*job, stop);
    } catch (const Error& error) {
      // The store itself fails, a full disk say: the job stays as it is until it can be told.
      LogEvent(LogLevel::kError, "runner_failed", {{"error", std::string(error.what())}});
      Pause(stop);
    }
  }
}

// The job boundary: whatever goes wrong around a job ends the job and nothing else.
void Runner::RunGuarded(const Job& job, std::stop_token stop) {
  reserve_.Take();
  Json failure;
  try {
    Tell(job.id, LogLevel::kInfo, "job_started", {{"tries", job.tries}});
    RunJob(job, stop);
  } catch (const Error& error) {
    failure = ErrorJson(error);
  } catch (const std::exception& error) {
    failure = ErrorJson(Error(ErrorCode::kInternal, error.what()));
  }
  if (failure.is_null()) return;
  Tell(job.id, LogLevel::kWarning, "job_failed", {{"error", failure}});
  EndFailed(job.id, failure, stop);
}

// Where the disk is full, in the room of the reserve, which the next job takes again; where that is
// full too, as soon as there is room.
void Runner::EndFailed(JobId job, const Json& failure, std::stop_token stop) {
  if (FinishFailed(job, failure)) return;
  reserve_.GiveUp();
  while (!FinishFailed(job, failure) && !stop.stop_requested()) Pause(stop);
}

// False: the store cannot be written for now.
bool Runner::FinishFailed(JobId job, const Json& failure) {
  try {
    store_.Finish(job, JobState::kFailed, failure, {});
    return true;
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kUnavailable) throw;
    LogEvent(LogLevel::kError, "store_not_writable", {{"job", job}, {"error", error.what()}});
    return false;
  }
}

// A job is pinned to the bytes that its model's name stood for when it was submitted.
std::string Runner::ModelOf(const JobSpec& spec) const {
  if (!spec.model_sha256.empty()) return spec.model_sha256;
  const std::optional<ModelRecord> model = store_.GetModel(spec.model);
  if (!model) {
    throw Error(ErrorCode::kNotFound, "there is no model named " + spec.model, "/model");
  }
  return model->sha256;
}

WorkOrder Runner::OrderFor(const JobSpec& spec, const OpenArtifact& model,
                           const std::string& sha256) const {
  const auto folder_of = [&](const std::string& dataset) {
    return dataset.empty() ? std::string() : (settings_.datasets_dir / dataset).string();
  };
  WorkOrder order;
  order.spec = WriteJobSpec(spec);
  order.model = model.model.string();
  order.calibration = folder_of(spec.calibration.dataset);
  order.evaluation = folder_of(spec.evaluate.dataset);
  if (HasCache() && spec.cache) {
    const std::filesystem::path cache = settings_.cache_dir / sha256;
    std::filesystem::create_directories(cache);  // there before the worker gives up its rights
    order.cache = cache.string();
    order.cache_mb = Limits().cache_mb;
  }
  order.threads = settings_.threads;
  order.confine = settings_.confine;
  return order;
}

void Runner::TrimCache() const {
  if (!HasCache()) return;
  const TrimmedCache trimmed =
      TrimPassCache(settings_.cache_dir, {.bytes_max = Limits().cache_mb << 20}, /*is_dry=*/false);
  if (trimmed.count == 0) return;
  LogEvent(
      LogLevel::kInfo, "cache_trimmed",
      {{"entries", trimmed.count}, {"bytes", trimmed.bytes}, {"kept_bytes", trimmed.kept_bytes}});
}

void Runner::Tell(JobId job, LogLevel level, const std::string& event, const Json& fields) const {
  Json line = {{"event", event}, {"job", job}, {"time_ms", NowMs()}};
  line.update(fields);
  if (!settings_.logs_dir.empty()) logs_.Append(job, DumpJson(line), LogSource::kRunner);
  LogEvent(level, event, {{"job", job}, {"details", DumpJson(fields)}});
}

void Runner::RunJob(const Job& job, std::stop_token stop) {
  const JobSpec spec = ReadJobSpec(job.spec);
  const std::string model = ModelOf(spec);
  const RunnerLimits now = Limits();
  const JobLimits limits = {spec.limits.memory_mb == 0 ? now.memory_mb : spec.limits.memory_mb,
                            spec.limits.time_s == 0 ? now.time_s : spec.limits.time_s};
  const int64_t threads = std::max(settings_.threads, spec.evaluate.threads);
  const Reservation share(budget_, budget_.Take({limits.memory_mb, threads}, stop, [&] {
    store_.SetProgress(job.id, {{"step", kWaitsStep}, {"fraction", 0}});
  }));
  if (!share.is_held()) return store_.Requeue(job.id);
  store_.SetProgress(job.id, nullptr);  // it waits no more: from here on the try counts
  const JobFolder folder(settings_.work_dir / std::to_string(job.id));
  const std::filesystem::path order = folder.path() / "order.json";
  const OpenArtifact opened = artifacts_.Open(model);  // as long as the worker may read it
  std::optional<SearchRecorder> search;
  if (spec.search)
    search.emplace(store_, artifacts_, job.id, WorkPlace{spec, model, folder.path()});

  Listener listener(store_, job.id, search ? &*search : nullptr,
                    Estimate(spec, search ? StepHistory() : HistoryOf(store_, spec.model, model)));
  Watch watch(store_, job.id, limits, stop);
  std::optional<Child> child;
  bool was_killed = false;
  do {
    WorkOrder work = OrderFor(spec, opened, model);
    if (search) work.history = search->History();
    WriteOrder(work, order);
    child.emplace(ChildSpec{settings_.program,
                            {"work", "--dir", folder.path().string()},
                            order,
                            LimitsOf(limits, threads)});
    watch.Run(
        *child,
        [&](std::string_view line) {
          if (listener.Take(line)) TrimCache();  // a step has ended, and may have left its result
        },
        [&](std::string_view line) {
          if (!settings_.logs_dir.empty()) logs_.Append(job.id, line, LogSource::kWorker);
        });
    if (HasCache()) ClearPassCacheParts(settings_.cache_dir, folder.path().filename().string());
    was_killed = WasKilled(*child->exit()) && watch.reason() == EndReason::kNone;
  } while (search && GoesOn(job.id, *search, FaultOf(watch, *child, listener.error()), was_killed));

  const WorkResult result = ReadResult(folder.path() / "result.json").value_or(WorkResult{});
  const bool is_complete = result.is_complete && child->exit()->signal == 0;
  if (watch.reason() == EndReason::kStop && !is_complete) {
    Tell(job.id, LogLevel::kInfo, "job_requeued", {{"why", "the daemon stops"}});
    return store_.Requeue(job.id);
  }
  const int64_t tries = store_.GetJob(job.id)->tries;  // it may have come further than before
  if (was_killed && tries < now.tries_max) {
    const Json why = CrashError(*child, listener.error());
    Tell(job.id, LogLevel::kWarning, "job_requeued", {{"why", why.at("message")}});
    return store_.Retry(job.id, why);
  }
  Verdict verdict = JudgeEnd(watch, *child, listener.error());
  if (was_killed) AddTries(tries, now.tries_max, verdict);
  if (search) {
    search->End(WhyEnded(watch));
    const bool has_ended = is_complete || watch.reason() == EndReason::kTime;
    if (has_ended && search->search().candidate_count() > 0) {
      return EndSearch(job.id, *search, search->search().Judge());
    }
    return EndSearch(job.id, *search, verdict);
  }
  const std::vector<RunRecord> runs = RunsOf(result, {spec, model, folder.path()}, artifacts_);
  if (is_complete) verdict = JudgeRuns(runs);
  if (is_complete) store_.SetProgress(job.id, FinalProgress(runs));
  End(job.id, verdict, runs);
}

void Runner::End(JobId job, const Verdict& verdict, const std::vector<RunRecord>& runs) {
  store_.Finish(job, verdict.state, verdict.error, runs);
  Tell(job, LogLevel::kInfo, "job_ended",
       {{"state", JobStateName(verdict.state)}, {"error", verdict.error}});
}

// Whether the worker died of a candidate, and the search goes on.
bool Runner::GoesOn(JobId job, SearchRecorder& search, const Json& fault, bool was_killed) {
  if (fault.is_null() || !search.GoOnAfter(fault, !was_killed)) return false;
  Tell(job, LogLevel::kWarning, "worker_died", {{"why", fault.at("message")}});
  return true;
}

// Its runs are in the store already.
void Runner::EndSearch(JobId job, const SearchRecorder& search, const Verdict& verdict) {
  store_.SetProgress(job, search.FinalProgress());
  End(job, verdict, {});
}

}  // namespace pared
