#include "evaluator/ops.h"

namespace pared {

std::span<const OpInfo> SelectionOps() { return {}; }

}  // namespace pared
