// How far a job is, and when it will have ended.
//
// A job is a list of parts: the evaluation of the baseline, each step of the plan, each chain's
// evaluation, each artifact's timed runs. A part weighs the seconds that it took, or that it will
// take, which is the first that is known of: what the same part took in an earlier run; its own
// time so far over its fraction (of layers, of samples); the mean of this job's parts of its kind.

#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "config/job_spec.h"
#include "passes/plan.h"
#include "storage/store.h"

namespace pared {

// What parts took in earlier runs of the same model, in seconds. What came from the cache is left
// out.
class StepHistory {
 public:
  // Of the runs of these bytes among `runs`, of which later ones win.
  StepHistory(const std::vector<Run>& runs, const std::string& model_sha256);
  StepHistory() = default;

  // Of a pass with these options; else of the pass with others.
  std::optional<double> StepSeconds(const Json& step) const;
  std::optional<double> EvaluateSeconds(const EvaluateSpec& spec) const;
  std::optional<double> RunSeconds() const;  // one timed run of any chain

 private:
  void Add(const Run& run);

  std::map<std::string, double> steps_;     // by the step with its options
  std::map<std::string, double> passes_;    // by the pass's name
  std::map<std::string, double> evaluate_;  // by dataset and number of samples
  std::optional<double> run_s_;
};

// Of the model's last runs, as far as they are of these bytes.
StepHistory HistoryOf(const Store& store, const std::string& model,
                      const std::string& model_sha256);

class Estimate {
 public:
  // Of a job that begins now; `seconds` below are since then.
  Estimate(const JobSpec& spec, const StepHistory& history);

  // A worker's progress line.
  void Take(const Json& line, double seconds);

  double percent() const { return percent_; }  // 0 to 100, never less than before
  // nullopt: nothing is known yet. Steps that run side by side share the time that is left.
  std::optional<double> SecondsLeft(double seconds) const;

 private:
  enum class Kind { kStep, kEvaluate, kLatency };
  struct Part {
    Kind kind;
    std::string chain, step;
    std::optional<double> expected_s;  // of earlier runs
    std::set<std::string> open = {};   // of the chains that it is for, those that have not ended
    double fraction = 0;
    std::optional<double> begin_s = {}, end_s = {};
  };

  std::set<std::string> AddSteps(const PlanNode& node, const std::string& above,
                                 const StepHistory& history);
  Part* Find(const Json& line);
  void End(Part& part, double seconds);
  void EndChain(const std::string& chain, double seconds);
  std::optional<double> OwnSeconds(const Part& part, double seconds) const;
  std::vector<std::optional<double>> Weights(double seconds) const;
  void UpdatePercent(double seconds);

  std::vector<Part> parts_;
  double percent_ = 0;
  // Of a job whose parts are not known beforehand: chains.
  double chains_ended_ = 0, chains_ = 0;
};

}  // namespace pared
