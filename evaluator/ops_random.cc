#include "evaluator/ops.h"

namespace pared {

std::span<const OpInfo> RandomOps() { return {}; }

}  // namespace pared
