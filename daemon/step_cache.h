// Finds what a step has made of a model before, and keeps what it makes.

#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "model/graph.h"
#include "passes/pass.h"
#include "storage/pass_cache.h"

namespace pared {

// What a step's result depends on besides the model and the step itself.
struct StepInputs {
  std::string calibration_sha256 = {};  // empty: none
  int64_t calibration_samples = 0;
  int64_t seed = 0;
};

struct StepResult {
  Model model;
  Json report;
};

// Thread-safe.
class StepCache {
 public:
  StepCache(PassCache files, StepInputs inputs);

  // SHA-256 over all that the result depends on: the model, the pass, its version and all its
  // options, the calibration data, the seed; and the target, which is the instruction set, whose
  // float sums differ in the last bit, and pared's version.
  std::string KeyOf(const std::string& model_digest, const Step& step) const;

  // nullopt: it has not been made, or is damaged and has been dropped. Throws where the file is
  // whole and cannot be read all the same.
  std::optional<StepResult> Find(const std::string& key) const;

  // Returns false where it is too large to be kept. Throws where the disk refuses.
  bool Put(const std::string& key, const Model& model, const Json& report) const;

 private:
  const PassCache files_;
  const StepInputs inputs_;
};

}  // namespace pared
