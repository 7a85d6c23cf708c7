#include "evaluator/ops.h"

namespace pared {

std::span<const OpInfo> QuantizeOps() { return {}; }

}  // namespace pared
