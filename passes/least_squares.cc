#include "passes/least_squares.h"

#include <Eigen/Core>
#include <algorithm>
#include <cmath>

#include "passes/each_row.h"
#include "passes/matrix_product.h"

namespace pared {
namespace {

constexpr double kResidualMin = 1e-4;  // of the right side, in norm
// A row is done where its last steps together took less than this share of its squared error off
// the objective: what is left is then hardly more.
constexpr int kGainSteps = 3;
constexpr double kGainMin = 1e-2;
constexpr double kRounding = 1e-6;  // of sums in single precision

// One row under one damping: rho is the residual squared in the norm of the preconditioner.
struct RowSolver {
  double rho = 0, stop = 0;
  double start_error = 0;  // squared
  double objective = 0;
  double gains[kGainSteps] = {};  // what the last steps took off the objective
  bool is_done = false;
};

using Row = Eigen::Map<Eigen::ArrayXf>;
using ConstRow = Eigen::Map<const Eigen::ArrayXf>;

// All rows under all dampings at once, so that h is read from memory once a step. The
// preconditioner is the diagonal (Jacobi).
class ConjugateGradients {
 public:
  ConjugateGradients(const LeastSquares& problem, const std::vector<double>& dampings,
                     const std::vector<bool>& zero)
      : s_(*problem.statistics),
        original_(*problem.original),
        steps_max_(problem.steps_max),
        h_(s_.h, s_.k, s_.k),
        kept_(zero.size()),
        solvers_(dampings.size() * static_cast<size_t>(s_.rows)) {
    for (size_t i = 0; i < zero.size(); ++i) kept_[i] = zero[i] ? 0.0f : 1.0f;
    for (const double damping : dampings) {
      lambdas_.push_back(Lambda(s_, damping));
      for (int64_t i = 0; i < s_.k; ++i) {
        const double diagonal = s_.h[static_cast<size_t>(i * s_.k + i)];
        scale_.push_back(static_cast<float>(1 / (diagonal + lambdas_.back())));
      }
    }
  }

  // [dampings][rows][k]. Once.
  std::vector<float> Run(const std::vector<float>& start) {
    const size_t size = solvers_.size() * static_cast<size_t>(s_.k);
    x_.resize(size);
    r_.resize(size);
    p_.resize(size);
    product_.resize(size);
    Begin(start);
    for (int step = 0; step < steps_max_; ++step) {
      std::vector<int64_t> active;
      for (int64_t i = 0; i < std::ssize(solvers_); ++i) {
        if (!solvers_[static_cast<size_t>(i)].is_done) active.push_back(i);
      }
      if (active.empty()) break;
      std::vector<const float*> directions;
      for (const int64_t i : active) directions.push_back(&p_[At(i)]);
      h_.Multiply(directions, product_);
      ForEachRow(std::ssize(active), s_.k, [&](int64_t i) {
        Step(active[static_cast<size_t>(i)], ConstRow(&product_[At(i)], s_.k));
      });
    }
    ForEachRow(std::ssize(solvers_), s_.k, [&](int64_t i) {
      // No -0 where nothing may be.
      Of(x_, i) = (Kept(i) > 0).select(ConstRow(&x_[At(i)], s_.k), 0.0f);
    });
    return std::move(x_);
  }

  // Of all rows under all dampings, before and after Run().
  double StartError() const {
    double sum = 0;
    for (const RowSolver& solver : solvers_) sum += solver.start_error;
    return std::max(sum, 0.0);
  }
  double Error(const std::vector<float>& solution) const {
    double sum = 0;
    for (int64_t i = 0; i < std::ssize(solvers_); ++i) sum += ErrorOf(i, solution);
    return std::max(sum, 0.0);
  }

 private:
  size_t At(int64_t i) const { return static_cast<size_t>(i * s_.k); }
  Row Of(std::vector<float>& all, int64_t i) const { return Row(&all[At(i)], s_.k); }
  ConstRow Scale(int64_t i) const { return ConstRow(&scale_[At(i / s_.rows)], s_.k); }
  ConstRow Kept(int64_t i) const { return ConstRow(&kept_[At(i % s_.rows)], s_.k); }

  void Begin(const std::vector<float>& start) {
    std::vector<const float*> rows;
    for (int64_t row = 0; row < s_.rows; ++row) {
      Of(x_, row) = ConstRow(&start[At(row)], s_.k) * Kept(row);
      rows.push_back(&x_[At(row)]);
    }
    h_.Multiply(rows, product_);
    // Backwards: the first damping's rows hold what the others start from.
    for (int64_t i = std::ssize(solvers_) - 1; i >= s_.rows; --i) Of(x_, i) = Of(x_, i % s_.rows);
    ForEachRow(std::ssize(solvers_), s_.k,
               [&](int64_t i) { BeginRow(i, ConstRow(&product_[At(i % s_.rows)], s_.k)); });
  }

