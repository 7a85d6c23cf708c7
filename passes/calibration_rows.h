// Calibration samples that are batches, taken apart.
//
// What a pass learns from a bounded number of samples, and from some positions of each, would
// depend on how the rows of the data are joined to batches. So a batch counts as its rows.

#pragma once

#include <optional>

#include "passes/pass.h"

namespace pared {

struct CalibrationRows {
  Dataset data;
  int64_t batch = 0;  // rows of each sample
};

// nullopt: samples have one row or not all as many, go with a label, a target, a picture or a
// state, or would have to be copied and are larger than kCopiedBytesMax together; or the model does
// not compute the rows of a batch each by itself, as far as the first sample tells.
constexpr int64_t kCopiedBytesMax = int64_t{256} << 20;
std::optional<CalibrationRows> RowsOfCalibration(const Model& model, const PassContext& context);

}  // namespace pared
