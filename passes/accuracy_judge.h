// How much accuracy a model loses, measured on the labels of the calibration data.

#pragma once

#include "evaluator/evaluate.h"
#include "passes/pass.h"

namespace pared {

// Keeps the outputs and figures of the float model, so that many candidates compare with one run.
class AccuracyJudge {
 public:
  // Looks at all the samples that context gives to passes.
  AccuracyJudge(const Model& model, const PassContext& context);

  // By the first figure of the data's task; without labels by "agreement", the share of samples
  // whose arg max is not the float model's.
  AccuracyDrop DropOf(const Model& candidate) const;

 private:
  EvaluateContext evaluation_;
  Reference reference_;
  Metrics baseline_;
};

}  // namespace pared
