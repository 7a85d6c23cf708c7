#include "daemon/worker.h"

#include <algorithm>
#include <chrono>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <utility>

#include "base/log.h"
#include "config/job_spec.h"
#include "daemon/flow.h"
#include "daemon/judge.h"
#include "evaluator/dataset.h"
#include "evaluator/evaluate.h"
#include "evaluator/executor.h"
#include "evaluator/run_samples.h"
#include "kernels/cpu.h"
#include "model/onnx.h"
#include "passes/plan.h"

namespace pared {
namespace {

constexpr const char* kBaseline = "baseline";
// Where the job names no dataset: enough to see a broken model, few enough for a large one.
constexpr int64_t kRandomSamples = 16;
constexpr size_t kRunsMax = kChainsMax + 1;

bool RanQuantizer(const Json& steps) {
  return std::ranges::any_of(steps,
                             [](const Json& step) { return step.at("pass") == "quantize_int8"; });
}

// One job from its order to its result; the phases stand in Run() in order.
class Session {
 public:
  Session(const WorkOrder& order, const WorkContext& context)
      : order_(order),
        context_(context),
        spec_(ReadJobSpec(order.spec)),
        plan_(MakePlan(spec_)),
        model_(LoadOnnx(order.model)),
        calibration_(order.calibration.empty() ? std::nullopt
                                               : std::optional(Dataset::Open(order.calibration))),
        evaluation_(OpenEvaluation()) {
    if (calibration_) {
      warnings_ = FindRangeMismatch(*calibration_, evaluation_, CallerInputs(model_.graph));
    }
  }

  WorkResult Run() {
    data_ = DescribeData();
    if (calibration_) RecordStates(model_, *calibration_, context_.cancelled);
    MeasureReference();
    RunChains();
    if (context_.cancelled()) throw Error(ErrorCode::kCancelled, "the job was cancelled");
    MeasureLatencies();
    AddRatios();
    WarnOfSlowdown();
    WorkResult result = Collect();
    result.is_complete = true;
    return result;
  }

 private:
  struct Measured {
    ChainResult result;
    Metrics metrics;
    std::filesystem::path path;  // empty: no model came out
  };

  Dataset OpenEvaluation() const {
    if (!order_.evaluation.empty()) return Dataset::Open(order_.evaluation);
    // Inputs that the ranges were made for tell more than noise.
    if (calibration_) return *calibration_;
    const int64_t samples = spec_.evaluate.samples == 0
                                ? kRandomSamples
                                : std::min(spec_.evaluate.samples, kRandomSamples);
    return Dataset::Random(CallerInputs(model_.graph), samples, spec_.seed);
  }

  EvaluateContext Evaluation(const std::string& step) const {
    EvaluateContext evaluation;
    evaluation.dataset = &evaluation_;
    evaluation.samples = spec_.evaluate.samples;
    evaluation.cancelled = context_.cancelled;
    evaluation.progress = [this, step](double fraction) { Report(step, fraction); };
    return evaluation;
  }

  void Report(const std::string& step, double fraction) const {
    const std::lock_guard lock(mutex_);
    context_.report({{"step", step},
                     {"fraction", fraction},
                     {"chains_ended", measured_.size()},
                     {"chains", spec_.chains.size() + 1}});
  }

  // By their digests, so that it can be told whether another run saw the same.
  Json DescribeData() const {
    const bool is_random = order_.evaluation.empty() && !calibration_;
    const bool is_same =
        calibration_ && (order_.evaluation.empty() || order_.evaluation == order_.calibration);
    Json calibration;
    if (calibration_) {
      calibration = {{"dataset", calibration_->name()},
                     {"samples", spec_.calibration.samples},
                     {"sha256", calibration_->Digest()}};
    }
    const std::string digest =
        is_same ? calibration.at("sha256").get<std::string>() : evaluation_.Digest();
    return {{"calibration", calibration},
            {"evaluation",
             {{"dataset", evaluation_.name()},
              {"samples", SampleCount(Evaluation(""))},
              {"random", is_random},
              {"sha256", digest}}}};
  }

  void MeasureReference() {
    const std::string step = "evaluate baseline";
    Report(step, 0);
    const auto begin = std::chrono::steady_clock::now();
    reference_ = RunReference(model_, Evaluation(step));
    Measured measured;
    measured.path = order_.model;
    measured.metrics = EvaluateReference(model_, reference_, Evaluation(step));
    measured.metrics.merge(EvaluateSize(measured.path));
    Record(kBaseline, std::move(measured), begin);
  }

