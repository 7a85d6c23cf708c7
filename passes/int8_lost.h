// What one scale for a whole weight, or for a column of stacked matrices, does to its smallest
// channels.

#pragma once

#include "passes/int8_search.h"

namespace pared {

// Adds to context's report, under "warnings", a line for each such weight in which channels
// become zero or keep less than 10 dB.
void WarnOfLostChannels(const Int8Found& found, Json& report);

}  // namespace pared
