#include "storage/schema.h"

#include <array>
#include <string>

#include "base/error.h"

namespace pared {
namespace {

// Marks the file as pared's in SQLite's header: "pare".
constexpr int64_t kApplicationId = 0x70617265;

// Only ever appended to: entry i brings version i to version i + 1.
//
// Text columns named spec, progress, error, steps, reports and machine hold JSON. Times are
// milliseconds since 1970, UTC. docs/schema.md says what each table is for.
constexpr std::array kMigrations = {
    R"sql(
CREATE TABLE models (
  name TEXT PRIMARY KEY,
  sha256 TEXT NOT NULL,
  bytes INTEGER NOT NULL,
  created_ms INTEGER NOT NULL
) STRICT;

CREATE TABLE jobs (
  id INTEGER PRIMARY KEY,
  state TEXT NOT NULL CHECK (state IN ('queued', 'running', 'succeeded', 'failed', 'cancelled')),
  tries INTEGER NOT NULL DEFAULT 0,
  cancel INTEGER NOT NULL DEFAULT 0,
  spec TEXT NOT NULL,
  progress TEXT,
  error TEXT,
  idempotency_key TEXT UNIQUE,
  created_ms INTEGER NOT NULL,
  started_ms INTEGER,
  finished_ms INTEGER
) STRICT;
CREATE INDEX jobs_by_state ON jobs (state, id);

CREATE TABLE runs (
  id INTEGER PRIMARY KEY,
  job INTEGER NOT NULL REFERENCES jobs,
  experiment TEXT NOT NULL,
  model TEXT NOT NULL,
  chain TEXT NOT NULL,
  steps TEXT NOT NULL,
  reports TEXT NOT NULL,
  machine TEXT NOT NULL,
  artifact TEXT,
  error TEXT,
  created_ms INTEGER NOT NULL,
  UNIQUE (job, chain)
) STRICT;
CREATE INDEX runs_by_experiment ON runs (experiment, id);
CREATE INDEX runs_by_model ON runs (model, id);
CREATE INDEX runs_by_chain ON runs (chain, id);

CREATE TABLE metrics (
  run INTEGER NOT NULL REFERENCES runs,
  name TEXT NOT NULL,
  value REAL,
  PRIMARY KEY (run, name)
) STRICT, WITHOUT ROWID;
CREATE INDEX metrics_by_name ON metrics (name, run, value);
)sql",
    R"sql(
ALTER TABLE runs ADD COLUMN note TEXT NOT NULL DEFAULT '';
ALTER TABLE jobs ADD COLUMN priority INTEGER NOT NULL DEFAULT 0;

CREATE TABLE tags (
  run INTEGER NOT NULL REFERENCES runs,
  name TEXT NOT NULL,
  value TEXT NOT NULL,
  PRIMARY KEY (run, name)
) STRICT, WITHOUT ROWID;
CREATE INDEX tags_by_name ON tags (name, value, run);

-- The greatest priority first, and of equal ones the oldest.
CREATE INDEX jobs_by_priority ON jobs (state, priority DESC, id);
CREATE INDEX jobs_by_end ON jobs (finished_ms);

-- Wide enough that a filter or a front need not read the rows, which hold kilobytes of JSON.
DROP INDEX runs_by_model;
CREATE INDEX runs_by_model ON runs (model, id, job, experiment, chain, created_ms);
CREATE INDEX runs_failed ON runs (id) WHERE error IS NOT NULL;
CREATE INDEX runs_by_artifact ON runs (artifact);
CREATE INDEX runs_by_time ON runs (created_ms);
CREATE INDEX runs_by_machine ON runs (machine, id);

CREATE VIEW runs_wide AS SELECT
  id, job, experiment, model, chain, created_ms,
  datetime(created_ms / 1000, 'unixepoch') AS created,
  error IS NOT NULL AS failed, artifact, note,
  json_extract(machine, '$.cpu') AS cpu,
  json_extract(machine, '$.isa') AS isa,
  json_extract(machine, '$.version') AS version,
  (SELECT value FROM metrics WHERE run = runs.id AND name = 'top1') AS top1,
  (SELECT value FROM metrics WHERE run = runs.id AND name = 'agreement') AS agreement,
  (SELECT value FROM metrics WHERE run = runs.id AND name = 'sqnr_db') AS sqnr_db,
  (SELECT value FROM metrics WHERE run = runs.id AND name = 'cosine') AS cosine,
  (SELECT value FROM metrics WHERE run = runs.id AND name = 'size_bytes') AS size_bytes,
  (SELECT value FROM metrics WHERE run = runs.id AND name = 'size_compressed_bytes')
    AS size_compressed_bytes,
  (SELECT value FROM metrics WHERE run = runs.id AND name = 'size_ratio') AS size_ratio,
  (SELECT value FROM metrics WHERE run = runs.id AND name = 'sparsity') AS sparsity,
  (SELECT value FROM metrics WHERE run = runs.id AND name = 'latency_ms_p50') AS latency_ms_p50,
  (SELECT value FROM metrics WHERE run = runs.id AND name = 'latency_ratio') AS latency_ratio,
  (SELECT value FROM metrics WHERE run = runs.id AND name = 'peak_activation_bytes')
    AS peak_activation_bytes
FROM runs;

CREATE VIEW metrics_long AS SELECT
  runs.id AS run, runs.job, runs.experiment, runs.model, runs.chain, runs.created_ms,
  metrics.name, metrics.value
FROM metrics JOIN runs ON runs.id = metrics.run;
)sql",
    R"sql(
ALTER TABLE runs ADD COLUMN lineage TEXT;

CREATE VIEW jobs_wide AS SELECT
  id, state, json_extract(spec, '$.model') AS model,
  json_extract(spec, '$.experiment') AS experiment, priority, tries,
  datetime(created_ms / 1000, 'unixepoch') AS created,
  (started_ms - created_ms) / 1000.0 AS waited_s,
  (finished_ms - started_ms) / 1000.0 AS ran_s,
  json_array_length(spec, '$.chains') AS chains,
  json_extract(error, '$.code') AS error_code, json_extract(error, '$.message') AS error
FROM jobs;

CREATE VIEW passes_long AS SELECT
  runs.id AS run, runs.job, runs.experiment, runs.model, runs.chain,
  step.key + 1 AS position, json_extract(step.value, '$.pass') AS pass,
  json_remove(step.value, '$.pass') AS options,
  json_extract(runs.reports, '$[' || step.key || '].seconds') AS seconds
FROM runs, json_each(runs.steps) AS step;

CREATE VIEW tags_long AS SELECT
  runs.id AS run, runs.experiment, runs.model, runs.chain, tags.name, tags.value
FROM tags JOIN runs ON runs.id = tags.run;

CREATE VIEW lineage AS SELECT
  id AS run, job, model, chain,
  json_extract(lineage, '$.model.sha256') AS model_sha256,
  json_extract(lineage, '$.calibration.dataset') AS calibration,
  json_extract(lineage, '$.calibration.sha256') AS calibration_sha256,
  json_extract(lineage, '$.evaluation.dataset') AS evaluation,
  json_extract(lineage, '$.evaluation.sha256') AS evaluation_sha256,
  json_extract(lineage, '$.version') AS version,
  json_extract(lineage, '$.seed') AS seed, artifact
FROM runs;
)sql",
    R"sql(
