// DeformConv of opset 19 and later.

#pragma once

#include "evaluator/ops.h"

namespace pared {

Op PrepareDeformConv(const Node& node, const OpContext& context);

}  // namespace pared
