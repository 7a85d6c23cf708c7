// The one table of routes.

#pragma once

#include <vector>

#include "api/router.h"
#include "api/service.h"

namespace pared {

// All routes of the service, which must outlive them.
std::vector<Route> MakeRoutes(const Service& service);

}  // namespace pared
