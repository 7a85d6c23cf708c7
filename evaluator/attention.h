// Attention of opset 23 and later.

#pragma once

#include "evaluator/ops.h"

namespace pared {

Op PrepareAttention(const Node& node, const OpContext& context);

}  // namespace pared
