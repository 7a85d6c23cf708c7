#include "passes/least_squares.h"

#include <tbb/parallel_for.h>

#include <algorithm>
#include <cmath>

namespace pared {
namespace {

constexpr double kResidualMin = 1e-4;  // of the right side, in norm

double Lambda(const LeastSquares& problem) {
  const LayerStatistics& s = *problem.statistics;
  double trace = 0;
  for (int64_t i = 0; i < s.k; ++i) trace += s.h[static_cast<size_t>(i * s.k + i)];
  const double lambda = problem.damping * trace / static_cast<double>(s.k);
  return lambda > 0 ? lambda : 1;  // all inputs zero: any weight is as good as the original
}

// One row: rho is the residual squared in the norm of the preconditioner.
struct RowSolver {
  double rho = 0, stop = 0;
  bool is_done = false;
};

class ConjugateGradients {
 public:
  ConjugateGradients(const LeastSquares& problem, const std::vector<bool>& zero,
                     std::vector<float>& x)
      : s_(*problem.statistics),
        zero_(zero),
        x_(x),
        lambda_(Lambda(problem)),
        steps_max_(problem.steps_max) {
    for (size_t i = 0; i < x_.size(); ++i) {
      if (zero_[i]) x_[i] = 0;
    }
    r_ = s_.g;
    for (size_t i = 0; i < r_.size(); ++i) {
      r_[i] += static_cast<float>(lambda_) * (*problem.original)[i];
    }
    const std::vector<float> product = Multiply({s_.rows, s_.k, s_.k}, x_, s_.h);
    p_.assign(x_.size(), 0.0f);
    rows_.resize(static_cast<size_t>(s_.rows));
    tbb::parallel_for(int64_t{0}, s_.rows, [&](int64_t row) { Begin(row, product); });
  }

  void Run() {
    for (int step = 0; step < steps_max_; ++step) {
      std::vector<int64_t> active;
      for (int64_t row = 0; row < s_.rows; ++row) {
        if (!rows_[static_cast<size_t>(row)].is_done) active.push_back(row);
      }
      if (active.empty()) return;
      const int64_t count = std::ssize(active);
      const std::vector<float> product =
          Multiply({count, s_.k, s_.k}, count == s_.rows ? p_ : RowsOf(p_, s_.k, active), s_.h);
      tbb::parallel_for(int64_t{0}, count, [&](int64_t i) {
        Step(active[static_cast<size_t>(i)], product.data() + i * s_.k);
      });
    }
  }

 private:
  size_t At(int64_t row, int64_t i) const { return static_cast<size_t>(row * s_.k + i); }
  // Jacobi: by the diagonal.
  double Scaled(float residual, int64_t i) const {
    return residual / (s_.h[static_cast<size_t>(i * s_.k + i)] + lambda_);
  }

  void Begin(int64_t row, const std::vector<float>& product) {
    RowSolver& solver = rows_[static_cast<size_t>(row)];
    double right = 0;
    for (int64_t i = 0; i < s_.k; ++i) {
      const size_t at = At(row, i);
      if (zero_[at]) {
        r_[at] = 0;
        continue;
      }
      right += r_[at] * Scaled(r_[at], i);
      r_[at] -= product[at] + static_cast<float>(lambda_) * x_[at];
      p_[at] = static_cast<float>(Scaled(r_[at], i));
      solver.rho += static_cast<double>(r_[at]) * p_[at];
    }
    solver.stop = right * kResidualMin * kResidualMin;
    solver.is_done = !(solver.rho > solver.stop);
  }

  // `product`: the row's direction times h.
  void Step(int64_t row, const float* product) {
    RowSolver& solver = rows_[static_cast<size_t>(row)];
    double curvature = 0;
    for (int64_t i = 0; i < s_.k; ++i) {
      const size_t at = At(row, i);
      curvature += p_[at] * (product[i] + lambda_ * p_[at]);
    }
    if (!(curvature > 0)) {
      solver.is_done = true;
      return;
    }
    const double length = solver.rho / curvature;
    double rho = 0;
    for (int64_t i = 0; i < s_.k; ++i) {
      const size_t at = At(row, i);
      if (zero_[at]) continue;
      x_[at] += static_cast<float>(length * p_[at]);
      r_[at] -= static_cast<float>(length * (product[i] + lambda_ * p_[at]));
      rho += r_[at] * Scaled(r_[at], i);
    }
    for (int64_t i = 0; i < s_.k; ++i) {
      const size_t at = At(row, i);
      if (zero_[at]) continue;
      p_[at] = static_cast<float>(Scaled(r_[at], i) + rho / solver.rho * p_[at]);
    }
    solver.rho = rho;
    solver.is_done = !(rho > solver.stop);
  }

  const LayerStatistics& s_;
  const std::vector<bool>& zero_;
  std::vector<float>& x_;
  double lambda_;
  int steps_max_;
  std::vector<float> r_, p_;
  std::vector<RowSolver> rows_;
};

}  // namespace

std::vector<float> SolveMasked(const LeastSquares& problem, const std::vector<bool>& zero,
                               std::vector<float> start) {
  ConjugateGradients(problem, zero, start).Run();
  return start;
}

double SquaredErrorOf(const LayerStatistics& s, const std::vector<float>& weight) {
  const std::vector<float> product = Multiply({s.rows, s.k, s.k}, weight, s.h);
  double error = 0;
  for (const double square : s.y_square) error += square;
  for (size_t i = 0; i < weight.size(); ++i) {
    error += weight[i] * (static_cast<double>(product[i]) - 2.0 * s.g[i]);
  }
  return std::max(error, 0.0);
}

}  // namespace pared
