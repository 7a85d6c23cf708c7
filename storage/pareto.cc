#include "storage/pareto.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <map>
#include <numeric>

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
  bool Covers(const std::vector<double>& values) const {
    return std::any_of(points_.begin(), points_.end(), [&](const std::vector<double>* kept) {
      return std::equal(kept->begin(), kept->end(), values.begin(),
                        [](double a, double b) { return a <= b; });
    });
  }
  void Add(const std::vector<double>& values) { points_.push_back(&values); }

 private:
  std::vector<const std::vector<double>*> points_;
};

double ValueAt(const ParetoPoint& point, size_t i) {
  return i < point.values.size() ? point.values[i] : 0;
}

}  // namespace

std::vector<bool> Dominated(const std::vector<ParetoPoint>& points) {
  std::vector<size_t> order(points.size());
  std::iota(order.begin(), order.end(), size_t{0});
  // In this order a point can only be dominated by one before it.
  std::sort(order.begin(), order.end(),
            [&](size_t a, size_t b) { return points[a].values < points[b].values; });
  std::vector<bool> dominated(points.size());
  Staircase staircase;
  Kept kept;
  for (size_t i = 0; i < order.size(); ++i) {
    const ParetoPoint& point = points[order[i]];
    if (i > 0 && point.values == points[order[i - 1]].values) {
      dominated[order[i]] = dominated[order[i - 1]];
      continue;
    }
    const bool is_flat = point.values.size() <= 3;
    const double second = ValueAt(point, 1);
    const double third = ValueAt(point, 2);
    const bool is_covered = is_flat ? staircase.Covers(second, third) : kept.Covers(point.values);
    dominated[order[i]] = is_covered;
    if (is_covered) continue;
    is_flat ? staircase.Add(second, third) : kept.Add(point.values);
  }
  return dominated;
}

std::optional<size_t> KneeOf(const std::vector<ParetoPoint>& front) {
  if (front.empty()) return std::nullopt;
  std::vector<double> low = front[0].values;
  std::vector<double> high = low;
  for (const ParetoPoint& point : front) {
    for (size_t k = 0; k < low.size(); ++k) {
      low[k] = std::min(low[k], point.values[k]);
      high[k] = std::max(high[k], point.values[k]);
    }
  }
  size_t knee = 0;
  double nearest = std::numeric_limits<double>::infinity();
  for (size_t i = 0; i < front.size(); ++i) {
    double distance = 0;
    for (size_t k = 0; k < low.size(); ++k) {
      const double range = high[k] - low[k];
      if (!(range > 0) || !std::isfinite(range)) continue;
      const double part = (front[i].values[k] - low[k]) / range;
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
