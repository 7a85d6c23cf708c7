// The optimal brain surgeon over columns. With the factor U of the inverse, (h + lambda)^-1 = U^T
// U, the loss of zeroing w[j], when the columns after j make up for it, is (w[j] / U[j][j])^2, and
// they do by subtracting w[j] / U[j][j] U[j] (Frantar and Alistarh, SparseGPT, 2023).

#include <tbb/parallel_for.h>

#include <Eigen/Cholesky>
#include <Eigen/Core>
#include <algorithm>
#include <cmath>
#include <numeric>

#include "passes/least_squares.h"

namespace pared {
namespace {

using Matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

constexpr int64_t kBlockColumns = 128;  // a multiple of every pattern's columns
constexpr int kDampingTries = 6;

class Sweeper {
 public:
  // `fixed` elements, at 0 in `weight`, stay there whatever else is chosen.
  Sweeper(const LayerStatistics& s, Pattern pattern, const std::vector<double>& upper,
          const std::vector<float>& weight, std::vector<bool> fixed)
      : s_(s),
        pattern_(pattern),
        upper_(upper.data(), s.k, s.k),
        w_(s.rows, s.k),
        zero_(fixed),
        fixed_(fixed) {
    for (size_t i = 0; i < weight.size(); ++i) w_.data()[i] = weight[i];
  }

  void Run(const std::vector<bool>& chosen) {
    const std::vector<int64_t> counts = CountByBlock(chosen);
    for (int64_t begin = 0; begin < s_.k; begin += kBlockColumns) {
      const int64_t end = std::min(begin + kBlockColumns, s_.k);
      Choose(begin, end, counts[static_cast<size_t>(begin / kBlockColumns)]);
      tbb::parallel_for(int64_t{0}, s_.rows, [&](int64_t row) { Sweep(row, begin, end); });
    }
  }

  Swept Take(double damping) const {
    Swept swept{zero_, {}, damping};
    for (int64_t i = 0; i < s_.rows * s_.k; ++i) {
      swept.weight.push_back(static_cast<float>(w_.data()[i]));
    }
    return swept;
  }

 private:
  struct Unit {
    int64_t row_begin, row_end, k_begin, k_end;
  };

  template <class Visit>
  void ForEachUnit(int64_t begin, int64_t end, Visit visit) const {
    for (int64_t row = 0; row < s_.rows; row += pattern_.rows) {
      for (int64_t k = begin; k < end; k += pattern_.columns) {
        visit(Unit{row, std::min(row + pattern_.rows, s_.rows), k,
                   std::min(k + pattern_.columns, end)});
      }
    }
  }

  double LossOf(int64_t row, int64_t k, const Eigen::VectorXd& scale) const {
    return fixed_[static_cast<size_t>(row * s_.k + k)] ? 0 : std::fabs(w_(row, k) / scale[k]);
  }

  double ScoreOf(const Unit& unit, const Eigen::VectorXd& scale) const {
    double sum = 0;
    for (int64_t row = unit.row_begin; row < unit.row_end; ++row) {
      for (int64_t k = unit.k_begin; k < unit.k_end; ++k) {
        sum += LossOf(row, k, scale) * LossOf(row, k, scale);
      }
    }
    return sum / static_cast<double>((unit.row_end - unit.row_begin) * (unit.k_end - unit.k_begin));
  }

  void Zero(const Unit& unit) {
    for (int64_t row = unit.row_begin; row < unit.row_end; ++row) {
      for (int64_t k = unit.k_begin; k < unit.k_end; ++k) {
        zero_[static_cast<size_t>(row * s_.k + k)] = true;
      }
    }
  }

  // How many units each block of columns gives: those of least loss over the whole layer, before
  // anything has changed.
  std::vector<int64_t> CountByBlock(const std::vector<bool>& chosen) const {
    std::vector<int64_t> counts(static_cast<size_t>(s_.k / kBlockColumns + 1), 0);
    if (pattern_.of != 0) return counts;
    int64_t wanted = 0;
    std::vector<std::pair<double, int64_t>> ranked;  // loss, block
    // Of the inverse itself, whose column norms the factor's columns have.
    const Eigen::VectorXd scale = upper_.colwise().norm();
    ForEachUnit(0, s_.k, [&](const Unit& unit) {
      wanted += chosen[static_cast<size_t>(unit.row_begin * s_.k + unit.k_begin)] ? 1 : 0;
      ranked.emplace_back(ScoreOf(unit, scale), unit.k_begin / kBlockColumns);
    });
    std::ranges::stable_sort(ranked, {}, &std::pair<double, int64_t>::first);
    for (int64_t i = 0; i < wanted; ++i) {
      ++counts[static_cast<size_t>(ranked[static_cast<size_t>(i)].second)];
    }
    return counts;
  }

