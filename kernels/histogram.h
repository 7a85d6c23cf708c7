// Counts floats by sign and magnitude in bins that are a constant fraction of an octave wide.
//
// A bin is a number's exponent and the first kSubBits of its mantissa; below 2^kOctaveMin it is the
// first, from 2^kOctaveMax on the last. Integers throughout: the same on every ISA.

#pragma once

#include <cstdint>
#include <span>

#include "kernels/cpu.h"

namespace pared {

struct HistogramBins {
  static constexpr int kSubBits = 6;
  static constexpr int kSubBins = 1 << kSubBits;           // of an octave: 1.1 % wide
  static constexpr int kOctaveMin = -24, kOctaveMax = 40;  // powers of 16-bit sound reach 2^38
  static constexpr int kOfSign = (kOctaveMax - kOctaveMin) * kSubBins;
};

// Of a table of counts: positive numbers, negative ones, then zeros, in several places that belong
// together, and what is not finite.
constexpr int kZeroPlaces = 8;
constexpr int kZeroPlace = 2 * HistogramBins::kOfSign;
constexpr int kNotFinitePlace = kZeroPlace + kZeroPlaces;
constexpr int kHistogramPlaces = kNotFinitePlace + 1;

struct HistogramEnds {
  float min = 0, max = 0;  // of the finite elements and 0
  int64_t nan_count = 0, infinite_count = 0;
};

// `counts`: [kHistogramPlaces], added to; null: only the ends are wanted.
HistogramEnds AddToHistogram(std::span<const float> elements, int64_t* counts, Isa isa) noexcept;

// Of the finite elements. Every eighth is added to the same of eight sums: the same on every ISA.
struct FiniteSum {
  double sum = 0;
  float largest = 0;  // magnitude
};
FiniteSum SumFinite(std::span<const float> elements, Isa isa) noexcept;

}  // namespace pared
