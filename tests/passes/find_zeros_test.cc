// What zeros are worth is told by Eigen's direct solutions of every choice that there is.

#include <gmock/gmock.h>
#include <tbb/global_control.h>

#include <Eigen/Cholesky>
#include <Eigen/Core>
#include <bit>
#include <cmath>
#include <limits>
#include <random>

#include "passes/least_squares.h"

namespace pared {
namespace {

using Matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

constexpr double kDamping = 0.01;

// Inputs that are mixtures of fewer causes: what one weight is worth depends on the others.
struct Layer {
  LayerStatistics s;
  std::vector<float> weight;

  Layer(int64_t rows, int64_t k, uint32_t seed) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    constexpr int64_t kCount = 400;
    const auto draw = [&](int64_t m, int64_t n) {
      return Matrix(Matrix::NullaryExpr(m, n, [&] { return normal(random); }));
    };
    const Matrix x = draw(kCount, k / 2 + 1) * draw(k / 2 + 1, k) + 0.3 * draw(kCount, k);
    const Matrix w = draw(rows, k);
    LayerColumns columns;
    columns.k = k;
    columns.count = kCount;
    for (int64_t i = 0; i < x.size(); ++i) {
      columns.original.push_back(static_cast<float>(x.data()[i]));
    }
    columns.edited = columns.original;
    for (int64_t i = 0; i < w.size(); ++i) weight.push_back(static_cast<float>(w.data()[i]));
    s = StatisticsOf(columns, weight, false);
  }

  LeastSquares problem() const { return {&s, &weight, kDamping}; }

