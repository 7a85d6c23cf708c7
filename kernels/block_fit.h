// How well a scale and a zero point serve a block of weights, for the search of 4-bit scales.

#pragma once

#include <cstdint>

#include "kernels/cpu.h"

namespace pared {

// Blocks come in whole lanes of so many floats, filled up with zeros.
constexpr int64_t kBlockLanes = 16;

// code[i] = round_even(values[i] / scale), clamped to [low, high], low <= 0 <= high.
struct BlockProblem {
  const float* values = nullptr;      // [count], finite
  const float* importance = nullptr;  // [count]; null: all 1
  int64_t count = 0;                  // a multiple of kBlockLanes
  float scale = 1;                    // finite, not 0
  float low = 0, high = 0;            // integers within 2^22
};

// Sums over i, each of importance[i] * ..., in single precision by lane and then in double: the
// same bits on every ISA.
struct BlockSums {
  double error = 0;    // (values[i] - scale * code[i])^2
  double product = 0;  // values[i] * code[i]
  double square = 0;   // code[i]^2
};

BlockSums FitBlock(const BlockProblem& problem, Isa isa) noexcept;

}  // namespace pared
