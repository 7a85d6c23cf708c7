// The jobs table, which is the queue. Runs and models are in store_runs.cc.

#include "storage/store.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <limits>
#include <utility>

#include "base/check.h"
#include "storage/schema.h"
#include "storage/sqlite.h"
#include "storage/store_impl.h"

namespace pared {
namespace {

constexpr int kReadersMax = 8;
constexpr const char* kStateNames[] = {"queued", "running",   "succeeded",
                                       "failed", "cancelled", "goal_not_met"};

const std::string kJobColumns =
    "id, state, tries, cancel, spec, progress, error, created_ms, started_ms, "
    "finished_ms, requeues, requeue, search";

std::optional<int64_t> IntegerOf(const Statement& statement, int column) {
  if (statement.is_null(column)) return std::nullopt;
  return statement.integer(column);
}

Job JobOf(const Statement& row) {
  Job job;
  job.id = row.integer(0);
  const std::optional<JobState> state = JobStateOf(row.text(1));
  PARED_CHECK(state.has_value());  // the table checks it
  job.state = *state;
  job.tries = row.integer(2);
  job.cancel_requested = row.integer(3) != 0;
  job.spec = JsonOf(row, 4);
  job.progress = JsonOf(row, 5);
  job.error = JsonOf(row, 6);
  job.created_ms = row.integer(7);
  job.started_ms = IntegerOf(row, 8);
  job.finished_ms = IntegerOf(row, 9);
  job.requeues = row.integer(10);
  job.requeue = JsonOf(row, 11);
  job.search = JsonOf(row, 12);
  return job;
}

std::optional<JobState> StateOf(Database& database, JobId id) {
  Statement select(database, "SELECT state FROM jobs WHERE id = ?");
  if (!select.Bind(id).Step()) return std::nullopt;
  return JobStateOf(select.text(0));
}

std::string JobPointer(JobId id) { return "job " + std::to_string(id); }

// Says why no row changed: the job is not there, or in a state that forbids it.
[[noreturn]] void ThrowUnchanged(Database& database, JobId id, const std::string& doing) {
  const std::optional<JobState> state = StateOf(database, id);
  if (!state) throw Error(ErrorCode::kNotFound, "there is no such job", JobPointer(id));
  throw Error(ErrorCode::kConflict, "cannot " + doing + " a job that is " + JobStateName(*state),
              JobPointer(id));
}

std::optional<Job> TakeNext(Database& writer) {
  static_assert(IsLegal(JobState::kQueued, JobState::kRunning));
  Statement update(
      writer,
      "UPDATE jobs SET state = 'running', tries = tries + 1, started_ms = ?, "
      "progress = NULL WHERE state = 'queued' AND id = "
      "(SELECT id FROM jobs WHERE state = 'queued' ORDER BY priority DESC, id LIMIT 1) "
      "RETURNING " +
          kJobColumns);
  if (!update.Bind(NowMs()).Step()) return std::nullopt;
  Job job = JobOf(update);
  update.Run();
  return job;
}

std::vector<Job> RunningJobs(Database& database) {
  Statement select(database, "SELECT " + kJobColumns + " FROM jobs WHERE state = 'running'");
  std::vector<Job> jobs;
  while (select.Step()) jobs.push_back(JobOf(select));
  return jobs;
}

int64_t PriorityOf(const Json& spec) {
  const auto priority = spec.find("priority");
  return priority != spec.end() && priority->is_number_integer() ? priority->get<int64_t>() : 0;
}

}  // namespace

JobId InsertJob(Database& writer, const Json& spec, const std::optional<std::string>& key,
                int64_t queued_max) {
  Statement insert(writer,
                   "INSERT INTO jobs (state, spec, priority, idempotency_key, created_ms) "
                   "SELECT 'queued', ?, ?, ?, ? "
                   "WHERE (SELECT count(*) FROM jobs WHERE state = 'queued') < ? RETURNING id");
  insert.Bind(DumpJson(spec)).Bind(PriorityOf(spec)).Bind(key).Bind(NowMs()).Bind(queued_max);
  if (!insert.Step()) {
    throw Error(ErrorCode::kUnavailable,
                "the queue is full: " + std::to_string(queued_max) + " jobs wait");
  }
  const JobId id = insert.integer(0);
  insert.Run();
  return id;
}

std::optional<Job> ReadJob(Database& database, JobId id) {
  Statement select(database, "SELECT " + kJobColumns + " FROM jobs WHERE id = ?");
  if (!select.Bind(id).Step()) return std::nullopt;
  return JobOf(select);
}

bool MarkCancelled(Database& writer, JobId id) {
  static_assert(IsLegal(JobState::kQueued, JobState::kCancelled));
  Statement update(writer,
                   "UPDATE jobs SET cancel = 1, "
                   "finished_ms = CASE state WHEN 'queued' THEN ? END, "
                   "state = CASE state WHEN 'queued' THEN 'cancelled' ELSE state END "
                   "WHERE id = ? AND state IN ('queued', 'running')");
  update.Bind(NowMs()).Bind(id).Run();
  return writer.changes() != 0;
}

const char* JobStateName(JobState state) { return kStateNames[static_cast<size_t>(state)]; }

std::string TriesText(int64_t tries, int64_t tries_max) {
  return std::to_string(tries) +
         " tries in a row came no further; more are not made, by the daemon's setting tries_max, " +
         std::to_string(tries_max) + " (--tries_max, or the file of --config)";
}

std::optional<JobState> JobStateOf(const std::string& name) {
  for (size_t i = 0; i < std::size(kStateNames); ++i) {
    if (name == kStateNames[i]) return static_cast<JobState>(i);
  }
  return std::nullopt;
}

int64_t NowMs() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::milliseconds>(now).count();
}

