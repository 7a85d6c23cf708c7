// The points that no other beats.

#pragma once

#include <cstdint>
#include <optional>
#include <vector>

namespace pared {

// Values to have little of; negate those to have much of. All points have equally many, no NaN.
struct ParetoPoint {
  int64_t run = 0;
  std::vector<double> values;
};

// Whether each point is dominated: another is nowhere worse and somewhere better. Equal points do
// not dominate each other. n log n for up to three values, n times the front's size beyond.
std::vector<bool> Dominated(const std::vector<ParetoPoint>& points);

// The index of the point nearest to the best of every value, each scaled to its range over
// `front`; the first of several. nullopt: there is none.
std::optional<size_t> KneeOf(const std::vector<ParetoPoint>& front);

}  // namespace pared
