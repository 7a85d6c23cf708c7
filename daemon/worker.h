// `pared work`: one job in a process of its own. It knows nothing of the store.
//
//   standard input    the order: a WorkOrder as JSON
//   standard output   progress, one JSON object a line; {"error": ...} as the last where all failed
//   the folder        CHAIN.onnx for each chain, and result.json (a WorkResult): written anew when
//   a
//                     chain has ended, so that a job that is killed keeps what it has reached;
//                     of a search, CANDIDATE.json for each, told of as it ends (search_recorder.h)
//   exit code         0: result.json is complete, even where chains failed; 1: it is not
//
// SIGTERM asks it to stop.

#pragma once

#include <filesystem>
#include <functional>
#include <iosfwd>
#include <string>
#include <vector>

#include "base/error.h"
#include "config/fields.h"

namespace pared {

struct WorkOrder {
  Json spec;                // a JobSpec
  std::string model;        // the ONNX file
  std::string calibration;  // dataset folders; empty: none
  std::string evaluation;
  std::string cache;     // a folder of storage/pass_cache.h that is there; empty: none
  int64_t cache_mb = 0;  // a longer result is not kept
  int64_t threads = 1;
  int64_t memory_mb = 0;           // the limit that the process runs under; 0: none
  bool confine = true;             // daemon/confine.h
  std::vector<Json> history = {};  // SearchRuns: what an interrupted search has tried already
};

struct ChainResult {
  std::string chain;
  std::string file;  // in the folder; empty: none, or the baseline's own model
  Json steps = Json::array();
  Json reports = Json::array();  // as Outcome has them; the last is "evaluate"
  Json metrics = Json::object();
  Json error;   // null: none
  Json search;  // of a candidate: daemon/search.h; null: none
};

struct WorkResult {
  std::vector<ChainResult> runs;  // in the order of the spec, the baseline first
  Json machine = Json::object();  // {"cpu", "isa", "version", "threads", "confinement"}
  Json data = Json::object();  // {"calibration", "evaluation"}: null, or {"dataset", "sha256", ...}
  bool is_complete = false;    // all chains are here, and measured
};

void Fields(FieldVisitor& f, WorkOrder& order);
void Fields(FieldVisitor& f, ChainResult& result);
void Fields(FieldVisitor& f, WorkResult& result);

// {"code", "message", "where"}, as jobs and runs keep errors.
Json ErrorJson(const Error& error);

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
