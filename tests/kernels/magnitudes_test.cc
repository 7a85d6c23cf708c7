#include "kernels/magnitudes.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <random>

namespace pared {
namespace {

using ::testing::ElementsAre;

uint32_t Bits(float magnitude) { return std::bit_cast<uint32_t>(magnitude); }

TEST(SplitMagnitudes, CountsBelowAndCollectsWithinBothEnds) {
  const std::vector<float> values = {
      -3, 0.5f, 2, -2, -0.0f, 4, std::numeric_limits<float>::infinity()};
  for (const Isa isa : AvailableIsas()) {
    std::vector<uint32_t> within = {7};
    EXPECT_EQ(SplitMagnitudes(values, {Bits(2), Bits(3)}, within, isa), 2) << IsaName(isa);
    EXPECT_THAT(within, ElementsAre(7u, Bits(3), Bits(2), Bits(2))) << IsaName(isa);
  }
}

TEST(SplitMagnitudes, IsTheSameOnEveryIsaForEveryLength) {
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  std::vector<float> values(20000);
  for (float& value : values) value = normal(random);
  for (const size_t count :
       {size_t{0}, size_t{1}, size_t{15}, size_t{16}, size_t{17}, values.size()}) {
    int64_t below = 0;
    std::vector<uint32_t> expected;
    for (const float value : std::span(values).first(count)) {
      if (std::fabs(value) < 0.25f) ++below;
      if (std::fabs(value) >= 0.25f && std::fabs(value) <= 1.5f)
        expected.push_back(Bits(std::fabs(value)));
    }
    for (const Isa isa : AvailableIsas()) {
      std::vector<uint32_t> within;
      const std::span<const float> some = std::span(values).first(count);
      EXPECT_EQ(SplitMagnitudes(some, {Bits(0.25f), Bits(1.5f)}, within, isa), below)
          << IsaName(isa);
      EXPECT_EQ(within, expected) << IsaName(isa) << " " << count;
    }
  }
}

}  // namespace
}  // namespace pared
