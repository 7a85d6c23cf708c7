// Sums of products with zero points: every ISA against the definition, evaluated in 64 bits.

#include "kernels/sums.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

namespace pared {
namespace {

using testing::ElementsAre;

struct Case {
  std::vector<int32_t> sums, column_sums, w_zero, offset;
  std::vector<float> scale, bias;

  SumLine Line(SumsAlong along) const {
    return {along,         static_cast<int64_t>(sums.size()),
            sums.data(),   column_sums.data(),
            w_zero.data(), offset.data()};
  }
};

Case RandomCase(size_t count, unsigned seed) {
  std::mt19937 random(seed);
  Case c;
  for (size_t i = 0; i < count; ++i) {
    c.sums.push_back(static_cast<int32_t>(random() % 2'000'000) - 1'000'000);
    c.column_sums.push_back(static_cast<int32_t>(random() % 100'000));
    c.w_zero.push_back(static_cast<int32_t>(random() % 256) - 128);
    c.offset.push_back(static_cast<int32_t>(random() % 200'000) - 100'000);
    c.scale.push_back(static_cast<float>(random() % 1000 + 1) * 1e-6F);
    c.bias.push_back(static_cast<float>(random() % 1000) * 0.01F - 5.0F);
  }
  return c;
}

int64_t Exact(const Case& c, SumsAlong along, size_t i) {
  const size_t m = along == SumsAlong::kChannels ? i : 0, n = along == SumsAlong::kChannels ? 0 : i;
  return int64_t{c.sums[i]} - int64_t{c.w_zero[m]} * c.column_sums[n] + c.offset[m];
}

class Sums : public testing::TestWithParam<SumsAlong> {};
INSTANTIATE_TEST_SUITE_P(Along, Sums, testing::Values(SumsAlong::kColumns, SumsAlong::kChannels));

TEST_P(Sums, AreCorrectedOnEveryIsa) {
  for (const Isa isa : AvailableIsas()) {
    for (const size_t count : {1U, 15U, 16U, 17U, 64U, 100U}) {
      const Case c = RandomCase(count, static_cast<unsigned>(count));
      std::vector<int32_t> y(count);
      StoreSums(c.Line(GetParam()), y.data(), isa);
      for (size_t i = 0; i < count; ++i) {
        EXPECT_EQ(y[i], Exact(c, GetParam(), i)) << IsaName(isa) << " element " << i;
      }
    }
  }
}

TEST_P(Sums, BecomeFloatsOneRoundedStepAfterTheOther) {
  for (const Isa isa : AvailableIsas()) {
    const Case c = RandomCase(77, 5);
    std::vector<float> y(77);
    StoreSums(c.Line(GetParam()), SumsToFloat{c.scale.data(), c.bias.data(), true}, y.data(), isa);
    for (size_t i = 0; i < y.size(); ++i) {
      const size_t m = GetParam() == SumsAlong::kChannels ? i : 0;
      volatile float scaled = static_cast<float>(Exact(c, GetParam(), i)) * c.scale[m];
      const float sum = scaled + c.bias[m];
      EXPECT_EQ(y[i], sum > 0.0F ? sum : 0.0F) << IsaName(isa) << " element " << i;
    }
  }
}

TEST_P(Sums, BecomeCodesRoundedToEvenAndSaturated) {
  for (const Isa isa : AvailableIsas()) {
    const Case c = RandomCase(77, 6);
    std::vector<uint8_t> y(77);
    StoreSums(c.Line(GetParam()), SumsToCodes{c.scale.data(), 130, false}, y.data(), isa);
    for (size_t i = 0; i < y.size(); ++i) {
      const size_t m = GetParam() == SumsAlong::kChannels ? i : 0;
      const float scaled = static_cast<float>(Exact(c, GetParam(), i)) * c.scale[m];
      EXPECT_EQ(y[i], std::clamp(std::nearbyint(scaled) + 130.0F, 0.0F, 255.0F)) << IsaName(isa);
    }
  }
}

TEST(SumsToCodes, TiesGoToEvenAndBoundsSaturate) {
  // Sums times 0.5: 0.5, 1.5, 2.5, then far outside of both ends; zero point 128 is int8's 0.
  const Case c{.sums = {1, 3, 5, 100'000'000, -100'000'000},
               .column_sums = {0, 0, 0, 0, 0},
               .w_zero = {0},
               .offset = {0},
               .scale = {0.5F},
               .bias = {}};
  for (const Isa isa : AvailableIsas()) {
    std::vector<int8_t> y(5);
    StoreSums(c.Line(SumsAlong::kColumns), SumsToCodes{c.scale.data(), 128, true},
              reinterpret_cast<uint8_t*>(y.data()), isa);
    EXPECT_THAT(y, ElementsAre(0, 2, 2, 127, -128)) << IsaName(isa);
  }
}

}  // namespace
}  // namespace pared
