// What keeps a store in order: garbage, backups.

#pragma once

#include <cstdint>
#include <filesystem>
#include <iosfwd>
#include <string>
#include <vector>

#include "storage/artifacts.h"
#include "storage/store.h"

namespace pared {

struct GarbageOptions {
  int64_t run_days = 0;                  // runs older than these go; 0: none
  bool is_dry = false;                   // only count
  std::filesystem::path cache_dir = {};  // of the results of passes; empty: none
  int64_t cache_bytes_max = 0;
  std::filesystem::path logs_dir = {};  // of jobs; empty: none
};

struct Garbage {
  int64_t runs = 0, artifacts = 0, bytes = 0;
  int64_t cache_entries = 0, cache_bytes = 0, logs = 0;
};

// Deletes old runs, then the artifacts that no model, run or waiting job names and that have been
// there for an hour: a younger one may be about to be named. Last the results of passes whose model
// is named no more, and those used least recently beyond the bound; and the logs of jobs that ended
// before the days of their runs.
Garbage CollectGarbage(Store& store, Artifacts& artifacts, const GarbageOptions& options);

// Copies the store, consistent, into a new file, while a daemon uses it. Throws kConflict: the file
// exists; kNotFound: there is no store.
void BackUpStore(const std::filesystem::path& store, const std::filesystem::path& file);

// `pared gc [--dry] [--run_days N] [settings]`, where no daemon runs (a daemon has POST /v1/gc).
void RunGc(std::vector<std::string> arguments, std::ostream& out);

// `pared backup FILE [settings]`.
void RunBackup(std::vector<std::string> arguments, std::ostream& out);

}  // namespace pared
