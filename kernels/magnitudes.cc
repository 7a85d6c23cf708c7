#include "kernels/magnitudes.h"

#include <bit>

#include "kernels/magnitudes_avx512.h"

namespace pared {

int64_t SplitMagnitudes(std::span<const float> values, MagnitudeRange range,
                        std::vector<uint32_t>& within, Isa isa) {
  if constexpr (kOnX86) {
    if (isa >= Isa::kAvx512Vnni) return SplitMagnitudesAvx512(values, range, within);
  }
  int64_t below = 0;
  for (const float value : values) {
    const uint32_t magnitude = std::bit_cast<uint32_t>(value) & kMagnitudeMask;
    below += static_cast<int64_t>(magnitude < range.low);
    if (magnitude - range.low <= range.high - range.low) within.push_back(magnitude);
  }
  return below;
}

}  // namespace pared
