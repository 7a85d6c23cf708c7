// Attention of opset 23 and later.

#pragma once

#include "evaluator/ops.h"

namespace pared {

Op PrepareAttention(const Node& node, const OpContext& context);

// What the contributed operators call a mask, as the float mask of Attention. Inputs: int32 [batch]
// (how many keys are valid), [batch, keys] or [batch, queries, keys] (0: not valid), and keys
// [batch, keys, ...]. A key that is not valid gets the attribute `filter`.
Op PrepareAttentionMask(const Node& node, const OpContext& context);

}  // namespace pared
