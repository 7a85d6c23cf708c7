// A job's search: what has been tried, what to try next, how it stands. The worker asks it for
// candidates, the runner for the front; both make it anew from the runs that the store has.

#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "daemon/search_order.h"
#include "daemon/verdict.h"

namespace pared {

// One run of a search, as its next worker and its front need it.
struct SearchRun {
  int64_t run = 0;  // its id; 0: not recorded yet
  std::string chain;
  Json search;   // what SearchCandidate::about says, and "seconds"; null: the baseline
  Json metrics;  // name to number
  Json error;    // null: none
};
void Fields(FieldVisitor& f, SearchRun& run);

struct SearchCandidate {
  ChainSpec chain;  // named after the chain it comes from, and its number
  Json about;       // {"number", "from": the chain, "point", "choice", "why"}
};

class Search {
 public:
  // `spec` has a search. The baseline is among `runs`, in any place.
  Search(const JobSpec& spec, std::vector<SearchRun> runs);

  void Add(SearchRun run);

  // nullopt: the search has ended, and WhyEnded says why.
  std::optional<SearchCandidate> Next() const;
  std::string WhyEnded() const;  // empty: it has not

  // The runs of the front, and the best: whose models somebody may want.
  std::set<int64_t> KeptRuns() const;

  int64_t candidate_count() const { return static_cast<int64_t>(candidates_.size()); }

  // Throws kInvalidArgument at the objective or bound whose metric the baseline does not have: no
  // candidate could be judged.
  void CheckMetrics() const;

  // {"candidates", "budget", "seconds", "goal_met", "best", "front": [...], "failed": [{"run",
  // "chain", "choice", "reason"}, ...], "ended"}. Of the best and each of the front: {"run",
  // "chain", "choice", "values": of what is asked for, "broken": bounds in words}.
  Json Status() const;

  // Succeeded where a candidate meets the bounds; goal_not_met where none does; failed where there
  // is no model at all.
  Verdict Judge() const;

 private:
  std::string BudgetUsed() const;  // in words; empty: there is some left
  Json EntryOf(size_t candidate) const;
  std::vector<Worth> Worths() const;
  MetricValues ValuesOf(const SearchRun& run) const;

  const SearchSpec spec_;
  const SearchSpace space_;
  const int64_t seed_;
  MetricValues baseline_;
  std::vector<SearchRun> candidates_;  // in the order of their numbers
  double seconds_ = 0;
};

}  // namespace pared
