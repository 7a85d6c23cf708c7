// Float operators joined for execution, after the INT8 rules have had their turn.

#pragma once

#include "model/graph.h"

namespace pared {

// Joins what follows a convolution or matrix product to it; see fuse_float.cc.
Model FuseFloat(Model model);

// Functions spelt with several operators as the one operator that they are; see
// fuse_float_patterns.cc.
void JoinFloatPatterns(Model& model);

}  // namespace pared
