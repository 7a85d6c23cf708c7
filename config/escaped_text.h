// Text of strangers, such as the names within a model, as a terminal or a log can show it.

#pragma once

#include <string>
#include <string_view>

namespace pared {

// `text` with control characters and bytes that are no UTF-8 as "\\x1B".
std::string Escaped(std::string_view text);

}  // namespace pared
