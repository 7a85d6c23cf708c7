#include "storage/pareto.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <iterator>
#include <limits>
#include <map>
#include <numeric>

#include "base/check.h"

namespace pared {
namespace {

// The second and third values of the points seen so far that none beats in both: as the second
// grows, the third falls.
class Staircase {
 public:
  // Whether a point seen is nowhere above (second, third).
  bool Covers(double second, double third) const {
    const auto above = steps_.upper_bound(second);
    return above != steps_.begin() && std::prev(above)->second <= third;
  }

  void Add(double second, double third) {
    const auto at = steps_.insert_or_assign(second, third).first;
    auto next = std::next(at);
    while (next != steps_.end() && next->second >= third) next = steps_.erase(next);
  }

 private:
  std::map<double, double> steps_;
};

// Beyond three values: what has been kept so far.
class Kept {
 public:
  bool Covers(std::span<const double> values) const {
    return std::ranges::any_of(points_, [&](std::span<const double> kept) {
      return std::ranges::equal(kept, values, std::ranges::less_equal());
    });
  }
  void Add(std::span<const double> values) { points_.push_back(values); }

 private:
  std::vector<std::span<const double>> points_;
};

constexpr size_t kFlatMax = 3;

// Up to three values beside their point's index: a sort that stays within them takes a third of
// the time of one that looks each point up.
struct FlatPoint {
  std::array<double, kFlatMax> values = {};
  size_t index = 0;
};

std::vector<bool> DominatedFlat(const ParetoPoints& points) {
  std::vector<FlatPoint> flat(points.size());
  for (size_t i = 0; i < flat.size(); ++i) {
    std::ranges::copy(points.values(i), flat[i].values.begin());
    flat[i].index = i;
  }
  // In this order a point can only be dominated by one before it.
  std::ranges::sort(flat, {}, &FlatPoint::values);
  std::vector<bool> dominated(points.size());
  Staircase staircase;
  for (size_t i = 0; i < flat.size(); ++i) {
    const auto& [values, index] = flat[i];
    if (i > 0 && values == flat[i - 1].values) {
      dominated[index] = dominated[flat[i - 1].index];
      continue;
    }
    dominated[index] = staircase.Covers(values[1], values[2]);
    if (!dominated[index]) staircase.Add(values[1], values[2]);
  }
  return dominated;
}

std::vector<bool> DominatedDeep(const ParetoPoints& points) {
  std::vector<size_t> order(points.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::ranges::sort(order, [&](size_t a, size_t b) {
    return std::ranges::lexicographical_compare(points.values(a), points.values(b));
  });
  std::vector<bool> dominated(points.size());
  Kept kept;
  for (size_t i = 0; i < order.size(); ++i) {
    const std::span<const double> values = points.values(order[i]);
    if (i > 0 && std::ranges::equal(values, points.values(order[i - 1]))) {
      dominated[order[i]] = dominated[order[i - 1]];
      continue;
    }
    dominated[order[i]] = kept.Covers(values);
    if (!dominated[order[i]]) kept.Add(values);
  }
  return dominated;
}

}  // namespace

void ParetoPoints::Add(int64_t run, std::span<const double> values) {
  PARED_CHECK(values.size() == dimensions_);
  runs_.push_back(run);
  values_.insert(values_.end(), values.begin(), values.end());
}

void ParetoPoints::Reserve(size_t count) {
  runs_.reserve(count);
  values_.reserve(count * dimensions_);
}

std::vector<bool> Dominated(const ParetoPoints& points) {
  return points.dimensions() <= kFlatMax ? DominatedFlat(points) : DominatedDeep(points);
}

std::optional<size_t> KneeOf(const ParetoPoints& front) {
  if (front.size() == 0) return std::nullopt;
  std::vector<double> low(front.values(0).begin(), front.values(0).end());
  std::vector<double> high = low;
  for (size_t i = 1; i < front.size(); ++i) {
    for (size_t k = 0; k < low.size(); ++k) {
      low[k] = std::min(low[k], front.values(i)[k]);
      high[k] = std::max(high[k], front.values(i)[k]);
    }
  }
  size_t knee = 0;
  double nearest = std::numeric_limits<double>::infinity();
  for (size_t i = 0; i < front.size(); ++i) {
    double distance = 0;
    for (size_t k = 0; k < low.size(); ++k) {
      const double range = high[k] - low[k];
      if (!(range > 0) || !std::isfinite(range)) continue;
      const double part = (front.values(i)[k] - low[k]) / range;
      distance += part * part;
    }
    if (distance < nearest) {
      nearest = distance;
      knee = i;
    }
  }
  return knee;
}

}  // namespace pared
