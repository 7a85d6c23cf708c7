#include "config/job_spec.h"

#include <set>
#include <string>
#include <utility>

#include "base/error.h"

namespace pared {
void Fields(FieldVisitor& f, ChainSpec& c) {
  f.Required();
  f.Text("name", c.name, TextRule::kName, "Names the chain in the job; not \"baseline\".");
  f.Required();
  f.RawList("passes", c.passes, kPassesMax,
            "What is done to the model, in order: {\"pass\": NAME, and the options of that pass}.");
}

void Fields(FieldVisitor& f, CalibrationSpec& c) {
  f.Text("dataset", c.dataset, TextRule::kName,
         "The dataset whose samples passes look at; without it passes that need one are refused.");
  f.Integer("samples", c.samples, {0, 1'000'000}, "The first so many samples; 0 takes all.");
}

void Fields(FieldVisitor& f, EvaluateSpec& e) {
  f.Text("dataset", e.dataset, TextRule::kName,
         "The dataset that results are measured on; without it random inputs, and no accuracy.");
  f.Integer("samples", e.samples, {0, 100'000'000}, "The first so many samples; 0 takes all.");
  f.Integer("runs", e.runs, {0, 100'000}, "Timed runs of each model file; 0 measures no latency.");
  f.Integer("threads", e.threads, {1, 1024}, "Threads of a timed run.");
  f.Number(
      "min_sqnr_db", e.min_sqnr_db, {-200, 200},
      "A chain whose fidelity falls below is degraded: its run carries the reason as an error.");
  f.Number("min_agreement", e.min_agreement, {0, 1},
           "Likewise for the share of samples with the input model's class; asked only where the "
           "dataset has labels.");
  f.Number("max_accuracy_drop", e.max_accuracy_drop, {0, kAccuracyDropMax},
           "A chain that loses more accuracy than this, by its dataset's task, carries the error "
           "goal_not_met, and so does the job where no chain is better; 100 asks nothing.");
}

void Fields(FieldVisitor& f, LimitsSpec& l) {
  f.Integer("memory_mb", l.memory_mb, {0, 1 << 24},
            "The job ends as failed beyond so much memory; 0 takes the daemon's setting.");
  f.Integer("time_s", l.time_s, {0, 31'536'000},
            "The job ends as failed after so long; 0 takes the daemon's setting.");
}

void Fields(FieldVisitor& f, JobSpec& s) {
  f.Required();
  f.Text("model", s.model, TextRule::kName, "The registered model that the job starts from.");
  f.Text("model_sha256", s.model_sha256, TextRule::kName,
         "The SHA-256 that the model must have; the job keeps to these bytes when the model is "
         "registered anew.");
  f.Text("experiment", s.experiment, TextRule::kName, "The series of runs that these belong to.");
  f.Object("calibration", s.calibration, "The data that passes calibrate on.");
  f.Required();
  f.List("chains", s.chains, kChainsMax, "Lists of passes, each of which gives one model.");
  f.Object("evaluate", s.evaluate, "How each chain's model is measured.");
  SearchSpec search = s.search.value_or(SearchSpec{});
  f.Object("search", search,
           "Look for the best settings of the chains in place of running each as it stands.");
  s.search = std::move(search);  // whether one was asked for is seen by who reads and writes
  f.Object("limits", s.limits, "What the job may use.");
  f.Choice("artifact", s.artifact, {"onnx", "packed", "tflite"},
           "How the models are kept: as ONNX files; packed, which takes little room where most "
           "weights are zero and is expanded when they are fetched; or as ONNX files and as "
           "TensorFlow Lite files that were compared with them.");
  f.Flag("cache", s.cache,
         "Use what passes have made before of the same model with the same options; false runs "
         "every pass.");
  f.Integer("seed", s.seed, {0, std::numeric_limits<int64_t>::max()},
            "Seeds everything random in the job.");
  f.Integer("priority", s.priority, {-100, 100},
            "Of the jobs that wait, the one with the greatest runs first; of equals the oldest.");
}

namespace {

[[noreturn]] void Refuse(const std::string& pointer, const std::string& message) {
  throw Error(ErrorCode::kInvalidArgument, message, pointer);
}

// A latency that nobody measures cannot be looked for.
void CheckLatencies(const JobSpec& spec) {
  const auto check = [&](const auto& items, const std::string& pointer) {
    for (size_t i = 0; i < items.size(); ++i) {
      if (spec.evaluate.runs > 0 || !items[i].metric.starts_with("latency_")) continue;
      Refuse(pointer + "/" + std::to_string(i) + "/metric",
             items[i].metric + " is not measured: /evaluate/runs is 0");
    }
  };
  check(spec.search->objectives, "/search/objectives");
  check(spec.search->bounds, "/search/bounds");
}

// In a search the largest drop is a bound like the others.
void BoundAccuracy(JobSpec& spec) {
  const double drop_max = spec.evaluate.max_accuracy_drop;
  if (drop_max >= kAccuracyDropMax) return;
  BoundSpec bound;
  bound.metric = "accuracy_drop";
  bound.max = drop_max;
  for (const BoundSpec& other : spec.search->bounds) {
    if (other.metric == bound.metric && other.max == bound.max) return;
  }
  spec.search->bounds.push_back(std::move(bound));
}

}  // namespace

JobSpec ReadJobSpec(const Json& json) {
  JobSpec spec;
  ReadFields(json, "", spec);
  if (json.contains("search")) {
    CompleteSearch(*spec.search, "/search");
    CheckLatencies(spec);
    BoundAccuracy(spec);
  } else {
    spec.search.reset();
  }
  if (spec.chains.empty()) Refuse("/chains", "must have at least one chain");
  std::set<std::string> names;
  for (size_t i = 0; i < spec.chains.size(); ++i) {
    const ChainSpec& chain = spec.chains[i];
    const std::string pointer = "/chains/" + std::to_string(i);
    if (chain.name == "baseline") {
      Refuse(pointer + "/name", "\"baseline\" is the model as it comes in; every job measures it");
    }
    if (!names.insert(chain.name).second) {
      Refuse(pointer + "/name", "two chains are named \"" + chain.name + "\"");
    }
    if (chain.passes.empty()) Refuse(pointer + "/passes", "must have at least one pass");
  }
  return spec;
}

Json WriteJobSpec(const JobSpec& spec) {
  Json json = WriteFields(spec);
  if (!spec.search) json.erase("search");
  return json;
}

Json DescribeJobSpec() { return DescribeFields<JobSpec>(); }

}  // namespace pared
