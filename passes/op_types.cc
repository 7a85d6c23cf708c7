#include "passes/op_types.h"

#include <algorithm>

#include "base/error.h"
#include "base/joined.h"
#include "config/fields.h"

namespace pared {

void CheckOpTypes(const std::vector<std::string>& given, const std::vector<std::string>& known) {
  for (const std::string& op_type : given) {
    if (std::ranges::find(known, op_type) != known.end()) continue;
    throw Error(ErrorCode::kInvalidArgument,
                "\"" + op_type + "\" is none of " + Joined(known) + DidYouMean(op_type, known),
                "op_types");
  }
}

}  // namespace pared
