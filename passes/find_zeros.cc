// Zeros and weights together by the alternating direction method of multipliers (Boyd et al.,
// Distributed optimization and statistical learning via the alternating direction method of
// multipliers, 2011; for pruning Meng et al., ALPS, 2024).
//
// Inputs are scaled so that the damped h, a = s (h + lambda) s, has a diagonal of 1: then a
// weight's square is what losing it alone costs. Each step takes the best weights of all without
// zeros, held by rho to the last ones with zeros,  w = (g + rho (d - u)) (a + rho)^-1,  then zeroes
// the units of t = w + u that are least: d is what is left of t, and the new u what is not. So t
// says all.
//
// Where inputs differ much in scale and samples say little, damping by the mean square of all
// inputs would make of this the choice by magnitude: there each input is damped by its own square.

#include <Eigen/Cholesky>
#include <Eigen/Core>
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "passes/each_row.h"
#include "passes/least_squares.h"
#include "passes/matrix_product.h"
#include "passes/select_smallest.h"

namespace pared {
namespace {

constexpr double kRho = 0.1, kRhoGrowth = 2;  // of a diagonal of 1
constexpr int kRounds = 5, kSteps = 10;       // of one rho
constexpr int64_t kDirectMax = 256;

using Floats = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

std::vector<float> Part(const std::vector<float>& a, int64_t k, int64_t row, int64_t column,
                        int64_t rows, int64_t columns) {
  const Floats part = Eigen::Map<const Floats>(a.data(), k, k).block(row, column, rows, columns);
  return {part.data(), part.data() + part.size()};
}

// Of a symmetric positive definite matrix [k][k]; empty: it is not. By halves, so that nearly all
// of it is done by the kernels' products.
std::vector<float> Inverse(const std::vector<float>& a, int64_t k) {
  if (k <= kDirectMax) {
    const Eigen::MatrixXd matrix = Eigen::Map<const Floats>(a.data(), k, k).cast<double>();
    const Eigen::LLT<Eigen::MatrixXd> factor(matrix);
    if (factor.info() != Eigen::Success) return {};
    const Floats inverse = factor.solve(Eigen::MatrixXd::Identity(k, k)).cast<float>();
    return {inverse.data(), inverse.data() + inverse.size()};
  }
  const int64_t p = k / 2, q = k - p;
  const std::vector<float> left = Inverse(Part(a, k, 0, 0, p, p), p);
  if (left.empty()) return {};
  const std::vector<float> b = Part(a, k, 0, p, p, q), pull = Multiply({p, q, p}, left, b);
  std::vector<float> rest = Part(a, k, p, p, q, q);
  const std::vector<float> taken = Multiply({q, q, p, true, false}, b, pull);
  std::ranges::transform(rest, taken, rest.begin(), std::minus<>());
  const std::vector<float> right = Inverse(rest, q);
  if (right.empty()) return {};
  const std::vector<float> across = Multiply({p, q, q}, pull, right);
  const std::vector<float> back = Multiply({p, p, q, false, true}, across, pull);
  std::vector<float> inverse(a.size());
  Eigen::Map<Floats> whole(inverse.data(), k, k);
  whole.topLeftCorner(p, p) = Eigen::Map<const Floats>(left.data(), p, p);
  whole.topLeftCorner(p, p) += Eigen::Map<const Floats>(back.data(), p, p);
  whole.bottomRightCorner(q, q) = Eigen::Map<const Floats>(right.data(), q, q);
  whole.topRightCorner(p, q) = -Eigen::Map<const Floats>(across.data(), p, q);
  whole.bottomLeftCorner(q, p) = whole.topRightCorner(p, q).transpose();
  return inverse;
}

// What holds weights to the original ones: as much for each input, or against its own square. The
// second makes nothing of scales: so damped that a is near the identity, a weight counts by what it
// adds to the output. But inputs that vary little in the samples may vary in others.
enum class Pull { kMean, kOwn };

// The second must begin with so much less error.
constexpr double kClearly = 0.7;

class ZeroSearch {
 public:
  ZeroSearch(const LeastSquares& problem, Pattern pattern, const std::vector<bool>& chosen,
             Pull pull_by)
      : s_(*problem.statistics), pattern_(pattern), t_(*problem.original), g_(s_.g), a_(s_.h) {
    const float common = static_cast<float>(Lambda(s_, problem.damping));
    Eigen::ArrayXf pull(s_.k), diagonal(s_.k);
    for (int64_t i = 0; i < s_.k; ++i) {
      const float square = a_[At(i, i, s_.k)];
      pull[i] = pull_by == Pull::kMean ? common : static_cast<float>(problem.damping) * square;
      diagonal[i] = a_[At(i, i, s_.k)] += pull[i];
    }
    scale_ = diagonal.max(std::numeric_limits<float>::min()).rsqrt();  // of inputs near 1e-20, 0
    for (int64_t row = 0; row < s_.k; ++row) {
      Row(a_, row) *= scale_ * scale_[row];
      float& own = a_[At(row, row, s_.k)];
      if (own == 0) own = 1;  // of an input that is always 0
    }
    for (const float weight : t_) fixed_.push_back(weight == 0);
    for (int64_t row = 0; row < s_.rows; ++row) {
      Row(g_, row) = (Row(g_, row) + pull * Row(t_, row)) * scale_;
      Row(t_, row) /= scale_;
    }
    if (pattern_.of == 0) CountUnits(chosen);
    zero_ = LeastUnits();
    for (size_t i = 0; i < t_.size(); ++i) {
      if (zero_[i]) t_[i] = 0;
    }
  }

