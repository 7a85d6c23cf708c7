// Magnitudes of floats as ordered integers: the bit pattern without the sign (IEEE 754 orders both
// alike).

#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/cpu.h"

namespace pared {

inline constexpr uint32_t kMagnitudeMask = 0x7fffffff;

struct MagnitudeRange {
  uint32_t low = 0, high = kMagnitudeMask;  // both inclusive
};

// The number of magnitudes below range.low; those within the range are appended to `within`, in
// order. Reads each value once. The same on every ISA.
int64_t SplitMagnitudes(std::span<const float> values, MagnitudeRange range,
                        std::vector<uint32_t>& within, Isa isa);

}  // namespace pared