-- Rises whenever numbers of a run that is there change or go (storage/columns.h).
CREATE TABLE metric_changes (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  count INTEGER NOT NULL
) STRICT;
INSERT INTO metric_changes VALUES (1, 0);
)sql",
    R"sql(
CREATE TABLE batches (
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL,
  dry INTEGER NOT NULL,
  cancel INTEGER NOT NULL DEFAULT 0,
  spec TEXT NOT NULL,
  error TEXT,
  created_ms INTEGER NOT NULL,
  scanned_ms INTEGER
) STRICT;
CREATE INDEX batches_by_name ON batches (name, id);
CREATE INDEX batches_to_scan ON batches (id) WHERE scanned_ms IS NULL;

CREATE TABLE batch_items (
  id INTEGER PRIMARY KEY,
  batch INTEGER NOT NULL REFERENCES batches,
  path TEXT NOT NULL,
  model TEXT NOT NULL,
  sha256 TEXT,
  recipe TEXT,
  decision TEXT NOT NULL
    CHECK (decision IN ('run', 'shared', 'unchanged', 'excluded', 'refused')),
  reason TEXT,
  job INTEGER REFERENCES jobs,
  UNIQUE (batch, path)
) STRICT;
CREATE INDEX batch_items_by_recipe ON batch_items (sha256, recipe, job);
CREATE INDEX batch_items_by_job ON batch_items (job);
)sql",
    R"sql(
-- How often a job went back into the queue, why the last time, and when.
ALTER TABLE jobs ADD COLUMN requeues INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN requeue TEXT;
ALTER TABLE jobs ADD COLUMN requeued_ms INTEGER;
CREATE INDEX jobs_by_requeue ON jobs (requeued_ms) WHERE requeued_ms IS NOT NULL;
)sql",
    R"sql(
-- Searches, and the state of a job whose models are not what it asked for. A table's checks cannot
-- be changed: the table is made anew (foreign keys are off while schemas change).
DROP VIEW jobs_wide;
CREATE TABLE jobs_new (
  id INTEGER PRIMARY KEY,
  state TEXT NOT NULL CHECK (state IN
    ('queued', 'running', 'succeeded', 'failed', 'cancelled', 'goal_not_met')),
  tries INTEGER NOT NULL DEFAULT 0,
  cancel INTEGER NOT NULL DEFAULT 0,
  spec TEXT NOT NULL,
  progress TEXT,
  error TEXT,
  idempotency_key TEXT UNIQUE,
  created_ms INTEGER NOT NULL,
  started_ms INTEGER,
  finished_ms INTEGER,
  priority INTEGER NOT NULL DEFAULT 0,
  requeues INTEGER NOT NULL DEFAULT 0,
  requeue TEXT,
  requeued_ms INTEGER,
  search TEXT
) STRICT;
INSERT INTO jobs_new SELECT id, state, tries, cancel, spec, progress, error, idempotency_key,
  created_ms, started_ms, finished_ms, priority, requeues, requeue, requeued_ms, NULL FROM jobs;
