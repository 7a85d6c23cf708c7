// What a run's report says of each layer of its model.

#pragma once

#include <cstdint>
#include <filesystem>

#include "config/fields.h"
#include "evaluator/dataset.h"
#include "model/graph.h"

namespace pared {

struct LayerReportContext {
  const Dataset* dataset = nullptr;  // its first sample is run
  const Model* reference = nullptr;  // the float model; null: no SQNR
  int64_t runs = 3;                  // timed ones, after one that is not; 0: no times
  int64_t threads = 1;
};

// {"layers": [{"node", "op_type", "kernel", "density", "macs", "time_us", "sqnr_db", "input_scale",
// "output_scale", "weight_scale_min", "weight_scale_max"}], "layers_left_out": 0}: in the order of
// execution, fields that a layer lacks left out; at most 256 layers, those with the most work
// (docs/schema.md). Numbers have four digits, scales seven. Throws as the Executor does.
Json LayerReport(const std::filesystem::path& model, const LayerReportContext& context);

}  // namespace pared
