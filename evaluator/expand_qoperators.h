// QLinearConv, QLinearMatMul, and QLinearAdd, QLinearMul, QLinearGlobalAveragePool, QLinearSigmoid
// and QLinearLeakyRelu of com.microsoft in the form that the fusion rules read, so that they run
// planar and without floats in between, as models with QuantizeLinear and DequantizeLinear do.
//
//   Before:  y = QLinearConv(x, xs, xz, w, ws, wz, ys, yz, b)
//   After:   y = Q(Conv(DQ(x, xs, xz), DQ(w, ws, wz), DQ(b, xs * ws)), ys, yz)

#pragma once

#include "model/graph.h"

namespace pared {

// Nodes of the main graph whose weights and parameters the rules can take: constant weights without
// zero points, constant scalars of activations. The others stay.
void ExpandQOperators(Model& model);

}  // namespace pared
