// Attributes that no execution could honour: a stride of 0, a group that does not divide.

#pragma once

#include "model/graph.h"

namespace pared {

// Throws kInvalidArgument naming the node, in subgraphs and functions too. Looks at attributes, and
// at the shapes of initializers where an attribute must fit them.
void CheckOps(const Model& model);

}  // namespace pared
