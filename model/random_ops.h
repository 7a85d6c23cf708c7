// Operators whose result may differ from run to run.

#pragma once

#include <string_view>

namespace pared {

// Of ONNX's own: those that draw numbers, and Dropout, which does in training.
bool IsRandomOp(std::string_view op_type);

}  // namespace pared
