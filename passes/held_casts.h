// Casts that onnxruntime would take into a LayerNormalization of two types.
//
// Before:  f = Cast(h)  m = ReduceMean(f)  s = Sub(f, m)  ...  y = Add(Mul(Div(s, d), gamma), beta)
// After:   f = Cast(h)  g = Sum(f)  m = ReduceMean(g)  s = Sub(g, m)  ...
//
// Its fusion of such nodes drops a Cast before the ReduceMean, behind the Sub or behind the Div:
// the one node it writes then has an input and a factor of different types, and the model does not
// load. Where an odd number of Casts lies on that way, the last of them gets a Sum of one value
// behind it, which is that value; onnxruntime takes out an Identity, and no Sum.

#pragma once

#include "model/graph.h"

namespace pared {

// In subgraphs too. The Casts are between float16 and float32.
void HoldCasts(Model& model);

}  // namespace pared
