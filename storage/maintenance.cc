#include "storage/maintenance.h"

#include <algorithm>
#include <ostream>
#include <system_error>

#include "config/settings.h"
#include "storage/job_logs.h"
#include "storage/pass_cache.h"
#include "storage/sqlite.h"
#include "storage/store_impl.h"
#include "storage/uploads.h"

namespace pared {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kDayMs = 86'400'000;
constexpr std::chrono::hours kGrace(1);

int64_t SweepLogs(const Store& store, const GarbageOptions& options) {
  const int64_t before_ms = NowMs() - options.run_days * kDayMs;
  const auto is_kept = [&](int64_t id) {
    const std::optional<Job> job = store.GetJob(id);
    if (!job) return false;
    if (options.run_days == 0 || job->finished_ms.value_or(before_ms) >= before_ms) return true;
    return store.CountRuns({.job = id}) > 0;  // kept by a tag
  };
  return JobLogs(options.logs_dir).Sweep(is_kept, options.is_dry);
}

}  // namespace

Garbage CollectGarbage(Store& store, Artifacts& artifacts, const GarbageOptions& options) {
  Garbage garbage;
  if (options.run_days > 0) {
    const int64_t before_ms = NowMs() - options.run_days * kDayMs;
    garbage.runs =
        options.is_dry ? store.CountRunsBefore(before_ms) : store.DeleteRunsBefore(before_ms);
  }
  if (!options.logs_dir.empty()) garbage.logs = SweepLogs(store, options);
  const std::set<std::string> referenced = store.ReferencedArtifacts();
  const SweptArtifacts swept = artifacts.Sweep(referenced, kGrace, options.is_dry);
  garbage.artifacts = swept.count;
  garbage.bytes = swept.bytes;
  if (options.cache_dir.empty()) return garbage;
  const TrimmedCache trimmed =
      TrimPassCache(options.cache_dir,
                    {.bytes_max = options.cache_bytes_max, .models = &referenced}, options.is_dry);
  garbage.cache_entries = trimmed.count;
  garbage.cache_bytes = trimmed.bytes;
  return garbage;
}

void BackUpStore(const fs::path& store, const fs::path& file) {
  if (!fs::exists(store)) throw Error(ErrorCode::kNotFound, "there is no store", store.string());
  if (fs::exists(fs::symlink_status(file))) {
    throw Error(ErrorCode::kConflict, "exists already", file.string());
  }
  const fs::path partial = file.string() + ".partial";
  fs::remove(partial);
  Database(store, DatabaseAccess::kRead).BackUp(partial);
  std::error_code error;
  fs::rename(partial, file, error);
  if (error) throw Error(ErrorCode::kInternal, "cannot create: " + error.message(), file.string());
}

void RunGc(std::vector<std::string> arguments, std::ostream& out) {
  const bool is_dry = std::erase(arguments, "--dry") > 0;
  const Settings settings = ReadCommandLine(arguments).settings;
  if (!fs::exists(settings.Database())) {
    throw Error(ErrorCode::kNotFound, "there is no store", settings.Database().string());
  }
  Store store(settings.Database(), {});
  Artifacts artifacts(settings.ArtifactsDir());
  const Garbage garbage = CollectGarbage(store, artifacts,
                                         {.run_days = settings.run_days,
                                          .is_dry = is_dry,
                                          .cache_dir = settings.CacheDir(),
                                          .cache_bytes_max = settings.cache_mb << 20,
                                          .logs_dir = settings.LogsDir()});
  const int64_t uploads =
      Uploads(settings.UploadsDir()).Sweep(std::chrono::hours(settings.upload_hours), is_dry);
  out << DumpJson({{"runs", garbage.runs},
                   {"uploads", uploads},
                   {"artifacts", garbage.artifacts},
                   {"bytes", garbage.bytes},
                   {"cache_entries", garbage.cache_entries},
                   {"cache_bytes", garbage.cache_bytes},
                   {"logs", garbage.logs},
                   {"dry", is_dry}})
      << "\n";
}

void RunBackup(std::vector<std::string> arguments, std::ostream& out) {
  if (arguments.empty() || arguments.front().starts_with("-")) {
    throw Error(ErrorCode::kInvalidArgument, "usage: pared backup FILE [--data_dir=...]", "backup");
  }
  const fs::path file = arguments.front();
  arguments.erase(arguments.begin());
  BackUpStore(ReadCommandLine(arguments).settings.Database(), file);
  out << DumpJson({{"file", file.string()}, {"bytes", fs::file_size(file)}}) << "\n";
}

}  // namespace pared
