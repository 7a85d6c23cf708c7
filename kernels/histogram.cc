#include "kernels/histogram.h"

#include <algorithm>
#include <bit>
#include <cstring>

#pragma GCC push_options
#pragma GCC optimize("O3")

namespace pared {
namespace {

constexpr int32_t kInfinity = 0x7f800000, kInt32Max = 0x7fffffff;
constexpr int kMantissaBits = 23, kExponentBias = 127;
constexpr int kShift = kMantissaBits - HistogramBins::kSubBits;
constexpr int kFirstBin = (HistogramBins::kOctaveMin + kExponentBias) << HistogramBins::kSubBits;
constexpr int64_t kChunk = 1024;  // elements whose places are known before they are counted

#define PARED_LOOPS "kernels/histogram_body.h"
#include "kernels/each_isa.h"

// Counts of one call of a loop fit 32 bits.
constexpr int64_t kCallMax = int64_t{1} << 30;

template <class Extremes, class Count>
HistogramEnds CountAll(std::span<const float> elements, int64_t* counts, const Count& count) {
  HistogramEnds ends;
  for (size_t begin = 0; begin < elements.size(); begin += kCallMax) {
    const std::span<const float> part =
        elements.subspan(begin, std::min<size_t>(kCallMax, elements.size() - begin));
    Extremes found;
    count(part.data(), std::ssize(part), counts, found);
    ends.min = std::min(ends.min, -std::bit_cast<float>(found.negative));
    ends.max = std::max(ends.max, std::bit_cast<float>(found.positive));
    ends.nan_count += found.nan_count;
    ends.infinite_count += found.not_finite_count - found.nan_count;
  }
  return ends;
}

template <class Lanes, class Add>
FiniteSum SumLanes(std::span<const float> elements, const Add& add) {
  Lanes lanes;
  add(elements.data(), std::ssize(elements), lanes);
  FiniteSum total;
  int32_t largest = 0;
  for (int64_t i = 0; i < Lanes::kCount; ++i) {
    total.sum += lanes.sums[i];
    largest = std::max(largest, lanes.largest[i]);
  }
  total.largest = std::bit_cast<float>(largest);
  return total;
}

}  // namespace

FiniteSum SumFinite(std::span<const float> elements, Isa isa) noexcept {
#ifdef __x86_64__
  if (Includes(isa, Isa::kAvx512Vnni)) return SumLanes<avx512::Lanes>(elements, avx512::AddFinite);
  if (Includes(isa, Isa::kAvx2)) return SumLanes<avx2::Lanes>(elements, avx2::AddFinite);
#endif
  static_cast<void>(isa);
  return SumLanes<plain::Lanes>(elements, plain::AddFinite);
}

HistogramEnds AddToHistogram(std::span<const float> elements, int64_t* counts, Isa isa) noexcept {
#ifdef __x86_64__
  if (Includes(isa, Isa::kAvx512Vnni)) {
    return CountAll<avx512::Extremes>(elements, counts, avx512::Count);
  }
  if (Includes(isa, Isa::kAvx2)) return CountAll<avx2::Extremes>(elements, counts, avx2::Count);
#endif
  static_cast<void>(isa);
  return CountAll<plain::Extremes>(elements, counts, plain::Count);
}

}  // namespace pared

#pragma GCC pop_options