DROP TABLE jobs;
ALTER TABLE jobs_new RENAME TO jobs;
CREATE INDEX jobs_by_state ON jobs (state, id);
CREATE INDEX jobs_by_priority ON jobs (state, priority DESC, id);
CREATE INDEX jobs_by_end ON jobs (finished_ms);
CREATE INDEX jobs_by_requeue ON jobs (requeued_ms) WHERE requeued_ms IS NOT NULL;

CREATE VIEW jobs_wide AS SELECT
  id, state, json_extract(spec, '$.model') AS model,
  json_extract(spec, '$.experiment') AS experiment, priority, tries,
  datetime(created_ms / 1000, 'unixepoch') AS created,
  (started_ms - created_ms) / 1000.0 AS waited_s,
  (finished_ms - started_ms) / 1000.0 AS ran_s,
  json_array_length(spec, '$.chains') AS chains,
  json_extract(error, '$.code') AS error_code, json_extract(error, '$.message') AS error,
  json_extract(search, '$.candidates') AS candidates,
  json_extract(search, '$.best.run') AS best_run
FROM jobs;
)sql",
    R"sql(
-- Whether the runs of a batch that has ended bear the marks of its report. Earlier ones go without.
ALTER TABLE batches ADD COLUMN marked INTEGER NOT NULL DEFAULT 0;
UPDATE batches SET marked = 1 WHERE scanned_ms IS NOT NULL;
CREATE INDEX batches_to_mark ON batches (id) WHERE marked = 0;

CREATE VIEW layers_long AS SELECT
  runs.id AS run, runs.job, runs.experiment, runs.model, runs.chain, layer.key + 1 AS position,
  json_extract(layer.value, '$.node') AS node, json_extract(layer.value, '$.op_type') AS op_type,
  json_extract(layer.value, '$.kernel') AS kernel, json_extract(layer.value, '$.macs') AS macs,
  1 - json_extract(layer.value, '$.density') AS sparsity,
  json_extract(layer.value, '$.sqnr_db') AS sqnr_db,
  json_extract(layer.value, '$.time_us') AS time_us,
  json_extract(layer.value, '$.input_scale') AS input_scale,
  json_extract(layer.value, '$.output_scale') AS output_scale,
  json_extract(layer.value, '$.weight_scale_min') AS weight_scale_min,
  json_extract(layer.value, '$.weight_scale_max') AS weight_scale_max
FROM runs, json_each(runs.reports) AS report, json_each(report.value, '$.report.layers') AS layer
WHERE json_extract(report.value, '$.pass') = 'evaluate';
)sql",
    R"sql(
-- How far a job has come at most, over all its tries (storage/store.h).
ALTER TABLE jobs ADD COLUMN parts_ended INTEGER NOT NULL DEFAULT 0;
)sql",
};

int64_t Pragma(Database& database, const std::string& name) {
  Statement statement(database, "PRAGMA " + name);
  return statement.Step() ? statement.integer(0) : 0;
}

bool HasTables(Database& database) {
  Statement statement(database, "SELECT 1 FROM sqlite_schema LIMIT 1");
  return statement.Step();
}

}  // namespace

int64_t SchemaVersion() { return static_cast<int64_t>(kMigrations.size()); }

void Migrate(Database& database, int64_t target) {
  const int64_t application = Pragma(database, "application_id");
  const int64_t version = Pragma(database, "user_version");
  if (application != kApplicationId && (application != 0 || HasTables(database))) {
    throw Error(ErrorCode::kInvalidArgument, "this database is not pared's");
  }
  if (version > SchemaVersion()) {
    throw Error(ErrorCode::kInvalidArgument, "this database has schema " + std::to_string(version) +
                                                 "; this pared knows schemas up to " +
                                                 std::to_string(SchemaVersion()));
  }
  database.Execute("PRAGMA foreign_keys = OFF");  // no effect within a transaction
  for (int64_t next = version; next < target; ++next) {
    Transaction transaction(database, DatabaseAccess::kWrite);
    database.Execute(kMigrations[static_cast<size_t>(next)]);
    database.Execute("PRAGMA application_id = " + std::to_string(kApplicationId));
    database.Execute("PRAGMA user_version = " + std::to_string(next + 1));
    transaction.Commit();
  }
  database.Execute("PRAGMA foreign_keys = ON");
}

}  // namespace pared