  // The units whose loss costs least if each is lost alone.
  const std::vector<char>& begun() const { return zero_; }

  std::optional<ZeroedRows> Run() {
    double rho = kRho;
    for (int round = 0; round < kRounds; ++round, rho *= kRhoGrowth) {
      const std::vector<char> before = zero_;
      std::vector<float> held = a_;
      for (int64_t i = 0; i < s_.k; ++i) held[At(i, i, s_.k)] += static_cast<float>(rho);
      const std::vector<float> inverse = Inverse(held, s_.k);
      if (inverse.empty()) return std::nullopt;
      const RightMatrix right(inverse, s_.k, s_.k);
      for (int step = 0; step < kSteps; ++step) Step(right, static_cast<float>(rho));
      if (zero_ == before) break;
      // u is counted in units of 1 / rho.
      ForEachRow(s_.rows, s_.k, [&](int64_t row) {
        for (size_t i = At(row, 0, s_.k); i < At(row + 1, 0, s_.k); ++i) {
          if (zero_[i]) t_[i] /= static_cast<float>(kRhoGrowth);
        }
      });
    }
    ForEachRow(s_.rows, s_.k, [&](int64_t row) { Row(t_, row) *= scale_; });
    std::vector<bool> zero(t_.size());
    for (size_t i = 0; i < t_.size(); ++i) {
      zero[i] = zero_[i] || fixed_[i];
      if (zero[i]) t_[i] = 0;
    }
    return ZeroedRows{std::move(zero), std::move(t_)};
  }

 private:
  static size_t At(int64_t row, int64_t column, int64_t width) {
    return static_cast<size_t>(row * width + column);
  }
  Eigen::Map<Eigen::ArrayXf> Row(std::vector<float>& all, int64_t row) const {
    return {&all[At(row, 0, s_.k)], s_.k};
  }

  void Step(const RightMatrix& inverse, float rho) {
    std::vector<float> sides(t_.size());
    std::vector<const float*> rows;
    for (int64_t row = 0; row < s_.rows; ++row) rows.push_back(&sides[At(row, 0, s_.k)]);
    ForEachRow(s_.rows, s_.k, [&](int64_t row) {
      for (size_t i = At(row, 0, s_.k); i < At(row + 1, 0, s_.k); ++i) {
        sides[i] = g_[i] + (zero_[i] ? -rho : rho) * t_[i];
        if (!zero_[i]) t_[i] = 0;  // u
      }
    });
    std::vector<float> weight(t_.size());
    inverse.Multiply(rows, weight);
    ForEachRow(s_.rows, s_.k, [&](int64_t row) { Row(t_, row) += Row(weight, row); });
    zero_ = LeastUnits();
  }

  int64_t UnitRows() const { return (s_.rows + pattern_.rows - 1) / pattern_.rows; }
  int64_t UnitColumns() const { return (s_.k + pattern_.columns - 1) / pattern_.columns; }

  // Calls `visit(element)` for those of one unit, smaller at the edges.
  template <class Visit>
  void ForEachElement(int64_t unit_row, int64_t unit_column, Visit visit) const {
    const int64_t row_begin = unit_row * pattern_.rows, k_begin = unit_column * pattern_.columns;
    for (int64_t row = row_begin; row < std::min(row_begin + pattern_.rows, s_.rows); ++row) {
      for (int64_t k = k_begin; k < std::min(k_begin + pattern_.columns, s_.k); ++k) {
        visit(At(row, k, s_.k));
      }
    }
  }

