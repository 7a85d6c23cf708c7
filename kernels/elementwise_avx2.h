// AVX2 versions of the loops of elementwise.cc that the compiler does not make.

#pragma once

#include <cstdint>
#include <span>

#include "kernels/elementwise.h"

namespace pared {

void LookUpAvx2(std::span<const uint8_t> x, const ByteTable& table, uint8_t* y) noexcept;

}  // namespace pared
