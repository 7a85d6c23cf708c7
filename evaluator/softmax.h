// Softmax, LogSoftmax and Hardmax.

#pragma once

#include "evaluator/ops.h"

namespace pared {

Op PrepareSoftmax(const Node& node, const OpContext& context);
Op PrepareLogSoftmax(const Node& node, const OpContext& context);
Op PrepareHardmax(const Node& node, const OpContext& context);

}  // namespace pared
