#include "daemon/verdict.h"

#include <signal.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <string>

#include "daemon/child.h"
#include "daemon/judge.h"
#include "daemon/work_order.h"

namespace pared {
namespace {

// There is a model, which is no success.
bool IsDegraded(const RunRecord& run) {
  if (run.error.is_null()) return false;
  const std::string code = run.error.value("code", "");
  return code == kDegraded || code == kNotEvaluated;
}

bool MissesGoal(const RunRecord& run) {
  return !run.error.is_null() && run.error.value("code", "") == kGoalMissed;
}

bool HasFailed(const RunRecord& run) {
  return !run.error.is_null() && !IsDegraded(run) && !MissesGoal(run);
}

// The run's error as the job's, which must say whose it is.
Json JobError(const RunRecord& run) {
  Json error = run.error;
  error["message"] = "chain " + run.chain + ": " + error.at("message").get<std::string>();
  return error;
}

double Cost(const RunRecord& run) {
  for (const char* name : {"latency_ms_p50", "size_bytes"}) {
    const auto found = run.metrics.find(name);
    if (found != run.metrics.end()) return found->second;
  }
  return std::numeric_limits<double>::infinity();
}

}  // namespace

Verdict JudgeRuns(const std::vector<RunRecord>& runs) {
  const auto failed = std::ranges::find_if(runs, HasFailed);
  if (failed != runs.end()) return {JobState::kFailed, JobError(*failed)};
  const auto holds = [](const RunRecord& run) {
    return run.chain != "baseline" && run.error.is_null();
  };
  if (std::ranges::any_of(runs, holds)) return {};
  const auto missed = std::ranges::find_if(runs, MissesGoal);
  if (missed != runs.end()) return {JobState::kGoalNotMet, JobError(*missed)};
  const auto degraded = std::ranges::find_if(runs, IsDegraded);
  if (degraded == runs.end()) return {};
  return {JobState::kFailed, JobError(*degraded)};
}

Json CrashError(const Child& child, const Json& said) {
  if (!said.is_null()) return said;
  const ChildExit& exit = *child.exit();
  std::string message;
  if (exit.signal == SIGXCPU) {
    message = "the worker ran beyond its CPU time";
  } else if (exit.signal == SIGXFSZ) {
    message = "the worker wrote a file beyond the limit";
  } else if (exit.signal != 0) {
    message = std::string("the worker was killed by signal ") + std::to_string(exit.signal) + " (" +
              ::strsignal(exit.signal) + ")";
  } else {
    message = "the worker ended with exit code " + std::to_string(exit.code);
  }
  if (!child.stderr_tail().empty()) message += "; it last said: " + child.stderr_tail();
  return ErrorJson(Error(ErrorCode::kInternal, message, "worker"));
}

void AddTries(int64_t tries, int64_t tries_max, Verdict& verdict) {
  const std::string message = verdict.error.at("message");
  verdict.error["message"] =
      message + "; " + TriesText(tries, tries_max) + "; is there memory for this job?";
}

Json EndedProgress(int64_t chains, Json best, Json degraded) {
  return {{"step", "ended"},
          {"fraction", 1},
          {"percent", 100},
          {"chains_ended", chains},
          {"chains", chains},
          {"best", std::move(best)},
          {"degraded", std::move(degraded)}};
}

Json FinalProgress(const std::vector<RunRecord>& runs) {
  Json best;
  double least = std::numeric_limits<double>::infinity();
  Json degraded = Json::array();
  for (const RunRecord& run : runs) {
    if (IsDegraded(run) || MissesGoal(run)) {
      degraded.push_back({{"chain", run.chain}, {"reason", run.error.at("message")}});
    }
    if (!run.error.is_null() || Cost(run) >= least) continue;
    least = Cost(run);
    best = run.chain;
  }
  return EndedProgress(std::ssize(runs), std::move(best), std::move(degraded));
}

}  // namespace pared
