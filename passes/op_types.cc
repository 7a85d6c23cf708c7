#include "passes/op_types.h"

#include <algorithm>

#include "base/error.h"
#include "config/fields.h"

namespace pared {

void CheckOpTypes(const std::vector<std::string>& given, const std::vector<std::string>& known) {
  for (const std::string& op_type : given) {
    if (std::ranges::find(known, op_type) != known.end()) continue;
    std::string list;
    for (const std::string& other : known) list += (list.empty() ? "" : ", ") + other;
    throw Error(ErrorCode::kInvalidArgument,
                "\"" + op_type + "\" is none of " + list + DidYouMean(op_type, known), "op_types");
  }
}

}  // namespace pared
