#include "passes/upper_factor.h"

#include <tbb/parallel_for.h>

#include <Eigen/Cholesky>
#include <Eigen/Core>
#include <algorithm>

#include "passes/least_squares.h"
#include "passes/matrix_product.h"

namespace pared {
namespace {

using Matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

// Columns at a time, and of them those whose rows are solved by themselves.
constexpr int64_t kPanel = kOuterColumnsMax;
constexpr int64_t kBlock = 128;

// Of a symmetric matrix [n][n], on and below its diagonal: columns become those of its Cholesky
// factor from left to right, and what is right of them the matrix that is left to factor.
class Factorization {
 public:
  explicit Factorization(std::vector<float> matrix, int64_t n) : l_(std::move(matrix)), n_(n) {}

  // Empty: not positive definite.
  std::vector<float> Run() {
    for (int64_t begin = 0; begin < n_; begin += kPanel) {
      const int64_t end = std::min(n_, begin + kPanel);
      for (int64_t block = begin; block < end; block += kBlock) {
        if (!FactorBlock(begin, block, std::min(kBlock, end - block))) return {};
      }
      SubtractOuterProduct({.matrix = l_, .n = n_, .column = begin, .columns = end - begin});
    }
    for (int64_t i = 0; i < n_; ++i) {
      std::fill(l_.begin() + i * n_ + i + 1, l_.begin() + (i + 1) * n_, 0.0F);
    }
    return std::move(l_);
  }

 private:
  // Columns [begin, begin + size); the factor's from column `panel` on are not subtracted yet.
  bool FactorBlock(int64_t panel, int64_t begin, int64_t size) {
    const int64_t below = n_ - begin;
    std::vector<float> columns = BlockOf(l_, n_, begin, below, begin, size);
    if (begin > panel) {
      const int64_t done = begin - panel;
      const std::vector<float> left = BlockOf(l_, n_, begin, below, panel, done);
      const std::vector<float> top = BlockOf(l_, n_, begin, size, panel, done);
      const std::vector<float> product = Multiply({below, size, done, false, true}, left, top);
      for (size_t i = 0; i < columns.size(); ++i) columns[i] -= product[i];
    }
    Eigen::Map<Matrix> rows(columns.data(), below, size);
    const Eigen::LLT<Eigen::MatrixXd> head(rows.topRows(size).cast<double>());
    if (head.info() != Eigen::Success) return false;
    const Matrix factor = Eigen::MatrixXd(head.matrixL()).cast<float>();
    if (!factor.allFinite()) return false;
    rows.topRows(size) = factor;
    // x l^T = s for the rows below the diagonal block, always as many at a time.
    tbb::parallel_for(int64_t{0}, (below - 1) / kBlock, [&](int64_t i) {
      const int64_t first = size + i * kBlock, count = std::min(kBlock, below - first);
      Matrix rest = rows.middleRows(first, count);
      factor.transpose().triangularView<Eigen::Upper>().solveInPlace<Eigen::OnTheRight>(rest);
      rows.middleRows(first, count) = rest;
    });
    tbb::parallel_for(int64_t{0}, below, [&](int64_t i) {
      std::copy_n(columns.begin() + i * size, size, l_.begin() + (begin + i) * n_ + begin);
    });
    return true;
  }

  std::vector<float> l_;
  int64_t n_;
};

void PutBlock(const std::vector<float>& block, int64_t columns, int64_t width,
              std::vector<float>::iterator to) {
  for (auto from = block.begin(); from != block.end(); from += columns, to += width) {
    std::copy(from, from + columns, to);
  }
}

}  // namespace

std::vector<float> BlockOf(const std::vector<float>& matrix, int64_t width, int64_t row,
                           int64_t rows, int64_t column, int64_t columns) {
  std::vector<float> block(static_cast<size_t>(rows * columns));
  for (int64_t i = 0; i < rows; ++i) {
    const auto from = matrix.begin() + (row + i) * width + column;
    std::copy(from, from + columns, block.begin() + i * columns);
  }
  return block;
}

std::vector<float> UpperFactor(const LayerStatistics& s, double damping) {
  const int64_t n = s.k;
  const double lambda = Lambda(s, damping);
  // The factor of h with both axes turned round is the lower one, turned round.
  std::vector<float> turned(s.h.rbegin(), s.h.rend());
  for (int64_t i = 0; i < n; ++i) {
    turned[static_cast<size_t>(i * n + i)] += static_cast<float>(lambda);
  }
  std::vector<float> lower = Factorization(std::move(turned), n).Run();
  std::ranges::reverse(lower);
  return lower;
}

// By halves: of [a b; 0 c] it is [a^-1, -a^-1 b c^-1; 0, c^-1].
std::vector<float> InverseOfUpper(const std::vector<float>& upper, int64_t n) {
  if (n <= kBlock) {
    const Eigen::Map<const Matrix> matrix(upper.data(), n, n);
    const Eigen::MatrixXd inverse =
        matrix.cast<double>().triangularView<Eigen::Upper>().solve(Eigen::MatrixXd::Identity(n, n));
    const Matrix rounded = inverse.cast<float>();
    return {rounded.data(), rounded.data() + rounded.size()};
  }
  const int64_t p = n / 2, q = n - p;
  const std::vector<float> left = InverseOfUpper(BlockOf(upper, n, 0, p, 0, p), p);
  const std::vector<float> right = InverseOfUpper(BlockOf(upper, n, p, q, p, q), q);
  const std::vector<float> b = BlockOf(upper, n, 0, p, p, q);
  std::vector<float> across = Multiply({p, q, q}, Multiply({p, q, p}, left, b), right);
  for (float& value : across) value = -value;
  std::vector<float> inverse(upper.size(), 0.0f);
  PutBlock(left, p, n, inverse.begin());
  PutBlock(across, q, n, inverse.begin() + p);
  PutBlock(right, q, n, inverse.begin() + p * n + p);
  return inverse;
}

}  // namespace pared
