// The option "op_types" of a pass.

#pragma once

#include <string>
#include <vector>

namespace pared {

// Throws kInvalidArgument at "op_types" where one of `given` is none of `known`.
void CheckOpTypes(const std::vector<std::string>& given, const std::vector<std::string>& known);

}  // namespace pared
