// IEEE 754 binary16 to float and back, one at a time and in bulk.

#pragma once

#include <cstdint>

#include "kernels/cpu.h"

namespace pared {

float HalfToFloat(uint16_t half);

// Round to nearest, ties to even; too large becomes infinity; a NaN stays one.
uint16_t FloatToHalf(float value);

// The same for `count` elements; the same bits on every ISA.
void HalvesToFloats(const uint16_t* halves, int64_t count, float* floats, Isa isa) noexcept;
void FloatsToHalves(const float* floats, int64_t count, uint16_t* halves, Isa isa) noexcept;

}  // namespace pared