  void BeginRow(int64_t i, const ConstRow& product) {
    RowSolver& solver = solvers_[static_cast<size_t>(i)];
    const int64_t row = i % s_.rows;
    const float lambda = static_cast<float>(lambdas_[static_cast<size_t>(i / s_.rows)]);
    const ConstRow g(&s_.g[At(row)], s_.k), original(&original_[At(row)], s_.k);
    const Row x = Of(x_, i);
    Row r = Of(r_, i);
    r = (g + lambda * original) * Kept(row);
    const double right = (r.square() * Scale(i)).sum();
    r = (r - product - lambda * x) * Kept(row);
    Of(p_, i) = r * Scale(i);
    const double square = s_.y_square[static_cast<size_t>(row)];
    solver.start_error = ErrorOf(square, x, product.cast<double>(), g);
    const double error = solver.start_error;
    solver.objective = std::max(error, kRounding * square) + PullOf(i);
    solver.rho = (r * Of(p_, i)).sum();
    solver.stop = right * kResidualMin * kResidualMin;
    solver.is_done = !(solver.rho > solver.stop);
  }

  template <class X, class Product>
  static double ErrorOf(double square, const X& x, const Product& product, const ConstRow& g) {
    return square + (x.template cast<double>() * (product - 2 * g.cast<double>())).sum();
  }

  // h x, where weights may be, is what the residual says.
  double ErrorOf(int64_t i, const std::vector<float>& solution) const {
    const int64_t row = i % s_.rows;
    const double lambda = lambdas_[static_cast<size_t>(i / s_.rows)];
    const ConstRow g(&s_.g[At(row)], s_.k), original(&original_[At(row)], s_.k);
    const ConstRow x(&solution[At(i)], s_.k), r(&r_[At(i)], s_.k);
    const Eigen::ArrayXd product =
        g.cast<double>() + lambda * (original - x).cast<double>() - r.cast<double>();
    return ErrorOf(s_.y_square[static_cast<size_t>(row)], x, product, g);
  }

  // `product`: the row's direction times h.
  void Step(int64_t i, const ConstRow& product) {
    RowSolver& solver = solvers_[static_cast<size_t>(i)];
    const float lambda = static_cast<float>(lambdas_[static_cast<size_t>(i / s_.rows)]);
    Row p = Of(p_, i), r = Of(r_, i);
    const double curvature = (p * (product + lambda * p)).sum();
    if (!(curvature > 0)) {
      solver.is_done = true;
      return;
    }
    const float length = static_cast<float>(solver.rho / curvature);
    Of(x_, i) += length * p;
    r = (r - length * (product + lambda * p)) * Kept(i);
    const double rho = (r.square() * Scale(i)).sum();
    p = r * Scale(i) + static_cast<float>(rho / solver.rho) * p;
    const bool gains = Gains(solver, solver.rho * length, PullOf(i));
    solver.rho = rho;
    solver.is_done = !(rho > solver.stop) || !gains;
  }

  // The second term of the objective, of the weights that can move.
  double PullOf(int64_t i) {
    const ConstRow original(&original_[At(i % s_.rows)], s_.k);
    return lambdas_[static_cast<size_t>(i / s_.rows)] *
           static_cast<double>(((Of(x_, i) - original) * Kept(i)).square().sum());
  }

  // What the last steps took off is an estimate of what is left to be had (Hestenes and Stiefel,
  // Methods of conjugate gradients for solving linear systems, 1952). It is held against the
  // squared error alone.
  static bool Gains(RowSolver& solver, double gain, double pull) {
    std::rotate(solver.gains, solver.gains + 1, solver.gains + kGainSteps);
    solver.gains[kGainSteps - 1] = gain;
    solver.objective -= gain;
    if (solver.gains[0] == 0) return true;
    double sum = 0;
    for (const double last : solver.gains) sum += last;
    return sum > kGainMin * (solver.objective - pull);
  }

  const LayerStatistics& s_;
  const std::vector<float>& original_;
  int steps_max_;
  RightMatrix h_;
  std::vector<float> kept_;  // [rows][k], 1 where a weight may be
  std::vector<double> lambdas_;
  std::vector<float> scale_;  // [dampings][k]
  std::vector<float> x_, r_, p_, product_;
  std::vector<RowSolver> solvers_;  // [dampings][rows]
};

}  // namespace

double Lambda(const LayerStatistics& s, double damping) {
  double trace = 0;
  for (int64_t i = 0; i < s.k; ++i) trace += s.h[static_cast<size_t>(i * s.k + i)];
  const double lambda = damping * trace / static_cast<double>(s.k);
  return lambda > 0 ? lambda : 1;  // all inputs zero: any weight is as good as the original
}

std::vector<float> SolveMasked(const LeastSquares& problem, const std::vector<bool>& zero,
                               const std::vector<float>& start) {
  return ConjugateGradients(problem, {problem.damping}, zero).Run(start);
}

MeasuredSolution SolveMeasured(const LeastSquares& problem, const std::vector<bool>& zero,
                               const std::vector<float>& start) {
  ConjugateGradients solver(problem, {problem.damping}, zero);
  MeasuredSolution solution = {solver.Run(start), solver.StartError(), 0};
  solution.error = solver.Error(solution.weight);
  return solution;
}

std::vector<std::vector<float>> SolveDampings(const LeastSquares& problem,
                                              const std::vector<double>& dampings,
                                              const std::vector<bool>& zero,
                                              const std::vector<float>& start) {
  const std::vector<float> all = ConjugateGradients(problem, dampings, zero).Run(start);
  std::vector<std::vector<float>> solutions;
  for (auto from = all.begin(); from != all.end(); from += std::ssize(start)) {
    solutions.emplace_back(from, from + std::ssize(start));
  }
  return solutions;
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
