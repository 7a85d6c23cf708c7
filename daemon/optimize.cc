// `pared optimize MODEL`: one chain over a model file, without a daemon. The plan and the flow are
// those of a job, so that a chain gives here the file that it gives there.

#include <tbb/global_control.h>

#include <algorithm>
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
#include "evaluator/dataset.h"
#include "evaluator/evaluate.h"
#include "evaluator/run_samples.h"
#include "model/onnx.h"
#include "model/tflite.h"
#include "passes/plan.h"

namespace pared {
namespace {

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
  f.Text("out", o.out, TextRule::kAny, "Where the optimized model is written.");
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
  throw Error(ErrorCode::kInvalidArgument,
              step.pass + " needs calibration data: name a dataset's folder", "--calibration");
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

// What a run says where somebody asked for more samples than there are.
Json ShortageOf(const OptimizeOptions& options, const Dataset& calibration) {
  Json warnings = Json::array();
  if (options.samples == OptimizeOptions{}.samples) return warnings;
  if (const auto shortage = FindShortage("--samples", options.samples, calibration)) {
    warnings.push_back(*shortage);
    LogEvent(LogLevel::kWarning, "warning", {{"message", *shortage}});
  }
  return warnings;
}

}  // namespace

void RunOptimize(const std::vector<std::string>& arguments, std::ostream& out) {
  SetLogLevel(LogLevel::kWarning);  // steps are told of in the answer
  const auto options = ReadArguments<OptimizeOptions>(arguments);
  const PlanNode plan = MakePlan(SpecOf(options));
  Model model = LoadModel(options.model);
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
  context.scratch = std::filesystem::absolute(options.out).parent_path();
  const tbb::global_control threads(tbb::global_control::max_allowed_parallelism,
                                    static_cast<size_t>(context.threads));
  Outcome outcome;
  Flow(plan, context, [&](const std::string& chain, const Outcome& ended) {
    if (chain == kChain) outcome = ended;
  }).Run(std::move(model));
  if (outcome.error != nullptr) throw *outcome.error;
  SaveOnnx(*outcome.model, options.out);
  LogWarnings(outcome.reports);
  const auto bytes_of = [](const std::string& path) {
    return static_cast<double>(FileBytes(path));
  };
  out << DumpJson({{"model", options.model},
                   {"out", options.out},
                   {"size_bytes", bytes_of(options.out)},
                   {"size_ratio", bytes_of(options.out) / bytes_of(options.model)},
                   {"steps", ChainSteps(plan, kChain)},
                   {"reports", outcome.reports},
                   {"warnings", warnings}})
      << "\n";
}

Json OptimizeFlags() { return DescribeFields<OptimizeOptions>(); }

}  // namespace pared
