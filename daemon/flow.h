// A plan as a TBB flow graph: the step boundary.
//
// A node is one step; an edge carries the model. A failure ends its own branch: it flows through
// the steps below untouched. Equal prefixes are one node and run once.

#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <string>

#include "base/error.h"
#include "daemon/step_cache.h"
#include "passes/plan.h"
#include "passes/shared_statistics.h"

namespace pared {

struct Outcome {
  std::shared_ptr<const Model> model;  // null where there is an error
  std::shared_ptr<const Error> error;
  // [{"pass", "seconds", "report"}, ...] of the steps so far; with "cached": true where the result
  // was there already, and with "not_cached": why, where it could not be kept.
  Json reports = Json::array();
  std::string digest = {};  // ModelDigest, where there is a cache and a step follows
  // From the job's model to this one, where a step follows.
  std::shared_ptr<const NodeHistory> history = nullptr;
};

// A step has got this far.
struct StepProgress {
  std::string step;     // the passes from the model to the step, "magnitude_prune+quantize_int8"
  std::string chain;    // the first of those that the step is part of: with it `step` is unique
  double fraction = 0;  // 0: the step begins, 1: it has ended
  Json layer = {};      // passes/layer_progress.h; null: the pass is in no loop over layers
};

// The first of the chains that end at this node or below it.
const std::string& FirstChain(const PlanNode& node);

struct FlowContext {
  std::function<bool()> cancelled = [] { return false; };
  const Dataset* calibration = nullptr;
  int64_t calibration_samples = 0;
  int64_t seed = 0;
  const StepCache* cache = nullptr;    // null: every step runs
  SharedStatistics* shared = nullptr;  // null: every step takes its own
  std::filesystem::path scratch{};     // as PassContext has it
  int64_t threads = 1;  // of the graph and of every pass; 0: all that the machine has
  // Called by any thread.
  std::function<void(const StepProgress&)> progress = [](const StepProgress&) {};
};

// Called for each chain when it has ended, by any thread, possibly several at once. Where it throws
// on a model, the chain has failed: it is called a second time, with that error.
using Sink = std::function<void(const std::string& chain, const Outcome& outcome)>;

class Flow {
 public:
  Flow(const PlanNode& plan, FlowContext context, Sink sink);
  ~Flow();

  // Returns when every chain has ended.
  void Run(Model model);

 private:
  struct GraphState;
  std::unique_ptr<GraphState> state_;
};

}  // namespace pared
