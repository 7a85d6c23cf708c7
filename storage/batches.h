// Batches as the store keeps them: which models were found, what was decided of each, which job
// does it. The methods are Store's (storage/store.h); they stand in store_batches.cc.

#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "config/fields.h"

namespace pared {

using BatchId = int64_t;

// Derived from the row and the states of its jobs, never stored.
enum class BatchState {
  kScanning,   // looks at models; also while it waits for room in the queue
  kRunning,    // a job has not ended
  kEnded,      // all have, whatever came out
  kFailed,     // the models could not be looked at; error says why
  kCancelled,  // asked to stop, and stopped
};

enum class BatchDecision {
  kRun,        // a job of its own
  kShared,     // a job of another batch does the same and has not ended
  kUnchanged,  // an earlier job's results still stand
  kExcluded,   // matches an exclusion
  kRefused,    // no model, or not for these chains; the reason says why
};

const char* BatchStateName(BatchState state);
const char* BatchDecisionName(BatchDecision decision);

struct Batch {
  BatchId id = 0;
  BatchState state = BatchState::kScanning;
  Json spec;
  bool is_dry = false;
  bool cancel_requested = false;
  Json error;  // null: none
  int64_t created_ms = 0;
  std::optional<int64_t> scanned_ms, finished_ms;
  // Models by what became of them: the decisions' names but "run" and "shared", whose models are
  // counted under the states of their jobs; "planned": decided and in no queue yet.
  std::map<std::string, int64_t> counts;
};

struct BatchItem {
  std::string path;   // below the root
  std::string model;  // its name
  std::string sha256;
  std::string recipe;  // digest of all that determines the results but the model
  BatchDecision decision = BatchDecision::kRun;
  Json reason;  // of kExcluded and kRefused: {"code", "message", "where"}; else null
  std::optional<int64_t> job;
  std::string job_state;  // empty where there is no job; the store fills it in
};

struct BatchQuery {
  std::optional<std::string> name = {};
  int64_t limit = 100;
  int64_t after = 0;
};

}  // namespace pared
