// What the runner orders of a worker, and what comes back: both as JSON.

#pragma once

#include <cstdint>
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
  std::string file;    // in the folder; empty: none, or the baseline's own model
  std::string tflite;  // the same model as TensorFlow Lite; empty: none
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

}  // namespace pared
