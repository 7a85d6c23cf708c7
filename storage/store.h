// Jobs, runs and models in SQLite. Every method is one transaction; all are thread-safe.

#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <stop_token>
#include <string>
#include <vector>

#include "base/error.h"
#include "config/job_spec.h"
#include "storage/batches.h"

namespace pared {

using JobId = int64_t;

int64_t NowMs();  // since 1970, UTC

enum class JobState { kQueued, kRunning, kSucceeded, kFailed, kCancelled, kGoalNotMet };

const char* JobStateName(JobState state);
std::optional<JobState> JobStateOf(const std::string& name);

struct JobTransition {
  JobState from, to;
};
// Every change of state that there is; the store refuses all others.
constexpr JobTransition kJobTransitions[] = {
    {JobState::kQueued, JobState::kRunning},      // claimed
    {JobState::kQueued, JobState::kCancelled},    // cancelled before it began
    {JobState::kRunning, JobState::kSucceeded},   // every chain has a run without an error
    {JobState::kRunning, JobState::kFailed},      // a chain failed, or too many tries
    {JobState::kRunning, JobState::kCancelled},   // cancelled while it ran
    {JobState::kRunning, JobState::kGoalNotMet},  // models, none of which is as was asked for
    {JobState::kRunning, JobState::kQueued},      // the daemon stopped or died, or the worker died
};
constexpr bool IsLegal(JobState from, JobState to) {
  for (const JobTransition& legal : kJobTransitions) {
    if (legal.from == from && legal.to == to) return true;
  }
  return false;
}
constexpr bool HasEnded(JobState state) {
  return state != JobState::kQueued && state != JobState::kRunning;
}

struct Job {
  JobId id = 0;
  JobState state = JobState::kQueued;
  int64_t tries = 0;  // in a row that came no further than those before them
  bool cancel_requested = false;
  Json spec;
  Json progress;           // the last progress line of its worker; null before the first
  Json error;              // {"code", "message", "where"}; null: none
  int64_t created_ms = 0;  // since 1970, UTC
  std::optional<int64_t> started_ms, finished_ms;
  int64_t requeues = 0;  // how often it went back into the queue
  Json requeue;          // why the last time, as an error; null: never
  Json search;           // how its search stands (daemon/search.h); null: it has none
};

// The progress step of a job that was claimed and waits until there is room for it.
inline constexpr const char* kWaitsStep = "waits for memory or threads";

// Why a job that somebody else killed is not tried again.
std::string TriesText(int64_t tries, int64_t tries_max);

struct RunRecord {
  std::string experiment, model, chain;
  Json steps;                             // with all options
  Json reports;                           // what the passes said
  Json machine;                           // {"cpu", "isa", "version"}
  std::string artifact;                   // SHA-256; empty: none
  Json lineage;                           // what it was made from (daemon/lineage.h); null: unknown
  Json error;                             // null: none
  std::map<std::string, double> metrics;  // NaN: could not be measured
  std::map<std::string, std::string> tags = {};  // put on the run, beside those it has
};

struct Run {
  int64_t id = 0;
  JobId job = 0;
  RunRecord record;
  int64_t created_ms = 0;
  std::map<std::string, std::string> tags;
  std::string note;
};

struct SortKey {
  std::string field;  // as filter.h names it
  bool is_descending = false;
};

struct RunQuery {
  std::optional<std::string> experiment = {}, model = {}, chain = {};
  std::optional<JobId> job = {};
  std::string filter = {};         // storage/filter.h; empty: all
  std::vector<SortKey> sort = {};  // at most 8; then by id. What lacks a field comes last.
  int64_t limit = 100;
  int64_t after = 0;  // the run that the page before ended with; 0: from the start
};

// Chosen fields of runs: a number, a text or null each; an error is an object.
struct RunTable {
  std::vector<int64_t> ids;
  std::vector<std::vector<Json>> rows;  // in the order of the columns that were asked for
};

struct Objective {
  std::string field;
  bool is_maximum = false;
};

struct FrontQuery {
  RunQuery runs;                      // limit, after and sort have no effect
  std::vector<Objective> objectives;  // 1 to 8
  bool has_dominated = false;         // give the others too
};

struct FrontRun {
  int64_t id = 0;
  std::vector<double> values;  // of the objectives
  bool is_dominated = false;
};

struct Front {
  std::vector<FrontRun> runs;   // by the first objective, the best first
  int64_t knee = 0;             // the run nearest to the best of each objective; 0: there is none
  int64_t candidate_count = 0;  // runs of the query without an error
  int64_t excluded_count = 0;   // of those, the ones that lack an objective or have NaN
  // Where an objective is a latency: the machines of the query's runs. Latencies of two machines do
  // not compare.
  std::vector<Json> machines;
};

struct RunChange {
  std::map<std::string, std::optional<std::string>> tags;  // nullopt: remove
  std::optional<std::string> note;
};

struct ExperimentRecord {
  std::string name;
  int64_t runs = 0, first_ms = 0, last_ms = 0;
};

struct JobQuery {
  std::optional<JobState> state = {};
  int64_t limit = 100;
  int64_t after = 0;             // 0: from the start
  bool is_newest_first = false;  // then `after` stands for ids below it
};

struct ModelRecord {
  std::string name, sha256;
  int64_t bytes = 0, created_ms = 0;
};

struct StoreLimits {
  int64_t queued_max = 10'000;
};

struct StoreCounts {
  std::map<JobState, int64_t> jobs;  // every state, 0 included
  int64_t runs = 0, models = 0;
};

class Store {
 public:
  // Opens or creates the file, applies missing migrations. Throws kInternal, kInvalidArgument where
  // a newer pared wrote the file, or kUnavailable where another process has it open.
  Store(const std::filesystem::path& file, StoreLimits limits);
  ~Store();

