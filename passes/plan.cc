// Binds the passes of each chain and merges equal prefixes:
//
//   a: prune 0.8, int8                    root -+-> prune 0.8 -+-> int8  (ends a)
//   b: prune 0.8, fp16        becomes           |              +-> fp16  (ends b)
//   c: fp16                                     +-> fp16 (ends c)

#include "passes/plan.h"

#include <algorithm>

#include "base/error.h"
#include "passes/float_bounds.h"
#include "passes/registry.h"
#include "passes/select_nodes.h"

namespace pared {
namespace {

// Says which passes there are where none has the name.
[[noreturn]] void ThrowUnknownPass(const std::string& name, const std::string& pointer) {
  std::vector<std::string> names;
  for (const PassInfo* pass : Passes()) names.emplace_back(pass->name);
  throw Error(
      ErrorCode::kInvalidArgument,
      "no pass is called \"" + name + "\"; nearest: " + JoinNames(NearestNames(name, names)),
      pointer + "/pass");
}

bool SameStep(const Step& a, const Step& b) { return a.pass == b.pass && a.options == b.options; }

// The child of `parent` that does `step`, made where there is none.
PlanNode& ChildFor(PlanNode& parent, Step step) {
  for (PlanNode& child : parent.next) {
    if (SameStep(child.step, step)) return child;
  }
  return parent.next.emplace_back(PlanNode{std::move(step), {}, {}});
}

// Appends the steps from `node` to the end of `chain`; false: the chain does not end below it.
bool FindChain(const PlanNode& node, const std::string& chain, std::vector<const Step*>& path) {
  if (std::ranges::find(node.chains, chain) != node.chains.end()) return true;
  for (const PlanNode& child : node.next) {
    path.push_back(&child.step);
    if (FindChain(child, chain, path)) return true;
    path.pop_back();
  }
  return false;
}

}  // namespace

Step BindStep(const Json& entry, const std::string& pointer, const JobSpec& spec) {
  if (!entry.is_object()) {
    throw Error(ErrorCode::kInvalidArgument, "must be an object with a field \"pass\"", pointer);
  }
  const auto name = entry.find("pass");
  if (name == entry.end() || !name->is_string()) {
    throw Error(ErrorCode::kInvalidArgument, "must be the name of a pass", pointer + "/pass");
  }
  const PassInfo* pass = FindPass(name->get_ref<const std::string&>());
  if (pass == nullptr) ThrowUnknownPass(name->get<std::string>(), pointer);
  Step step = BindPass(*pass, entry, pointer);
  if (step.needs_calibration && spec.calibration.dataset.empty()) {
    throw Error(ErrorCode::kInvalidArgument,
                WhatCalibrates(step) + " and the job names none: set /calibration/dataset",
                pointer);
  }
  return step;
}

std::string WhatCalibrates(const Step& step) {
  const std::string bound = BoundIn(step.options);
  return step.pass + (bound.empty() ? "" : " with " + bound) + " needs calibration data";
}

PlanNode MakePlan(const JobSpec& spec) {
  PlanNode root;
  root.chains.push_back("baseline");
  for (size_t i = 0; i < spec.chains.size(); ++i) {
    const ChainSpec& chain = spec.chains[i];
    PlanNode* node = &root;
    for (size_t j = 0; j < chain.passes.size(); ++j) {
      const std::string pointer = "/chains/" + std::to_string(i) + "/passes/" + std::to_string(j);
      node = &ChildFor(*node, BindStep(chain.passes[j], pointer, spec));
    }
    node->chains.push_back(chain.name);
  }
  return root;
}

Step FollowNodes(const Step& step, const NodeHistory& history, Json& notes) {
  const Json options = history.Follow(step.options, notes);
  if (options == step.options) return step;
  const PassInfo* pass = FindPass(step.pass);
  PARED_CHECK(pass != nullptr);
  return BindPass(*pass, options, "");
}

Json ChainSteps(const PlanNode& root, const std::string& chain) {
  std::vector<const Step*> path;
  const bool found = FindChain(root, chain, path);
  PARED_CHECK(found);
  Json steps = Json::array();
  for (const Step* step : path) {
    Json entry = step->options;
    entry["pass"] = step->pass;
    steps.push_back(std::move(entry));
  }
  return steps;
}

JobSpec BindPasses(JobSpec spec) {
  const PlanNode plan = MakePlan(spec);
  for (ChainSpec& chain : spec.chains) {
    chain.passes = ChainSteps(plan, chain.name).get<std::vector<Json>>();
  }
  return spec;
}

}  // namespace pared
