// ValueInfoProto and ValueInfo.

#pragma once

#include <string_view>

#include "model/graph.h"
#include "model/wire.h"

namespace pared {

ValueInfo ReadValueInfo(std::string_view message);
WireText WriteValueInfo(const ValueInfo& value);

}  // namespace pared
