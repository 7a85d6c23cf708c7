#include "passes/select_smallest.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

namespace pared {
namespace {

int64_t CountBelow(const std::vector<float>& values, float magnitude) {
  return std::ranges::count_if(values, [&](float v) { return std::fabs(v) < magnitude; });
}

TEST(SelectSmallest, CountsTiesAtTheThreshold) {
  const std::vector<float> a = {3, -1, 2}, b = {-2, 2, 5};
  const Threshold threshold = SelectSmallest({a, b}, 3);
  EXPECT_EQ(threshold.magnitude, 2);
  EXPECT_EQ(threshold.ties, 2);
}

TEST(SelectSmallest, TakesAllOrNothing) {
  const std::vector<float> a = {3, -1, 2};
  EXPECT_EQ(SelectSmallest({a}, 0).ties, 0);
  EXPECT_EQ(SelectSmallest({a}, 3).magnitude, 3);
  EXPECT_EQ(SelectSmallest({a}, 3).ties, 1);
  EXPECT_EQ(SelectSmallest({}, 0).ties, 0);
}

// Long enough that a sample brackets the threshold; sorted, constant and random data alike.
TEST(SelectSmallest, IsExactOnManyElements) {
  constexpr size_t kCount = (1 << 20) + 5;
  std::mt19937 random(7);
  std::normal_distribution<float> normal;
  std::vector<float> noise(kCount), sorted(kCount), equal(kCount, -4.0f), mostly_zero(kCount, 0.0f);
  for (float& value : noise) value = normal(random);
  for (size_t i = 0; i < kCount; ++i) sorted[i] = static_cast<float>(i) - 5e5f;
  for (size_t i = 0; i < kCount; i += 97) mostly_zero[i] = noise[i];
  for (const std::vector<float>& values : {noise, sorted, equal, mostly_zero}) {
    for (const int64_t count : {1L, 1000L, 524288L, 1038090L, 1048576L}) {
      const Threshold threshold = SelectSmallest({values}, count);
      const int64_t below = CountBelow(values, threshold.magnitude);
      const int64_t equals = std::ranges::count_if(
          values, [&](float v) { return std::fabs(v) == threshold.magnitude; });
      EXPECT_EQ(below + threshold.ties, count);
      EXPECT_GE(threshold.ties, 1);
      EXPECT_LE(threshold.ties, equals);
    }
  }
}

}  // namespace
}  // namespace pared