  std::optional<StepCache> OpenCache() const {
    if (order_.cache.empty()) return std::nullopt;
    StepInputs inputs = {.calibration_samples = spec_.calibration.samples, .seed = spec_.seed};
    if (calibration_) inputs.calibration_sha256 = data_.at("calibration").at("sha256");
    return StepCache(
        PassCache(order_.cache, context_.folder.filename().string(), order_.cache_mb << 20),
        inputs);
  }

  void RunChains() {
    FlowContext flow;
    flow.cancelled = context_.cancelled;
    flow.calibration = calibration_ ? &*calibration_ : nullptr;
    flow.calibration_samples = spec_.calibration.samples;
    flow.seed = spec_.seed;
    const std::optional<StepCache> cache = OpenCache();
    flow.cache = cache ? &*cache : nullptr;
    flow.threads = order_.threads;
    flow.progress = [this](const std::string& step, double fraction) { Report(step, fraction); };
    Flow(plan_, flow, [this](const std::string& chain, const Outcome& outcome) {
      if (chain != kBaseline) EndChain(chain, outcome);
    }).Run(model_);
  }

  // The sink: measures accuracy and writes the file. What it throws comes back as the error of
  // a second call.
  void EndChain(const std::string& chain, const Outcome& outcome) {
    const auto begin = std::chrono::steady_clock::now();
    Measured measured;
    measured.result.reports = outcome.reports;
    if (outcome.error != nullptr) {
      if (outcome.error->code() == ErrorCode::kCancelled) return;  // it has not ended
      measured.result.error = ErrorJson(*outcome.error);
      Record(chain, std::move(measured), begin);
      return;
    }
    const std::string step = "evaluate " + chain;
    Report(step, 0);
    measured.metrics = EvaluateAccuracy(*outcome.model, reference_, Evaluation(step));
    measured.result.file = chain + ".onnx";
    measured.path = context_.folder / measured.result.file;
    SaveOnnx(*outcome.model, measured.path);
    measured.metrics.merge(EvaluateSize(measured.path));
    Record(chain, std::move(measured), begin);
  }

  void Record(const std::string& chain, Measured measured,
              std::chrono::steady_clock::time_point begin) {
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - begin;
    ChainResult& result = measured.result;
    result.chain = chain;
    result.steps = ChainSteps(plan_, chain);
    if (result.error.is_null()) {
      result.reports.push_back(
          {{"pass", "evaluate"}, {"seconds", elapsed.count()}, {"report", EvaluationReport()}});
      result.error = Judge(chain, result.steps, measured.metrics);
    }
    LogEvent(
        LogLevel::kInfo, "chain_ended",
        {{"chain", chain},
         {"evaluate_seconds", elapsed.count()},
         {"error", result.error.is_null() ? "" : result.error.at("message").get<std::string>()}});
    {
      const std::lock_guard lock(mutex_);
      measured_.emplace(chain, std::move(measured));
      context_.save(Collect());
    }
    Report("ended " + chain, 1);
  }

  // The error of a chain that ran to its end and is no success all the same; null: it is one.
  Json Judge(const std::string& chain, const Json& steps, Metrics& metrics) const {
    if (RanQuantizer(steps) && metrics.at("int8_weight_share") == 0) {
      return ErrorJson(Error(
          ErrorCode::kUnsupported,
          "quantize_int8 left every weight in float; its report names what it skipped", chain));
    }
    if (chain == kBaseline) return nullptr;
    const bool has_classes =
        evaluation_.has_labels() && evaluation_.task().task != Task::kRetrieval;
    const auto collapse = FindCollapse(metrics, spec_.evaluate, has_classes);
    if (!collapse) return nullptr;
    metrics["degraded"] = 1;
    return {{"code", kDegraded}, {"message", *collapse}, {"where", chain}};
  }

  void WarnOfSlowdown() {
    const Metrics& baseline = measured_.at(kBaseline).metrics;
    for (auto& [chain, measured] : measured_) {
      const auto slowdown = FindSlowdown(measured.metrics, baseline);
      if (!slowdown) continue;
      measured.metrics["slower"] = 1;
      measured.result.reports.back()["report"]["warnings"].push_back(*slowdown);
    }
  }

  Json EvaluationReport() const {
    return {{"dataset", evaluation_.name()},
            {"random_inputs", order_.evaluation.empty() && !calibration_},
            {"warnings", warnings_},
            {"samples", SampleCount(Evaluation(""))},
            {"has_labels", evaluation_.has_labels()}};
  }

