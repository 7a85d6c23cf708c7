// Nodes that no execution could honour: a stride of 0, a group that does not divide, an input too
// few, an attribute of another type.

#pragma once

#include "model/graph.h"

namespace pared {

// Throws kInvalidArgument naming the node, in subgraphs and functions too. Looks at the
// nodes and the shapes of initializers; what must fit the shapes of other values is for
// InferShapes.
void CheckOps(const Model& model);

}  // namespace pared
