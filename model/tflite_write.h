// Models as TensorFlow Lite files.

#pragma once

#include <filesystem>
#include <string>

#include "model/graph.h"

namespace pared {

// The file that computes what the model does: layouts are [N,H,W,C] inside, inputs and outputs keep
// names, types (halves become float) and layout. Between QuantizeLinear and DequantizeLinear it
// computes with codes of int8 where TensorFlow Lite has the operator for codes. Throws kUnsupported
// where a node has no counterpart there: all types of operators that have none, or the node.
std::string SerializeTflite(const Model& model);

// Writes that aside and renames it into place. Throws kUnavailable where the disk refuses.
void SaveTflite(const Model& model, const std::filesystem::path& path);

}  // namespace pared
