#include "daemon/batcher.h"

#include <algorithm>
#include <utility>

#include "api/batch_report.h"
#include "base/error.h"
#include "base/log.h"
#include "config/glob.h"
#include "config/sha256.h"
#include "daemon/pause.h"
#include "daemon/work_order.h"
#include "evaluator/dataset.h"
#include "kernels/cpu.h"
#include "passes/plan.h"

namespace pared {
namespace {

namespace fs = std::filesystem;

constexpr size_t kModelsMax = 100'000;

Json DatasetDigest(const std::string& name, const fs::path& datasets) {
  if (name.empty()) return nullptr;
  return Dataset::Open(datasets / name).Digest();
}

BatchItem Refused(BatchItem item, const std::string& message) {
  item.decision = BatchDecision::kRefused;
  item.reason = ErrorJson(Error(ErrorCode::kInvalidArgument, message, item.path));
  return item;
}

// One walk over the files below a root.
class Walk {
 public:
  explicit Walk(const BatchSpec& spec) : spec_(spec), root_(spec.root) {}

  std::vector<BatchItem> Run() {
    Enter(root_);
    std::ranges::sort(items_, {}, &BatchItem::path);
    RefuseTwins();
    return std::move(items_);
  }

 private:
  void Enter(const fs::path& folder) {
    std::error_code error;
    fs::directory_iterator entries(folder, error);
    for (const fs::directory_iterator end; !error && entries != end; entries.increment(error)) {
      Take(*entries);
    }
    if (!error) return;
    if (folder == root_) throw Error(ErrorCode::kNotFound, error.message(), root_.string());
    BatchItem item = ItemFor(folder);
    items_.push_back(Refused(std::move(item), "the folder cannot be read: " + error.message()));
  }

  void Take(const fs::directory_entry& entry) {
    std::error_code error;  // what has gone meanwhile is neither
    const fs::file_status status = entry.symlink_status(error);
    if (fs::is_directory(status)) return Enter(entry.path());
    BatchItem item = ItemFor(entry.path());
    if (error || !MatchesAny(spec_.models, item.path)) return;
    if (items_.size() == kModelsMax) {
      throw Error(ErrorCode::kInvalidArgument,
                  "there are more than " + std::to_string(kModelsMax) + " models", root_.string());
    }
    if (MatchesAny(spec_.exclude, item.path)) {
      item.decision = BatchDecision::kExcluded;
    } else if (!fs::is_regular_file(status)) {
      item = Refused(std::move(item), "is no regular file; links are not followed");
    } else if (!IsName(item.model)) {
      item = Refused(std::move(item), "its path makes no name for a model: at most 128 letters");
    }
    items_.push_back(std::move(item));
  }

  BatchItem ItemFor(const fs::path& path) const {
    BatchItem item;
    item.path = path.lexically_relative(root_).generic_string();
    item.model = ModelNameOf(item.path);
    return item;
  }

  // Two paths can make one name; the first keeps it.
  void RefuseTwins() {
    std::map<std::string, std::string> taken;
    for (BatchItem& item : items_) {
      if (item.decision != BatchDecision::kRun) continue;
      const auto [owner, is_new] = taken.emplace(item.model, item.path);
      if (!is_new) item = Refused(item, "is called \"" + item.model + "\" like " + owner->second);
    }
  }

  const BatchSpec& spec_;
  const fs::path root_;
  std::vector<BatchItem> items_;
};

}  // namespace

Recipe RecipeOf(JobSpec spec, const fs::path& datasets) {
  Recipe recipe = {BindPasses(std::move(spec)), ""};
  Json json = WriteJobSpec(recipe.spec);
  for (const char* name : {"model", "model_sha256", "experiment", "limits", "priority"}) {
    json.erase(name);
  }
  json["calibration"]["sha256"] = DatasetDigest(recipe.spec.calibration.dataset, datasets);
  json["evaluate"]["sha256"] = DatasetDigest(recipe.spec.evaluate.dataset, datasets);
  json["made_by"] = {PARED_VERSION, CpuName(), IsaName(SelectedIsa())};
  recipe.digest = Sha256Of(DumpJson(json));
  return recipe;
}

std::vector<BatchItem> FindModels(const BatchSpec& spec) { return Walk(spec).Run(); }

// One batch, from where an earlier scan of it left off.
class Batcher::Scan {
 public:
  Scan(const Batcher& batcher, const Batch& batch, std::stop_token stop)
      : store_(batcher.store_),
        artifacts_(batcher.artifacts_),
        settings_(batcher.CopySettings()),
        import_({.program = batcher.program_,
                 .memory_mb = settings_.memory_mb,
                 .time_s = settings_.time_s,
                 .confine = settings_.confine_workers}),
        stop_(std::move(stop)),
        batch_(batch),
        spec_(ReadBatchSpec(batch.spec)) {
    for (BatchItem& item : store_.BatchItems(batch.id)) items_.emplace(item.path, std::move(item));
  }

  void Run() {
    // The settings may be others than when the batch was submitted.
    if (std::ranges::find(settings_.model_roots, spec_.root) == settings_.model_roots.end()) {
      throw Error(ErrorCode::kInvalidArgument, "is none of the daemon's model_roots any more",
                  "/root");
    }
    for (BatchItem& item : FindModels(spec_)) {
      if (items_.contains(item.path)) continue;
      CheckStop();
      if (item.decision == BatchDecision::kRun) item = Decide(std::move(item));
      store_.PutBatchItem(batch_.id, item);
      items_.emplace(item.path, std::move(item));
    }
    if (!batch_.is_dry) SubmitJobs();
    store_.EndScan(batch_.id, nullptr);
  }

