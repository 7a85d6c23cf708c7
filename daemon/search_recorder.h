// Keeps a job's search in the store while it runs: each candidate at once, as a run, and how the
// search stands. A search that was killed goes on from there.

#pragma once

#include <set>
#include <string>
#include <vector>

#include "daemon/record.h"
#include "daemon/search.h"
#include "storage/store.h"

namespace pared {

// The worker tells of a search by two fields of progress lines: "begins", the candidate that it
// starts on, and "kept", the name of one that has ended: NAME.json in the folder is a WorkResult.
class SearchRecorder {
 public:
  // `spec` of the place has a search; what the store has of the job's runs is where it begins.
  SearchRecorder(Store& store, Artifacts& artifacts, JobId job, WorkPlace place);

  Json History() const;  // for the worker's order

  // A progress line; takes what is not progress out of it.
  void Take(Json& line);

  // The worker has died on a candidate: whether there was one, which is recorded as failed, so that
  // the search can go on without it. `is_own_fault`: it did not die by another's hand; if it did,
  // the candidate is tried once more first.
  bool GoOnAfter(const Json& error, bool is_own_fault);

  // The last word on how the search stands. `why`: what ended it; empty: its budget did.
  void End(const std::string& why);

  const Search& search() const { return search_; }

  // {"step": "ended", ...} as FinalProgress has it for other jobs.
  Json FinalProgress() const;

 private:
  bool IsWanted(const ChainResult& chain) const;
  void Record(RunRecord record);
  void DropBeaten();

  Store& store_;
  Artifacts& artifacts_;
  const JobId job_;
  const WorkPlace place_;
  std::vector<SearchRun> runs_;
  Search search_;
  std::set<int64_t> with_model_;  // runs of candidates that name theirs
  Json begun_;                    // {"chain", "steps", "search"}; null: no candidate is at work
  std::string killed_chain_;      // the candidate that somebody killed the worker on last
};

}  // namespace pared
