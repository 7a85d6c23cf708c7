#include "passes/second_order_round.h"

#include <gmock/gmock.h>

#include <cmath>
#include <limits>
#include <random>

#include "passes/matrix_product.h"

namespace pared {
namespace {

using ::testing::ElementsAre;
using ::testing::Optional;

// (q - w) h (q - w)^T
double ErrorOf(const LayerStatistics& s, const std::vector<float>& w, const std::vector<float>& q) {
  double error = 0;
  for (int64_t row = 0; row < s.rows; ++row) {
    for (int64_t i = 0; i < s.k; ++i) {
      for (int64_t j = 0; j < s.k; ++j) {
        const size_t a = static_cast<size_t>(row * s.k + i), b = static_cast<size_t>(row * s.k + j);
        error += static_cast<double>(q[a] - w[a]) * s.h[static_cast<size_t>(i * s.k + j)] *
                 static_cast<double>(q[b] - w[b]);
      }
    }
  }
  return error;
}

// By hand: both nearest codes are 0, with error 0.608; what the first leaves, the second makes up
// for at 0.76: code 1, with error 0.088.
TEST(SecondOrderRound, ALaterWeightMakesUpForAnEarlierOne) {
  LayerStatistics s;
  s.k = 2;
  s.rows = 1;
  s.h = {1, 0.9f, 0.9f, 1};
  const std::vector<float> w = {0.4f, 0.4f}, scales = {1};
  EXPECT_THAT(RoundSecondOrder({&s, &w, &scales, 127, 0}), Optional(ElementsAre(0, 1)));
}

TEST(SecondOrderRound, WithoutCorrelationItIsTheNearestCode) {
  LayerStatistics s;
  s.k = 3;
  s.rows = 2;
  s.h = {2, 0, 0, 0, 1, 0, 0, 0, 5};
  const std::vector<float> w = {0.4f, -1.6f, 300, 0, 0.26f, -0.24f}, scales = {1, 0.5f};
  EXPECT_THAT(RoundSecondOrder({&s, &w, &scales, 127, 0.01}),
              Optional(ElementsAre(0, -2, 127, 0, 1, 0)));
}

// Several blocks of columns, a Hessian without full rank, a row of zeros and zeros in each row.
TEST(SecondOrderRound, BeatsTheNearestCodesAndKeepsZeros) {
  constexpr int64_t kK = 300, kRows = 5, kCount = 200;
  std::mt19937 random(7);
  std::normal_distribution<float> normal;
  std::vector<float> x(kCount * kK), w(kRows * kK), scales(kRows, 0.05f);
  for (int64_t i = 0; i < kCount; ++i) {
    const float shared = normal(random);
    for (int64_t j = 0; j < kK; ++j) {
      x[static_cast<size_t>(i * kK + j)] = shared + 0.3f * normal(random);
    }
  }
  for (size_t i = 0; i < w.size(); ++i) w[i] = i % 3 == 0 || i < kK ? 0 : 0.2f * normal(random);
  LayerStatistics s;
  s.k = kK;
  s.rows = kRows;
  s.h = Multiply({kK, kK, kCount, true, false}, x, x);
  const auto codes = RoundSecondOrder({&s, &w, &scales, 127, 0.01});
  ASSERT_TRUE(codes.has_value());
  std::vector<float> rounded, nearest;
  for (size_t i = 0; i < w.size(); ++i) {
    rounded.push_back(static_cast<float>((*codes)[i]) * 0.05f);
    nearest.push_back(std::nearbyint(w[i] / 0.05f) * 0.05f);
    if (w[i] == 0) {
      EXPECT_EQ((*codes)[i], 0) << i;
    }
  }
  EXPECT_LT(ErrorOf(s, w, rounded), 0.2 * ErrorOf(s, w, nearest));
}

TEST(SecondOrderRound, AHessianThatIsNotFiniteHasNoCodes) {
  LayerStatistics s;
  s.k = 1;
  s.rows = 1;
  s.h = {std::numeric_limits<float>::quiet_NaN()};
  const std::vector<float> w = {1}, scales = {1};
  EXPECT_EQ(RoundSecondOrder({&s, &w, &scales, 127, 0.01}), std::nullopt);
}

}  // namespace
}  // namespace pared
