#include "daemon/serve.h"

#include <signal.h>

#include <filesystem>
#include <memory>
#include <utility>

#include "api/http_server.h"
#include "api/routes.h"
#include "api/service.h"
#include "base/error.h"
#include "base/joined.h"
#include "base/log.h"
#include "config/settings.h"
#include "daemon/batcher.h"
#include "daemon/runner.h"
#include "kernels/cpu.h"
#include "storage/artifacts.h"
#include "storage/store.h"

namespace pared {
namespace {

// Blocks the signals that are waited for, in this thread and those it starts.
sigset_t BlockSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  for (const int number : {SIGTERM, SIGINT, SIGHUP}) sigaddset(&signals, number);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  signal(SIGPIPE, SIG_IGN);
  return signals;
}

RunnerLimits LimitsOf(const Settings& settings) {
  return {.cache_mb = settings.cache_mb,
          .memory_mb = settings.memory_mb,
          .time_s = settings.time_s,
          .memory_total_mb = settings.MemoryTotalMb(),
          .tries_max = settings.tries_max};
}

RunnerSettings RunnerSettingsOf(const Settings& settings) {
  return {.work_dir = settings.WorkDir(),
          .datasets_dir = settings.Datasets(),
          .cache_dir = settings.CacheDir(),
          .logs_dir = settings.LogsDir(),
          .reserve = std::filesystem::path(settings.data_dir) / "reserve",
          .threads = settings.threads,
          .jobs_max = settings.jobs_max,
          .confine = settings.confine_workers,
          .limits = LimitsOf(settings)};
}

// The settings of a time and the routes that were made with them: requests that came in that time
// keep them until they are answered.
struct Generation {
  Generation(Store& store, Artifacts& artifacts, Settings the_settings)
      : settings(std::move(the_settings)),
        service{store, artifacts, settings},
        router(MakeRoutes(service)) {}
  Generation(const Generation&) = delete;
  Generation& operator=(const Generation&) = delete;

  const Settings settings;
  const Service service;
  const Router router;
};

using SharedGeneration = std::shared_ptr<const Generation>;

std::shared_ptr<const Settings> SettingsOf(const SharedGeneration& generation) {
  return {generation, &generation->settings};
}

std::shared_ptr<const Router> RouterOf(const SharedGeneration& generation) {
  return {generation, &generation->router};
}

class Daemon {
 public:
  Daemon(Store& store, Artifacts& artifacts, const Settings& settings)
      : store_(store),
        artifacts_(artifacts),
        generation_(std::make_shared<Generation>(store, artifacts, settings)),
        server_(SettingsOf(generation_), RouterOf(generation_),
                std::filesystem::path(settings.data_dir) / "incoming"),
        runner_(store, artifacts, RunnerSettingsOf(settings)),
        batcher_(store, artifacts, settings) {}

  uint16_t port() const { return server_.port(); }

  // The reload boundary: what is wrong with the new settings leaves the old ones.
  void Reload(const std::vector<std::string>& arguments) {
    try {
      ReloadUnguarded(arguments);
    } catch (const Error& error) {
      LogEvent(LogLevel::kError, "reload_failed",
               {{"error", error.what()}, {"kept", "the settings of before"}});
    }
  }

 private:
  void ReloadUnguarded(const std::vector<std::string>& arguments) {
    const SettingsChange change =
        MergeSettings(generation_->settings, ReadCommandLine(arguments).settings);
    auto next = std::make_shared<Generation>(store_, artifacts_, change.settings);
    // First what may throw, so that all of it holds or nothing.
    server_.Replace(SettingsOf(next), RouterOf(next));
    store_.SetLimits({.queued_max = change.settings.queued_max});
    runner_.SetLimits(LimitsOf(change.settings));
    batcher_.SetSettings(change.settings);
    SetLogLevel(change.settings.log_level);
    generation_ = std::move(next);
    LogEvent(LogLevel::kInfo, "reloaded", {{"changed", Joined(change.changed)}});
    if (change.fixed.empty()) return;
    LogEvent(LogLevel::kWarning, "reload_incomplete", {{"need_a_restart", Joined(change.fixed)}});
  }

  Store& store_;
  Artifacts& artifacts_;
  SharedGeneration generation_;
  HttpServer server_;
  Runner runner_;
  Batcher batcher_;
};

}  // namespace

void Serve(const std::vector<std::string>& arguments) {
  const Start start = ReadCommandLine(arguments);
  const Settings& settings = start.settings;
  SetLogLevel(settings.log_level);
  const sigset_t signals = BlockSignals();
  std::filesystem::create_directories(settings.data_dir);
  std::filesystem::create_directories(settings.Datasets());
  Store store(settings.Database(), {.queued_max = settings.queued_max});
  store.Recover(settings.tries_max);
  Artifacts artifacts(settings.ArtifactsDir());
  Daemon daemon(store, artifacts, settings);
  LogEvent(LogLevel::kInfo, "listening",
           {{"address", settings.address},
            {"port", static_cast<int64_t>(daemon.port())},
            {"tls", !settings.tls_certificate.empty()},
            {"isa", std::string(IsaName(SelectedIsa()))},
            {"version", std::string(PARED_VERSION)}});
  int number = 0;
  sigwait(&signals, &number);
  while (number == SIGHUP && start.has_file) {
    daemon.Reload(arguments);
    sigwait(&signals, &number);
  }
  LogEvent(LogLevel::kInfo, "stopping", {{"signal", static_cast<int64_t>(number)}});
}

}  // namespace pared
