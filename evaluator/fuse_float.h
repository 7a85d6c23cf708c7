// Float operators joined for execution, after the INT8 rules have had their turn.

#pragma once

#include <string>
#include <vector>

#include "model/graph.h"

namespace pared {

// Joins what follows a convolution or matrix product to it; see fuse_float.cc. The values `kept`
// are made as outputs are, so that an observer sees them.
Model FuseFloat(Model model, const std::vector<std::string>& kept = {});

// Functions spelt with several operators as the one operator that they are; see
// fuse_float_patterns.cc.
void JoinFloatPatterns(Model& model);

}  // namespace pared
