#include "passes/allocate_sparsity.h"

#include <algorithm>

namespace pared {
namespace {

// One step along a layer's hull.
struct Step {
  size_t layer = 0;
  SparsityPoint from, to;

  double slope() const { return (to.loss - from.loss) / (to.saved - from.saved); }
};

// The steps between the corners of the lower convex hull, from the origin on: slopes ascend.
std::vector<Step> HullSteps(size_t layer, std::vector<SparsityPoint> points) {
  std::ranges::stable_sort(points, {}, &SparsityPoint::saved);
  std::vector<Step> steps;
  for (const SparsityPoint& point : points) {
    SparsityPoint from = steps.empty() ? SparsityPoint{} : steps.back().to;
    if (point.saved <= from.saved) continue;
    while (!steps.empty() && Step{layer, from, point}.slope() <= steps.back().slope()) {
      from = steps.back().from;
      steps.pop_back();
    }
    steps.push_back({layer, from, point});
  }
  return steps;
}

}  // namespace

Allocation AllocateSparsity(std::span<const std::vector<SparsityPoint>> layers, double wanted) {
  std::vector<Step> steps;
  for (size_t i = 0; i < layers.size(); ++i) {
    const std::vector<Step> own = HullSteps(i, layers[i]);
    steps.insert(steps.end(), own.begin(), own.end());
  }
  std::ranges::stable_sort(steps, {}, &Step::slope);
  Allocation allocation{std::vector<double>(layers.size(), 0.0), 0};
  for (const Step& step : steps) {
    const double left = wanted - allocation.saved;
    if (left <= 0) break;
    const double size = step.to.saved - step.from.saved;
    const double part = std::min(1.0, left / size);
    allocation.sparsities[step.layer] =
        step.from.sparsity + part * (step.to.sparsity - step.from.sparsity);
    allocation.saved += part * size;
  }
  return allocation;
}

}  // namespace pared
