// ONNX's textual syntax (a subset), so that a graph in a test reads as text.
//
//   <ir_version: 8, opset_import: ["" : 13]>
//   g (float[N,4] x) => (float[N,2] y) <float[4,2] w = {0,0,3,0,0,0,0,-2}> {
//     y = MatMul(x, w)
//   }
//
// Syntax: the "ONNX Textual Syntax" page of the ONNX documentation. Subgraphs and metadata are read
// too. The header may be left out: IR version 8, opset 17. `name:` before a node is not ONNX's;
// a node's name is written [name] before its outputs, as newer ONNX releases do.

#pragma once

#include <string>
#include <string_view>

#include "model/graph.h"

namespace pared {

// Throws kInvalidArgument with line and column in `where`.
Model ParseText(std::string_view text);

// Initializers of more than 16 elements are written as their type and count only.
std::string ToText(const Model& model);

}  // namespace pared
