// Quantized operators in the form that the fusion rules read, so that they run planar and without
// floats in between, as models with QuantizeLinear and DequantizeLinear do: QLinearConv,
// QLinearMatMul, QGemm, what else of com.microsoft is called QLinear, and the MaxPool, Split and
// Resize of codes between them.
//
//   Before:  y = QLinearConv(x, xs, xz, w, ws, wz, ys, yz, b)
//   After:   y = Q(Conv(DQ(x, xs, xz), DQ(w, ws, wz), DQ(b, xs * ws)), ys, yz)

#pragma once

#include "model/graph.h"

namespace pared {

// Nodes of the main graph. Products only with what the rules can take: constant weights without
// zero points, constant scalars of activations; the others stay. Throws as ComposeOp does.
void ExpandQOperators(Model& model);

}  // namespace pared
