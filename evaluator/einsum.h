// Einsum: sums of products over named axes.

#pragma once

#include "evaluator/ops.h"

namespace pared {

Op PrepareEinsum(const Node& node, const OpContext& context);

}  // namespace pared