 private:
  void CheckStop() const {
    if (stop_.stop_requested()) throw Error(ErrorCode::kCancelled, "the daemon stops");
  }

  // The model boundary: what is wrong with one model is in its item and stops no other.
  BatchItem Decide(BatchItem item) {
    try {
      return DecideUnguarded(item);
    } catch (const Error& error) {
      const bool concerns_all =
          error.code() == ErrorCode::kCancelled || error.code() == ErrorCode::kUnavailable;
      if (concerns_all) throw;
      item.decision = BatchDecision::kRefused;
      item.reason = ErrorJson(error);
      return item;
    }
  }

  BatchItem DecideUnguarded(BatchItem item) {
    const fs::path file = fs::path(spec_.root) / item.path;
    const ImportedModel imported = ImportModel(file, artifacts_, import_, stop_);
    if (!imported.artifact) {
      item.decision = BatchDecision::kRefused;
      item.reason = imported.error;
      return item;
    }
    item.sha256 = imported.artifact->sha256;
    item.recipe = RecipeFor(item).digest;
    if (spec_.force) return item;
    if (const std::optional<Job> job = store_.StandingJob(item)) {
      item.job = job->id;
      item.decision = HasEnded(job->state) ? BatchDecision::kUnchanged : BatchDecision::kShared;
    }
    return item;
  }

  // One a rule: the datasets are hashed once a batch.
  const Recipe& RecipeFor(const BatchItem& item) {
    const std::optional<size_t> rule = FindRule(spec_, item.model, item.path);
    auto found = recipes_.find(rule);
    if (found == recipes_.end()) {
      Recipe recipe = RecipeOf(JobOf(spec_, rule, item.model), settings_.Datasets());
      found = recipes_.emplace(rule, std::move(recipe)).first;
    }
    return found->second;
  }

  void SubmitJobs() {
    for (const auto& [path, item] : items_) {
      if (item.decision != BatchDecision::kRun || item.job) continue;
      JobSpec job = RecipeFor(item).spec;
      job.model = item.model;
      job.model_sha256 = item.sha256;
      store_.PutModel(item.model, item.sha256, artifacts_.Bytes(item.sha256));
      SubmitWhenThereIsRoom(path, WriteJobSpec(job));
    }
  }

  // The queue has a limit, and jobs leave it all the time.
  void SubmitWhenThereIsRoom(const std::string& path, const Json& job) {
    while (true) {
      CheckStop();
      try {
        store_.SubmitBatchJob(batch_.id, path, job);
        return;
      } catch (const Error& error) {
        if (error.code() != ErrorCode::kUnavailable) throw;
      }
      Pause(stop_);
    }
  }

  Store& store_;
  Artifacts& artifacts_;
  const Settings settings_;
  const ImportSettings import_;
  const std::stop_token stop_;
  const Batch& batch_;
  const BatchSpec spec_;
  std::map<std::string, BatchItem> items_;           // decided, by path
  std::map<std::optional<size_t>, Recipe> recipes_;  // by rule
};

Batcher::Batcher(Store& store, Artifacts& artifacts, Settings settings, fs::path program)
    : store_(store),
      artifacts_(artifacts),
      program_(std::move(program)),
      settings_(std::move(settings)),
      thread_([this](std::stop_token stop) { Loop(std::move(stop)); }) {}

Settings Batcher::CopySettings() const {
  const std::lock_guard lock(mutex_);
  return settings_;
}

void Batcher::SetSettings(Settings settings) {
  const std::lock_guard lock(mutex_);
  settings_ = std::move(settings);
}

void Batcher::Loop(std::stop_token stop) {
  while (!stop.stop_requested()) {
    try {
      const std::optional<Batch> batch = store_.NextBatch(stop);
      if (!batch) continue;
      if (batch->state == BatchState::kScanning) {
        ScanGuarded(*batch, stop);
      } else {
        Mark(*batch);
      }
    } catch (const Error& error) {
      // The store itself fails: the batch stays as it is until that can be told.
      LogEvent(LogLevel::kError, "batcher_failed", {{"error", std::string(error.what())}});
      Pause(stop);
    }
  }
}

// A report that cannot be made leaves its runs without marks, and stops no other batch.
void Batcher::Mark(const Batch& batch) {
  std::map<int64_t, std::map<std::string, std::string>> marks;
  try {
    marks = MarksOf(ReportOf(store_, batch));
  } catch (const Error& error) {
    if (error.code() == ErrorCode::kUnavailable) throw;
    LogEvent(LogLevel::kWarning, "batch_not_marked",
             {{"batch", batch.id}, {"error", std::string(error.what())}});
  }
  store_.MarkBatch(batch.id, marks);
}

// The batch boundary.
void Batcher::ScanGuarded(const Batch& batch, std::stop_token stop) {
  Json failure;
  try {
    Scan(*this, batch, stop).Run();
    LogEvent(LogLevel::kInfo, "batch_scanned", {{"batch", batch.id}});
    return;
  } catch (const Error& error) {
    // Cancelled meanwhile, or the daemon stops: nothing is left to be told.
    if (error.code() == ErrorCode::kConflict || error.code() == ErrorCode::kCancelled) return;
    failure = ErrorJson(error);
  } catch (const std::exception& error) {
    failure = ErrorJson(Error(ErrorCode::kInternal, error.what()));
  }
  LogEvent(LogLevel::kWarning, "batch_failed",
           {{"batch", batch.id}, {"error", failure.at("message").get<std::string>()}});
  // A full disk, say: the scan goes on when there is room again.
  if (failure.at("code") == ErrorCodeName(ErrorCode::kUnavailable)) return Pause(stop);
  store_.EndScan(batch.id, failure);
}

}  // namespace pared
