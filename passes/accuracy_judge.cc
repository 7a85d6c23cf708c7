#include "passes/accuracy_judge.h"

#include "passes/calibrate.h"

namespace pared {

AccuracyJudge::AccuracyJudge(const Model& model, const PassContext& context)
    : evaluation_{.dataset = context.calibration,
                  .samples = CalibrationCount(context),
                  .cancelled = context.cancelled},
      reference_(RunReference(model, evaluation_)),
      baseline_(EvaluateOutputs(reference_, reference_, evaluation_)) {}

AccuracyDrop AccuracyJudge::DropOf(const Model& candidate) const {
  const Metrics metrics = EvaluateAccuracy(candidate, reference_, evaluation_);
  const auto drop = FindAccuracyDrop(metrics, baseline_);
  return drop ? *drop : AccuracyDrop{"agreement", 1 - metrics.at("agreement")};
}

}  // namespace pared
