// Activations by name, as FusedConv and the fused float nodes of domain "pared" carry them.

#pragma once

#include "kernels/f32.h"
#include "model/graph.h"

namespace pared {

// Of attributes `activation` and `activation_params`; kNone where the node has none. Throws
// kUnsupported for a name pared does not know.
ActivationF32 ReadActivation(const Node& node);

}  // namespace pared
