#include "daemon/step_cache.h"

#include <utility>

#include "config/sha256.h"
#include "kernels/cpu.h"
#include "model/onnx.h"

namespace pared {
namespace {

constexpr const char* kFileName = "model.onnx";

}  // namespace

StepCache::StepCache(PassCache files, StepInputs inputs)
    : files_(std::move(files)), inputs_(std::move(inputs)) {}

std::string StepCache::KeyOf(const std::string& model_digest, const Step& step) const {
  const std::string text = DumpJson({{"model", model_digest},
                                     {"pass", step.pass},
                                     {"pass_version", step.version},
                                     {"options", step.options},
                                     {"calibration", inputs_.calibration_sha256},
                                     {"calibration_samples", inputs_.calibration_samples},
                                     {"seed", inputs_.seed},
                                     {"isa", IsaName(SelectedIsa())},
                                     {"version", PARED_VERSION}});
  return Sha256Of(text);
}

std::optional<StepResult> StepCache::Find(const std::string& key) const {
  std::optional<CacheEntry> entry = files_.Find(key);
  if (!entry) return std::nullopt;
  return StepResult{LoadOnnx(entry->folder / kFileName), std::move(entry->report)};
}

bool StepCache::Put(const std::string& key, const Model& model, const Json& report) const {
  return files_.Put(key, report, [&](const std::filesystem::path& folder) {
    SaveOnnx(model, folder / kFileName);
  });
}

}  // namespace pared
