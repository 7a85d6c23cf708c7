// Rows of a layer's inputs that are left out of its statistics: they hold NaN, infinity, or values
// whose squares have no sum in single precision.

#pragma once

#include <cstdint>
#include <string>

#include "passes/pass.h"

namespace pared {

struct LeftOut {
  int64_t count = 0, of = 0;
  const char* what = "rows";
};

// Of `value` as `node` reads it. Where some are left out, report["left_out"] lists the node, and
// the first one is named in a warning. Throws kInvalidArgument where none is left.
void TellLeftOut(const std::string& node, const std::string& value, LeftOut left_out,
                 PassContext& context);

}  // namespace pared
