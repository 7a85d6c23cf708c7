// Sums of a block's fit: every ISA against the definition in double, and all alike to the bit.

#include "kernels/block_fit.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

namespace pared {
namespace {

struct Block {
  std::vector<float> values, importance;
};

Block RandomBlock(int64_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  Block block;
  for (int64_t i = 0; i < count; ++i) {
    block.values.push_back(i + 3 < count ? normal(random) : 0.0F);  // padded
    block.importance.push_back(i + 3 < count ? std::fabs(normal(random)) : 0.0F);
  }
  return block;
}

BlockSums Wanted(const BlockProblem& problem) {
  BlockSums sums;
  for (int64_t i = 0; i < problem.count; ++i) {
    const double value = static_cast<double>(problem.values[i]);
    const double weight =
        problem.importance == nullptr ? 1 : static_cast<double>(problem.importance[i]);
    const double code =
        std::clamp(static_cast<double>(std::nearbyintf(problem.values[i] / problem.scale)),
                   static_cast<double>(problem.low), static_cast<double>(problem.high));
    const double off = value - static_cast<double>(problem.scale) * code;
    sums.error += weight * off * off;
    sums.product += weight * value * code;
    sums.square += weight * code * code;
  }
  return sums;
}

TEST(BlockFit, SumsAreThoseOfTheDefinitionOnEveryIsa) {
  for (const int64_t count : {16, 32, 48, 128, 256}) {
    const Block block = RandomBlock(count, static_cast<unsigned>(count));
    for (const float scale : {0.2F, -0.13F, 3.0F, 1e-3F}) {
      for (const float* importance :
           {static_cast<const float*>(nullptr), block.importance.data()}) {
        const BlockProblem problem{block.values.data(), importance, count, scale, -8, 7};
        const BlockSums wanted = Wanted(problem);
        const BlockSums first = FitBlock(problem, AvailableIsas()[0]);
        EXPECT_NEAR(first.error, wanted.error, 1e-5 * std::max(1.0, wanted.error));
        EXPECT_NEAR(first.product, wanted.product, 1e-5 * std::max(1.0, wanted.square));
        EXPECT_NEAR(first.square, wanted.square, 1e-5 * std::max(1.0, wanted.square));
        for (const Isa isa : AvailableIsas()) {
          const BlockSums got = FitBlock(problem, isa);
          EXPECT_EQ(got.error, first.error) << IsaName(isa);
          EXPECT_EQ(got.product, first.product) << IsaName(isa);
          EXPECT_EQ(got.square, first.square) << IsaName(isa);
        }
      }
    }
  }
}

TEST(BlockFit, TiesGoToEvenAndCodesStayWithinTheirRange) {
  // 0.5, 1.5, 2.5, -0.5 and two far outside: codes 0, 2, 2, 0, 7, -8.
  std::vector<float> values(16, 0.0F);
  const std::vector<float> given = {0.5F, 1.5F, 2.5F, -0.5F, 1e30F, -1e30F};
  std::copy(given.begin(), given.end(), values.begin());
  for (const Isa isa : AvailableIsas()) {
    EXPECT_EQ(FitBlock({values.data(), nullptr, 16, 1, -8, 7}, isa).square, 4 + 4 + 49 + 64);
  }
}

}  // namespace
}  // namespace pared
