// What ONNX's schemas say of operators: how many inputs they take, of which type attributes are.

#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "model/graph.h"

namespace pared {

struct InputCount {
  int64_t min, max;
};

// nullopt: the operator of the default domain is not known in this opset.
std::optional<InputCount> InputCountOf(const std::string& op_type, int64_t opset);

// Of operators that InputCountOf knows: "ints" for the pads of a Conv. Null: not known, or of a
// type that pared only carries.
const char* AttributeTypeOf(const std::string& op_type, const std::string& attribute);

// As AttributeTypeOf has it; null: no value that pared reads.
const char* TypeOfValue(const Attribute& attribute);

}  // namespace pared
