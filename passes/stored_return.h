// Which weights that a pass stored in codes go back to float (float_return.h), where it is given
// calibration data and the model is small enough to be run.
//
// A node returns as if the pass's `exclude` named it: readers of one weight return together.

#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "passes/float_bounds.h"
#include "passes/int8_fidelity.h"
#include "passes/stored_weights.h"

namespace pared {

// A model with more bytes is not run by passes that store weights: it would take a few times as
// much memory.
inline constexpr int64_t kRunBytesMax = int64_t{1} << 29;
inline constexpr int64_t kJudgeSamples = 16;

bool IsSmallEnoughToRun(const Model& model);

// Nodes that read the same weights in codes.
struct StoredUnit {
  std::vector<std::string> names;   // as references have them
  std::vector<std::string> labels;  // as reports have them
  int64_t elements = 0;             // of the weights
};

// Of the weights that are stored in codes; `untied` as UntieTables gave it. Without nodes that no
// reference can name.
std::vector<StoredUnit> UnitsOf(const StoredWeights& stored, const Json& untied);

struct StoredResult {
  Model model;
  Model source;                      // the float model that it was made of: smoothed, say
  std::vector<StoredUnit> units;     // in the order of the weights
  std::optional<Nearness> nearness;  // of the model, where it was measured
};

struct StoredPass {
  // What the pass makes where `exclude` has these names more; writes the context's report. `judge`
  // null: nothing is measured.
  std::function<StoredResult(const std::vector<std::string>& names, const FidelityJudge* judge)>
      make;
  // The same of a result's source by the simplest means, to rank nodes.
  std::function<Model(const Model& source, const std::vector<std::string>& names)> make_alone;
};

// A pass's options with more nodes that stay float.
template <class Options>
Options Excluding(const std::vector<std::string>& names, Options options) {
  options.exclude.insert(options.exclude.end(), names.begin(), names.end());
  return options;
}

// Runs the pass on `model`, and again with nodes excluded until `bounds` hold. `is_judged`: the
// pass itself compares. Adds "calibration_sqnr_db" and what else FidelityJudge::Report tells,
// "returned_to_float" and "accuracy_drop". Throws kInvalidArgument where there is a bound and no
// data, kUnsupported where the model is too large to measure or a bound does not hold.
Model MakeWithinBounds(const Model& model, const FloatBounds& bounds, bool is_judged,
                       const StoredPass& pass, PassContext& context);

}  // namespace pared
