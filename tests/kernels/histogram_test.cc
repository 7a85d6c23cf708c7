#include "kernels/histogram.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

namespace pared {
namespace {

using ::testing::Each;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr int kOfSign = HistogramBins::kOfSign;

using Counts = std::vector<int64_t>;

HistogramEnds Add(std::span<const float> values, Counts& counts, Isa isa) {
  counts.resize(kHistogramPlaces);
  return AddToHistogram(values, counts.data(), isa);
}

// By the definition of a bin: the octave of a magnitude, and how far it lies into the octave.
int BinOf(float magnitude) {
  int exponent = 0;
  const float mantissa = 2 * std::frexp(magnitude, &exponent) - 1;  // of [0, 1)
  const int part = static_cast<int>(mantissa * HistogramBins::kSubBins);
  const int bin = (exponent - 1 - HistogramBins::kOctaveMin) * HistogramBins::kSubBins + part;
  return std::clamp(bin, 0, kOfSign - 1);
}

TEST(Histogram, PutsEachElementInTheBinOfItsMagnitude) {
  std::vector<float> values = {1, -1, 1e-30f, -1e30f, 1.015625f, 1e-42f};
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  while (values.size() < 3001)
    values.push_back(std::ldexp(normal(random), static_cast<int>(random() % 70) - 35));
  Counts expected(kHistogramPlaces);
  for (const float value : values) {
    ++expected[static_cast<size_t>(BinOf(std::fabs(value)) + (value < 0 ? kOfSign : 0))];
  }
  for (const Isa isa : AvailableIsas()) {
    Counts counts;
    Add(values, counts, isa);
    EXPECT_EQ(counts, expected) << IsaName(isa);
  }
}

// Every length below, at and above a vector and what is worked on at a time.
TEST(Histogram, SplitsAnywhere) {
  std::vector<float> values(2600);
  std::mt19937 random(2);
  std::normal_distribution<float> normal;
  for (float& value : values) value = std::max(0.0f, normal(random));
  for (const Isa isa : AvailableIsas()) {
    Counts whole, parts;
    Add(values, whole, isa);
    for (size_t begin = 0, size = 1; begin < values.size(); begin += size, size = size * 3 % 1501) {
      Add(std::span(values).subspan(begin, std::min(size, values.size() - begin)), parts, isa);
    }
    const auto zeros = [](const Counts& counts) {
      int64_t sum = 0;
      for (int i = 0; i < kZeroPlaces; ++i) sum += counts[static_cast<size_t>(kZeroPlace + i)];
      return sum;
    };
    EXPECT_EQ(zeros(parts), std::ranges::count(values, 0.0f)) << IsaName(isa);
    EXPECT_EQ(zeros(parts), zeros(whole)) << IsaName(isa);
    EXPECT_TRUE(std::equal(parts.begin(), parts.begin() + kZeroPlace, whole.begin()));
  }
}

TEST(Histogram, KeepsWhatIsNotFiniteApart) {
  const std::vector<float> values = {kNan, 2, kInfinity, -0.5f, -kNan, -kInfinity, -0.0f, kNan};
  for (const Isa isa : AvailableIsas()) {
    Counts counts;
    const HistogramEnds ends = Add(values, counts, isa);
    EXPECT_EQ(ends.min, -0.5f) << IsaName(isa);
    EXPECT_EQ(ends.max, 2) << IsaName(isa);
    EXPECT_EQ(ends.nan_count, 3) << IsaName(isa);
    EXPECT_EQ(ends.infinite_count, 2) << IsaName(isa);
    EXPECT_EQ(counts[kNotFinitePlace], 5) << IsaName(isa);
    const HistogramEnds alone = AddToHistogram(values, nullptr, isa);
    EXPECT_EQ(alone.max, 2) << IsaName(isa);
    EXPECT_EQ(alone.nan_count, 3) << IsaName(isa);
  }
}

TEST(Histogram, OfNothingIsEmptyAroundZero) {
  for (const Isa isa : AvailableIsas()) {
    Counts counts;
    const HistogramEnds ends = Add({}, counts, isa);
    EXPECT_THAT(counts, Each(0)) << IsaName(isa);
    EXPECT_EQ(ends.min, 0);
    EXPECT_EQ(ends.max, 0);
  }
}

TEST(SumFinite, AddsWhatIsFiniteAlikeOnEveryIsa) {
  std::mt19937 random(5);
  std::normal_distribution<float> normal;
  for (const size_t count : {0, 1, 7, 8, 9, 31, 32, 1000, 4099}) {
    std::vector<float> values(count);
    double sum = 0;
    float largest = 0;
    for (size_t i = 0; i < count; ++i) {
      values[i] = i % 11 == 5 ? kNan : i % 13 == 6 ? -kInfinity : normal(random) * 1e20f;
      if (!std::isfinite(values[i])) continue;
      sum += static_cast<double>(values[i]);
      largest = std::max(largest, std::fabs(values[i]));
    }
    const FiniteSum reference = SumFinite(values, Isa::kReference);
    EXPECT_NEAR(reference.sum, sum, 1e8 * static_cast<double>(count)) << count;
    EXPECT_EQ(reference.largest, largest) << count;
    for (const Isa isa : AvailableIsas()) {
      const FiniteSum found = SumFinite(values, isa);
      EXPECT_EQ(found.sum, reference.sum) << IsaName(isa) << " " << count;
      EXPECT_EQ(found.largest, reference.largest) << IsaName(isa) << " " << count;
    }
  }
}

}  // namespace
}  // namespace pared
