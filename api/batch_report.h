// A night against the nights before it: pure functions over what the store holds.

#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "config/batch_spec.h"
#include "storage/store.h"

namespace pared {

// What a night has to say of one chain of one model.
struct NightRow {
  std::optional<Run> run;  // nullopt: there is none, and `error` says why
  Json error;              // of the run, the job or the model; null: none
  std::string sha256, recipe;
};

// By model and chain; the chain "" stands for a model, or a job, that failed as a whole.
struct Night {
  BatchId batch = 0;
  std::map<std::pair<std::string, std::string>, NightRow> rows;
  std::vector<std::string> unfinished;  // models whose jobs have not ended or were cancelled
  std::vector<std::string> unchanged;   // models whose earlier results stand
  std::vector<std::string> excluded;    // paths
};

// The i-th night before, 0: the last one; nullopt: there is none.
using NightBefore = std::function<const Night*(size_t)>;

// {"against", "verdict", "worse": [...], "better", "failed_newly", "failed_still", "fixed", "new",
// "vanished", "unchanged", "unfinished", "excluded", "warnings", "latency_drift"}. A chain's
// numbers are compared with the latest night that has a run of it without an error; whether it
// failed newly or is fixed, with the last night. Latencies: docs/batches.md.
Json CompareNights(const Night& night, const NightBefore& before,
                   const std::vector<Threshold>& thresholds);

// The same from the store: a batch against those before it.
Json ReportOf(const Store& store, const Batch& batch);

// What the report says of runs, as their tags: "regression" and "improvement", each with the
// metrics' names and commas between; "regression": "failed" where the chain failed newly.
std::map<int64_t, std::map<std::string, std::string>> MarksOf(const Json& report);

// The report, with the batch's own fields, as Markdown.
std::string ReportMarkdown(const Json& report);

}  // namespace pared
