// Values that outlive the run that made them.

#pragma once

#include "model/tensor.h"

namespace pared {

// The same in memory of its own: what a run makes lies in its arena, which stays as long as any
// value of any sample does. What has no plain bytes is returned as it is.
Tensor OwnCopy(const Tensor& tensor);

}  // namespace pared
