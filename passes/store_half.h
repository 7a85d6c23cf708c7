// Weights in a 16-bit float, read as float32.

#pragma once

#include <unordered_set>

#include "passes/pass.h"

namespace pared {

// Before:  y = Conv(x, w)            w float32
// After:   w = Cast(w_bfloat16)  y = Conv(x, w)
//
// `dtype`: float16 or bfloat16. A weight that `dtype` does not hold, that an excluded node reads,
// or that is too small to matter stays as it is; the first two are reported.
Model StoreInHalf(Model model, DType dtype, const std::unordered_set<const Node*>& excluded,
                  PassContext& context);

}  // namespace pared
