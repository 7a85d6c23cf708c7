// `pared work`: one job in a process of its own. It knows nothing of the store.
//
//   standard input    the order: a WorkOrder as JSON
//   standard output   progress, one JSON object a line; {"error": ...} as the last where all failed
//   the folder        CHAIN.onnx for each chain, CHAIN.tflite where the job asks for it, and
//                     result.json (a WorkResult): written anew when a chain has ended, so that a
//                     job that is killed keeps what it has reached; of a search, CANDIDATE.json
//                     for each, told of as it ends (search_recorder.h)
//   exit code         0: result.json is complete, even where chains failed; 1: it is not
//
// SIGTERM asks it to stop.

#pragma once

#include <filesystem>
#include <functional>
#include <iosfwd>

#include "daemon/work_order.h"

namespace pared {

struct WorkContext {
  std::filesystem::path folder;
  std::function<bool()> cancelled;
  // Called one at a time, by any thread: a progress line; what there is when a chain has ended.
  std::function<void(const Json& line)> report;
  std::function<void(const WorkResult& so_far)> save;
  // Of a search: one candidate has ended, or the baseline. Others may follow before it is read.
  std::function<void(const WorkResult& one)> keep = [](const WorkResult&) {};
};

// Does the job. Throws where no chain could begin: a wrong spec, a model that pared cannot run; and
// kCancelled.
WorkResult Work(const WorkOrder& order, const WorkContext& context);

// Reads the order, works, writes progress and result.json. Throws as Work.
void RunWorker(const std::filesystem::path& folder, std::istream& in, std::ostream& out);

}  // namespace pared
