#include "daemon/estimate.h"

#include <algorithm>
#include <array>
#include <utility>

#include "daemon/flow.h"

namespace pared {
namespace {

// So many of a model's last runs tell how long its passes take.
constexpr int64_t kHistoryRuns = 200;
constexpr const char* kBaseline = "baseline";
// Before that much of a part is done its time says little of the rest.
constexpr double kFractionMin = 0.05;
constexpr double kPercentBeforeEndMax = 99;

std::string EvaluationKey(const std::string& dataset, int64_t samples) {
  return dataset + " " + std::to_string(samples);
}

std::optional<double> Found(const std::map<std::string, double>& seconds, const std::string& key) {
  const auto found = seconds.find(key);
  return found == seconds.end() ? std::nullopt : std::optional(found->second);
}

}  // namespace

StepHistory::StepHistory(const std::vector<Run>& runs, const std::string& model_sha256) {
  for (const Run& run : runs) {
    const Json& lineage = run.record.lineage;
    if (!lineage.is_object() || !lineage.contains("model")) continue;
    if (lineage.at("model").value("sha256", "") == model_sha256) Add(run);
  }
}

// Reports stand in the order of the steps; what a failed chain has not come to has none.
void StepHistory::Add(const Run& run) {
  const Json& steps = run.record.steps;
  const Json& reports = run.record.reports;
  for (size_t i = 0; i < reports.size(); ++i) {
    const Json& report = reports[i];
    const double seconds = report.value("seconds", 0.0);
    if (report.value("pass", "") == "evaluate") {
      const Json& data = run.record.lineage.value("evaluation", Json());
      if (!data.is_object()) continue;
      evaluate_[EvaluationKey(data.value("dataset", ""), data.value("samples", int64_t{0}))] =
          seconds;
      evaluate_[EvaluationKey(data.value("dataset", ""), 0)] = seconds;
    } else if (i < steps.size() && !report.contains("cached")) {
      steps_[DumpJson(steps[i])] = seconds;
      passes_[report.value("pass", "")] = seconds;
    }
  }
  const auto latency = run.record.metrics.find("latency_ms_mean");
  if (latency != run.record.metrics.end()) run_s_ = latency->second / 1000;
}

std::optional<double> StepHistory::StepSeconds(const Json& step) const {
  const std::optional<double> same = Found(steps_, DumpJson(step));
  return same ? same : Found(passes_, step.at("pass").get<std::string>());
}

std::optional<double> StepHistory::EvaluateSeconds(const EvaluateSpec& spec) const {
  return Found(evaluate_, EvaluationKey(spec.dataset, spec.samples));
}

std::optional<double> StepHistory::RunSeconds() const { return run_s_; }

StepHistory HistoryOf(const Store& store, const std::string& model,
                      const std::string& model_sha256) {
  RunQuery query;
  query.model = model;
  query.sort = {{.field = "id", .is_descending = true}};
  query.limit = kHistoryRuns;
  std::vector<Run> runs = store.Runs(query);
  std::ranges::reverse(runs);  // the latest is to win
  return StepHistory(runs, model_sha256);
}

Estimate::Estimate(const JobSpec& spec, const StepHistory& history) {
  if (spec.chains.empty() || spec.search) return;  // a search finds its chains as it goes
  std::vector<std::string> chains = {kBaseline};
  for (const ChainSpec& chain : spec.chains) chains.push_back(chain.name);
  AddSteps(MakePlan(spec), "", history);
  for (const std::string& chain : chains) {
    parts_.push_back({Kind::kEvaluate,
                      "",
                      "evaluate " + chain,
                      history.EvaluateSeconds(spec.evaluate),
                      {chain}});
  }
  if (spec.evaluate.runs == 0) return;
  std::optional<double> timed_s = history.RunSeconds();
  if (timed_s) *timed_s *= static_cast<double>(spec.evaluate.runs);
  for (const std::string& chain : chains) {
    parts_.push_back({Kind::kLatency, "", "latency " + chain, timed_s});
  }
}

// Named as in daemon/flow.h. Gives the chains that end here or below.
std::set<std::string> Estimate::AddSteps(const PlanNode& node, const std::string& above,
                                         const StepHistory& history) {
  std::string label = above;
  const size_t own = parts_.size();
  if (!node.step.pass.empty()) {
    label += (above.empty() ? "" : "+") + node.step.pass;
    Json step = node.step.options;
    step["pass"] = node.step.pass;
    parts_.push_back({Kind::kStep, FirstChain(node), label, history.StepSeconds(step)});
  }
  std::set<std::string> chains(node.chains.begin(), node.chains.end());
  for (const PlanNode& next : node.next) chains.merge(AddSteps(next, label, history));
  if (!node.step.pass.empty()) parts_[own].open = chains;
  return chains;
}

Estimate::Part* Estimate::Find(const Json& line) {
  const std::string step = line.value("step", "");
  const std::string chain = line.value("chain", "");
  const auto found = std::ranges::find_if(
      parts_, [&](const Part& part) { return part.step == step && part.chain == chain; });
  return found == parts_.end() ? nullptr : &*found;
}

void Estimate::Take(const Json& line, double seconds) {
  chains_ended_ = line.value("chains_ended", 0.0);
  chains_ = line.value("chains", 0.0);
  const std::string step = line.value("step", "");
  if (step.starts_with("ended ")) EndChain(step.substr(6), seconds);
  if (Part* part = Find(line)) {
    if (!part->begin_s) part->begin_s = seconds;
    part->fraction = std::max(part->fraction, line.value("fraction", 0.0));
    if (part->fraction >= 1) End(*part, seconds);
  }
  UpdatePercent(seconds);
}

void Estimate::End(Part& part, double seconds) {
  if (part.end_s) return;
  part.fraction = 1;
  part.end_s = seconds;
  if (!part.begin_s) part.begin_s = seconds;
}

// Steps that the chain has not come to, for it failed before, have no other end.
void Estimate::EndChain(const std::string& chain, double seconds) {
  for (Part& part : parts_) {
    if (part.open.erase(chain) == 1 && part.open.empty()) End(part, seconds);
  }
}

// What the part itself tells of its time.
std::optional<double> Estimate::OwnSeconds(const Part& part, double seconds) const {
  if (part.end_s) return *part.end_s - *part.begin_s;
  if (part.begin_s && part.fraction > kFractionMin) {
    return (seconds - *part.begin_s) / part.fraction;
  }
  return part.expected_s;
}

// Of each part; nullopt throughout where none is known.
std::vector<std::optional<double>> Estimate::Weights(double seconds) const {
  std::array<double, 3> sums = {};
  std::array<double, 3> counts = {};
  std::vector<std::optional<double>> weights;
  for (const Part& part : parts_) {
    weights.push_back(OwnSeconds(part, seconds));
    if (!weights.back()) continue;
    sums[static_cast<size_t>(part.kind)] += *weights.back();
    ++counts[static_cast<size_t>(part.kind)];
  }
  const double sum = sums[0] + sums[1] + sums[2];
  const double count = counts[0] + counts[1] + counts[2];
  if (count == 0) return weights;
  for (size_t i = 0; i < parts_.size(); ++i) {
    const size_t kind = static_cast<size_t>(parts_[i].kind);
    if (!weights[i]) weights[i] = counts[kind] > 0 ? sums[kind] / counts[kind] : sum / count;
  }
  return weights;
}

void Estimate::UpdatePercent(double seconds) {
  const std::vector<std::optional<double>> weights = Weights(seconds);
  double done = 0, all = 0;
  for (size_t i = 0; i < parts_.size(); ++i) {
    const double weight = weights[i].value_or(1);
    done += weight * parts_[i].fraction;
    all += weight;
  }
  if (parts_.empty()) {
    done = chains_ended_;
    all = chains_;
  }
  if (all <= 0) return;
  percent_ = std::max(percent_, std::min(kPercentBeforeEndMax, 100 * done / all));
}

std::optional<double> Estimate::SecondsLeft(double seconds) const {
  if (parts_.empty()) {
    if (chains_ended_ <= 0) return std::nullopt;
    return seconds / chains_ended_ * std::max(0.0, chains_ - chains_ended_);
  }
  const std::vector<std::optional<double>> weights = Weights(seconds);
  if (!weights.front()) return std::nullopt;
  // How many steps and evaluations ran side by side so far; timed runs are one after the other.
  double busy_s = 0, together = 0, alone = 0, last_s = 0;
  for (size_t i = 0; i < parts_.size(); ++i) {
    const Part& part = parts_[i];
    const double left = *weights[i] * (1 - part.fraction);
    (part.kind == Kind::kLatency ? alone : together) += left;
    if (part.kind == Kind::kLatency || !part.begin_s) continue;
    busy_s += part.end_s.value_or(seconds) - *part.begin_s;
    last_s = std::max(last_s, part.end_s.value_or(seconds));
  }
  const double width = last_s > 0 ? std::max(1.0, busy_s / last_s) : 1;
  return together / width + alone;
}

}  // namespace pared
