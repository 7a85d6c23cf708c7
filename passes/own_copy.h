// Values that outlive the run that made them.

#pragma once

#include <cstdint>

#include "model/spill.h"
#include "model/tensor.h"

namespace pared {

// The same in memory of its own: what a run makes lies in its arena, which stays as long as any
// value of any sample does. What has no plain bytes is returned as it is.
Tensor OwnCopy(const Tensor& tensor);

// Of values that are kept of many samples, which are to take no more memory than those of a few:
// these samples' stay in memory. What is not small goes to a file; who has read it drops its pages.
inline constexpr int64_t kSamplesInMemory = 6;
Tensor KeptCopy(const Tensor& value, bool stays, SpillFile& file);

}  // namespace pared
