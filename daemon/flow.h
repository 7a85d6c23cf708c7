// A plan as a TBB flow graph: the step boundary.
//
// A node is one step; an edge carries the model. A failure ends its own branch: it flows through
// the steps below untouched. Equal prefixes are one node and run once.

#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/error.h"
#include "daemon/step_cache.h"
#include "passes/plan.h"

namespace pared {

struct Outcome {
  std::shared_ptr<const Model> model;  // null where there is an error
  std::shared_ptr<const Error> error;
  // [{"pass", "seconds", "report"}, ...] of the steps so far; with "cached": true where the result
  // was there already, and with "not_cached": why, where it could not be kept.
  Json reports = Json::array();
  std::string digest = {};  // ModelDigest, where there is a cache and a step follows
};

struct FlowContext {
  std::function<bool()> cancelled = [] { return false; };
  const Dataset* calibration = nullptr;
  int64_t calibration_samples = 0;
  int64_t seed = 0;
  const StepCache* cache = nullptr;  // null: every step runs
  int64_t threads = 1;               // of the graph and of every pass; 0: all that the machine has
  // Called by any thread: a step has got this far; 0: it begins, 1: it has ended. `step` is the
  // passes from the model to the step, "magnitude_prune+quantize_int8".
  std::function<void(const std::string& step, double fraction)> progress = [](const std::string&,
                                                                              double) {};
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
