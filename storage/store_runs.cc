// Runs, their metrics and tags, and models. Queries over runs are in store_query.cc.

#include <limits>
#include <utility>

#include "storage/sqlite.h"
#include "storage/store.h"
#include "storage/store_impl.h"

namespace pared {
namespace {

const std::string kRunColumns =
    "runs.id, job, experiment, model, chain, steps, reports, machine, artifact, error, created_ms, "
    "note, lineage";

// What columns in memory must hear of (storage/columns.h).
const std::string kMetricsChanged = "UPDATE metric_changes SET count = count + 1";

const std::string kIsOutdated =
    "created_ms < ? AND job NOT IN (SELECT kept.job FROM tags JOIN runs AS kept "
    "ON kept.id = tags.run WHERE tags.name = 'keep')";

Run RunOf(const Statement& row) {
  Run run;
  run.id = row.integer(0);
  run.job = row.integer(1);
  run.record.experiment = row.text(2);
  run.record.model = row.text(3);
  run.record.chain = row.text(4);
  run.record.steps = JsonOf(row, 5);
  run.record.reports = JsonOf(row, 6);
  run.record.machine = JsonOf(row, 7);
  run.record.artifact = row.text(8);
  run.record.error = JsonOf(row, 9);
  run.created_ms = row.integer(10);
  run.note = row.text(11);
  run.record.lineage = JsonOf(row, 12);
  return run;
}

[[noreturn]] void ThrowNoRun(int64_t id) {
  throw Error(ErrorCode::kNotFound, "there is no run " + std::to_string(id), "{id}");
}

// Deletes the runs that `condition` selects, with all that belongs to them.
int64_t DeleteRuns(Database& writer, const std::string& condition,
                   const std::vector<SqlValue>& values) {
  Transaction transaction(writer, DatabaseAccess::kWrite);
  for (const char* table : {"metrics", "tags"}) {
    Statement children(writer, std::string("DELETE FROM ") + table +
                                   " WHERE run IN (SELECT id FROM runs WHERE " + condition + ")");
    children.BindValues(values).Run();
  }
  Statement runs(writer, "DELETE FROM runs WHERE " + condition);
  runs.BindValues(values).Run();
  const int64_t count = writer.changes();
  if (count > 0) writer.Execute(kMetricsChanged);
  transaction.Commit();
  return count;
}

}  // namespace

std::vector<Run> ReadRuns(Database& database, const std::vector<int64_t>& ids) {
  Statement select(database, "SELECT " + kRunColumns + " FROM runs WHERE id = ?");
  Statement metrics(database, "SELECT name, value FROM metrics WHERE run = ?");
  Statement tags(database, "SELECT name, value FROM tags WHERE run = ?");
  std::vector<Run> runs;
  for (const int64_t id : ids) {
    select.Reset();
    if (!select.Bind(id).Step()) continue;
    Run& run = runs.emplace_back(RunOf(select));
    metrics.Reset();
    metrics.Bind(id);
    while (metrics.Step()) {
      run.record.metrics[metrics.text(0)] =
          metrics.is_null(1) ? std::numeric_limits<double>::quiet_NaN() : metrics.real(1);
    }
    tags.Reset();
    tags.Bind(id);
    while (tags.Step()) run.tags[tags.text(0)] = tags.text(1);
  }
  return runs;
}

int64_t UpsertRun(Database& writer, JobId job, const RunRecord& run) {
  Statement earlier(writer, "SELECT 1 FROM runs WHERE job = ? AND chain = ?");
  if (earlier.Bind(job).Bind(run.chain).Step()) writer.Execute(kMetricsChanged);
  Statement upsert(
      writer,
      "INSERT INTO runs (job, experiment, model, chain, steps, reports, machine, artifact, error, "
      "lineage, created_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) "
      "ON CONFLICT (job, chain) DO UPDATE SET experiment = excluded.experiment, "
      "model = excluded.model, steps = excluded.steps, reports = excluded.reports, "
      "machine = excluded.machine, artifact = excluded.artifact, error = excluded.error, "
      "lineage = excluded.lineage, "
      "created_ms = excluded.created_ms RETURNING id");
  upsert.Bind(job).Bind(run.experiment).Bind(run.model).Bind(run.chain);
  upsert.Bind(DumpJson(run.steps)).Bind(DumpJson(run.reports)).Bind(DumpJson(run.machine));
  upsert.Bind(run.artifact.empty() ? std::nullopt : std::optional(run.artifact));
  upsert.Bind(JsonColumn(run.error)).Bind(JsonColumn(run.lineage)).Bind(NowMs());
  upsert.Step();
  const int64_t id = upsert.integer(0);
  upsert.Run();
  Statement(writer, "DELETE FROM metrics WHERE run = ?").Bind(id).Run();
  Statement insert(writer, "INSERT INTO metrics (run, name, value) VALUES (?, ?, ?)");
  for (const auto& [name, value] : run.metrics) {
    insert.Bind(id).Bind(name).Bind(value).Run();
    insert.Reset();
  }
  Statement tag(writer,
                "INSERT INTO tags (run, name, value) VALUES (?, ?, ?) "
                "ON CONFLICT (run, name) DO UPDATE SET value = excluded.value");
  for (const auto& [name, value] : run.tags) {
    tag.Bind(id).Bind(name).Bind(value).Run();
    tag.Reset();
  }
  return id;
}

std::vector<Run> Store::RunsWith(const std::vector<int64_t>& ids) const {
  Reader reader(impl_->readers);
  return ReadRuns(reader.database(), ids);
}

std::optional<Run> Store::GetRun(int64_t id) const {
  std::vector<Run> runs = RunsWith({id});
  if (runs.empty()) return std::nullopt;
  return std::move(runs.front());
}

void Store::ChangeRun(int64_t id, const RunChange& change) {
  std::lock_guard lock(impl_->mutex);
  Transaction transaction(impl_->writer, DatabaseAccess::kWrite);
  Statement update(impl_->writer, "UPDATE runs SET note = coalesce(?, note) WHERE id = ?");
  update.Bind(change.note).Bind(id).Run();
  if (impl_->writer.changes() == 0) ThrowNoRun(id);
  Statement put(impl_->writer,
                "INSERT INTO tags (run, name, value) VALUES (?, ?, ?) "
                "ON CONFLICT (run, name) DO UPDATE SET value = excluded.value");
  Statement remove(impl_->writer, "DELETE FROM tags WHERE run = ? AND name = ?");
  for (const auto& [name, value] : change.tags) {
    Statement& statement = value ? put : remove;
    statement.Reset();
    statement.Bind(id).Bind(name);
    if (value) statement.Bind(*value);
    statement.Run();
  }
  transaction.Commit();
}

void Store::DropArtifact(int64_t id) {
  std::lock_guard lock(impl_->mutex);
  Statement update(impl_->writer, "UPDATE runs SET artifact = NULL WHERE id = ?");
  update.Bind(id);
  update.Run();
}

void Store::DeleteRun(int64_t id) {
  std::lock_guard lock(impl_->mutex);
  if (DeleteRuns(impl_->writer, "id = ?", {id}) == 0) ThrowNoRun(id);
}

int64_t Store::DeleteExperiment(const std::string& experiment) {
  std::lock_guard lock(impl_->mutex);
  const int64_t count = DeleteRuns(impl_->writer, "experiment = ?", {experiment});
  if (count == 0) {
    throw Error(ErrorCode::kNotFound, "there is no experiment \"" + experiment + "\"", "{name}");
  }
  return count;
}

int64_t Store::DeleteRunsBefore(int64_t created_ms) {
  std::lock_guard lock(impl_->mutex);
  return DeleteRuns(impl_->writer, kIsOutdated, {created_ms});
}

int64_t Store::CountRunsBefore(int64_t created_ms) const {
  Reader reader(impl_->readers);
  Statement select(reader.database(), "SELECT count(*) FROM runs WHERE " + kIsOutdated);
  select.Bind(created_ms).Step();
  return select.integer(0);
}

std::vector<ExperimentRecord> Store::Experiments() const {
  Reader reader(impl_->readers);
  Statement select(reader.database(),
                   "SELECT experiment, count(*), min(created_ms), max(created_ms) FROM runs "
                   "GROUP BY experiment ORDER BY experiment");
  std::vector<ExperimentRecord> experiments;
  while (select.Step()) {
    experiments.push_back(
        {select.text(0), select.integer(1), select.integer(2), select.integer(3)});
  }
  return experiments;
}

std::set<std::string> Store::ReferencedArtifacts() const {
  Reader reader(impl_->readers);
  Statement select(reader.database(),
                   "SELECT sha256 FROM models UNION "
                   "SELECT artifact FROM runs WHERE artifact IS NOT NULL UNION "
                   "SELECT json_extract(spec, '$.model_sha256') AS sha256 FROM jobs "
                   "WHERE state IN ('queued', 'running') AND sha256 IS NOT NULL UNION "
                   "SELECT sha256 FROM batch_items JOIN batches ON batches.id = batch "
                   "WHERE scanned_ms IS NULL AND sha256 IS NOT NULL");
  std::set<std::string> artifacts;
  while (select.Step()) artifacts.insert(select.text(0));
  return artifacts;
}

void Store::PutModel(const std::string& name, const std::string& sha256, int64_t bytes) {
  std::lock_guard lock(impl_->mutex);
  Statement upsert(impl_->writer,
                   "INSERT INTO models (name, sha256, bytes, created_ms) VALUES (?, ?, ?, ?) "
                   "ON CONFLICT (name) DO UPDATE SET sha256 = excluded.sha256, "
                   "bytes = excluded.bytes, created_ms = excluded.created_ms");
  upsert.Bind(name).Bind(sha256).Bind(bytes).Bind(NowMs()).Run();
}

namespace {

ModelRecord ModelOf(const Statement& row) {
  return {row.text(0), row.text(1), row.integer(2), row.integer(3)};
}

}  // namespace

void Store::DeleteModel(const std::string& name) {
  std::lock_guard lock(impl_->mutex);
  Statement remove(impl_->writer, "DELETE FROM models WHERE name = ?");
  remove.Bind(name).Run();
  if (impl_->writer.changes() > 0) return;
  throw Error(ErrorCode::kNotFound, "no model is registered as \"" + name + "\"", "{name}");
}

std::optional<ModelRecord> Store::GetModel(const std::string& name) const {
  Reader reader(impl_->readers);
  Statement select(reader.database(),
                   "SELECT name, sha256, bytes, created_ms FROM models WHERE name = ?");
  if (!select.Bind(name).Step()) return std::nullopt;
  return ModelOf(select);
}

std::vector<ModelRecord> Store::Models() const {
  Reader reader(impl_->readers);
  Statement select(reader.database(),
                   "SELECT name, sha256, bytes, created_ms FROM models ORDER BY name");
  std::vector<ModelRecord> models;
  while (select.Step()) models.push_back(ModelOf(select));
  return models;
}

}  // namespace pared
