#include "kernels/winograd_f32.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <string>
#include <vector>

namespace pared {
namespace {

// A convolution of images as they follow an activation, and of weights about zero.
struct Layer {
  WinogradShapeF32 shape;
  std::vector<float> x, weights, bias, addend;

  explicit Layer(const WinogradShapeF32& given) : shape(given) {
    std::mt19937 random(7);
    std::normal_distribution<float> normal;
    const auto fill = [&](std::vector<float>& values, int64_t count, float low) {
      values.resize(static_cast<size_t>(count));
      for (float& value : values) value = std::max(normal(random), low);
    };
    fill(x, shape.channels * shape.height * shape.width, 0);
    fill(weights, shape.outputs * shape.channels * 9, -9);
    fill(bias, shape.outputs, -9);
    fill(addend, outputs(), -9);
  }
  int64_t outputs() const { return shape.outputs * shape.out_height * shape.out_width; }
  // By the definition.
  double At(int64_t i) const {
    const int64_t column = i % shape.out_width - shape.pad_x;
    const int64_t row = i / shape.out_width % shape.out_height - shape.pad_y;
    const int64_t m = i / shape.out_width / shape.out_height;
    double sum = 0;
    for (int64_t t = 0; t < shape.channels * 9; ++t) {
      const int64_t y = row + t / 3 % 3, x_at = column + t % 3;
      if (y < 0 || y >= shape.height || x_at < 0 || x_at >= shape.width) continue;
      sum += static_cast<double>(weights[static_cast<size_t>(m * shape.channels * 9 + t)]) *
             static_cast<double>(
                 x[static_cast<size_t>((t / 9 * shape.height + y) * shape.width + x_at)]);
    }
    return sum;
  }
};

class WinogradF32Test : public ::testing::TestWithParam<Isa> {
 protected:
  const F32Kernels& kernels() const { return F32KernelsFor(GetParam()); }
  std::vector<float> Run(const Layer& layer, WinogradCallF32 call, int64_t threads) const {
    const WinogradShapeF32& shape = layer.shape;
    const AlignedBuffer<float> packed =
        PackWinograd(layer.weights.data(), shape.outputs, shape.channels, kernels());
    const WinogradPlanF32 plan = PlanWinograd(shape, kernels(), threads);
    // A margin on both sides of the result shows writes outside.
    constexpr size_t kMargin = 64;
    std::vector<float> y(static_cast<size_t>(layer.outputs()) + 2 * kMargin, 99.0F);
    call.weights = packed.data();
    call.x = layer.x.data();
    call.y = y.data() + kMargin;
    for (int64_t unit = plan.units; unit-- > 0;) {
      std::vector<float> scratch(static_cast<size_t>(plan.scratch_floats), NAN);
      RunWinograd(plan, kernels(), call, unit, scratch.data());
    }
    for (size_t i = 0; i < kMargin; ++i) {
      EXPECT_EQ(y[i], 99.0F);
      EXPECT_EQ(y[y.size() - 1 - i], 99.0F);
    }
    return {y.begin() + kMargin, y.end() - kMargin};
  }
};

TEST_P(WinogradF32Test, AnyPaddingAgreesWithTheDefinition) {
  for (const WinogradShapeF32& shape :
       std::vector<WinogradShapeF32>{{3, 5, 6, 6, 4, 4, 0, 0},
                                     {2, 7, 1, 1, 1, 1, 1, 1},
                                     {5, 6, 9, 31, 9, 30, 0, 1},
                                     {4, 13, 7, 5, 11, 12, 3, 4},
                                     {1, 1, 40, 3, 38, 9, 0, 6},
                                     {6, 3, 2, 70, 1, 72, 0, 2},
                                     {9, 12, 65, 33, 65, 33, 2, 0}}) {
    const Layer layer(shape);
    const std::vector<float> y = Run(layer, {}, 1);
    for (size_t i = 0; i < y.size(); ++i) {
      ASSERT_NEAR(y[i], layer.At(static_cast<int64_t>(i)), 3e-5)
          << i << " of " << shape.channels << " to " << shape.outputs << ", " << shape.height << "x"
          << shape.width;
    }
    EXPECT_EQ(y, Run(layer, {}, 5)) << "five threads";
  }
}

TEST_P(WinogradF32Test, WhatFollowsTheSumsIsApplied) {
  const Layer layer({6, 14, 19, 22, 19, 22, 1, 1});
  const std::vector<float> sums = Run(layer, {}, 2);
  const auto expect = [&](ActivationF32 activation, auto&& of) {
    const std::vector<float> y = Run(
        layer, {.bias = layer.bias, .addend = layer.addend.data(), .activation = activation}, 2);
    for (size_t i = 0; i < y.size(); ++i) {
      ASSERT_NEAR(y[i], of(sums[i] + layer.bias[i / (19 * 22)] + layer.addend[i]), 1e-5) << i;
    }
  };
  expect({}, [](float x) { return x; });
  expect({ActivationKind::kClamp, -1, 2}, [](float x) { return std::clamp(x, -1.0F, 2.0F); });
  expect({ActivationKind::kSilu, 1, 0}, [](float x) { return x / (1 + std::exp(-x)); });
}

// Of 256 channels, where sums in order err 0.6e-6 and the customary points 2.4e-6.
TEST_P(WinogradF32Test, ErrsLittleMoreThanSumsInOrder) {
  const Layer layer({256, 12, 16, 16, 16, 16, 1, 1});
  const std::vector<float> y = Run(layer, {}, 1);
  double errors = 0, squares = 0;
  for (size_t i = 0; i < y.size(); ++i) {
    const double expected = layer.At(static_cast<int64_t>(i));
    errors += (y[i] - expected) * (y[i] - expected);
    squares += expected * expected;
  }
  EXPECT_LT(std::sqrt(errors / squares), 1.8e-6);
}

TEST_P(WinogradF32Test, IsPreferredWhereItsTilesAreFull) {
  EXPECT_TRUE(PrefersWinograd({64, 64, 56, 56, 56, 56, 1, 1}, kernels()));
  EXPECT_TRUE(PrefersWinograd({256, 256, 14, 14, 14, 14, 1, 1}, kernels()));
  EXPECT_FALSE(PrefersWinograd({512, 512, 7, 7, 7, 7, 1, 1}, kernels()));
  EXPECT_FALSE(PrefersWinograd({64, 64, 1, 900, 1, 900, 1, 1}, kernels()));
  EXPECT_FALSE(PrefersWinograd({3, 64, 112, 112, 112, 112, 1, 1}, kernels()));
  EXPECT_FALSE(PrefersWinograd({64, 2, 56, 56, 56, 56, 1, 1}, kernels()));
  EXPECT_FALSE(PrefersWinograd({64, 64, 56, 56, 56, 56, 1, 1}, kF32Reference));
}

std::vector<Isa> IsasThatOfferIt() {
  std::vector<Isa> isas = AvailableIsas();
  std::erase_if(isas, [](Isa isa) { return F32KernelsFor(isa).winograd_input == nullptr; });
  return isas;
}

GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(WinogradF32Test);  // a machine without vectors
INSTANTIATE_TEST_SUITE_P(Isas, WinogradF32Test, ::testing::ValuesIn(IsasThatOfferIt()),
                         [](const auto& test) { return std::string(IsaName(test.param)); });

}  // namespace
}  // namespace pared
