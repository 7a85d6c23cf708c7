// Runs, their metrics, and models.

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "storage/sqlite.h"
#include "storage/store.h"
#include "storage/store_impl.h"

namespace pared {
namespace {

const std::string kRunColumns =
    "runs.id, job, experiment, model, chain, steps, reports, machine, artifact, error, created_ms";

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
  return run;
}

// Fills in the metrics of `runs`.
void ReadMetrics(Database& database, std::vector<Run>& runs) {
  Statement select(database, "SELECT name, value FROM metrics WHERE run = ?");
  for (Run& run : runs) {
    select.Bind(run.id);
    while (select.Step()) {
      run.record.metrics[select.text(0)] =
          select.is_null(1) ? std::numeric_limits<double>::quiet_NaN() : select.real(1);
    }
    select.Reset();
  }
}

std::optional<Run> ReadRun(Database& database, int64_t id) {
  Statement select(database, "SELECT " + kRunColumns + " FROM runs WHERE id = ?");
  if (!select.Bind(id).Step()) return std::nullopt;
  std::vector<Run> runs = {RunOf(select)};
  ReadMetrics(database, runs);
  return std::move(runs.front());
}

// The query's filters as SQL; BindFilters binds them in the same order.
std::string Filters(const RunQuery& query) {
  std::string sql;
  if (query.experiment) sql += " AND experiment = ?";
  if (query.model) sql += " AND model = ?";
  if (query.chain) sql += " AND chain = ?";
  if (query.job) sql += " AND job = ?";
  return sql;
}

void BindFilters(Statement& statement, const RunQuery& query) {
  if (query.experiment) statement.Bind(*query.experiment);
  if (query.model) statement.Bind(*query.model);
  if (query.chain) statement.Bind(*query.chain);
  if (query.job) statement.Bind(*query.job);
}

struct Point {
  int64_t run;
  double cost, quality;
};

// The points that none beats, by cost. Sorted by cost, a point stays where its quality is above all
// cheaper ones'; of equal cost only the best stay.
std::vector<Point> Front(std::vector<Point> points) {
  std::sort(points.begin(), points.end(), [](const Point& a, const Point& b) {
    if (a.cost != b.cost) return a.cost < b.cost;
    if (a.quality != b.quality) return a.quality > b.quality;
    return a.run < b.run;
  });
  std::vector<Point> front;
  for (const Point& point : points) {
    const bool is_tie =
        !front.empty() && point.cost == front.back().cost && point.quality == front.back().quality;
    if (front.empty() || is_tie || point.quality > front.back().quality) front.push_back(point);
  }
  return front;
}

}  // namespace

void UpsertRun(Database& writer, JobId job, const RunRecord& run) {
  Statement upsert(
      writer,
      "INSERT INTO runs (job, experiment, model, chain, steps, reports, machine, artifact, error, "
      "created_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) "
      "ON CONFLICT (job, chain) DO UPDATE SET experiment = excluded.experiment, "
      "model = excluded.model, steps = excluded.steps, reports = excluded.reports, "
      "machine = excluded.machine, artifact = excluded.artifact, error = excluded.error, "
      "created_ms = excluded.created_ms RETURNING id");
  upsert.Bind(job).Bind(run.experiment).Bind(run.model).Bind(run.chain);
  upsert.Bind(DumpJson(run.steps)).Bind(DumpJson(run.reports)).Bind(DumpJson(run.machine));
  upsert.Bind(run.artifact.empty() ? std::nullopt : std::optional(run.artifact));
  upsert.Bind(JsonColumn(run.error)).Bind(NowMs());
  upsert.Step();
  const int64_t id = upsert.integer(0);
  upsert.Run();
  Statement(writer, "DELETE FROM metrics WHERE run = ?").Bind(id).Run();
  Statement insert(writer, "INSERT INTO metrics (run, name, value) VALUES (?, ?, ?)");
  for (const auto& [name, value] : run.metrics) {
    insert.Bind(id).Bind(name).Bind(value).Run();
    insert.Reset();
  }
}

std::optional<Run> Store::GetRun(int64_t id) const {
  Reader reader(impl_->readers);
  return ReadRun(reader.database(), id);
}

std::vector<Run> Store::Runs(const RunQuery& query) const {
  Reader reader(impl_->readers);
  Statement select(reader.database(), "SELECT " + kRunColumns + " FROM runs WHERE id > ?" +
                                          Filters(query) + " ORDER BY id LIMIT ?");
  select.Bind(query.after);
  BindFilters(select, query);
  select.Bind(query.limit);
  std::vector<Run> runs;
  while (select.Step()) runs.push_back(RunOf(select));
  ReadMetrics(reader.database(), runs);
  return runs;
}

std::vector<Run> Store::ParetoFront(const RunQuery& query, const std::string& cost,
                                    const std::string& quality) const {
  Reader reader(impl_->readers);
  Statement select(reader.database(),
                   "SELECT runs.id, c.value, q.value FROM runs "
                   "JOIN metrics AS c ON c.run = runs.id AND c.name = ? "
                   "JOIN metrics AS q ON q.run = runs.id AND q.name = ? "
                   "WHERE error IS NULL AND c.value IS NOT NULL AND q.value IS NOT NULL" +
                       Filters(query));
  select.Bind(cost).Bind(quality);
  BindFilters(select, query);
  std::vector<Point> points;
  while (select.Step()) points.push_back({select.integer(0), select.real(1), select.real(2)});
  std::vector<Run> runs;
  for (const Point& point : Front(std::move(points))) {
    runs.push_back(*ReadRun(reader.database(), point.run));
  }
  return runs;
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