  // The least that the error of all rows, pull included, comes to with the inputs in `kept`.
  double BestOf(uint32_t kept) const {
    std::vector<Eigen::Index> at;
    for (int64_t i = 0; i < s.k; ++i) {
      if ((kept >> i & 1) != 0) at.push_back(i);
    }
    Eigen::Map<const Eigen::Matrix<float, -1, -1, Eigen::RowMajor>> h(s.h.data(), s.k, s.k),
        g(s.g.data(), s.rows, s.k), w(weight.data(), s.rows, s.k);
    const double lambda = kDamping * static_cast<double>(h.trace()) / static_cast<double>(s.k);
    Matrix damped = h.cast<double>();
    damped.diagonal().array() += lambda;
    const Matrix right = g.cast<double>() + lambda * w.cast<double>();
    const Matrix chosen = damped(at, at);
    double error = 0;
    for (int64_t row = 0; row < s.rows; ++row) {
      const Eigen::VectorXd b = right.row(row)(at).transpose();
      error +=
          s.y_square[static_cast<size_t>(row)] + lambda * w.cast<double>().row(row).squaredNorm();
      error -= b.dot(chosen.llt().solve(b));
    }
    return error;
  }
};

std::vector<bool> ZeroUnits(int64_t rows, int64_t k, int64_t columns) {
  std::vector<bool> zero;
  for (int64_t i = 0; i < rows * k; ++i) zero.push_back(i % k < columns);
  return zero;
}

// Of one layer of a few inputs, 4 of 12 kept: what the chosen inputs cost against the best of all
// 495 choices, in the sum of many layers.
double CostAgainstBest(int64_t rows, Pattern pattern) {
  constexpr int64_t kK = 12, kKept = 4;
  constexpr uint32_t kLayers = 40;
  double cost = 0, least = 0;
  for (uint32_t seed = 1; seed <= kLayers; ++seed) {
    const Layer layer(rows, kK, seed);
    const auto found = FindZeros(layer.problem(), pattern, ZeroUnits(rows, kK, kK - kKept));
    uint32_t kept = 0;
    for (size_t i = 0; i < kK; ++i) kept |= found->zero[i] ? 0 : uint32_t{1} << i;
    EXPECT_EQ(std::popcount(kept), kKept);
    for (size_t i = 0; i < found->zero.size(); ++i) {
      EXPECT_EQ(found->zero[i], found->zero[i % kK]);  // the rows of a block together
      EXPECT_EQ(found->zero[i], found->weight[i] == 0);
    }
    double best = std::numeric_limits<double>::max();
    for (uint32_t choice = 0; choice < 1U << kK; ++choice) {
      if (std::popcount(choice) == kKept) best = std::min(best, layer.BestOf(choice));
    }
    cost += layer.BestOf(kept);
    least += best;
  }
  return cost / least;
}

TEST(FindZeros, ComesNearTheBestOfAllChoices) {
  EXPECT_LT(CostAgainstBest(1, {1, 1, 0, 0}), 1.5);
  EXPECT_LT(CostAgainstBest(2, {2, 1, 0, 0}), 1.5);
}

TEST(FindZeros, KeepsAsManyOfEachGroupAsThePatternSays) {
  const Layer layer(5, 10, 7);
  const auto found = FindZeros(layer.problem(), {1, 1, 2, 4}, {});
  for (size_t row = 0; row < 5; ++row) {
    const auto zeros = [&](size_t begin, size_t end) {
      return std::ranges::count(found->zero.begin() + static_cast<std::ptrdiff_t>(row * 10 + begin),
                                found->zero.begin() + static_cast<std::ptrdiff_t>(row * 10 + end),
                                true);
    };
    EXPECT_EQ(zeros(0, 4), 2);
    EXPECT_EQ(zeros(4, 8), 2);
    EXPECT_EQ(zeros(8, 10), 1);  // of a rest of two one stays
  }
}

// 16 blocks of 4x4, the last of each row and column smaller: 9 wholly chosen, and one in part.
TEST(FindZeros, ZeroesAsManyBlocksAsAreWhollyChosen) {
  const Layer layer(14, 15, 3);
  std::vector<bool> chosen(14 * 15, false);
  for (size_t row = 0; row < 12; ++row) {
    for (size_t k = 0; k < 12; ++k) chosen[row * 15 + k] = true;
  }
  chosen[12 * 15] = true;
  const auto found = FindZeros(layer.problem(), {4, 4, 0, 0}, chosen);
  int64_t blocks = 0;
  for (size_t row = 0; row < 14; row += 4) {
    for (size_t k = 0; k < 15; k += 4) {
      const bool is_zero = found->zero[row * 15 + k];
      blocks += is_zero ? 1 : 0;
      for (size_t i = row; i < std::min<size_t>(row + 4, 14); ++i) {
        for (size_t j = k; j < std::min<size_t>(k + 4, 15); ++j) {
          EXPECT_EQ(found->zero[i * 15 + j], is_zero);
        }
      }
    }
  }
  EXPECT_EQ(blocks, 9);
}

TEST(FindZeros, WhatIsZeroStaysSo) {
  Layer layer(6, 20, 11);
  for (size_t i = 0; i < layer.weight.size(); i += 3) layer.weight[i] = 0;
  const auto found = FindZeros(layer.problem(), {1, 1, 0, 0}, std::vector<bool>(120, false));
  for (size_t i = 0; i < layer.weight.size(); ++i) {
    EXPECT_EQ(found->zero[i], i % 3 == 0);
    EXPECT_EQ(found->weight[i] == 0, i % 3 == 0);
  }
}

// More inputs than are inverted at once.
TEST(FindZeros, ThreadsChangeNoBitAndManyInputsAreLikeFew) {
  constexpr int64_t kK = 700;
  const Layer layer(3, kK, 5);
  const auto find = [&](size_t threads) {
    const tbb::global_control limit(tbb::global_control::max_allowed_parallelism, threads);
    return *FindZeros(layer.problem(), {1, 1, 0, 0}, ZeroUnits(3, kK, kK / 2));
  };
  const ZeroedRows one = find(1), four = find(4);
  EXPECT_EQ(one.zero, four.zero);
  EXPECT_EQ(one.weight, four.weight);
  EXPECT_EQ(std::ranges::count(one.zero, true), 3 * kK / 2);
  std::vector<float> smallest = layer.weight;
  std::vector<float> magnitudes;
  for (const float value : smallest) magnitudes.push_back(std::fabs(value));
  std::ranges::nth_element(magnitudes, magnitudes.begin() + 3 * kK / 2);
  std::vector<bool> by_magnitude;
  for (const float value : smallest) {
    by_magnitude.push_back(std::fabs(value) < magnitudes[3 * kK / 2]);
  }
  const auto error = [&](const std::vector<bool>& zero) {
    return SquaredErrorOf(layer.s, SolveMasked(layer.problem(), zero, layer.weight));
  };
  EXPECT_LT(error(one.zero), 0.8 * error(by_magnitude));
}

TEST(FindZeros, InputsWhoseSquaresVanishLeaveNumbers) {
  Layer layer(2, 8, 1);
  for (float& value : layer.s.h) value *= 1e-43f;
  for (float& value : layer.s.g) value *= 1e-43f;
  const auto found = FindZeros(layer.problem(), {1, 1, 0, 0}, ZeroUnits(2, 8, 4));
  EXPECT_EQ(std::ranges::count(found->zero, true), 8);
  for (const float weight : found->weight) EXPECT_TRUE(std::isfinite(weight));
}

TEST(FindZeros, NumbersThatAreNotFiniteHaveNoAnswer) {
  Layer layer(2, 8, 1);
  layer.s.h[3] = std::numeric_limits<float>::infinity();
  EXPECT_FALSE(FindZeros(layer.problem(), {1, 1, 0, 0}, ZeroUnits(2, 8, 4)));
}

}  // namespace
}  // namespace pared
