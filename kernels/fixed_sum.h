// AddQuantized by integer arithmetic, where that gives the same code for every pair of codes.
//
//   y = clamp((A * a + B * b + C) >> (15 + shift), low, high)        A, B of 30 bits
//
// In two rounds of 16-bit products, whose floors compose exactly:
//
//   A = high_a * 2^15 + low_a     (high_a * a + high_b * b + high_c
//                                  + ((low_a * a + low_b * b + low_c) >> 15)) >> shift
//
// AddQuantized rounds four times in float, so the integer form differs from it beside a few of the
// points where y steps. FindFixedSum moves A, B and C by parts of 2^-24 until all 65,536 pairs
// agree.

#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "kernels/elementwise.h"

namespace pared {

struct FixedSum {
  int32_t high_a = 0, high_b = 0, high_c = 0;  // of a and b: int16
  int32_t low_a = 0, low_b = 0, low_c = 0;     // 0 to 2^15 - 1
  int32_t shift = 0;
  int32_t low = 0, high = 255;
};

// None where no such numbers exist, as where every second sum is a tie, or where `isa` has no
// kernel.
std::optional<FixedSum> FindFixedSum(const AddParams& params, Isa isa);

// y may be a. For the levels for which FindFixedSum finds sums.
void AddFixed(std::span<const uint8_t> a, const uint8_t* b, const FixedSum& sum,
              uint8_t* y) noexcept;

}  // namespace pared
