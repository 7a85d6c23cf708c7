#include "evaluator/ops.h"

namespace pared {

std::span<const OpInfo> ControlOps() { return {}; }

}  // namespace pared
