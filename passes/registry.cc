#include "passes/registry.h"

#include <algorithm>
#include <array>
#include <optional>
#include <set>
#include <string>
#include <utility>

#include "passes/calibration_rows.h"
#include "passes/fixed_weights.h"
#include "passes/float_casts.h"
#include "passes/inline_functions.h"
#include "passes/loop_states.h"
#include "passes/node_history.h"
#include "passes/select_nodes.h"
#include "passes/weights.h"

namespace pared {

extern const PassInfo kCastFp16;
extern const PassInfo kChannelPrune;
extern const PassInfo kFixShapes;
extern const PassInfo kFoldBatchNorm;
extern const PassInfo kFoldConstants;
extern const PassInfo kFusePatterns;
extern const PassInfo kMagnitudePrune;
extern const PassInfo kQuantizeDynamic;
extern const PassInfo kQuantizeInt8;
extern const PassInfo kQuantizeWeights;
extern const PassInfo kRemoveIdentities;
extern const PassInfo kSecondOrderPrune;
extern const PassInfo kStripNotes;

namespace {

// The table of contents: one line a pass, in the order the documentation lists them.
const PassInfo* const kPasses[] = {
    &kFixShapes,       &kFoldConstants,    &kRemoveIdentities, &kFusePatterns, &kFoldBatchNorm,
    &kMagnitudePrune,  &kSecondOrderPrune, &kChannelPrune,     &kQuantizeInt8, &kQuantizeDynamic,
    &kQuantizeWeights, &kCastFp16,         &kStripNotes,
};

// Whether the pass edits weights: those that are computed from constants are stored for it.
bool ReadsWeights(const PassInfo& pass) {
  constexpr std::array<const PassInfo*, 7> kReaders = {
      &kMagnitudePrune,  &kSecondOrderPrune, &kChannelPrune, &kQuantizeInt8,
      &kQuantizeDynamic, &kQuantizeWeights,  &kCastFp16};
  return std::ranges::count(kReaders, &pass) > 0;
}

}  // namespace

std::span<const PassInfo* const> Passes() { return kPasses; }

const PassInfo* FindPass(std::string_view name) {
  const auto found =
      std::ranges::find_if(kPasses, [&](const PassInfo* pass) { return pass->name == name; });
  return found == std::end(kPasses) ? nullptr : *found;
}

namespace {

// Runs the step with what comes before a pass: functions written out, weights that are computed
// stored.
Model RunPrepared(const PassInfo& pass, const Step& step, Model model, PassContext& context) {
  std::optional<NodeHistory> history;  // where what comes before the pass changes nodes
  std::vector<std::pair<std::string, std::string>> kept;
  if (!model.functions.empty()) {
    history.emplace(model);
    kept = InlineFunctions(model);
    history->Advance(model, "writing out functions");
  }
  Json freed = Json::array();
  const auto is_loop = [](const Node& node) { return node.op_type == "Loop"; };
  if (ReadsWeights(pass) && HasNode(model.graph, is_loop)) {
    if (!history) history.emplace(model);
    freed = FreeLoopConstants(model);
    history->Advance(model, "freeing constants of loops");
  }
  Json folded = Json::array(), warnings = Json::array();
  if (ReadsWeights(pass) && MayHaveFloatCasts(model)) {
    Model cast = model;
    folded = FoldFloatCasts(cast, CastSources::kWide, SpillFolder(model, context.scratch)).folded;
    if (!folded.empty()) {
      if (!history) history.emplace(model);
      model = std::move(cast);
      history->Advance(model, "storing casts of constants");
    }
  }
  if (const auto found = ReadsWeights(pass) ? FindFixedWeights(model) : std::set<std::string>();
      !found.empty()) {
    if (!history) history.emplace(model);
    FixedWeightsReport fixed = FoldFixedWeights(model, found, context.cancelled);
    for (Json& node : fixed.changed) folded.push_back(std::move(node));
    warnings = std::move(fixed.warnings);
    history->Advance(model, "computing weights");
  }
  if (!history) return step.run(std::move(model), context);
  Json notes = Json::array();
  const Step followed = pass.bind(pass, history->Follow(step.options, notes), "");
  Model out = followed.run(std::move(model), context);
  if (!notes.empty()) context.report["references"] = std::move(notes);
  for (Json& warning : warnings) context.report["warnings"].push_back(std::move(warning));
  for (Json& node : folded) context.report["computed_weights"].push_back(std::move(node));
  if (!freed.empty()) context.report["loop_constants"] = std::move(freed);
  for (const auto& [node, reason] : kept) {
    context.report["skipped"].push_back({{"node", node}, {"reason", reason}});
  }
  return out;
}

// Lets the pass see rows, for the scope: in the context that its caller looks at, so that what it
// reports until it fails or is asked for its progress is there.
class CalibratedBy {
 public:
  CalibratedBy(const CalibrationRows& rows, PassContext& context)
      : context_(context),
        calibration_(context.calibration),
        samples_(context.calibration_samples) {
    context.calibration = &rows.data;
    context.calibration_samples *= rows.batch;
    context.report["calibration_batch"] = rows.batch;
  }
  ~CalibratedBy() {
    context_.calibration = calibration_;
    context_.calibration_samples = samples_;
  }
  CalibratedBy(const CalibratedBy&) = delete;
  CalibratedBy& operator=(const CalibratedBy&) = delete;

 private:
  PassContext& context_;
  const Dataset* const calibration_;
  const int64_t samples_;
};

}  // namespace

Step BindPass(const PassInfo& pass, const Json& options, const std::string& pointer) {
  Step step = pass.bind(pass, options, pointer);
  step.run = [&pass, bound = step](Model model, PassContext& context) {
    const std::optional<CalibrationRows> rows =
        ReadsWeights(pass) ? RowsOfCalibration(model, context) : std::nullopt;
    if (!rows) return RunPrepared(pass, bound, std::move(model), context);
    const CalibratedBy by(*rows, context);
    return RunPrepared(pass, bound, std::move(model), context);
  };
  return step;
}

}  // namespace pared
