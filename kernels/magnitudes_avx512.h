#pragma once

#include "kernels/magnitudes.h"

namespace pared {

int64_t SplitMagnitudesAvx512(std::span<const float> values, MagnitudeRange range,
                              std::vector<uint32_t>& within);

}  // namespace pared
