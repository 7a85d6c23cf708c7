// A model as a TensorFlow Lite file, and the proof that the file computes the same: it is read
// back, run in the evaluator, and its outputs are compared with the model's.

#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "config/fields.h"
#include "evaluator/evaluate.h"
#include "model/graph.h"

namespace pared {

struct TfliteProof {
  // Why there is no such file. kUnsupported: these nodes have no counterpart there; kInternal: what
  // was written cannot be read, or run, or has other outputs.
  std::optional<Error> error;
  // size_tflite_bytes; tflite_sqnr_db, of the output that differs most: not where pared cannot run
  // the model itself.
  Metrics metrics;
  Json report = Json::object();  // {"samples", "worst_output"}
  std::vector<std::string> warnings;
};

// Compares the file at `path` with the model, which it is to compute, over 16 samples of `data` at
// most, from all over them. Throws kUnavailable, kCancelled, and kInvalidArgument where the data do
// not fit the model.
TfliteProof ProveTflite(const Model& model, const std::filesystem::path& path,
                        const EvaluateContext& data);

// TfliteForm, SaveTflite, and then the proof. What stands at `path` is of use only where there is
// no error. Throws as SaveTflite does where the disk refuses.
TfliteProof WriteTflite(const Model& model, const std::filesystem::path& path,
                        const EvaluateContext& data);

}  // namespace pared
