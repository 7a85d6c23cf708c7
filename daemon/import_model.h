// `pared import`: reads a model that somebody else made, in a process of its own, and writes it
// anew with all its tensors.
//
//   standard output   nothing, or {"error": ...}
//   the folder        model.onnx, and model.onnx.data where it is too long for one file
//
// A hostile file ends that process and not the daemon.

#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include "config/fields.h"
#include "storage/artifacts.h"

namespace pared {

struct ImportSettings {
  std::filesystem::path program = "/proc/self/exe";
  int64_t memory_mb = 8'192;
  int64_t time_s = 3'600;
  bool confine = true;  // daemon/confine.h
};

struct ImportedModel {
  std::optional<Artifact> artifact;
  Json error;  // where there is none: {"code", "message", "where"}, the place in the model
};

// Reads `file` and puts what came of it into `artifacts`. Throws kCancelled: stopped; and what
// concerns the daemon and not the model, such as a full disk.
ImportedModel ImportModel(const std::filesystem::path& file, Artifacts& artifacts,
                          const ImportSettings& settings, std::stop_token stop);

// The process: `--model FILE --dir FOLDER [--confine=false]`.
void RunImport(const std::vector<std::string>& arguments);

}  // namespace pared
