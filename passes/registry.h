// All passes, by name.

#pragma once

#include <span>
#include <string_view>

#include "passes/pass.h"

namespace pared {

std::span<const PassInfo* const> Passes();

// Null: no such pass.
const PassInfo* FindPass(std::string_view name);

// pass.bind, with the model's functions written out (inline_functions.h) before the pass sees it,
// and references to their calls and nodes followed (node_history.h).
Step BindPass(const PassInfo& pass, const Json& options, const std::string& pointer);

}  // namespace pared