std::optional<std::string> JsonColumn(const Json& json) {
  if (json.is_null()) return std::nullopt;
  return DumpJson(json);
}

Json JsonOf(const Statement& statement, int column) {
  return statement.is_null(column) ? Json() : ParseJson(statement.text(column));
}

FileLock::FileLock(const std::filesystem::path& file) {
  const std::string name = file.string() + ".lock";
  descriptor_ = open(name.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600);
  if (descriptor_ < 0) {
    throw Error(ErrorCode::kInternal, std::string("cannot open: ") + std::strerror(errno), name);
  }
  if (flock(descriptor_, LOCK_EX | LOCK_NB) != 0) {
    close(descriptor_);
    throw Error(ErrorCode::kUnavailable, "another pared uses this store", name);
  }
}

FileLock::~FileLock() { close(descriptor_); }

std::unique_ptr<Database> ReaderPool::Take() {
  std::unique_lock lock(mutex_);
  returned_.wait(lock, [&] { return !idle_.empty() || open_ < kReadersMax; });
  if (idle_.empty()) {
    auto reader = std::make_unique<Database>(file_, DatabaseAccess::kRead);
    ++open_;
    return reader;
  }
  std::unique_ptr<Database> reader = std::move(idle_.back());
  idle_.pop_back();
  return reader;
}

void ReaderPool::Return(std::unique_ptr<Database> reader) {
  {
    std::lock_guard lock(mutex_);
    idle_.push_back(std::move(reader));
  }
  returned_.notify_one();
}

namespace {

// Commits that do not wait for the disk, for the scope: what a loss of power may take back. Later
// ones that do wait take these with them.
class QuickCommits {
 public:
  explicit QuickCommits(Database& writer) : writer_(writer) {
    writer_.Execute("PRAGMA synchronous = NORMAL");
  }
  ~QuickCommits() { writer_.Execute("PRAGMA synchronous = FULL"); }
  QuickCommits(const QuickCommits&) = delete;
  QuickCommits& operator=(const QuickCommits&) = delete;

 private:
  Database& writer_;
};

}  // namespace

Store::Impl::Impl(const std::filesystem::path& file, StoreLimits store_limits)
    : limits(store_limits), lock(file), writer(file, DatabaseAccess::kWrite), readers(file) {
  Migrate(writer);
}

Store::Store(const std::filesystem::path& file, StoreLimits limits)
    : impl_(std::make_unique<Impl>(file, limits)) {}

Store::~Store() = default;

void Store::SetLimits(StoreLimits limits) {
  const std::lock_guard lock(impl_->mutex);
  impl_->limits = limits;
}

JobId Store::Submit(const Json& spec) {
  JobId id = 0;
  {
    std::lock_guard lock(impl_->mutex);
    id = InsertJob(impl_->writer, spec, std::nullopt, impl_->limits.queued_max);
  }
  impl_->queued.notify_one();
  return id;
}

JobId Store::SubmitOnce(const Json& spec, const std::string& key) {
  JobId id = 0;
  {
    std::lock_guard lock(impl_->mutex);
    Transaction transaction(impl_->writer, DatabaseAccess::kWrite);
    Statement select(impl_->writer, "SELECT id, spec FROM jobs WHERE idempotency_key = ?");
    if (select.Bind(key).Step()) {
      if (select.text(1) == DumpJson(spec)) return select.integer(0);
      throw Error(ErrorCode::kConflict, "this key has been used for another spec",
                  JobPointer(select.integer(0)));
    }
    id = InsertJob(impl_->writer, spec, key, impl_->limits.queued_max);
    transaction.Commit();
  }
  impl_->queued.notify_one();
  return id;
}

