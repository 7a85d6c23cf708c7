#include "evaluator/ops.h"

namespace pared {

std::span<const OpInfo> IntegerOps() { return {}; }

}  // namespace pared
