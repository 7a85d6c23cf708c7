#include <Eigen/Cholesky>
#include <Eigen/Core>
#include <cmath>

#include "passes/least_squares.h"

namespace pared {

std::optional<std::vector<double>> FactorOfInverse(const LayerStatistics& s, double damping) {
  using Matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
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

}  // namespace pared
