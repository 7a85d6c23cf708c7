// What a job asks for, as its submitter wrote it and as it is stored.
//
// The passes of a chain stay JSON here; passes/plan.h binds them to their options.

#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "config/fields.h"
#include "config/search_spec.h"

namespace pared {

struct ChainSpec {
  std::string name;          // [a-z0-9][a-z0-9._-]*, not "baseline", unique in the job
  std::vector<Json> passes;  // each {"pass": NAME, options...}
};

struct CalibrationSpec {
  std::string dataset;    // empty: no calibration data
  int64_t samples = 128;  // the first so many of the dataset; 0: all
};

struct EvaluateSpec {
  std::string dataset;  // empty: no labels; fidelity on random inputs, which the report says
  int64_t samples = 0;  // 0: all
  int64_t runs = 50;    // timed runs of each artifact; 0: no latency
  int64_t threads = 1;  // of a timed run
  // Floors: a chain below one has collapsed and is no success (docs/job_spec.md).
  double min_sqnr_db = 3;      // noise is half the signal; no accuracy survives it
  double min_agreement = 0.5;  // where the dataset has labels
  // A chain that loses more of its task's accuracy than this has not reached the job's goal.
  double max_accuracy_drop = 100;  // 100: no bound
};

// How the models that come out are kept; kTflite: as kOnnx, and besides as TensorFlow Lite.
enum class ArtifactForm { kOnnx, kPacked, kTflite };

struct LimitsSpec {
  int64_t memory_mb = 0;  // 0: the daemon's setting
  int64_t time_s = 0;     // 0: the daemon's setting
};

struct JobSpec {
  std::string model;         // a registered model's name
  std::string model_sha256;  // of the model's bytes; filled in when the job is submitted
  std::string experiment = "default";
  CalibrationSpec calibration;
  std::vector<ChainSpec> chains;  // at least one
  EvaluateSpec evaluate;
  std::optional<SearchSpec> search;  // the chains are what it starts from
  LimitsSpec limits;
  ArtifactForm artifact = ArtifactForm::kOnnx;
  bool cache = true;     // false: every pass runs, whatever is kept of earlier jobs
  int64_t seed = 0;      // of everything random in the job
  int64_t priority = 0;  // -100 to 100; the greatest runs first
};

// Limits of a spec: chains a job, passes a chain.
constexpr size_t kChainsMax = 64;
constexpr size_t kPassesMax = 32;

// EvaluateSpec::max_accuracy_drop that asks nothing.
constexpr double kAccuracyDropMax = 100;

// Throws kInvalidArgument at the JSON Pointer of the fault. Does not look inside passes.
JobSpec ReadJobSpec(const Json& json);

// The canonical form: all fields, defaults filled in (those of passes are filled in by the plan).
Json WriteJobSpec(const JobSpec& spec);

// DescribeFields of a spec.
Json DescribeJobSpec();

}  // namespace pared
