// What a batch asks for: one job for each model file that a glob finds, and what counts as a change
// between two nights.
//
// A batch is written as a job spec that names `models` in place of `model`, with the fields below
// beside those of the job.

#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "config/job_spec.h"

namespace pared {

// Other values for the models that match: its objects are merged into the batch's, its chains
// replace them.
struct BatchRule {
  std::vector<std::string> models;                     // globs over the model's name or path
  Json calibration, evaluate, limits, chains, search;  // null: as the batch says
};

enum class Better { kHigher, kLower };

// A metric has changed where it differs by more than absolute + relative * |before|.
struct Threshold {
  std::string metric;
  Better better = Better::kHigher;
  double absolute = 0, relative = 0;
};

struct BatchSpec {
  std::string name = "nightly";  // the series: its nights are compared
  std::string root;              // a model root; empty: the only one that there is
  std::vector<std::string> models = {"*.onnx", "*.tflite"};
  std::vector<std::string> exclude;
  std::vector<BatchRule> rules;  // the first that matches a model holds
  std::vector<Threshold> thresholds = {
      {"top1", Better::kHigher, 0.005, 0},
      {"sqnr_db", Better::kHigher, 1, 0},
      {"size_bytes", Better::kLower, 0, 0.01},
      {"latency_ms_p50", Better::kLower, 0, 0.1},
  };
  bool force = false;    // run what has not changed, too
  bool dry_run = false;  // look only
  Json job;              // the fields of a job spec that were given, without the model's
};

constexpr size_t kRulesMax = 256;
constexpr size_t kThresholdsMax = 64;

// Throws kInvalidArgument at the JSON Pointer of the fault. Does not look inside the job.
BatchSpec ReadBatchSpec(const Json& json);

// All fields of the batch, and those of the job that were given.
Json WriteBatchSpec(const BatchSpec& spec);

// DescribeFields of both.
Json DescribeBatchSpec();

// The rule that holds for a model.
std::optional<size_t> FindRule(const BatchSpec& spec, const std::string& model,
                               const std::string& path);

// The job for a model under a rule. Throws as ReadJobSpec, at the job's pointers.
JobSpec JobOf(const BatchSpec& spec, std::optional<size_t> rule, const std::string& model);

// What the model of a file below the root is called: the parts of its path with '.' between, in
// lower case, '-' for what no name may hold, without ".onnx"; "a/b/b.onnx" is "a.b", "b.tflite"
// stays. May break the rule of names: a path can be too long.
std::string ModelNameOf(const std::string& path);

}  // namespace pared