std::optional<Job> Store::Claim(std::stop_token stop) {
  std::optional<Job> job;
  std::unique_lock lock(impl_->mutex);
  impl_->queued.wait(lock, stop, [&] {
    // Asked once more after a stop: a job taken then would have nobody to run it.
    if (!stop.stop_requested()) job = TakeNext(impl_->writer);
    return job.has_value();
  });
  return job;
}

std::optional<Job> Store::GetJob(JobId id) const {
  Reader reader(impl_->readers);
  return ReadJob(reader.database(), id);
}

std::vector<Job> Store::Jobs(const JobQuery& query) const {
  Reader reader(impl_->readers);
  const bool is_down = query.is_newest_first;
  Statement select(reader.database(), "SELECT " + kJobColumns + " FROM jobs WHERE id " +
                                          (is_down ? "<" : ">") + " ?" +
                                          (query.state ? " AND state = ?" : "") + " ORDER BY id " +
                                          (is_down ? "DESC" : "ASC") + " LIMIT ?");
  const bool is_first_page = query.after == 0;
  select.Bind(is_down && is_first_page ? std::numeric_limits<int64_t>::max() : query.after);
  if (query.state) select.Bind(JobStateName(*query.state));
  select.Bind(query.limit);
  std::vector<Job> jobs;
  while (select.Step()) jobs.push_back(JobOf(select));
  return jobs;
}

void Store::RequestCancel(JobId id) {
  std::lock_guard lock(impl_->mutex);
  if (!MarkCancelled(impl_->writer, id)) ThrowUnchanged(impl_->writer, id, "cancel");
  impl_->batched.notify_one();  // with it, a batch may have ended
}

bool Store::CancelRequested(JobId id) const {
  Reader reader(impl_->readers);
  Statement select(reader.database(), "SELECT cancel FROM jobs WHERE id = ?");
  if (!select.Bind(id).Step()) {
    throw Error(ErrorCode::kNotFound, "there is no such job", JobPointer(id));
  }
  return select.integer(0) != 0;
}

void Store::SetProgress(JobId id, const Json& progress, int64_t parts_ended) {
  std::lock_guard lock(impl_->mutex);
  const QuickCommits quick(impl_->writer);
  Statement update(impl_->writer,
                   "UPDATE jobs SET progress = ?1, parts_ended = max(parts_ended, ?2), "
                   "tries = CASE WHEN ?2 > parts_ended THEN 1 ELSE tries END "
                   "WHERE id = ?3 AND state = 'running'");
  update.Bind(JsonColumn(progress)).Bind(parts_ended).Bind(id).Run();
  if (impl_->writer.changes() == 0) ThrowUnchanged(impl_->writer, id, "set the progress of");
}

int64_t Store::RecordRun(JobId id, const RunRecord& run) {
  std::lock_guard lock(impl_->mutex);
  Transaction transaction(impl_->writer, DatabaseAccess::kWrite);
  Statement update(impl_->writer,
                   "UPDATE jobs SET tries = 1, parts_ended = 0 WHERE id = ? AND state = 'running'");
  update.Bind(id).Run();
  if (impl_->writer.changes() == 0) ThrowUnchanged(impl_->writer, id, "record a run of");
  const int64_t recorded = UpsertRun(impl_->writer, id, run);
  transaction.Commit();
  return recorded;
}

void Store::SetSearch(JobId id, const Json& search) {
  std::lock_guard lock(impl_->mutex);
  Statement update(impl_->writer, "UPDATE jobs SET search = ? WHERE id = ? AND state = 'running'");
  update.Bind(JsonColumn(search)).Bind(id).Run();
  if (impl_->writer.changes() == 0) ThrowUnchanged(impl_->writer, id, "set the search of");
}

void Store::Finish(JobId id, JobState state, const Json& error,
                   const std::vector<RunRecord>& runs) {
  const std::string doing = std::string("turn to ") + JobStateName(state);
  if (!HasEnded(state) || !IsLegal(JobState::kRunning, state)) {
    throw Error(ErrorCode::kConflict, "a job cannot end as " + std::string(JobStateName(state)),
                JobPointer(id));
  }
  std::lock_guard lock(impl_->mutex);
  Transaction transaction(impl_->writer, DatabaseAccess::kWrite);
  Statement update(impl_->writer,
                   "UPDATE jobs SET state = ?, error = ?, finished_ms = ? "
                   "WHERE id = ? AND state = 'running'");
  update.Bind(JobStateName(state)).Bind(JsonColumn(error)).Bind(NowMs()).Bind(id).Run();
  if (impl_->writer.changes() == 0) ThrowUnchanged(impl_->writer, id, doing);
  for (const RunRecord& run : runs) UpsertRun(impl_->writer, id, run);
  transaction.Commit();
  impl_->batched.notify_one();  // with it, a batch may have ended
}

