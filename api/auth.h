// Who may ask what: bearer tokens.

#pragma once

#include <cstdint>
#include <optional>

#include "api/message.h"
#include "api/router.h"
#include "config/settings.h"

namespace pared {

// Nothing: go on. Else 401, or 403 where the token may only read. Without tokens in the settings
// everything is open; /healthz and /readyz always are. `now_ms` is since 1970, UTC.
std::optional<Response> RefuseStranger(const Settings& settings, const Request& request,
                                       int64_t now_ms);

}  // namespace pared
