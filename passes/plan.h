// A job spec's chains bound to their passes, equal prefixes merged into a tree.

#pragma once

#include <string>
#include <vector>

#include "config/job_spec.h"
#include "passes/node_history.h"
#include "passes/pass.h"

namespace pared {

struct PlanNode {
  Step step;                        // of the root: empty
  std::vector<std::string> chains;  // those that end here
  std::vector<PlanNode> next;
};

// The root's chain is "baseline": every job measures its input too. Throws kInvalidArgument at the
// JSON Pointer of the fault: unknown pass, wrong option, a pass that needs calibration where the
// job names no calibration dataset.
PlanNode MakePlan(const JobSpec& spec);

// One entry of a chain, bound. Throws as MakePlan, at `pointer`.
Step BindStep(const Json& entry, const std::string& pointer, const JobSpec& spec);

// "PASS needs calibration data", with the bound that it has to measure.
std::string WhatCalibrates(const Step& step);

// The step as it holds for a model whose nodes were called otherwise when the chain began: `notes`
// gets what NodeHistory::Follow has to say.
Step FollowNodes(const Step& step, const NodeHistory& history, Json& notes);

// The steps of each chain with all options, as a run stores them: [{"pass", options...}, ...].
Json ChainSteps(const PlanNode& root, const std::string& chain);

// The spec with all options of all passes filled in. Throws as MakePlan.
JobSpec BindPasses(JobSpec spec);

}  // namespace pared
