#include "passes/least_squares.h"

#include <gmock/gmock.h>
#include <tbb/global_control.h>

#include <Eigen/Cholesky>
#include <Eigen/Core>
#include <cmath>
#include <random>

#include "passes/matrix_product.h"

namespace pared {
namespace {

using Matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

std::vector<float> RandomFloats(int64_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) value = normal(random);
  return values;
}

Matrix AsMatrix(const std::vector<float>& values, int64_t rows, int64_t columns) {
  using Floats = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  return Eigen::Map<const Floats>(values.data(), rows, columns).cast<double>();
}

double LargestDifference(const std::vector<float>& got, const Matrix& wanted) {
  return (AsMatrix(got, wanted.rows(), wanted.cols()) - wanted).cwiseAbs().maxCoeff();
}

// Of a transposed left operand no zeros are looked for.
TEST(MatrixProduct, RowsOfZerosGiveTheBitsOfDenseOnes) {
  std::mt19937 random(5);
  for (const int64_t m : {64, 530}) {
    for (const int64_t n : {70, 200}) {
      for (const int64_t k : {130, 600}) {
        const auto b = RandomFloats(k * n, 3);
        auto a = RandomFloats(m * k, 4);
        std::vector<float> transposed(a.size());
        for (size_t i = 0; i < a.size(); ++i) {
          if (random() % 5 != 0) a[i] = 0;
          transposed[i % static_cast<size_t>(k) * static_cast<size_t>(m) +
                     i / static_cast<size_t>(k)] = a[i];
        }
        const std::vector<float> dense = Multiply({m, n, k, true, false}, transposed, b);
        EXPECT_EQ(Multiply({m, n, k}, a, b), dense) << m << " " << n << " " << k;
        std::vector<const float*> rows;
        for (int64_t row = 0; row < m; ++row) rows.push_back(a.data() + row * k);
        std::vector<float> c(dense.size());
        RightMatrix(b, k, n).Multiply(rows, c);
        EXPECT_EQ(c, dense) << m << " " << n << " " << k;
      }
    }
  }
}

// Below, at and above the kernels' tiles (6 and 8 rows, 16 and 64 columns) and the parallel parts.
TEST(MatrixProduct, IsEigensForEverySize) {
  for (const int64_t m : {1, 5, 6, 48, 401}) {
    for (const int64_t n : {1, 16, 65, 530}) {
      for (const int64_t k : {1, 9, 70}) {
        const auto a = RandomFloats(m * k, 1), b = RandomFloats(k * n, 2);
        const Matrix wanted = AsMatrix(a, m, k) * AsMatrix(b, k, n);
        EXPECT_LT(LargestDifference(Multiply({m, n, k}, a, b), wanted), 1e-4) << m << n << k;
        std::vector<const float*> rows;
        for (int64_t row = m - 1; row >= 0; --row) rows.push_back(a.data() + row * k);
        std::vector<float> turned(static_cast<size_t>(m * n));
        RightMatrix(b, k, n).Multiply(rows, turned);
        EXPECT_LT(LargestDifference(turned, wanted.colwise().reverse()), 1e-4) << m << n << k;
      }
    }
  }
}

TEST(MatrixProduct, GramIsEigensAndSymmetric) {
  for (const int64_t k : {1, 7, 64, 130, 515}) {
    const auto x = RandomFloats(90 * k, 3);
    const std::vector<float> gram = Gram(x, 90, k);
    const Matrix wanted = AsMatrix(x, 90, k).transpose() * AsMatrix(x, 90, k);
    EXPECT_LT(LargestDifference(gram, wanted), 1e-3) << k;
    EXPECT_EQ(AsMatrix(gram, k, k), AsMatrix(gram, k, k).transpose()) << k;
  }
}

// Inputs of which some are nearly copies of others, so that the diagonal says little.
struct Problem {
  static constexpr int64_t kK = 40, kRows = 70, kCount = 300;
  LayerStatistics s;
  std::vector<float> original = RandomFloats(kRows * kK, 4);
  std::vector<bool> zero;
  std::vector<float> masked = original;