  void Choose(int64_t begin, int64_t end, int64_t count) {
    const Eigen::VectorXd scale = upper_.diagonal();
    if (pattern_.of != 0) {
      ChooseInGroups(begin, end, scale);
      return;
    }
    std::vector<std::pair<double, Unit>> ranked;
    ForEachUnit(begin, end, [&](const Unit& u) { ranked.emplace_back(ScoreOf(u, scale), u); });
    std::ranges::stable_sort(ranked, {}, &std::pair<double, Unit>::first);
    for (int64_t i = 0; i < count; ++i) Zero(ranked[static_cast<size_t>(i)].second);
  }

  // N:M: of a smaller last group of r, ceil(r * keep / of) stay.
  void ChooseInGroups(int64_t begin, int64_t end, const Eigen::VectorXd& scale) {
    for (int64_t row = 0; row < s_.rows; ++row) {
      for (int64_t k = begin; k < end; k += pattern_.of) {
        const int64_t size = std::min(pattern_.of, end - k);
        std::vector<int64_t> group(static_cast<size_t>(size));
        std::iota(group.begin(), group.end(), k);
        std::ranges::stable_sort(group, {}, [&](int64_t at) { return LossOf(row, at, scale); });
        const int64_t kept = (size * pattern_.keep + pattern_.of - 1) / pattern_.of;
        for (int64_t i = 0; i < size - kept; ++i) {
          const int64_t at = group[static_cast<size_t>(i)];
          Zero({row, row + 1, at, at + 1});
        }
      }
    }
  }

  void Sweep(int64_t row, int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end; ++k) {
      if (!zero_[static_cast<size_t>(row * s_.k + k)]) continue;
      const double error = w_(row, k) / upper_(k, k);
      const int64_t rest = s_.k - k;
      w_.row(row).tail(rest) -= error * upper_.row(k).tail(rest);
      w_(row, k) = 0;
    }
  }

  const LayerStatistics& s_;
  Pattern pattern_;
  Eigen::Map<const Matrix> upper_;
  Matrix w_;
  std::vector<bool> zero_, fixed_;
};

}  // namespace

std::optional<std::vector<double>> FactorOfInverse(const LayerStatistics& s, double damping) {
  Matrix h(s.k, s.k);
  for (int64_t i = 0; i < s.k * s.k; ++i) h.data()[i] = s.h[static_cast<size_t>(i)];
  const double mean = h.trace() / static_cast<double>(s.k);
  if (!std::isfinite(mean)) return std::nullopt;
  h.diagonal().array() += mean > 0 ? damping * mean : 1;
  const Eigen::LLT<Matrix> factor(h);
  if (factor.info() != Eigen::Success) return std::nullopt;
  const Matrix inverse = factor.solve(Matrix::Identity(s.k, s.k));
  const Eigen::LLT<Matrix> second(inverse);
  if (second.info() != Eigen::Success) return std::nullopt;
  const Matrix upper = second.matrixU();
  if (!upper.allFinite()) return std::nullopt;
  return std::vector<double>(upper.data(), upper.data() + upper.size());
}

std::optional<Swept> SweepColumns(const LeastSquares& problem, Pattern pattern,
                                  const std::vector<bool>& chosen) {
  double damping = problem.damping;
  for (int tried = 0; tried < kDampingTries; ++tried, damping *= 10) {
    const std::optional<std::vector<double>> upper = FactorOfInverse(*problem.statistics, damping);
    if (!upper) continue;
    // Starts from what is best without new zeros: it makes up for the layers before.
    std::vector<bool> fixed;
    for (const float weight : *problem.original) fixed.push_back(weight == 0);
    Sweeper sweeper(*problem.statistics, pattern, *upper,
                    SolveMasked(problem, fixed, *problem.original), fixed);
    sweeper.Run(chosen);
    return sweeper.Take(damping);
  }
  return std::nullopt;
}

}  // namespace pared
