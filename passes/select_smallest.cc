// Magnitudes compare as their bit patterns without the sign. A sample brackets the threshold; one
// read of all elements, in parallel, counts those below the bracket and collects the few within;
// of these a histogram leaves one bin to be ordered. Where the bracket misses, it is widened to
// everything: exact in any case.

#include "passes/select_smallest.h"

#include <tbb/parallel_for.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>

#include "base/check.h"
#include "kernels/magnitudes.h"

namespace pared {
namespace {

constexpr int64_t kSampleSize = 1 << 17;
// The sample's quantile errs by about sqrt(p (1 - p) / n); five of that miss once in 2e6 calls.
constexpr double kDeviations = 5;

uint32_t Magnitude(float value) { return std::bit_cast<uint32_t>(value) & kMagnitudeMask; }

int64_t TotalCount(const std::vector<std::span<const float>>& lists) {
  int64_t total = 0;
  for (const std::span<const float> list : lists) total += std::ssize(list);
  return total;
}

// The element that would stand at `rank` if the sample were sorted.
uint32_t AtRank(std::vector<uint32_t>& sample, double rank) {
  const auto place = sample.begin() + static_cast<int64_t>(rank);
  std::nth_element(sample.begin(), place, sample.end());
  return *place;
}

using IsRead = std::function<void(size_t list)>;

MagnitudeRange SampleBracket(const std::vector<std::span<const float>>& lists, int64_t count,
                             const IsRead& is_read) {
  const int64_t total = TotalCount(lists);
  if (total <= 4 * kSampleSize) return {};
  // A step with no small factor does not fall in with the rows of a matrix.
  const int64_t step = (total / kSampleSize) | 1;
  std::vector<uint32_t> sample;
  int64_t next = step / 2;
  for (size_t i = 0; i < lists.size(); ++i) {
    for (; next < std::ssize(lists[i]); next += step) {
      sample.push_back(Magnitude(lists[i][static_cast<size_t>(next)]));
    }
    next -= std::ssize(lists[i]);
    is_read(i);
  }
  const double size = static_cast<double>(sample.size());
  const double quantile = static_cast<double>(count) / static_cast<double>(total);
  const double margin = kDeviations * std::sqrt(size * quantile * (1 - quantile)) + 2;
  const double low = quantile * size - margin, high = quantile * size + margin;
  MagnitudeRange bracket;
  if (low >= 0) bracket.low = AtRank(sample, low);
  if (high < size) bracket.high = AtRank(sample, high);
  return bracket;
}

struct Split {
  int64_t below = 0;
  std::vector<uint32_t> within;
};

void AddSplit(std::span<const float> list, MagnitudeRange bracket, Split& split) {
  constexpr size_t kChunk = 1 << 20;
  std::vector<Split> parts((list.size() + kChunk - 1) / kChunk);
  const Isa isa = SelectedIsa();
  tbb::parallel_for(size_t{0}, parts.size(), [&](size_t i) {
    const std::span<const float> rest = list.subspan(i * kChunk);
    parts[i].below =
        SplitMagnitudes(rest.first(std::min(kChunk, rest.size())), bracket, parts[i].within, isa);
  });
  for (const Split& part : parts) {
    split.below += part.below;
    split.within.insert(split.within.end(), part.within.begin(), part.within.end());
  }
}

Split SplitAll(const std::vector<std::span<const float>>& lists, MagnitudeRange bracket,
               const IsRead& is_read) {
  Split split;
  for (size_t i = 0; i < lists.size(); ++i) {
    AddSplit(lists[i], bracket, split);
    is_read(i);
  }
  return split;
}

// The magnitude that `rank` of the others precede, and how many are less than it.
struct Ranked {
  uint32_t magnitude = 0;
  int64_t less = 0;
};

Ranked FindRank(std::vector<uint32_t>& magnitudes, int64_t rank) {
  const auto [least, most] = std::ranges::minmax(magnitudes);
  constexpr int kBinBits = 12;
  const int shift = std::max(0, static_cast<int>(std::bit_width(most - least)) - kBinBits);
  std::array<int64_t, 1 << kBinBits> bins = {};
  for (const uint32_t magnitude : magnitudes) ++bins[(magnitude - least) >> shift];
  size_t bin = 0;
  int64_t before = 0;
  while (before + bins[bin] <= rank) before += bins[bin++];
  const auto is_outside = [bin, shift, base = least](uint32_t m) {
    return (m - base) >> shift != bin;
  };
  magnitudes.erase(std::remove_if(magnitudes.begin(), magnitudes.end(), is_outside),
                   magnitudes.end());
  const auto place = magnitudes.begin() + (rank - before);
  std::nth_element(magnitudes.begin(), place, magnitudes.end());
  // nth_element leaves nothing greater before `place`.
  const int64_t less = std::count_if(magnitudes.begin(), place,
                                     [&](uint32_t magnitude) { return magnitude < *place; });
  return {*place, before + less};
}

}  // namespace

Threshold SelectSmallest(const std::vector<std::span<const float>>& lists, int64_t count,
                         const IsRead& is_read) {
  const int64_t total = TotalCount(lists);
  PARED_CHECK(count >= 0);
  PARED_CHECK(count <= total);
  if (count == 0) return {0, 0};
  Split split = SplitAll(lists, SampleBracket(lists, count, is_read), is_read);
  if (count <= split.below || count > split.below + std::ssize(split.within)) {
    split = SplitAll(lists, {}, is_read);
  }
  const Ranked last = FindRank(split.within, count - split.below - 1);
  return {std::bit_cast<float>(last.magnitude), count - split.below - last.less};
}

}  // namespace pared
