// `pared optimize MODEL`: one chain over a model file, without a daemon. The plan and the flow are
// those of a job, so that a chain gives here the file that it gives there.

#include <tbb/global_control.h>

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <optional>
#include <ostream>
#include <thread>

#include "base/error.h"
#include "base/log.h"
#include "config/job_spec.h"
#include "daemon/arguments.h"
#include "daemon/commands.h"
#include "daemon/flow.h"
#include "daemon/judge.h"
#include "daemon/tflite_proof.h"
#include "evaluator/dataset.h"
#include "evaluator/evaluate.h"
#include "evaluator/run_samples.h"
#include "model/onnx.h"
#include "model/tflite.h"
#include "passes/plan.h"
#include "storage/artifacts.h"

namespace pared {
namespace {

namespace fs = std::filesystem;

constexpr const char* kChain = "optimize";

struct OptimizeOptions {
  std::string model, out, calibration;
  Json passes = Json::array();
  std::vector<std::string> pass;
  int64_t samples = CalibrationSpec{}.samples;
  int64_t threads = 0;
  int64_t seed = 0;
};

void Fields(FieldVisitor& f, OptimizeOptions& o) {
  f.Required();
  f.Text("model", o.model, TextRule::kAny, "The model's file, ONNX or TensorFlow Lite.");
  f.Required();
  f.Text("out", o.out, TextRule::kAny,
         "Where the optimized model is written: as TensorFlow Lite where the name ends with "
         ".tflite, else as ONNX.");
  f.Raw("passes", o.passes, "The chain as in a job: [{\"pass\": NAME, options ...}, ...].");
  f.TextList("pass", o.pass, TextRule::kName,
             "A pass with default options, after those of --passes; repeat it for more.");
  f.Text("calibration", o.calibration, TextRule::kAny,
         "A dataset's folder, for passes that look at data.");
  f.Integer("samples", o.samples, {0, 1'000'000},
            "Calibrate on the first so many samples; 0 takes all.");
  f.Integer("threads", o.threads, {0, 1024},
            "Threads of the passes; 0 takes as many as there are.");
  f.Integer("seed", o.seed, {0, std::numeric_limits<int64_t>::max()},
            "Seeds everything random in the passes.");
}

// Throws what is wrong with a pass at the flag that names it.
void CheckPass(const Json& entry, const std::string& flag, const OptimizeOptions& options) {
  JobSpec spec;
  spec.calibration.dataset = "calibration";
  const Step step = BindStep(entry, flag, spec);
  if (!step.needs_calibration || !options.calibration.empty()) return;
  throw Error(ErrorCode::kInvalidArgument, WhatCalibrates(step) + ": name a dataset's folder",
              "--calibration");
}

// The options as a job of one chain; the plan does not care where the data lies.
JobSpec SpecOf(const OptimizeOptions& options) {
  if (!options.passes.is_array()) {
    throw Error(ErrorCode::kInvalidArgument, "must be a JSON array of passes", "--passes");
  }
  JobSpec spec;
  if (!options.calibration.empty()) spec.calibration.dataset = "calibration";
  ChainSpec chain = {kChain, {options.passes.begin(), options.passes.end()}};
  for (size_t i = 0; i < chain.passes.size(); ++i) {
    CheckPass(chain.passes[i], "--passes#/" + std::to_string(i), options);
  }
  for (const std::string& name : options.pass) {
    chain.passes.push_back({{"pass", name}});
    CheckPass(chain.passes.back(), "--pass#", options);
  }
  if (chain.passes.empty()) {
    throw Error(ErrorCode::kInvalidArgument, "name at least one pass: --pass NAME", "--passes");
  }
  spec.chains = {std::move(chain)};
  return spec;
}

// The answer holds them too, but is long; a script sees these in its log.
void LogWarnings(const Json& reports) {
  for (const Json& step : reports) {
    for (const Json& warning : step.at("report").value("warnings", Json::array())) {
      LogEvent(LogLevel::kWarning, "warning", {{"pass", step.at("pass")}, {"message", warning}});
    }
  }
}

void Warn(const std::string& warning, Json& warnings) {
  warnings.push_back(warning);
  LogEvent(LogLevel::kWarning, "warning", {{"message", warning}});
}

// What a run says where somebody asked for more samples than there are.
Json ShortageOf(const OptimizeOptions& options, const Dataset& calibration) {
  Json warnings = Json::array();
  if (options.samples == OptimizeOptions{}.samples) return warnings;
  if (const auto shortage = FindShortage("--samples", options.samples, calibration)) {
    Warn(*shortage, warnings);
  }
  return warnings;
}

bool IsTfliteName(const fs::path& path) {
  std::string extension = path.extension().string();
  for (char& c : extension) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return extension == ".tflite";
}

// Writes the model and returns what there is to tell of that. A TensorFlow Lite file is written
// aside until it has been compared.
TfliteProof Save(const Model& model, const OptimizeOptions& options, const Dataset* calibration) {
  if (!IsTfliteName(options.out)) {
    SaveOnnx(model, options.out);
    return {};
  }
  const Dataset data =
      calibration != nullptr ? *calibration : OpenDataset("", CallerInputs(model.graph));
  EvaluateContext context;
  context.dataset = &data;
  context.samples = options.samples;
  const fs::path out = fs::absolute(options.out);
  const TemporaryFolder aside(out.parent_path());
  TfliteProof proof = WriteTflite(model, aside.path() / out.filename(), context);
  if (proof.error) throw *proof.error;
  fs::rename(aside.path() / out.filename(), out);
  return proof;
}

}  // namespace

void RunOptimize(const std::vector<std::string>& arguments, std::ostream& out) {
  SetLogLevel(LogLevel::kWarning);  // steps are told of in the answer
  const auto options = ReadArguments<OptimizeOptions>(arguments);
  const PlanNode plan = MakePlan(SpecOf(options));
  Model model = LoadModel(options.model);
  // Before it may be written over.
  const double model_bytes = static_cast<double>(FileBytes(options.model));
  std::optional<Dataset> calibration;
  Json warnings = Json::array();
  if (!options.calibration.empty()) {
    calibration = Dataset::Open(options.calibration);
    warnings = ShortageOf(options, *calibration);
    RecordStates(model, *calibration, [] { return false; });
  }
  FlowContext context;
  context.calibration = calibration ? &*calibration : nullptr;
  context.calibration_samples = options.samples;
  context.seed = options.seed;
  context.threads = options.threads == 0 ? std::max<int64_t>(1, std::thread::hardware_concurrency())
                                         : options.threads;
  context.scratch = fs::absolute(options.out).parent_path();
  const tbb::global_control threads(tbb::global_control::max_allowed_parallelism,
                                    static_cast<size_t>(context.threads));
  Outcome outcome;
  Flow(plan, context, [&](const std::string& chain, const Outcome& ended) {
    if (chain == kChain) outcome = ended;
  }).Run(std::move(model));
  if (outcome.error != nullptr) throw *outcome.error;
  const TfliteProof saved = Save(*outcome.model, options, context.calibration);
  LogWarnings(outcome.reports);
  for (const std::string& warning : saved.warnings) Warn(warning, warnings);
  const double bytes = static_cast<double>(FileBytes(options.out));
  Json answer = {{"model", options.model},
                 {"out", options.out},
                 {"size_bytes", bytes},
                 {"size_ratio", bytes / model_bytes},
                 {"steps", ChainSteps(plan, kChain)},
                 {"reports", outcome.reports},
                 {"warnings", warnings}};
  answer.update(Json(saved.metrics));
  out << DumpJson(answer) << "\n";
}

Json OptimizeFlags() { return DescribeFields<OptimizeOptions>(); }

}  // namespace pared
