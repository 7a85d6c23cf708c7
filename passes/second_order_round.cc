#include "passes/second_order_round.h"

#include <tbb/parallel_for.h>

#include <Eigen/Cholesky>
#include <Eigen/Core>
#include <algorithm>
#include <cmath>

#include "passes/least_squares.h"
#include "passes/matrix_product.h"

namespace pared {
namespace {

using Matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

// Columns at a time: the rest of the work is matrix products, which the kernels do at their best.
constexpr int64_t kBlock = 128;
constexpr int kDampingTries = 6;

// rows [row, row + rows) and columns [column, column + columns) of a matrix of that width.
std::vector<float> Block(const std::vector<float>& matrix, int64_t width, int64_t row, int64_t rows,
                         int64_t column, int64_t columns) {
  std::vector<float> block(static_cast<size_t>(rows * columns));
  for (int64_t i = 0; i < rows; ++i) {
    const auto from = matrix.begin() + (row + i) * width + column;
    std::copy(from, from + columns, block.begin() + i * columns);
  }
  return block;
}

// Lower l with a = l l^T, block column after block column; empty: a is not positive definite.
std::vector<float> Cholesky(const std::vector<float>& a, int64_t n) {
  std::vector<float> l(a.size(), 0.0f);
  for (int64_t begin = 0; begin < n; begin += kBlock) {
    const int64_t size = std::min(kBlock, n - begin), below = n - begin;
    std::vector<float> panel = Block(a, n, begin, below, begin, size);
    if (begin > 0) {
      const std::vector<float> left = Block(l, n, begin, below, 0, begin);
      const std::vector<float> top = Block(l, n, begin, size, 0, begin);
      const std::vector<float> product = Multiply({below, size, begin, false, true}, left, top);
      for (size_t i = 0; i < panel.size(); ++i) panel[i] -= product[i];
    }
    Eigen::Map<Matrix> rows(panel.data(), below, size);
    const Eigen::LLT<Eigen::MatrixXd> head(rows.topRows(size).cast<double>());
    if (head.info() != Eigen::Success) return {};
    const Matrix factor = Eigen::MatrixXd(head.matrixL()).cast<float>();
    if (!factor.allFinite()) return {};
    rows.topRows(size) = factor;
    // x l^T = s for the rows below the diagonal block, always as many at a time.
    tbb::parallel_for(int64_t{0}, (below - 1) / kBlock, [&](int64_t i) {
      const int64_t first = size + i * kBlock, count = std::min(kBlock, below - first);
      Matrix rest = rows.middleRows(first, count);
      factor.transpose().triangularView<Eigen::Upper>().solveInPlace<Eigen::OnTheRight>(rest);
      rows.middleRows(first, count) = rest;
    });
    tbb::parallel_for(int64_t{0}, below, [&](int64_t i) {
      std::copy_n(panel.begin() + i * size, size, l.begin() + (begin + i) * n + begin);
    });
  }
  return l;
}

// Upper r with h + damping * mean(diag(h)) = r r^T; empty: there is none.
std::vector<float> UpperFactor(const LayerStatistics& s, double damping) {
  const int64_t n = s.k;
  const double lambda = Lambda(s, damping);
  // The factor of h with both axes turned round is the lower one, turned round.
  std::vector<float> turned(s.h.rbegin(), s.h.rend());
  for (int64_t i = 0; i < n; ++i) {
    turned[static_cast<size_t>(i * n + i)] += static_cast<float>(lambda);
  }
  std::vector<float> lower = Cholesky(turned, n);
  std::ranges::reverse(lower);
  return lower;
}

class Rounder {
 public:
  Rounder(const RoundingProblem& problem, const std::vector<float>& upper)
      : problem_(problem),
        upper_(upper),
        k_(problem.statistics->k),
        rows_(problem.statistics->rows),
        errors_(problem.wanted->size(), 0.0f),
        codes_(problem.wanted->size(), 0) {}

  std::vector<int8_t> Run() {
    for (int64_t begin = 0; begin < k_; begin += kBlock) {
      const int64_t size = std::min(kBlock, k_ - begin);
      std::vector<float> carried(static_cast<size_t>(rows_ * size), 0.0f);
      if (begin > 0) {
        carried = Multiply({rows_, size, begin}, Block(errors_, k_, 0, rows_, 0, begin),
                           Block(upper_, k_, 0, begin, begin, size));
      }
      tbb::parallel_for(int64_t{0}, rows_,
                        [&](int64_t row) { RoundRow(row, begin, size, carried); });
    }
    return std::move(codes_);
  }

 private:
  void RoundRow(int64_t row, int64_t begin, int64_t size, std::vector<float>& carried) {
    const float scale = (*problem_.scales)[static_cast<size_t>(row)];
    const float most = static_cast<float>(problem_.code_max);
    float* const sums = carried.data() + row * size;
    for (int64_t j = 0; j < size; ++j) {
      const int64_t at = begin + j;
      const size_t element = static_cast<size_t>(row * k_ + at);
      const float* const factors = upper_.data() + at * k_ + begin;
      const float wanted = (*problem_.wanted)[element];
      float code = 0;
      if (wanted != 0) {
        const float target = wanted - sums[j] / factors[j];
        code = std::clamp(std::nearbyint(target / scale), -most, most);
      }
      codes_[element] = static_cast<int8_t>(code);
      const float error = code * scale - wanted;
      errors_[element] = error;
      for (int64_t i = j; i < size; ++i) sums[i] += error * factors[i];
    }
  }

  const RoundingProblem& problem_;
  const std::vector<float>& upper_;
  int64_t k_, rows_;
  std::vector<float> errors_;  // (q - w) [rows][k]
  std::vector<int8_t> codes_;
};

}  // namespace

std::optional<std::vector<int8_t>> RoundSecondOrder(const RoundingProblem& problem) {
  double damping = problem.damping;
  for (int tried = 0; tried < kDampingTries; ++tried, damping *= 10) {
    const std::vector<float> upper = UpperFactor(*problem.statistics, damping);
    if (!upper.empty()) return Rounder(problem, upper).Run();
  }
  return std::nullopt;
}

}  // namespace pared
