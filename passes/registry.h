// All passes, by name.

#pragma once

#include <span>
#include <string_view>

#include "passes/pass.h"

namespace pared {

std::span<const PassInfo* const> Passes();

// Null: no such pass.
const PassInfo* FindPass(std::string_view name);

}  // namespace pared
