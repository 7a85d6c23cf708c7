// Float nodes of an INT8 model in float16: mixed precision.

#pragma once

#include <optional>
#include <string>
#include <unordered_set>

#include "passes/pass.h"

namespace pared {

// Before:  c = Conv(DQ(q), w)  r = Relu(c)  q2 = Q(r)             c among `kept`
// After:   c = Conv(Cast(DQ(q)), w float16)  r = Relu(c)  q2 = Q(Cast(r))
//
// `kept`: first outputs of weighted nodes. What only follows them elementwise is float16 too.
// context.report gets "kept_as_float16", and with its reason what float16 does not hold, as
// cast_fp16 finds it on the calibration data, in "kept_as_float32". nullopt: nothing is float16.
std::optional<Model> KeepAsHalf(const Model& quantized, const std::unordered_set<std::string>& kept,
                                PassContext& context);

}  // namespace pared
