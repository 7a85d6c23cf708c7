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

void Migrate(Database& database) {
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
  for (int64_t next = version; next < SchemaVersion(); ++next) {
    Transaction transaction(database, DatabaseAccess::kWrite);
    database.Execute(kMigrations[static_cast<size_t>(next)]);
    database.Execute("PRAGMA application_id = " + std::to_string(kApplicationId));
    database.Execute("PRAGMA user_version = " + std::to_string(next + 1));
    transaction.Commit();
  }
}

}  // namespace pared
