// Constants that Identity nodes give a second name, as exporters write weights that layers share.

#pragma once

#include <functional>

#include "model/graph.h"

namespace pared {

// Before:  w initializer  v = Identity(w)  y = MatMul(x, v)      After:  y = MatMul(x, w)
//
// In every graph of the model, so that a weight is one for all its readers. Declines where the
// Identity is kept, makes an output of its graph, or reads what a caller may override.
void RemoveConstantAliases(Model& model, const std::function<bool(const Node&)>& keep);

}  // namespace pared
