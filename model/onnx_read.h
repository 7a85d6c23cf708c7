// ModelProto to Model.

#pragma once

#include <string_view>

#include "model/graph.h"
#include "model/onnx_tensor.h"

namespace pared {

// As the message has it: nothing is checked but the message itself. Throws Error and protozero's
// exceptions.
Model ReadModel(std::string_view message, TensorSource& source);

}  // namespace pared
