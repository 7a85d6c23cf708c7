// Constants that a Loop carries from step to step.

#pragma once

#include "config/fields.h"
#include "model/graph.h"

namespace pared {

// Before:  y, v = Loop(n, go, h, w) { body (i, c, state, weight) => (go, next, weight) }
// After:   y = Loop(n, go, h) { body (i, c, state) => (go, next) }        the body reads w itself
//
// where w is a constant of the Loop's graph and the body hands it on as it is: tf2onnx exports
// recurrent layers so, and no pass would see a weight. Declines where v is an output of the graph,
// or where the body gives it as another output too. Returns [{"node", "value"}, ...].
Json FreeLoopConstants(Model& model);

}  // namespace pared
