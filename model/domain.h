// Domains of operators.

#pragma once

#include <string_view>

namespace pared {

// Whether the domain is that of ONNX's own operators, which has two names.
inline bool IsDefaultDomain(std::string_view domain) {
  return domain.empty() || domain == "ai.onnx";
}

}  // namespace pared