  void CountUnits(const std::vector<bool>& chosen) {
    for (int64_t row = 0; row < UnitRows(); ++row) {
      for (int64_t column = 0; column < UnitColumns(); ++column) {
        bool is_zero = true;
        ForEachElement(row, column, [&](size_t at) { is_zero = is_zero && chosen[at]; });
        wanted_ += is_zero ? 1 : 0;
      }
    }
  }

  float LossOf(size_t at) const { return fixed_[at] ? 0 : t_[at] * t_[at]; }

  std::vector<char> LeastUnits() const {
    return pattern_.of == 0 ? LeastBlocks() : LeastOfGroups();
  }

  std::vector<char> LeastBlocks() const {
    std::vector<float> losses(static_cast<size_t>(UnitRows() * UnitColumns()));
    ForEachRow(UnitRows(), UnitColumns(), [&](int64_t row) {
      for (int64_t column = 0; column < UnitColumns(); ++column) {
        float sum = 0, count = 0;
        ForEachElement(row, column, [&](size_t at) {
          sum += LossOf(at);
          ++count;
        });
        losses[At(row, column, UnitColumns())] = sum / count;
      }
    });
    const Threshold least = SelectSmallest({losses}, wanted_);
    const auto row_of = [&](int64_t row) { return losses.begin() + row * UnitColumns(); };
    // Of units that equal the threshold the first are zeroed: how many lie before each row.
    std::vector<int64_t> equal_before(static_cast<size_t>(UnitRows()) + 1);
    ForEachRow(UnitRows(), UnitColumns(), [&](int64_t row) {
      equal_before[static_cast<size_t>(row + 1)] =
          std::count(row_of(row), row_of(row + 1), least.magnitude);
    });
    std::partial_sum(equal_before.begin(), equal_before.end(), equal_before.begin());
    std::vector<char> zero(t_.size());
    ForEachRow(UnitRows(), UnitColumns(), [&](int64_t row) {
      int64_t ties = least.ties - equal_before[static_cast<size_t>(row)];
      for (int64_t column = 0; column < UnitColumns(); ++column) {
        const float loss = losses[At(row, column, UnitColumns())];
        if (loss > least.magnitude || (loss == least.magnitude && ties-- <= 0)) continue;
        ForEachElement(row, column, [&](size_t at) { zero[at] = 1; });
      }
    });
    return zero;
  }

  // N:M: of a smaller last group of r, ceil(r * keep / of) stay.
  std::vector<char> LeastOfGroups() const {
    std::vector<char> zero(t_.size());
    ForEachRow(s_.rows, s_.k, [&](int64_t row) {
      for (int64_t k = 0; k < s_.k; k += pattern_.of) {
        const int64_t size = std::min(pattern_.of, s_.k - k);
        std::vector<size_t> group(static_cast<size_t>(size));
        std::iota(group.begin(), group.end(), At(row, k, s_.k));
        std::ranges::stable_sort(group, {}, [&](size_t at) { return LossOf(at); });
        group.resize(
            static_cast<size_t>(size - (size * pattern_.keep + pattern_.of - 1) / pattern_.of));
        for (const size_t at : group) zero[at] = 1;
      }
    });
    return zero;
  }

  const LayerStatistics& s_;
  Pattern pattern_;
  std::vector<float> t_, g_, a_;  // scaled
  Eigen::ArrayXf scale_;          // s
  std::vector<char> fixed_;       // not 0: zero from the start
  std::vector<char> zero_;
  int64_t wanted_ = 0;  // units that are zeroed
};

}  // namespace

std::optional<ZeroedRows> FindZeros(const LeastSquares& problem, Pattern pattern,
                                    const std::vector<bool>& chosen) {
  const auto is_finite = [](float value) { return std::isfinite(value); };
  const LayerStatistics& s = *problem.statistics;
  if (!std::ranges::all_of(s.h, is_finite) || !std::ranges::all_of(s.g, is_finite)) {
    return std::nullopt;
  }
  const auto error_of = [&](const std::vector<char>& zero) {
    std::vector<float> weight = *problem.original;
    for (size_t i = 0; i < weight.size(); ++i) {
      if (zero[i]) weight[i] = 0;
    }
    return SquaredErrorOf(s, weight);
  };
  ZeroSearch by_mean(problem, pattern, chosen, Pull::kMean);
  ZeroSearch by_own(problem, pattern, chosen, Pull::kOwn);
  const bool is_own = error_of(by_own.begun()) < kClearly * error_of(by_mean.begun());
  return (is_own ? by_own : by_mean).Run();
}

}  // namespace pared