  Problem() {
    std::vector<float> x = RandomFloats(kCount * kK, 5);
    for (int64_t i = 0; i < kCount * kK; ++i) {
      if (i % kK >= kK / 2) {
        x[static_cast<size_t>(i)] =
            x[static_cast<size_t>(i - kK / 2)] + 0.2f * x[static_cast<size_t>(i)];
      }
    }
    LayerColumns columns;
    columns.k = kK;
    columns.count = kCount;
    columns.original = columns.edited = x;
    s = StatisticsOf(columns, original, false);
    for (size_t i = 0; i < original.size(); ++i) {
      zero.push_back(i * 7 % 5 < 3);
      if (zero[i]) masked[i] = 0;
    }
  }

  // The normal equations of each row's own support, by Cholesky.
  Matrix Direct(double damping) const {
    const Matrix h = AsMatrix(s.h, kK, kK), g = AsMatrix(s.g, kRows, kK);
    const Matrix w0 = AsMatrix(original, kRows, kK);
    const double lambda = damping * h.trace() / kK;
    Matrix best = Matrix::Zero(kRows, kK);
    for (int64_t row = 0; row < kRows; ++row) {
      std::vector<Eigen::Index> kept;
      for (int64_t i = 0; i < kK; ++i) {
        if (!zero[static_cast<size_t>(row * kK + i)]) kept.push_back(i);
      }
      const Eigen::Index size = std::ssize(kept);
      const Matrix a = h(kept, kept) + lambda * Matrix::Identity(size, size);
      const Eigen::VectorXd b = (g.row(row) + lambda * w0.row(row))(kept);
      best.row(row)(kept) = a.llt().solve(b).transpose();
    }
    return best;
  }
};

TEST(SolveMasked, IsTheDirectSolutionOfEachRowsSupport) {
  const Problem problem;
  for (const double damping : {0.01, 1.0}) {
    const auto weight =
        SolveMasked({&problem.s, &problem.original, damping}, problem.zero, problem.masked);
    // Inputs that are nearly copies let weights differ that make the same outputs.
    const Matrix direct = problem.Direct(damping);
    const std::vector<float> best(direct.data(), direct.data() + direct.size());
    const double error = SquaredErrorOf(problem.s, weight);
    EXPECT_LT(error, 1.001 * SquaredErrorOf(problem.s, best)) << damping;
    EXPECT_LT(error, SquaredErrorOf(problem.s, problem.masked)) << damping;
    for (size_t i = 0; i < weight.size(); ++i) {
      const bool is_plus_zero = weight[i] == 0 && !std::signbit(weight[i]);
      EXPECT_TRUE(is_plus_zero || !problem.zero[i]) << i;
    }
  }
}

TEST(SolveMasked, MeasuresWhatItBeginsWithAndWhatItFinds) {
  const Problem problem;
  const LeastSquares squares = {&problem.s, &problem.original};
  const MeasuredSolution found = SolveMeasured(squares, problem.zero, problem.masked);
  EXPECT_EQ(found.weight, SolveMasked(squares, problem.zero, problem.masked));
  const double start = SquaredErrorOf(problem.s, problem.masked);
  const double error = SquaredErrorOf(problem.s, found.weight);
  EXPECT_NEAR(found.start_error, start, 1e-4 * start);
  EXPECT_NEAR(found.error, error, 1e-3 * error);
  EXPECT_LT(error, 0.96 * start);  // what is measured differs
}

TEST(SolveMasked, AllDampingsAtOnceAreThoseOfEach) {
  const Problem problem;
  const LeastSquares squares = {&problem.s, &problem.original};
  const std::vector<double> dampings = {0.01, 0.1, 10};
  const auto all = SolveDampings(squares, dampings, problem.zero, problem.masked);
  ASSERT_EQ(all.size(), 3U);
  for (size_t i = 0; i < all.size(); ++i) {
    EXPECT_EQ(all[i], SolveMasked({&problem.s, &problem.original, dampings[i]}, problem.zero,
                                  problem.masked));
  }
}

TEST(SolveMasked, ThreadsChangeNoBit) {
  const Problem problem;
  const auto solve = [&](size_t threads) {
    const tbb::global_control limit(tbb::global_control::max_allowed_parallelism, threads);
    return SolveMasked({&problem.s, &problem.original}, problem.zero, problem.masked);
  };
  EXPECT_EQ(solve(1), solve(4));
}

}  // namespace
}  // namespace pared
