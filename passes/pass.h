// A pass: a function from a model to a model. It knows nothing of the job around it.

#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <string_view>

#include "config/fields.h"
#include "evaluator/dataset.h"
#include "model/graph.h"

namespace pared {

class SharedStatistics;

struct PassContext {
  std::function<bool()> cancelled = [] { return false; };         // asked in every long loop
  std::function<void(double fraction)> progress = [](double) {};  // 0 to 1
  const Dataset* calibration = nullptr;                           // null: the job gave none
  int64_t calibration_samples = 0;
  int64_t seed = 0;
  int64_t threads = 1;
  SharedStatistics* shared = nullptr;  // passes/shared_statistics.h; null: nothing is shared
  // Where results too large for memory may be written; empty: nowhere (SpillFolder, weights.h).
  std::filesystem::path scratch{};
  // What the pass has to say: {"changed": [...], "skipped": [{"node", "reason"}, ...], ...}.
  Json report = Json::object();
};

// Throws kCancelled where context.cancelled() turns true.
using Pass = std::function<Model(Model, PassContext&)>;

struct Step {
  std::string pass;
  Json options;  // all of them, defaults filled in
  Pass run;
  bool needs_calibration = false;
  int64_t version = 1;  // of the pass
};

struct PassInfo {
  std::string_view name, summary;
  // Reads `options` (the chain's entry, "pass" included). Throws kInvalidArgument at
  // `pointer`/field.
  Step (*bind)(const PassInfo& info, const Json& options, const std::string& pointer);
  Json (*describe)();  // DescribeFields of its options
  bool (*needs_calibration)(const Json& options);
  // Raised whenever the pass gives other bytes for the same model and options: what was made by
  // another version cannot be made again.
  int64_t version = 1;
};

// A PassInfo for a struct of options with a Fields() listing and a function
// `Model Run(Model, const Options&, PassContext&)`. What no field can refuse by itself a function
// `options.Check(pointer)`, where there is one, refuses at `pointer`/field.
template <class Options, Model (*Run)(Model, const Options&, PassContext&)>
PassInfo DefinePass(
    std::string_view name, std::string_view summary,
    bool (*needs_calibration)(const Json&) = [](const Json&) { return false; },
    int64_t version = 1) {
  return {name,
          summary,
          [](const PassInfo& info, const Json& json, const std::string& pointer) {
            Options options;
            ReadFields(json, pointer, options, {"pass"});
            if constexpr (requires { options.Check(pointer); }) options.Check(pointer);
            const Json written = WriteFields(options);
            return Step{std::string(info.name), written,
                        [options](Model model, PassContext& context) {
                          return Run(std::move(model), options, context);
                        },
                        info.needs_calibration(written), info.version};
          },
          [] { return DescribeFields<Options>(); },
          needs_calibration,
          version};
}

}  // namespace pared
