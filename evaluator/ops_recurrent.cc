#include "evaluator/ops.h"

namespace pared {

std::span<const OpInfo> RecurrentOps() { return {}; }

}  // namespace pared
