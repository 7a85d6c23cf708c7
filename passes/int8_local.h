// Ranges of activations and smoothing factors from what they cost the products that read them.
//
// At sampled positions the products of a value are computed with the value's codes, and their error
// is compared for each candidate: no run of the model for any of them. The calibration is that of
// the values of the choice; what was found is kept for passes that ask the same
// (passes/shared_statistics.h).

#pragma once

#include <string>
#include <unordered_map>

#include "passes/calibrate.h"
#include "passes/int8_choice.h"
#include "passes/int8_smooth.h"

namespace pared {

using ValueRanges = std::unordered_map<std::string, ValueRange>;

// For each value that compute nodes with statistics (WhyNoStatistics) read: the range, cut at both
// ends alike from what calibration saw, with the least squared error of their outputs. Errors count
// against the energy of the node's output; of a matrix product, whose rows are normalized later on,
// against the energy of the row.
ValueRanges ChooseRanges(const Int8ChoiceContext& context, const Int8Choice& choice,
                         const Calibration& calibration, PassContext& pass_context);

// For each value that may be smoothed (SmoothableProducts): the factors with the least error of its
// products with INT8 weights and activations, where some gain on none. By candidate
//   max|x|^a / max|w|^(1 - a)              (SmoothQuant) and
//   max(1, max|x| / t), t for all channels: only the channels that stand out are scaled.
// They are dropped where what one half of the samples gives does the other half no good. Values
// that `calibration` has no range of get one at run time.
SmoothingFactors ChooseSmoothing(const Int8ChoiceContext& context, const Int8Choice& choice,
                                 const Calibration& calibration, PassContext& pass_context);

}  // namespace pared
