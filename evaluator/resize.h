// Resize and Upsample.

#pragma once

#include "evaluator/ops.h"

namespace pared {

Op PrepareResize(const Node& node, const OpContext& context);
Op PrepareUpsample(const Node& node, const OpContext& context);

}  // namespace pared
