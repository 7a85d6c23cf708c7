#include "api/batch_report.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <set>

#include "api/service.h"

namespace pared {
namespace {

constexpr const char* kBaseline = "baseline";
constexpr size_t kNightsMax = 30;      // looked back on
constexpr size_t kDriftModelsMin = 3;  // so many baselines tell of the machine, not of themselves

using Key = std::pair<std::string, std::string>;

std::optional<double> MetricOf(const Run& run, const std::string& name) {
  const auto found = run.record.metrics.find(name);
  if (found == run.record.metrics.end()) return std::nullopt;
  return found->second;
}

// Whether the two were timed alike.
bool SameMachine(const Run& a, const Run& b) {
  return std::ranges::all_of(
      std::vector<std::string>{"cpu", "isa", "threads"}, [&](const std::string& name) {
        return a.record.machine.value(name, Json()) == b.record.machine.value(name, Json());
      });
}

bool IsGood(const NightRow& row) { return row.run && row.error.is_null(); }

double MedianOf(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

Json NameJson(const Key& key) {
  return {{"model", key.first}, {"chain", key.second.empty() ? Json() : Json(key.second)}};
}

class Comparison {
 public:
  Comparison(const Night& night, const NightBefore& before,
             const std::vector<Threshold>& thresholds)
      : night_(night), before_(before), thresholds_(thresholds), last_(before(0)) {
    for (const char* list : {"worse", "better", "failed_newly", "failed_still", "fixed", "new",
                             "vanished", "warnings"}) {
      report_[list] = Json::array();
    }
  }

  Json Report() {
    MeasureDrift();
    for (const auto& [key, row] : night_.rows) CompareRow(key, row);
    FindVanished();
    report_["against"] = last_ == nullptr ? Json() : Json(last_->batch);
    report_["unfinished"] = night_.unfinished;
    report_["unchanged"] = night_.unchanged;
    report_["excluded"] = night_.excluded;
    report_["latency_drift"] = drift_;
    const bool is_worse = !report_["worse"].empty() || !report_["failed_newly"].empty();
    report_["verdict"] = is_worse ? "worse" : "ok";
    return std::move(report_);
  }

 private:
  const NightRow* LastRow(const Key& key) const {
    if (last_ == nullptr) return nullptr;
    const auto found = last_->rows.find(key);
    return found == last_->rows.end() ? nullptr : &found->second;
  }

  // The latest earlier night's row that has numbers to compare with.
  const NightRow* LastGood(const Key& key) const {
    for (size_t i = 0; i < kNightsMax; ++i) {
      const Night* night = before_(i);
      if (night == nullptr) return nullptr;
      const auto found = night->rows.find(key);
      if (found != night->rows.end() && IsGood(found->second)) return &found->second;
    }
    return nullptr;
  }

  // How much longer the unoptimized models take than they took: what one night's machine adds to
  // all latencies alike.
  void MeasureDrift() {
    std::vector<double> ratios;
    for (const auto& [key, row] : night_.rows) {
      if (key.second != kBaseline || !IsGood(row)) continue;
      const NightRow* old = LastGood(key);
      if (old == nullptr || old->run->id == row.run->id) continue;
      if (!SameMachine(*row.run, *old->run) || old->sha256 != row.sha256) continue;
      const std::optional<double> now = MetricOf(*row.run, "latency_ms_p50");
      const std::optional<double> then = MetricOf(*old->run, "latency_ms_p50");
      if (now && then && *then > 0 && std::isfinite(*now)) ratios.push_back(*now / *then);
    }
    drift_count_ = ratios.size();
    if (ratios.empty()) return;
    drift_ = MedianOf(ratios);
    const auto limit = std::ranges::find(thresholds_, "latency_ms_p50", &Threshold::metric);
    if (limit == thresholds_.end() || drift_count_ < kDriftModelsMin) return;
    if (std::abs(drift_ - 1) <= limit->relative) return;
    report_["warnings"].push_back(
        "the unoptimized models take " + Json(drift_).dump() +
        " times as long as they took: the machine, or float execution, has changed; latencies are "
        "compared beyond that");
  }

  void CompareRow(const Key& key, const NightRow& row) {
    const NightRow* last = LastRow(key);
    if (!IsGood(row)) {
      Json entry = NameJson(key);
      entry["error"] = row.error;
      if (row.run) entry["run"] = row.run->id;
      const bool failed_before = last != nullptr && !IsGood(*last);
      report_[failed_before ? "failed_still" : "failed_newly"].push_back(std::move(entry));
      return;
    }
    if (last != nullptr && !IsGood(*last)) report_["fixed"].push_back(NameJson(key));
    const NightRow* old = LastGood(key);
    if (old == nullptr) {
      if (last == nullptr) AddNew(key);
    } else if (old->run->id != row.run->id) {
      for (const Threshold& threshold : thresholds_) CompareMetric(key, row, *old, threshold);
    }
  }

  // A model that failed as a whole last night is fixed, and its chains are not new.
  void AddNew(const Key& key) {
    if (LastRow({key.first, ""}) != nullptr) {
      if (key.second == kBaseline) report_["fixed"].push_back(NameJson({key.first, ""}));
      return;
    }
    report_["new"].push_back(NameJson(key));
  }

  void CompareMetric(const Key& key, const NightRow& row, const NightRow& old,
                     const Threshold& threshold) {
    const std::optional<double> now = MetricOf(*row.run, threshold.metric);
    const std::optional<double> then = MetricOf(*old.run, threshold.metric);
    if (!then || !std::isfinite(*then)) return;
    if (!now || !std::isfinite(*now)) {
      Warn(key, threshold.metric + " was measured before and is not now");
      return;
    }
    const bool is_latency = threshold.metric.starts_with("latency_ms");
    if (is_latency && !SameMachine(*row.run, *old.run)) {
      Warn(key, threshold.metric + " is of another machine than before and not compared");
      return;
    }
    const double drift = is_latency ? DriftFor(key) : 1;
    const double change = *now / drift - *then;
    const double limit = threshold.absolute + threshold.relative * std::abs(*then);
    if (!(std::abs(change) > limit)) return;
    if (is_latency && IsWithinSpread(row, old, threshold.metric, drift)) return;
    const bool is_better = (change > 0) == (threshold.better == Better::kHigher);
    Json entry = NameJson(key);
    entry.update({{"metric", threshold.metric},
                  {"before", *then},
                  {"after", *now},
                  {"limit", limit},
                  {"run", row.run->id},
                  {"run_before", old.run->id},
                  {"model_changed", row.sha256 != old.sha256},
                  {"recipe_changed", row.recipe != old.recipe}});
    if (is_latency) entry["drift"] = drift;
    report_[is_better ? "better" : "worse"].push_back(std::move(entry));
  }

  // A few baselines say nothing of the machine against themselves.
  double DriftFor(const Key& key) const {
    return key.second == kBaseline && drift_count_ < kDriftModelsMin ? 1 : drift_;
  }

  // Whether the medians differ by no more than single runs did: the slower median lies below the
  // 90th percentile of the faster.
  static bool IsWithinSpread(const NightRow& row, const NightRow& old, const std::string& metric,
                             double drift) {
    if (metric != "latency_ms_p50" && metric != "latency_ms_mean") return false;
    const double now = *MetricOf(*row.run, metric) / drift;
    const double then = *MetricOf(*old.run, metric);
    const double now_p90 = MetricOf(*row.run, "latency_ms_p90").value_or(now) / drift;
    const double then_p90 = MetricOf(*old.run, "latency_ms_p90").value_or(then);
    return now > then ? now <= then_p90 : then <= now_p90;
  }

  void FindVanished() {
    if (last_ == nullptr) return;
    std::set<std::string> models(night_.unfinished.begin(), night_.unfinished.end());
    const std::set<std::string> unfinished = models;
    std::set<std::string> failed;
    for (const auto& [key, unused] : night_.rows) {
      models.insert(key.first);
      if (key.second.empty()) failed.insert(key.first);
    }
    std::set<std::string> told;
    for (const auto& [key, unused] : last_->rows) {
      if (!models.contains(key.first)) {
        if (told.insert(key.first).second) report_["vanished"].push_back(NameJson({key.first, ""}));
      } else if (!key.second.empty() && !night_.rows.contains(key) && !failed.contains(key.first) &&
                 !unfinished.contains(key.first)) {
        report_["vanished"].push_back(NameJson(key));
      }
    }
  }

  void Warn(const Key& key, const std::string& text) {
    report_["warnings"].push_back(key.first + ", " + key.second + ": " + text);
  }

  const Night& night_;
  const NightBefore& before_;
  const std::vector<Threshold>& thresholds_;
  const Night* last_;
  double drift_ = 1;
  size_t drift_count_ = 0;
  Json report_ = Json::object();
};

void AddJob(const Store& store, const BatchItem& item, const std::map<JobId, size_t>& run_counts,
            Night& night) {
  const std::optional<JobState> state = JobStateOf(item.job_state);
  if (!item.job || !state || !HasEnded(*state) || *state == JobState::kCancelled) {
    night.unfinished.push_back(item.model);
    return;
  }
  if (item.decision == BatchDecision::kUnchanged) night.unchanged.push_back(item.model);
  if (run_counts.contains(*item.job) && *state == JobState::kSucceeded) return;
  // What a job says of a chain that failed is the run's to tell; of a crash only the job tells.
  const std::optional<Job> job = store.GetJob(*item.job);
  if (!job || job->error.is_null()) return;
  const std::string where = job->error.value("where", "");
  for (const auto& [key, row] : night.rows) {
    if (key.first == item.model && key.second != "" && !row.error.is_null()) return;
  }
  night.rows[{item.model, ""}] = {std::nullopt, job->error, item.sha256, item.recipe};
}

Night NightOf(const Store& store, BatchId id) {
  Night night;
  night.batch = id;
  const std::vector<BatchItem> items = store.BatchItems(id);
  std::map<JobId, const BatchItem*> by_job;
  std::map<JobId, size_t> run_counts;
  for (const BatchItem& item : items) {
    if (item.job) by_job[*item.job] = &item;
  }
  for (Run& run : store.BatchRuns(id)) {
    const BatchItem& item = *by_job.at(run.job);
    ++run_counts[run.job];
    const Json error = run.record.error;
    const Key key = {item.model, run.record.chain};
    night.rows[key] = {std::move(run), error, item.sha256, item.recipe};
  }
  for (const BatchItem& item : items) {
    if (item.decision == BatchDecision::kExcluded) {
      night.excluded.push_back(item.path);
    } else if (item.decision == BatchDecision::kRefused) {
      night.rows[{item.model, ""}] = {std::nullopt, item.reason, "", ""};
    } else {
      AddJob(store, item, run_counts, night);
    }
  }
  return night;
}

// Earlier nights, read from the store when they are asked for.
class History {
 public:
  History(const Store& store, BatchId id)
      : store_(store), ids_(store.BatchesBefore(id, static_cast<int64_t>(kNightsMax))) {}

  const Night* At(size_t index) {
    if (index >= ids_.size()) return nullptr;
    while (nights_.size() <= index) {
      nights_.push_back(std::make_unique<Night>(NightOf(store_, ids_[nights_.size()])));
    }
    return nights_[index].get();
  }

 private:
  const Store& store_;
  const std::vector<BatchId> ids_;
  std::vector<std::unique_ptr<Night>> nights_;
};

}  // namespace

Json CompareNights(const Night& night, const NightBefore& before,
                   const std::vector<Threshold>& thresholds) {
  return Comparison(night, before, thresholds).Report();
}

Json ReportOf(const Store& store, const Batch& batch) {
  History history(store, batch.id);
  return CompareNights(
      NightOf(store, batch.id), [&](size_t index) { return history.At(index); },
      ReadBatchSpec(batch.spec).thresholds);
}

std::map<int64_t, std::map<std::string, std::string>> MarksOf(const Json& report) {
  std::map<int64_t, std::map<std::string, std::string>> marks;
  const auto add = [&](const char* list, const char* tag) {
    for (const Json& entry : report.at(list)) {
      if (!entry.contains("run")) continue;
      std::string& value = marks[entry.at("run").get<int64_t>()][tag];
      if (!value.empty()) value += ',';
      value += entry.value("metric", "failed");
    }
  };
  add("worse", "regression");
  add("failed_newly", "regression");
  add("better", "improvement");
  return marks;
}

Response GetBatchReport(const Service& service, const Request& request) {
  const std::string format = QueryText(request, "format").value_or("json");
  if (format != "json" && format != "md") {
    throw Error(ErrorCode::kInvalidArgument, "must be json or md, is \"" + format + "\"",
                "?format");
  }
  const Batch batch = ExistingBatch(service, request);
  Json report = ReportOf(service.store, batch);
  for (const char* name : {"id", "name", "state", "counts", "error", "created_ms", "finished_ms"}) {
    report[name] = BatchJson(batch).at(name);
  }
  if (format == "json") return JsonResponse(report);
  Response response;
  response.type = "text/markdown; charset=utf-8";
  response.body = ReportMarkdown(report);
  return response;
}

}  // namespace pared
