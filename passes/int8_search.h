// The INT8 form of a model that is nearest to it on calibration samples.
//
// Ranges by each method, smoothing of matrix products and second-order rounding are tried and kept
// where the worst judged value gains.

#pragma once

#include <memory>

#include "passes/accuracy_judge.h"
#include "passes/int8_candidate.h"
#include "passes/int8_fidelity.h"
#include "passes/int8_rewrite.h"

namespace pared {

struct Int8Found {
  std::unique_ptr<Int8Candidate> candidate;  // smoothed where that was kept
  Calibration calibration;
  Int8Settings settings;
  std::unique_ptr<FidelityJudge> judge;
  Int8Rewrite best;
  Nearness best_near;
  std::unique_ptr<AccuracyJudge> accuracy;  // null: accuracy has no bound
};

Int8Found SearchInt8(std::unique_ptr<Int8Candidate> candidate, const Int8Request& request,
                     PassContext& context);

}  // namespace pared