  // After the graph: one artifact at a time, read back from disk, and nothing else runs.
  void MeasureLatencies() {
    if (spec_.evaluate.runs == 0) return;
    for (auto& [chain, measured] : measured_) {
      if (measured.path.empty()) continue;
      const std::string step = "latency " + chain;
      measured.metrics.merge(EvaluateLatency(measured.path, Evaluation(step), spec_.evaluate.runs,
                                             spec_.evaluate.threads));
    }
  }

  void AddRatios() {
    const Metrics baseline = measured_.at(kBaseline).metrics;
    for (auto& [chain, measured] : measured_) {
      AddRatio(baseline, "size_bytes", "size_ratio", measured.metrics);
      AddRatio(baseline, "latency_ms_p50", "latency_ratio", measured.metrics);
    }
  }

  static void AddRatio(const Metrics& baseline, const std::string& metric, const std::string& ratio,
                       Metrics& metrics) {
    const auto base = baseline.find(metric);
    const auto own = metrics.find(metric);
    if (base == baseline.end() || own == metrics.end() || base->second == 0) return;
    metrics[ratio] = own->second / base->second;
  }

  // The chains that have ended, in the order of the spec.
  WorkResult Collect() const {
    WorkResult result;
    result.machine = {{"cpu", CpuName()},
                      {"isa", IsaName(SelectedIsa())},
                      {"version", PARED_VERSION},
                      {"threads", spec_.evaluate.threads}};
    result.data = data_;
    std::vector<std::string> chains = {kBaseline};
    for (const ChainSpec& chain : spec_.chains) chains.push_back(chain.name);
    for (const std::string& chain : chains) {
      const auto found = measured_.find(chain);
      if (found == measured_.end()) continue;
      result.runs.push_back(found->second.result);
      result.runs.back().metrics = found->second.metrics;
    }
    return result;
  }

  const WorkOrder& order_;
  const WorkContext& context_;
  const JobSpec spec_;
  const PlanNode plan_;
  const Model model_;
  std::optional<Dataset> calibration_;
  const Dataset evaluation_;
  std::vector<std::string> warnings_;  // of the data
  Json data_;
  Reference reference_;

  mutable std::mutex mutex_;                  // while the graph runs, of what follows
  std::map<std::string, Measured> measured_;  // by chain
};

}  // namespace

void Fields(FieldVisitor& f, WorkOrder& order) {
  f.Required();
  f.Raw("spec", order.spec, "The job's spec.");
  f.Required();
  f.Text("model", order.model, TextRule::kAny, "The ONNX file.");
  f.Text("calibration", order.calibration, TextRule::kAny, "The calibration dataset's folder.");
  f.Text("evaluation", order.evaluation, TextRule::kAny, "The evaluation dataset's folder.");
  f.Text("cache", order.cache, TextRule::kAny, "Where results of passes are kept.");
  f.Integer("cache_mb", order.cache_mb, {0, 1 << 24}, "A longer result is not kept.");
  f.Integer("threads", order.threads, {1, 1024}, "Threads of the flow graph and of passes.");
  f.Integer("memory_mb", order.memory_mb, {0, 1 << 24}, "The limit it runs under; 0: none.");
  f.Flag("confine", order.confine, "Give up all rights that the work does not need.");
}

void Fields(FieldVisitor& f, ChainResult& result) {
  f.Required();
  f.Text("chain", result.chain, TextRule::kName, "The chain's name.");
  f.Text("file", result.file, TextRule::kAny, "The model's file in the folder.");
  f.Raw("steps", result.steps, "The passes with all their options.");
  f.Raw("reports", result.reports, "What the passes and the evaluation said.");
  f.Raw("metrics", result.metrics, "Metric name to number.");
  f.Raw("error", result.error, "Why the chain failed.");
}

void Fields(FieldVisitor& f, WorkResult& result) {
  f.List("runs", result.runs, kRunsMax, "One for each chain.");
  f.Raw("machine", result.machine, "Where it was measured.");
  f.Raw("data", result.data, "The datasets that were read, by their digests.");
  f.Flag("is_complete", result.is_complete, "Whether all chains are here, and measured.");
}

Json ErrorJson(const Error& error) {
  return {{"code", ErrorCodeName(error.code())},
          {"message", error.message()},
          {"where", error.where()}};
}

WorkResult Work(const WorkOrder& order, const WorkContext& context) {
  return Session(order, context).Run();
}

}  // namespace pared
