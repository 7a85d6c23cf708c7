#include "daemon/worker.h"

#include <algorithm>
#include <chrono>
#include <map>
#include <mutex>
#include <optional>
#include <utility>

#include "base/log.h"
#include "config/job_spec.h"
#include "daemon/flow.h"
#include "daemon/judge.h"
#include "daemon/layer_report.h"
#include "daemon/search.h"
#include "daemon/tflite_proof.h"
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
        model_(LoadOnnx(order.model)),
        calibration_(order.calibration.empty() ? std::nullopt
                                               : std::optional(Dataset::Open(order.calibration))),
        evaluation_(OpenEvaluation()) {
    if (calibration_) {
      warnings_ = FindRangeMismatch(*calibration_, evaluation_, CallerInputs(model_.graph));
      // The default means as many as there are.
      if (spec_.calibration.samples != CalibrationSpec{}.samples) {
        Warn(FindShortage("calibration.samples", spec_.calibration.samples, *calibration_));
      }
    }
    Warn(FindShortage("evaluate.samples", spec_.evaluate.samples, evaluation_));
    Warn(FindRepeats(evaluation_, CallerInputs(model_.graph)));
  }

  WorkResult Run() {
    data_ = DescribeData();
    MeasureReference();
    if (calibration_ && !unsupported_) {
      RecordStates(model_, *calibration_, context_.cancelled);
    }
    if (spec_.search) {
      RunSearch();
    } else {
      RunAllChains();
    }
    WorkResult result = Collect();
    result.is_complete = true;
    return result;
  }

 private:
  struct Measured {
    ChainResult result;
    Metrics metrics;
    std::filesystem::path path;         // empty: no model came out
    std::optional<TfliteProof> tflite;  // where the job asks for that form
  };

  void CheckCancelled() const {
    if (context_.cancelled()) throw Error(ErrorCode::kCancelled, "the job was cancelled");
  }

  void RunAllChains() {
    RunChains(MakePlan(spec_));
    CheckCancelled();
    for (auto& [chain, measured] : measured_) MeasureLatency(chain, measured);
    for (auto& [chain, measured] : measured_) MeasureLayers(chain, measured);
    for (auto& [chain, measured] : measured_) AddRatios(measured);
    for (auto& [chain, measured] : measured_) WarnOfSlowdown(measured);
  }

  // One candidate after the other: each is chosen by what the ones before it gave.
  void RunSearch() {
    std::vector<SearchRun> history(order_.history.size());
    for (size_t i = 0; i < history.size(); ++i) ReadFields(order_.history[i], "", history[i]);
    const SearchRun baseline = MeasureBaseline(history);
    Search search(spec_, std::move(history));
    search.Add(baseline);
    search.CheckMetrics();
    while (const std::optional<SearchCandidate> candidate = search.Next()) {
      CheckCancelled();
      tried_ = search.candidate_count();
      search.Add(Try(*candidate));
    }
  }

  // Its latency is the one that earlier candidates were compared with, where there are any.
  SearchRun MeasureBaseline(const std::vector<SearchRun>& history) {
    Measured& baseline = measured_.at(kBaseline);
    const auto known = std::ranges::find(history, kBaseline, &SearchRun::chain);
    if (known != history.end()) {
      baseline.metrics = known->metrics.get<Metrics>();
    } else {
      MeasureLatency(kBaseline, baseline);
      MeasureLayers(kBaseline, baseline);
      AddRatios(baseline);
      Keep(baseline);
    }
    return {0, kBaseline, nullptr, Json(baseline.metrics), nullptr};
  }

  SearchRun Try(const SearchCandidate& candidate) {
    const auto begin = std::chrono::steady_clock::now();
    const std::string& name = candidate.chain.name;
    JobSpec spec = spec_;
    spec.chains = {candidate.chain};
    Report(name, 0,
           {{"begins",
             {{"chain", name}, {"steps", candidate.chain.passes}, {"search", candidate.about}}}});
    RunChains(MakePlan(spec));
    CheckCancelled();
    Measured& measured = measured_.at(name);
    if (measured.result.error.is_null()) {
      MeasureLatency(name, measured);
      MeasureLayers(name, measured);
    }
    AddRatios(measured);
    WarnOfSlowdown(measured);
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - begin;
    measured.result.search = candidate.about;
    measured.result.search["seconds"] = elapsed.count();
    Keep(measured);
    SearchRun run = {0, name, measured.result.search, Json(measured.metrics),
                     measured.result.error};
    measured_.erase(name);
    return run;
  }

  void Keep(const Measured& measured) {
    WorkResult one = Described();
    one.runs.push_back(measured.result);
    one.runs.back().metrics = measured.metrics;
    context_.keep(one);
    Report("kept " + measured.result.chain, 1, {{"kept", measured.result.chain}});
  }

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

  // `more`: what else the line says.
  void Report(const std::string& step, double fraction, Json more = Json::object()) const {
    const std::lock_guard lock(mutex_);
    more.update({{"step", step}, {"fraction", fraction}});
    if (spec_.search) {
      more.update({{"chains_ended", tried_}, {"chains", spec_.search->budget.candidates}});
    } else {
      more.update({{"chains_ended", measured_.size()}, {"chains", spec_.chains.size() + 1}});
    }
    context_.report(more);
  }

  void ReportStep(const StepProgress& progress) const {
    Json more = {{"chain", progress.chain}};
    if (progress.layer.is_object()) more.update(progress.layer);
    Report(progress.step, progress.fraction, std::move(more));
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
    Measured measured;
    measured.path = order_.model;
    try {
      reference_ = RunReference(model_, Evaluation(step));
      Warn(FindNonFinite(reference_.metrics));
      measured.metrics = EvaluateOutputs(reference_, reference_, Evaluation(step));
    } catch (const Error& error) {
      // What needs no run is done all the same; a search and a bound need it.
      const bool is_bound = spec_.search || spec_.evaluate.max_accuracy_drop < kAccuracyDropMax;
      if (error.code() != ErrorCode::kUnsupported || is_bound) throw;
      unsupported_ = error;
      Warn("nothing was evaluated, for pared cannot run the model: " + std::string(error.what()));
      measured.metrics = EvaluateWeights(model_);
    }
    measured.metrics.merge(EvaluateSize(measured.path));
    baseline_ = measured.metrics;
    CheckAccuracy();
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

  void RunChains(const PlanNode& plan) {
    FlowContext flow;
    flow.cancelled = context_.cancelled;
    flow.calibration = calibration_ ? &*calibration_ : nullptr;
    flow.calibration_samples = spec_.calibration.samples;
    flow.seed = spec_.seed;
    const std::optional<StepCache> cache = OpenCache();
    flow.cache = cache ? &*cache : nullptr;
    flow.shared = &shared_;
    flow.threads = order_.threads;
    flow.scratch = context_.folder;
    flow.progress = [this](const StepProgress& progress) { ReportStep(progress); };
    Flow(plan, flow, [&](const std::string& chain, const Outcome& outcome) {
      if (chain != kBaseline) EndChain(chain, ChainSteps(plan, chain), outcome);
    }).Run(model_);
  }

  // The sink: measures accuracy and writes the file. What it throws comes back as the error of
  // a second call.
  void EndChain(const std::string& chain, Json steps, const Outcome& outcome) {
    const auto begin = std::chrono::steady_clock::now();
    Measured measured;
    measured.result.steps = std::move(steps);
    measured.result.reports = outcome.reports;
    if (outcome.error != nullptr) {
      if (outcome.error->code() == ErrorCode::kCancelled) return;  // it has not ended
      measured.result.error = ErrorJson(*outcome.error);
      Record(chain, std::move(measured), begin);
      return;
    }
    const std::string step = "evaluate " + chain;
    Report(step, 0);
    measured.metrics = unsupported_
                           ? EvaluateWeights(*outcome.model)
                           : EvaluateAccuracy(*outcome.model, reference_, Evaluation(step));
    measured.result.file = chain + ".onnx";
    measured.path = context_.folder / measured.result.file;
    SaveOnnx(*outcome.model, measured.path);
    measured.metrics.merge(EvaluateSize(measured.path));
    if (spec_.artifact == ArtifactForm::kTflite) AddTflite(*outcome.model, chain, measured);
    Record(chain, std::move(measured), begin);
  }

  // The ONNX model, which is what was measured, stays whatever comes of this.
  void AddTflite(const Model& model, const std::string& chain, Measured& measured) const {
    const std::string file = chain + ".tflite";
    measured.tflite = WriteTflite(model, context_.folder / file, Evaluation("evaluate " + chain));
    if (!measured.tflite->error) measured.result.tflite = file;
    measured.metrics.merge(measured.tflite->metrics);
  }

  // What came of it goes into the evaluation's report. A model that has no such form is a success.
  static void ReportTflite(TfliteProof proof, ChainResult& result) {
    Json& report = result.reports.back()["report"];
    for (std::string& warning : proof.warnings) report["warnings"].push_back(std::move(warning));
    report["tflite"] = std::move(proof.report);
    if (!proof.error) return;
    report["tflite"]["error"] = ErrorJson(*proof.error);
    report["warnings"].push_back("no TensorFlow Lite file was kept: " +
                                 std::string(proof.error->what()));
    const bool is_refused = proof.error->code() == ErrorCode::kUnsupported;
    if (result.error.is_null() && !is_refused) result.error = ErrorJson(*proof.error);
  }

  void Record(const std::string& chain, Measured measured,
              std::chrono::steady_clock::time_point begin) {
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - begin;
    ChainResult& result = measured.result;
    result.chain = chain;
    if (result.error.is_null()) {
      result.reports.push_back(
          {{"pass", "evaluate"}, {"seconds", elapsed.count()}, {"report", EvaluationReport()}});
      if (const auto drop = FindAccuracyDrop(measured.metrics, baseline_)) {
        measured.metrics["accuracy_drop"] = drop->drop;
      }
      result.error = Judge(chain, result.steps, measured.metrics);
      if (measured.tflite) ReportTflite(*std::move(measured.tflite), result);
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
    if (unsupported_) {
      return {{"code", kNotEvaluated},
              {"message",
               "was not evaluated, for pared cannot run the model: " + unsupported_->message()},
              {"where", unsupported_->where()}};
    }
    const bool has_classes =
        evaluation_.has_labels() && evaluation_.task().task != Task::kRetrieval;
    const auto collapse = FindCollapse(metrics, spec_.evaluate, has_classes);
    if (collapse) {
      metrics["degraded"] = 1;
      return {{"code", kDegraded}, {"message", *collapse}, {"where", chain}};
    }
    // In a search the drop is one bound of several, which says where to look on.
    const double drop_max = spec_.evaluate.max_accuracy_drop;
    if (spec_.search || drop_max >= kAccuracyDropMax) return nullptr;
    const double drop = metrics.at("accuracy_drop");
    if (drop <= drop_max) return nullptr;
    return {{"code", kGoalMissed},
            {"message", "accuracy_drop is " + Json(drop).dump() + ", above max_accuracy_drop, " +
                            Json(drop_max).dump()},
            {"where", chain}};
  }

  void CheckAccuracy() const {
    if (spec_.evaluate.max_accuracy_drop >= kAccuracyDropMax) return;
    if (FindAccuracyDrop(baseline_, baseline_)) return;
    throw Error(ErrorCode::kInvalidArgument,
                "the evaluation data, " + evaluation_.name() +
                    ", has no labels that accuracy can be measured by",
                "/evaluate/max_accuracy_drop");
  }

  void WarnOfSlowdown(Measured& measured) {
    const auto slowdown = FindSlowdown(measured.metrics, measured_.at(kBaseline).metrics);
    if (!slowdown) return;
    measured.metrics["slower"] = 1;
    measured.result.reports.back()["report"]["warnings"].push_back(*slowdown);
  }

  void Warn(const std::optional<std::string>& warning) {
    if (warning) warnings_.push_back(*warning);
  }

  Json EvaluationReport() const {
    return {{"dataset", evaluation_.name()},
            {"random_inputs", order_.evaluation.empty() && !calibration_},
            {"warnings", warnings_},
            {"samples", SampleCount(Evaluation(""))},
            {"has_labels", evaluation_.has_labels()}};
  }

  // Outside of the graph: one artifact at a time, read back from disk, and nothing else runs.
  void MeasureLatency(const std::string& chain, Measured& measured) {
    if (spec_.evaluate.runs == 0 || unsupported_) return;
    const std::string step = "latency " + chain;
    if (!measured.path.empty()) {
      Report(step, 0);
      measured.metrics.merge(EvaluateLatency(measured.path, Evaluation(step), spec_.evaluate.runs,
                                             spec_.evaluate.threads));
    }
    Report(step, 1);
  }

  // A few runs more, so that it can be told where the time and the loss are.
  void MeasureLayers(const std::string& chain, Measured& measured) {
    if (measured.path.empty() || measured.result.reports.empty() || unsupported_) return;
    Report("layers " + chain, 0);
    CheckCancelled();
    LayerReportContext layers;
    layers.dataset = &evaluation_;
    layers.reference = chain == kBaseline ? nullptr : &model_;
    layers.runs = std::min<int64_t>(layers.runs, spec_.evaluate.runs);
    layers.threads = spec_.evaluate.threads;
    measured.result.reports.back()["report"].update(LayerReport(measured.path, layers));
  }

  void AddRatios(Measured& measured) {
    pared::AddRatios(measured_.at(kBaseline).metrics, measured.metrics);
  }

  WorkResult Described() const {
    WorkResult result;
    result.machine = {{"cpu", CpuName()},
                      {"isa", IsaName(SelectedIsa())},
                      {"version", PARED_VERSION},
                      {"threads", spec_.evaluate.threads}};
    result.data = data_;
    return result;
  }

  // The chains that have ended, in the order of the spec.
  WorkResult Collect() const {
    WorkResult result = Described();
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
  const Model model_;
  std::optional<Dataset> calibration_;
  const Dataset evaluation_;
  std::vector<std::string> warnings_;  // of the data
  Json data_;
  Reference reference_;
  std::optional<Error> unsupported_;  // why the model cannot be run; then there is no reference
  Metrics baseline_;                  // without latency
  int64_t tried_ = 0;                 // candidates of the search
  SharedStatistics shared_;

  mutable std::mutex mutex_;                  // while the graph runs, of what follows
  std::map<std::string, Measured> measured_;  // by chain
};

}  // namespace

WorkResult Work(const WorkOrder& order, const WorkContext& context) {
  return Session(order, context).Run();
}

}  // namespace pared
