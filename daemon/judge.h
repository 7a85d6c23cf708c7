// What the numbers of a chain mean: whether it collapsed, and what its reader should be warned of.

#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "config/job_spec.h"
#include "evaluator/dataset.h"
#include "evaluator/evaluate.h"
#include "model/graph.h"

namespace pared {

// The code of a degraded run's error, besides those of ErrorCode.
inline constexpr const char* kDegraded = "degraded";
// Likewise of one that holds and is not what the job asked for.
inline constexpr const char* kGoalMissed = "goal_not_met";
// Likewise of one whose model pared cannot run.
inline constexpr const char* kNotEvaluated = "not_evaluated";

// Why the chain counts as collapsed: outputs that are no numbers, or fidelity below a floor.
// nullopt: it holds.
std::optional<std::string> FindCollapse(const Metrics& metrics, const EvaluateSpec& spec,
                                        bool has_labels);

// Adds size_ratio, size_compressed_ratio and latency_ratio, of what both have.
void AddRatios(const Metrics& baseline, Metrics& metrics);

// One sentence where the chain is slower than the baseline beyond its spread: its median above the
// baseline's 90th percentile.
std::optional<std::string> FindSlowdown(const Metrics& metrics, const Metrics& baseline);

// One sentence where the input model itself, of which these are the metrics, has outputs that are
// not finite.
std::optional<std::string> FindNonFinite(const Metrics& baseline);

// One sentence where the model takes fixed batches, and each sample stands in them several times.
std::optional<std::string> FindRepeats(const Dataset& dataset,
                                       const std::vector<ValueInfo>& inputs);

// One sentence where a job asks for more samples than the dataset has. `what`: the field of the
// job.
std::optional<std::string> FindShortage(const std::string& what, int64_t asked,
                                        const Dataset& dataset);

// One sentence for each float input whose largest magnitude differs between the datasets by more
// than a factor of four: one of the two was prepared wrongly. Looks at the first samples only.
std::vector<std::string> FindRangeMismatch(const Dataset& calibration, const Dataset& evaluation,
                                           const std::vector<ValueInfo>& inputs);

}  // namespace pared