  void SetLimits(StoreLimits limits);  // from now on; what is queued beyond them stays

  JobId Submit(const Json& spec);  // kUnavailable: the queue is full
  // The same at most once a key: submitting again gives the first job's id, and kConflict where the
  // spec is another.
  JobId SubmitOnce(const Json& spec, const std::string& key);
  // Waits for a queued job, takes the oldest: queued -> running, tries + 1. nullopt: stopped.
  std::optional<Job> Claim(std::stop_token stop);
  std::optional<Job> GetJob(JobId id) const;
  std::vector<Job> Jobs(const JobQuery& query) const;
  // A queued job is cancelled at once, a running one is asked to. kNotFound; kConflict: it has
  // ended.
  void RequestCancel(JobId id);
  bool CancelRequested(JobId id) const;
  // `parts_ended`: how many parts of the job have ended in this try. More than in any try before
  // it, and the job has not been tried in vain: its tries are one again.
  void SetProgress(JobId id, const Json& progress, int64_t parts_ended = 0);
  // Records one run of a job that goes on, and gives its id. Its tries are one again, and its parts
  // are counted anew. kConflict where it is not running.
  int64_t RecordRun(JobId id, const RunRecord& run);
  void SetSearch(JobId id, const Json& search);  // kConflict where it is not running
  // Records the runs and ends the job in one transaction: running -> succeeded,
  // failed, cancelled or goal_not_met. kConflict where it is not running.
  void Finish(JobId id, JobState state, const Json& error, const std::vector<RunRecord>& runs);
  void Requeue(JobId id);  // running -> queued: the daemon stops; the try does not count
  // running -> queued: the try was ended by what is no fault of the job's, as `why` says.
  void Retry(JobId id, const Json& why);
  // At start: running -> queued, or failed where it has been tried `tries_max` times in vain. A try
  // that waited for its turn (kWaitsStep) does not count.
  void Recover(int64_t tries_max);

