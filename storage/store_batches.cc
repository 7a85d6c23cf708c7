// Batches, their items and the jobs that stand for them.

#include <algorithm>
#include <iterator>
#include <utility>

#include "base/check.h"
#include "storage/sqlite.h"
#include "storage/store.h"
#include "storage/store_impl.h"

namespace pared {
namespace {

constexpr const char* kStateNames[] = {"scanning", "running", "ended", "failed", "cancelled"};
constexpr const char* kDecisionNames[] = {"run", "shared", "unchanged", "excluded", "refused"};

const std::string kBatchColumns =
    "batches.id, name, dry, cancel, spec, error, created_ms, scanned_ms";
const std::string kItemColumns =
    "path, model, sha256, recipe, decision, reason, job, "
    "(SELECT state FROM jobs WHERE id = batch_items.job)";

BatchDecision DecisionOf(const std::string& name) {
  const auto found = std::ranges::find(kDecisionNames, name);
  PARED_CHECK(found != std::end(kDecisionNames));  // the table checks it
  return static_cast<BatchDecision>(found - std::begin(kDecisionNames));
}

std::string BatchPointer(BatchId id) { return "batch " + std::to_string(id); }

// Counts the models, and sets state and end from the jobs.
void Derive(Database& database, Batch& batch) {
  Statement select(database,
                   "SELECT CASE WHEN decision IN ('run', 'shared') "
                   "THEN coalesce(jobs.state, 'planned') ELSE decision END, "
                   "count(*), max(finished_ms) FROM batch_items LEFT JOIN jobs ON jobs.id = job "
                   "WHERE batch = ? GROUP BY 1");
  select.Bind(batch.id);
  int64_t finished_ms = batch.scanned_ms.value_or(0);
  bool is_busy = false;
  while (select.Step()) {
    const std::string name = select.text(0);
    batch.counts[name] = select.integer(1);
    is_busy = is_busy || name == "queued" || name == "running";
    // What stands since an earlier night ended then and not now.
    if (name != "unchanged" && !select.is_null(2)) {
      finished_ms = std::max(finished_ms, select.integer(2));
    }
  }
  if (!batch.scanned_ms) {
    batch.state = BatchState::kScanning;
  } else if (!batch.error.is_null()) {
    batch.state = BatchState::kFailed;
  } else if (is_busy) {
    batch.state = BatchState::kRunning;
  } else {
    batch.state = batch.cancel_requested ? BatchState::kCancelled : BatchState::kEnded;
  }
  const bool has_ended =
      batch.state != BatchState::kScanning && batch.state != BatchState::kRunning;
  if (has_ended) batch.finished_ms = finished_ms;
}

Batch BatchOf(Database& database, const Statement& row) {
  Batch batch;
  batch.id = row.integer(0);
  batch.is_dry = row.integer(2) != 0;
  batch.cancel_requested = row.integer(3) != 0;
  batch.spec = JsonOf(row, 4);
  batch.error = JsonOf(row, 5);
  batch.created_ms = row.integer(6);
  if (!row.is_null(7)) batch.scanned_ms = row.integer(7);
  Derive(database, batch);
  return batch;
}

BatchItem ItemOf(const Statement& row) {
  BatchItem item;
  item.path = row.text(0);
  item.model = row.text(1);
  item.sha256 = row.text(2);
  item.recipe = row.text(3);
  item.decision = DecisionOf(row.text(4));
  item.reason = JsonOf(row, 5);
  if (!row.is_null(6)) item.job = row.integer(6);
  item.job_state = row.text(7);
  return item;
}

std::optional<std::string> Optional(const std::string& text) {
  return text.empty() ? std::nullopt : std::optional(text);
}

// Unless the batch is being scanned.
void CheckScanning(Database& database, BatchId id) {
  Statement select(database, "SELECT 1 FROM batches WHERE id = ? AND scanned_ms IS NULL");
  if (select.Bind(id).Step()) return;
  throw Error(ErrorCode::kConflict, "is not being scanned any more", BatchPointer(id));
}

std::optional<Batch> Oldest(Database& database) {
  Statement select(database, "SELECT " + kBatchColumns +
                                 " FROM batches WHERE scanned_ms IS NULL ORDER BY id LIMIT 1");
  if (!select.Step()) return std::nullopt;
  return BatchOf(database, select);
}

// Asked each time a job ends: the jobs that have not ended come first, as they are few.
std::optional<Batch> Unmarked(Database& database) {
  Statement select(database, "SELECT " + kBatchColumns +
                                 " FROM batches WHERE marked = 0 AND dry = 0 AND error IS NULL "
                                 "AND scanned_ms IS NOT NULL AND NOT EXISTS (SELECT 1 FROM jobs "
                                 "CROSS JOIN batch_items ON batch_items.job = jobs.id "
                                 "WHERE state IN ('queued', 'running') AND batch = batches.id) "
                                 "ORDER BY id LIMIT 1");
  if (!select.Step()) return std::nullopt;
  return BatchOf(database, select);
}

}  // namespace

const char* BatchStateName(BatchState state) { return kStateNames[static_cast<size_t>(state)]; }

const char* BatchDecisionName(BatchDecision decision) {
  return kDecisionNames[static_cast<size_t>(decision)];
}

BatchId Store::SubmitBatch(const Json& spec) {
  BatchId id = 0;
  {
    std::lock_guard lock(impl_->mutex);
    Statement insert(impl_->writer,
                     "INSERT INTO batches (name, dry, spec, created_ms) VALUES (?, ?, ?, ?) "
                     "RETURNING id");
    insert.Bind(spec.at("name").get<std::string>());
    insert.Bind(int64_t{spec.at("dry_run").get<bool>() ? 1 : 0});
    insert.Bind(DumpJson(spec)).Bind(NowMs()).Step();
    id = insert.integer(0);
    insert.Run();
  }
  impl_->batched.notify_one();
  return id;
}

std::optional<Batch> Store::NextBatch(std::stop_token stop) {
  std::optional<Batch> batch;
  std::unique_lock lock(impl_->mutex);
  impl_->batched.wait(lock, stop, [&] {
    if (stop.stop_requested()) return false;
    batch = Oldest(impl_->writer);
    if (!batch) batch = Unmarked(impl_->writer);
    return batch.has_value();
  });
  return batch;
}

void Store::MarkBatch(BatchId id,
                      const std::map<int64_t, std::map<std::string, std::string>>& marks) {
  std::lock_guard lock(impl_->mutex);
  Transaction transaction(impl_->writer, DatabaseAccess::kWrite);
  Statement put(impl_->writer,
                "INSERT INTO tags (run, name, value) SELECT ?1, ?2, ?3 "
                "WHERE EXISTS (SELECT 1 FROM runs WHERE id = ?1) "
                "ON CONFLICT (run, name) DO UPDATE SET value = excluded.value");
  for (const auto& [run, tags] : marks) {
    for (const auto& [name, value] : tags) {
      put.Bind(run).Bind(name).Bind(value).Run();
      put.Reset();
    }
  }
  Statement(impl_->writer, "UPDATE batches SET marked = 1 WHERE id = ?").Bind(id).Run();
  transaction.Commit();
}

std::optional<Batch> Store::GetBatch(BatchId id) const {
  Reader reader(impl_->readers);
  Statement select(reader.database(), "SELECT " + kBatchColumns + " FROM batches WHERE id = ?");
  if (!select.Bind(id).Step()) return std::nullopt;
  return BatchOf(reader.database(), select);
}

std::vector<Batch> Store::Batches(const BatchQuery& query) const {
  Reader reader(impl_->readers);
  Statement select(reader.database(), "SELECT " + kBatchColumns + " FROM batches WHERE id > ?" +
                                          (query.name ? " AND name = ?" : "") +
                                          " ORDER BY id LIMIT ?");
  select.Bind(query.after);
  if (query.name) select.Bind(*query.name);
  select.Bind(query.limit);
  std::vector<Batch> batches;
  while (select.Step()) batches.push_back(BatchOf(reader.database(), select));
  return batches;
}

std::vector<BatchId> Store::BatchesBefore(BatchId id, int64_t limit) const {
  Reader reader(impl_->readers);
  Statement select(reader.database(),
                   "SELECT id FROM batches WHERE id < ?1 AND dry = 0 AND error IS NULL "
                   "AND scanned_ms IS NOT NULL "
                   "AND name = (SELECT name FROM batches WHERE id = ?1) ORDER BY id DESC LIMIT ?2");
  select.Bind(id).Bind(limit);
  std::vector<BatchId> ids;
  while (select.Step()) ids.push_back(select.integer(0));
  return ids;
}

std::vector<BatchItem> Store::BatchItems(BatchId id) const {
  Reader reader(impl_->readers);
  Statement select(reader.database(),
                   "SELECT " + kItemColumns + " FROM batch_items WHERE batch = ? ORDER BY path");
  select.Bind(id);
  std::vector<BatchItem> items;
  while (select.Step()) items.push_back(ItemOf(select));
  return items;
}

void Store::PutBatchItem(BatchId id, const BatchItem& item) {
  std::lock_guard lock(impl_->mutex);
  Transaction transaction(impl_->writer, DatabaseAccess::kWrite);
  CheckScanning(impl_->writer, id);
  Statement upsert(impl_->writer,
                   "INSERT INTO batch_items (batch, path, model, sha256, recipe, decision, reason, "
                   "job) VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (batch, path) DO UPDATE SET "
                   "model = excluded.model, sha256 = excluded.sha256, recipe = excluded.recipe, "
                   "decision = excluded.decision, reason = excluded.reason, job = excluded.job");
  upsert.Bind(id).Bind(item.path).Bind(item.model);
  upsert.Bind(Optional(item.sha256)).Bind(Optional(item.recipe));
  upsert.Bind(BatchDecisionName(item.decision)).Bind(JsonColumn(item.reason)).Bind(item.job).Run();
  transaction.Commit();
}

std::optional<Job> Store::StandingJob(const BatchItem& item) const {
  Reader reader(impl_->readers);
  Statement select(reader.database(),
                   "SELECT jobs.id FROM batch_items JOIN jobs ON jobs.id = job "
                   "WHERE sha256 = ? AND recipe = ? AND model = ? AND cancel = 0 "
                   "AND (state IN ('queued', 'running') OR (state = 'succeeded' "
                   "AND EXISTS (SELECT 1 FROM runs WHERE runs.job = jobs.id))) "
                   "ORDER BY jobs.id DESC LIMIT 1");
  if (!select.Bind(item.sha256).Bind(item.recipe).Bind(item.model).Step()) return std::nullopt;
  return ReadJob(reader.database(), select.integer(0));
}

JobId Store::SubmitBatchJob(BatchId id, const std::string& path, const Json& spec) {
  JobId job = 0;
  {
    std::lock_guard lock(impl_->mutex);
    Transaction transaction(impl_->writer, DatabaseAccess::kWrite);
    CheckScanning(impl_->writer, id);
    job = InsertJob(impl_->writer, spec, std::nullopt, impl_->limits.queued_max);
    Statement update(impl_->writer, "UPDATE batch_items SET job = ? WHERE batch = ? AND path = ?");
    update.Bind(job).Bind(id).Bind(path).Run();
    PARED_CHECK(impl_->writer.changes() == 1);
    transaction.Commit();
  }
  impl_->queued.notify_one();
  return job;
}

void Store::EndScan(BatchId id, const Json& error) {
  std::lock_guard lock(impl_->mutex);
  Statement update(impl_->writer,
                   "UPDATE batches SET scanned_ms = ?, error = ? "
                   "WHERE id = ? AND scanned_ms IS NULL");
  update.Bind(NowMs()).Bind(JsonColumn(error)).Bind(id).Run();
}

void Store::CancelBatch(BatchId id) {
  std::lock_guard lock(impl_->mutex);
  Transaction transaction(impl_->writer, DatabaseAccess::kWrite);
  Statement select(impl_->writer, "SELECT " + kBatchColumns + " FROM batches WHERE id = ?");
  if (!select.Bind(id).Step()) {
    throw Error(ErrorCode::kNotFound, "there is no such batch", BatchPointer(id));
  }
  const BatchState state = BatchOf(impl_->writer, select).state;
  if (state != BatchState::kScanning && state != BatchState::kRunning) {
    throw Error(ErrorCode::kConflict,
                std::string("cannot cancel a batch that is ") + BatchStateName(state),
                BatchPointer(id));
  }
  Statement update(impl_->writer,
                   "UPDATE batches SET cancel = 1, scanned_ms = coalesce(scanned_ms, ?) "
                   "WHERE id = ?");
  update.Bind(NowMs()).Bind(id).Run();
  Statement jobs(impl_->writer,
                 "SELECT job FROM batch_items WHERE batch = ? AND decision = 'run' "
                 "AND job IS NOT NULL");
  jobs.Bind(id);
  while (jobs.Step()) MarkCancelled(impl_->writer, jobs.integer(0));
  transaction.Commit();
  impl_->batched.notify_one();  // it may have ended
}

std::vector<Run> Store::BatchRuns(BatchId id) const {
  Reader reader(impl_->readers);
  Statement select(reader.database(),
                   "SELECT id FROM runs WHERE job IN "
                   "(SELECT job FROM batch_items WHERE batch = ?) ORDER BY id");
  select.Bind(id);
  std::vector<int64_t> ids;
  while (select.Step()) ids.push_back(select.integer(0));
  return ReadRuns(reader.database(), ids);
}

}  // namespace pared
