#include "passes/upper_factor.h"

#include <gtest/gtest.h>
#include <tbb/global_control.h>

#include <Eigen/Core>
#include <random>

#include "passes/least_squares.h"
#include "passes/matrix_product.h"

namespace pared {
namespace {

using Matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

// Of `count` random inputs that share something.
LayerStatistics Statistics(int64_t k, int64_t count) {
  std::mt19937 random(static_cast<uint32_t>(k));
  std::normal_distribution<float> normal;
  std::vector<float> x(static_cast<size_t>(k * count));
  for (int64_t i = 0; i < count; ++i) {
    const float shared = normal(random);
    for (int64_t j = 0; j < k; ++j) x[static_cast<size_t>(i * k + j)] = normal(random) + shared;
  }
  LayerStatistics s;
  s.k = k;
  s.h = Gram(x, count, k);
  return s;
}

Eigen::MatrixXd AsMatrix(const std::vector<float>& values, int64_t k) {
  return Eigen::Map<const Matrix>(values.data(), k, k).cast<double>();
}

// Below, at and above the blocks and panels of columns.
TEST(UpperFactor, TimesItsTransposeIsTheDampedMatrix) {
  for (const int64_t k : {1, 5, 128, 129, 512, 513, 641, 1100}) {
    const LayerStatistics s = Statistics(k, k / 2 + 3);
    const std::vector<float> factor = UpperFactor(s, 0.1);
    ASSERT_EQ(std::ssize(factor), k * k) << k;
    const Eigen::MatrixXd r = AsMatrix(factor, k);
    EXPECT_TRUE(r.isUpperTriangular(0)) << k;
    const Eigen::MatrixXd h = AsMatrix(s.h, k) + Lambda(s, 0.1) * Eigen::MatrixXd::Identity(k, k);
    EXPECT_LT((r * r.transpose() - h).norm(), 1e-5 * h.norm()) << k;
    const Eigen::MatrixXd inverse = AsMatrix(InverseOfUpper(factor, k), k);
    EXPECT_LT((inverse * r - Eigen::MatrixXd::Identity(k, k)).norm(), 1e-3) << k;
  }
}

TEST(UpperFactor, DoesNotDependOnTheNumberOfThreads) {
  const LayerStatistics s = Statistics(900, 1000);
  const auto with = [&](size_t threads) {
    const tbb::global_control limit(tbb::global_control::max_allowed_parallelism, threads);
    return UpperFactor(s, 0.01);
  };
  EXPECT_EQ(with(1), with(2));
}

TEST(UpperFactor, IsEmptyForWhatIsNotPositiveDefinite) {
  for (const int64_t at : {0, 100, 600, 699}) {
    LayerStatistics s = Statistics(700, 800);
    s.h[static_cast<size_t>(at * 700 + at)] = -1e6F;
    EXPECT_TRUE(UpperFactor(s, 1e-9).empty()) << at;
  }
}

}  // namespace
}  // namespace pared