  std::optional<Run> GetRun(int64_t id) const;
  std::vector<Run> RunsWith(const std::vector<int64_t>& ids) const;  // those that are there
  std::vector<Run> Runs(const RunQuery& query) const;
  // The same with chosen fields; at most 64. Throws kInvalidArgument at "?columns".
  RunTable Table(const RunQuery& query, const std::vector<std::string>& columns) const;
  int64_t CountRuns(const RunQuery& query) const;  // limit, after and sort have no effect
  Front FrontOf(const FrontQuery& query) const;

  void ChangeRun(int64_t id, const RunChange& change);  // kNotFound
  void DropArtifact(int64_t id);  // the run names its model no more; nothing where it is gone
  void DeleteRun(int64_t id);     // kNotFound
  int64_t DeleteExperiment(const std::string& experiment);  // its runs' count; kNotFound
  // Runs of before, but for those of a job of which one run has the tag "keep": what somebody keeps
  // stays comparable with its baseline. Their count.
  int64_t DeleteRunsBefore(int64_t created_ms);
  int64_t CountRunsBefore(int64_t created_ms) const;  // that it would delete
  std::vector<ExperimentRecord> Experiments() const;
  // Runs without an error that no other run of the query beats: least `cost`, greatest `quality`,
  // ordered by cost. Equal ones all stay; a run that lacks a metric, or has NaN, takes no part.
  // query.limit and query.after have no effect.
  std::vector<Run> ParetoFront(const RunQuery& query, const std::string& cost,
                               const std::string& quality) const;

  void PutModel(const std::string& name, const std::string& sha256, int64_t bytes);
  // The name only: jobs that have not ended, and runs, keep the bytes that they name. kNotFound.
  void DeleteModel(const std::string& name);
  std::optional<ModelRecord> GetModel(const std::string& name) const;
  std::vector<ModelRecord> Models() const;

  BatchId SubmitBatch(const Json& spec);  // a canonical BatchSpec
  // Waits for a batch that has not been scanned, the oldest, or else for one that has ended and
  // whose runs are not marked. nullopt: stopped.
  std::optional<Batch> NextBatch(std::stop_token stop);
  // Tags runs that are still there, by run and tag, and counts the batch as marked.
  void MarkBatch(BatchId id, const std::map<int64_t, std::map<std::string, std::string>>& marks);
  std::optional<Batch> GetBatch(BatchId id) const;
  std::vector<Batch> Batches(const BatchQuery& query) const;
  // Earlier nights of the same series that were scanned, without dry ones, the latest first.
  std::vector<BatchId> BatchesBefore(BatchId id, int64_t limit) const;
  std::vector<BatchItem> BatchItems(BatchId id) const;  // by path
  // Puts an item of a batch that is being scanned, in the place of an earlier one of its path.
  // kConflict where it is not being scanned any more: cancelled.
  void PutBatchItem(BatchId id, const BatchItem& item);
  // The job whose results stand for the item's model, bytes and recipe: one that has not ended, or
  // that succeeded and whose runs are still there, the latest. Jobs of batches only.
  std::optional<Job> StandingJob(const BatchItem& item) const;
  // Puts the job of an item into the queue. kUnavailable: the queue is full; kConflict as above.
  JobId SubmitBatchJob(BatchId id, const std::string& path, const Json& spec);
  // The scan has ended; with an error: in vain.
  void EndScan(BatchId id, const Json& error);
  // Ends the scan, and asks the jobs that are the batch's own to stop. kNotFound; kConflict: ended.
  void CancelBatch(BatchId id);
  // All runs of the jobs that stand for the batch's models, by id.
  std::vector<Run> BatchRuns(BatchId id) const;

  StoreCounts Counts() const;

  // Artifacts that a model, a run or a job that has not ended names.
  std::set<std::string> ReferencedArtifacts() const;
  // What has happened to jobs: those that run, those that came after job `after`, and those that
  // ended or went back into the queue at `since_ms` or later. By id.
  std::vector<Job> Watched(JobId after, int64_t since_ms) const;
  JobId LastJob() const;       // the greatest id; 0: none
  void CheckWritable() const;  // throws kUnavailable or kInternal

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace pared
