#include "kernels/half.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <vector>

namespace pared {
namespace {

TEST(Half, KnownValues) {
  EXPECT_EQ(HalfToFloat(0x3c00), 1.0f);
  EXPECT_EQ(HalfToFloat(0x7bff), 65504.0f);
  EXPECT_EQ(HalfToFloat(0x0001), 0x1p-24f);
  EXPECT_EQ(HalfToFloat(0x8000), 0.0f);
  EXPECT_TRUE(std::signbit(HalfToFloat(0x8000)));
  EXPECT_EQ(HalfToFloat(0xfc00), -std::numeric_limits<float>::infinity());
  EXPECT_TRUE(std::isnan(HalfToFloat(0x7e01)));
}

TEST(Half, RoundsToNearestEven) {
  EXPECT_EQ(FloatToHalf(1.0f + 0x1p-11f), 0x3c00);             // a tie: to the even one below
  EXPECT_EQ(FloatToHalf(1.0f + 0x1p-10f + 0x1p-11f), 0x3c02);  // a tie: to the even one above
  EXPECT_EQ(FloatToHalf(65519.996f), 0x7bff);
  EXPECT_EQ(FloatToHalf(65520.0f), 0x7c00);
  EXPECT_EQ(FloatToHalf(0x1p-25f), 0x0000);  // a tie with zero
  EXPECT_EQ(FloatToHalf(0x1.002p-25f), 0x0001);
  EXPECT_EQ(FloatToHalf(-1e-10f), 0x8000);
}

// Every half there is, and floats around every rounding border.
TEST(Half, BulkEqualsOneByOneOnEveryIsa) {
  std::vector<uint16_t> halves(65536);
  for (size_t i = 0; i < halves.size(); ++i) halves[i] = static_cast<uint16_t>(i);
  std::vector<float> borders;
  for (uint32_t bits = 0; bits < 0xff800000u - 4099u; bits += 4099u) {
    borders.push_back(std::bit_cast<float>(bits));
  }
  for (const Isa isa : AvailableIsas()) {
    std::vector<float> floats(halves.size());
    HalvesToFloats(halves.data(), 65536, floats.data(), isa);
    for (size_t i = 0; i < halves.size(); ++i) {
      ASSERT_EQ(std::bit_cast<uint32_t>(floats[i]), std::bit_cast<uint32_t>(HalfToFloat(halves[i])))
          << IsaName(isa) << " half " << i;
    }
    std::vector<uint16_t> narrowed(borders.size());
    FloatsToHalves(borders.data(), static_cast<int64_t>(borders.size()), narrowed.data(), isa);
    for (size_t i = 0; i < borders.size(); ++i) {
      ASSERT_EQ(narrowed[i], FloatToHalf(borders[i])) << IsaName(isa) << " float " << borders[i];
    }
  }
}

}  // namespace
}  // namespace pared
