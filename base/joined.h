// Lists in messages.

#pragma once

#include <string>
#include <vector>

namespace pared {

// "a, b, c"
inline std::string Joined(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : ", ") + name;
  return text;
}

}  // namespace pared
