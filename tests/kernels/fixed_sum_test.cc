#include "kernels/fixed_sum.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

namespace pared {
namespace {

struct Codes {
  std::vector<uint8_t> a, b;
};

Codes AllCodes() {
  Codes codes;
  for (int i = 0; i < 65536; ++i) {
    codes.a.push_back(static_cast<uint8_t>(i >> 8));
    codes.b.push_back(static_cast<uint8_t>(i));
  }
  return codes;
}

bool HasKernel() {
  const Isa isa = AvailableIsas().back();
  return Includes(isa, Isa::kAvx512Vnni) || IsNeon(isa);
}

TEST(FixedSum, EqualsTheFloatReferenceForEveryPairOfCodes) {
  if (!HasKernel()) GTEST_SKIP() << "no kernel for integer sums";
  const Codes codes = AllCodes();
  std::mt19937 random(7);
  std::uniform_real_distribution<float> scale(0.002F, 0.4F);
  std::uniform_int_distribution<int32_t> code(0, 255);
  constexpr int kDraws = 40;
  int found = 0;
  for (int draw = 0; draw < kDraws; ++draw) {
    AddParams p{.a = {scale(random), code(random)},
                .b = {scale(random) * (draw % 4 == 0 ? -1.0F : 1.0F), code(random)},
                .y = {scale(random), code(random)}};
    if (draw % 2 == 0) p.low = p.y.zero_point;  // a fused Relu
    if (draw % 3 == 0) p.high = std::max(p.low, 200);
    const std::optional<FixedSum> sum = FindFixedSum(p, AvailableIsas().back());
    if (!sum) continue;
    ++found;
    std::vector<uint8_t> want(65536), y(65536);
    AddQuantized(codes.a, codes.b.data(), p, want.data(), Isa::kReference);
    AddFixed(codes.a, codes.b.data(), *sum, y.data());
    ASSERT_TRUE(y == want) << "draw " << draw;
  }
  EXPECT_GE(found, kDraws * 3 / 4) << "integer sums exist for most scales";
}

TEST(FixedSum, DeclinesWhereHalvesRoundToEven) {
  // Every odd sum is a tie, up or down in turn: no multiplication and shift does that.
  const AddParams p{.a = {1, 0}, .b = {1, 0}, .y = {2, 0}};
  if (!HasKernel()) GTEST_SKIP() << "no kernel for integer sums";
  EXPECT_FALSE(FindFixedSum(p, AvailableIsas().back()).has_value());
}

TEST(FixedSum, DeclinesWithoutItsInstructions) {
  const AddParams p{.a = {0.013F, 12}, .b = {0.024F, 7}, .y = {0.031F, 9}};
  EXPECT_FALSE(FindFixedSum(p, Isa::kAvx2).has_value());
}

TEST(FixedSum, WritesOnlyWhatItIsGiven) {
  if (!HasKernel()) GTEST_SKIP() << "no kernel for integer sums";
  const FixedSum sum{.high_a = 1, .high_b = 2, .shift = 0};  // y = a + 2 b
  for (const size_t count : {size_t{1}, size_t{63}, size_t{64}, size_t{100}}) {
    std::vector<uint8_t> a(count, 3), y(count + 1, 77);
    const std::vector<uint8_t> b(count, 100);
    AddFixed(a, b.data(), sum, y.data());
    for (size_t i = 0; i < count; ++i) ASSERT_EQ(y[i], 203) << i;
    EXPECT_EQ(y[count], 77);
  }
}

}  // namespace
}  // namespace pared