void Store::Requeue(JobId id) {
  // The daemon's stop is not the job's fault: this try does not count.
  impl_->PutBack(id, {{"code", "unavailable"}, {"message", "the daemon stopped"}, {"where", ""}},
                 1);
}

void Store::Retry(JobId id, const Json& why) { impl_->PutBack(id, why, 0); }

void Store::Impl::PutBack(JobId id, const Json& why, int64_t tries_forgiven) {
  static_assert(IsLegal(JobState::kRunning, JobState::kQueued));
  static_assert(IsLegal(JobState::kRunning, JobState::kCancelled));
  {
    std::lock_guard guard(mutex);
    Statement update(writer,
                     "UPDATE jobs SET tries = tries - ?1, requeues = requeues + 1, "
                     "requeue = ?2, requeued_ms = ?3, "
                     "state = CASE cancel WHEN 1 THEN 'cancelled' ELSE 'queued' END, "
                     "finished_ms = CASE cancel WHEN 1 THEN ?3 END "
                     "WHERE id = ?4 AND state = 'running'");
    update.Bind(tries_forgiven).Bind(JsonColumn(why)).Bind(NowMs()).Bind(id).Run();
    if (writer.changes() == 0) ThrowUnchanged(writer, id, "requeue");
  }
  queued.notify_one();
}

void Store::Recover(int64_t tries_max) {
  static_assert(IsLegal(JobState::kRunning, JobState::kFailed));
  {
    const std::string died = "the daemon died while it ran this job";
    const auto error = [](const std::string& message) {
      return DumpJson({{"code", "internal"}, {"message", message}, {"where", ""}});
    };
    std::lock_guard lock(impl_->mutex);
    Transaction transaction(impl_->writer, DatabaseAccess::kWrite);
    Statement update(impl_->writer,
                     "UPDATE jobs SET tries = ?1, error = ?2, requeue = ?3, state = ?4, "
                     "finished_ms = CASE ?4 WHEN 'queued' THEN NULL ELSE ?5 END, "
                     "requeues = requeues + 1, requeued_ms = ?5 WHERE id = ?6");
    for (const Job& job : RunningJobs(impl_->writer)) {
      const bool has_waited =
          job.progress.is_object() && job.progress.value("step", "") == kWaitsStep;
      const int64_t tries = job.tries - (has_waited ? 1 : 0);
      JobState state = tries >= tries_max ? JobState::kFailed : JobState::kQueued;
      if (job.cancel_requested) state = JobState::kCancelled;
      std::optional<std::string> failure;
      if (state == JobState::kFailed) failure = error(died + "; " + TriesText(tries, tries_max));
      update.Reset();
      update.Bind(tries).Bind(failure).Bind(error(died)).Bind(JobStateName(state));
      update.Bind(NowMs()).Bind(job.id).Run();
    }
    transaction.Commit();
  }
  impl_->queued.notify_all();
}

std::vector<Job> Store::Watched(JobId after, int64_t since_ms) const {
  Reader reader(impl_->readers);
  Statement select(reader.database(),
                   "SELECT " + kJobColumns +
                       " FROM jobs WHERE id IN ("
                       "SELECT id FROM jobs WHERE state = 'running' UNION "
                       "SELECT id FROM jobs WHERE id > ? UNION "
                       "SELECT id FROM jobs WHERE finished_ms >= ? UNION "
                       "SELECT id FROM jobs WHERE requeued_ms >= ?) ORDER BY id");
  select.Bind(after).Bind(since_ms).Bind(since_ms);
  std::vector<Job> jobs;
  while (select.Step()) jobs.push_back(JobOf(select));
  return jobs;
}

JobId Store::LastJob() const {
  Reader reader(impl_->readers);
  Statement select(reader.database(), "SELECT coalesce(max(id), 0) FROM jobs");
  select.Step();
  return select.integer(0);
}

void Store::CheckWritable() const {
  std::lock_guard lock(impl_->mutex);
  const Transaction transaction(impl_->writer, DatabaseAccess::kWrite);
}

StoreCounts Store::Counts() const {
  Reader reader(impl_->readers);
  StoreCounts counts;
  for (const char* name : kStateNames) counts.jobs[*JobStateOf(name)] = 0;
  Statement jobs(reader.database(), "SELECT state, count(*) FROM jobs GROUP BY state");
  while (jobs.Step()) counts.jobs[*JobStateOf(jobs.text(0))] = jobs.integer(1);
  Statement others(reader.database(),
                   "SELECT (SELECT count(*) FROM runs), (SELECT count(*) FROM models)");
  others.Step();
  counts.runs = others.integer(0);
  counts.models = others.integer(1);
  return counts;
}

}  // namespace pared
