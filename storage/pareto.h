// The points that no other beats.

#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace pared {

// Values to have little of; negate those to have much of. No NaN. Row by row in one block: a query
// has a point for each of 100,000 runs.
class ParetoPoints {
 public:
  explicit ParetoPoints(size_t dimensions) : dimensions_(dimensions) {}

  void Add(int64_t run, std::span<const double> values);  // as many as there are dimensions
  void Reserve(size_t count);

  size_t size() const { return runs_.size(); }
  size_t dimensions() const { return dimensions_; }
  int64_t run(size_t i) const { return runs_[i]; }
  std::span<const double> values(size_t i) const {
    return std::span(values_).subspan(i * dimensions_, dimensions_);
  }

 private:
  size_t dimensions_;
  std::vector<int64_t> runs_;
  std::vector<double> values_;
};

// Whether each point is dominated: another is nowhere worse and somewhere better. Equal points do
// not dominate each other. n log n for up to three values, n times the front's size beyond.
std::vector<bool> Dominated(const ParetoPoints& points);

// The index of the point nearest to the best of every value, each scaled to its range over
// `front`; the first of several. nullopt: there is none.
std::optional<size_t> KneeOf(const ParetoPoints& front);

}  // namespace pared
