// One budget for a model, given to the layers where it costs the outputs least.

#pragma once

#include <span>
#include <vector>

namespace pared {

// What a layer saves, and what that costs the outputs, at one sparsity.
struct SparsityPoint {
  double sparsity = 0, saved = 0, loss = 0;
};

struct Allocation {
  std::vector<double> sparsities;  // of each layer
  double saved = 0;                // less than `wanted` where all layers together cannot give more
};

// The least sum of losses for which the layers save `wanted` together: the steepest savings of the
// lower convex hull of each layer's points first (for convex curves that is optimal: Everett,
// Generalized Lagrange multipliers, 1963). Every layer starts at 0, 0, 0. The last layer gets the
// part of a step that is still wanted. Among equals the first layer gives.
Allocation AllocateSparsity(std::span<const std::vector<SparsityPoint>> layers, double wanted);

}  // namespace pared
