// Magnitudes compare as their bit patterns without the sign. A sample brackets the threshold; one
// read of all elements counts those below the bracket and collects the few within; these are then
// ordered. Where the bracket misses, it is widened to everything: exact in any case.

#include "passes/select_smallest.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "base/check.h"

namespace pared {
namespace {

constexpr uint32_t kMagnitudeMask = 0x7fffffff;
constexpr int64_t kSampleSize = 1 << 16;
// The sample's quantile errs by about sqrt(p (1 - p) / n); six of that miss once in 5e8 calls.
constexpr double kDeviations = 6;

uint32_t Magnitude(float value) { return std::bit_cast<uint32_t>(value) & kMagnitudeMask; }

struct Bracket {
  uint32_t low = 0, high = kMagnitudeMask;  // both inclusive
};

int64_t TotalCount(const std::vector<std::span<const float>>& lists) {
  int64_t total = 0;
  for (const std::span<const float> list : lists) total += std::ssize(list);
  return total;
}

Bracket SampleBracket(const std::vector<std::span<const float>>& lists, int64_t count,
                      int64_t total) {
  if (total <= 4 * kSampleSize) return {};
  // A step with no small factor does not fall in with the rows of a matrix.
  const int64_t step = (total / kSampleSize) | 1;
  std::vector<uint32_t> sample;
  int64_t next = step / 2;
  for (const std::span<const float> list : lists) {
    for (; next < std::ssize(list); next += step) {
      sample.push_back(Magnitude(list[static_cast<size_t>(next)]));
    }
    next -= std::ssize(list);
  }
  std::ranges::sort(sample);
  const double size = static_cast<double>(sample.size());
  const double quantile = static_cast<double>(count) / static_cast<double>(total);
  const double margin = kDeviations * std::sqrt(size * quantile * (1 - quantile)) + 2;
  const double low = quantile * size - margin, high = quantile * size + margin;
  Bracket bracket;
  if (low >= 0) bracket.low = sample[static_cast<size_t>(low)];
  if (high < size) bracket.high = sample[static_cast<size_t>(high)];
  return bracket;
}

struct Split {
  int64_t below = 0;
  std::vector<uint32_t> within;
};

// Blocks of this many are counted without a branch; only blocks that hold a candidate are looked
// through again.
constexpr size_t kBlock = 64;

void SplitBlock(std::span<const float> block, Bracket bracket, Split& split) {
  int32_t below = 0, within = 0;
  for (const float value : block) {
    const uint32_t magnitude = Magnitude(value);
    below += static_cast<int32_t>(magnitude < bracket.low);
    within += static_cast<int32_t>(magnitude - bracket.low <= bracket.high - bracket.low);
  }
  split.below += below;
  if (within == 0) return;
  for (const float value : block) {
    const uint32_t magnitude = Magnitude(value);
    if (magnitude - bracket.low <= bracket.high - bracket.low) split.within.push_back(magnitude);
  }
}

Split SplitAll(const std::vector<std::span<const float>>& lists, Bracket bracket) {
  Split split;
  for (std::span<const float> list : lists) {
    while (!list.empty()) {
      const size_t size = std::min(kBlock, list.size());
      SplitBlock(list.first(size), bracket, split);
      list = list.subspan(size);
    }
  }
  return split;
}

}  // namespace

Threshold SelectSmallest(const std::vector<std::span<const float>>& lists, int64_t count) {
  const int64_t total = TotalCount(lists);
  PARED_CHECK(count >= 0);
  PARED_CHECK(count <= total);
  if (count == 0) return {0, 0};
  Split split = SplitAll(lists, SampleBracket(lists, count, total));
  if (count <= split.below || count > split.below + std::ssize(split.within)) {
    split = SplitAll(lists, {});
  }
  const auto last = split.within.begin() + (count - split.below - 1);
  std::nth_element(split.within.begin(), last, split.within.end());
  const uint32_t threshold = *last;
  // nth_element leaves nothing greater before `last`.
  const int64_t less = std::count_if(split.within.begin(), last,
                                     [&](uint32_t magnitude) { return magnitude < threshold; });
  return {std::bit_cast<float>(threshold), count - split.below - less};
}

}  // namespace pared
