// The weights of one layer that come nearest to its original outputs, with zeros where they must
// be.
//
// All minimize  |w x - y|^2 + lambda |w - w0|^2  over the calibration columns x, with
// lambda = damping * mean(diag(h)): the second term keeps inputs that are always zero, or that the
// samples do not tell apart, at the original weight w0.

#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "passes/layer_statistics.h"
#include "passes/prune_pattern.h"

namespace pared {

struct LeastSquares {
  const LayerStatistics* statistics = nullptr;
  const std::vector<float>* original = nullptr;  // w0, [rows][k]
  double damping = 0.01;
  int steps_max = 100;  // of conjugate gradients
};

// What the damping adds to the diagonal of h: `damping` times its mean; 1 where that is nothing.
double Lambda(const LayerStatistics& statistics, double damping);

// Best weights with zero[i] elements at +0, by conjugate gradients from `start`.
std::vector<float> SolveMasked(const LeastSquares& problem, const std::vector<bool>& zero,
                               const std::vector<float>& start);
// The same, and the squared errors on the calibration columns, over all rows, of `start` with its
// zeros and of the weights found.
struct MeasuredSolution {
  std::vector<float> weight;
  double start_error = 0, error = 0;
};
MeasuredSolution SolveMeasured(const LeastSquares& problem, const std::vector<bool>& zero,
                               const std::vector<float>& start);
// As SolveMasked for each of `dampings` in place of the problem's.
std::vector<std::vector<float>> SolveDampings(const LeastSquares& problem,
                                              const std::vector<double>& dampings,
                                              const std::vector<bool>& zero,
                                              const std::vector<float>& start);

// Squared error of `weight` on the calibration columns, over all rows.
double SquaredErrorOf(const LayerStatistics& statistics, const std::vector<float>& weight);

// Chooses the zeros, as many units as `chosen` has (not read for N:M), and the weights that go with
// them, so that the minimum with zeros is low. nullopt: h is not finite.
struct ZeroedRows {
  std::vector<bool> zero;
  std::vector<float> weight;  // near the best that SolveMasked finds
};
std::optional<ZeroedRows> FindZeros(const LeastSquares& problem, Pattern pattern,
                                    const std::vector<bool>& chosen);

}  // namespace pared
