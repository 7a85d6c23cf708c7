// From QuantizeLinear/DequantizeLinear pairs to quantized operators.

#pragma once

#include "config/fields.h"
#include "model/graph.h"

namespace pared {

// Before:  y_quantized = Q(Relu(Conv(DQ(x_quantized), DQ(w), DQ(b))))
// After:   y_quantized = QLinearConv(x_quantized, ..., w, ..., b)
//
// In the main graph: Conv, MatMul and what only moves codes become operators of ONNX; with
// `contributed` also Gemm, Add, Mul, Concat, average pools, Sigmoid and LeakyRelu, of the domain
// com.microsoft. A Relu or Clip is taken in where the codes saturate no later than it. A product
// with constant weights that is read as float becomes MatMulInteger. What has no such form stays as
// it is. Returns {"changed": [node, ...], "kept_qdq": [{"node", "reason"}, ...]}.
Json ToQOperators(Model& model, bool contributed);

}  // namespace pared
