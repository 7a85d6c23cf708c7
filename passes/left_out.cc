#include "passes/left_out.h"

#include "base/error.h"

namespace pared {

void TellLeftOut(const std::string& node, const std::string& value, LeftOut left_out,
                 PassContext& context) {
  if (left_out.count == 0) return;
  const std::string of = std::to_string(left_out.of) + " " + left_out.what + " that " + node +
                         " reads of \"" + value + "\"";
  if (left_out.count == left_out.of) {
    throw Error(ErrorCode::kInvalidArgument,
                "all " + of + " on the calibration data \"" + context.calibration->name() +
                    "\" hold NaN, infinite numbers or ones too large to square: nothing can be "
                    "learned from them",
                "value " + value);
  }
  Json& listed = context.report["left_out"];
  if (listed.empty()) {
    context.report["warnings"].push_back(std::to_string(left_out.count) + " of " + of +
                                         " on the calibration data hold NaN, infinite numbers or "
                                         "ones too large to square and were left out; \"left_out\" "
                                         "lists all layers of which that is true");
  }
  // Passes look at a layer more than once, by different samples: the last look counts.
  for (Json& entry : listed) {
    if (entry.at("node") != node) continue;
    entry[left_out.what] = left_out.count;
    entry["of"] = left_out.of;
    return;
  }
  listed.push_back(
      {{"node", node}, {"value", value}, {left_out.what, left_out.count}, {"of", left_out.of}});
}

}  // namespace pared
