// How a job ends, judged by its runs, or by its worker where that did not come to the end.

#pragma once

#include <cstdint>
#include <vector>

#include "storage/store.h"

namespace pared {

class Child;

struct Verdict {
  JobState state = JobState::kSucceeded;
  Json error;
};

// Failed where a chain failed, and where every chain is degraded: then nothing came out that could
// be used. goal_not_met where no chain holds and one does but for evaluate.max_accuracy_drop.
// Otherwise succeeded; degraded runs keep their own errors.
Verdict JudgeRuns(const std::vector<RunRecord>& runs);

// Why a worker ended by itself and not well. `said`: its own last word, or null.
Json CrashError(const Child& child, const Json& said);

// To the error of a job whose worker was killed from outside, for the last time.
void AddTries(int64_t tries, int64_t tries_max, Verdict& verdict);

// The last progress of a job: of so many chains, "best" and "degraded" as below.
Json EndedProgress(int64_t chains, Json best, Json degraded);

// The job's last progress line: {"step": "ended", "fraction": 1, "chains", "chains_ended",
// "best": the fastest chain without an error (the smallest where no latency was measured; the
// baseline takes part), "degraded": [{"chain", "reason"}, ...]}.
Json FinalProgress(const std::vector<RunRecord>& runs);

}  // namespace pared
