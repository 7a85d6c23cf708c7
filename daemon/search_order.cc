#include "daemon/search_order.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <random>
#include <set>
#include <tuple>
#include <utility>

#include "storage/pareto.h"

namespace pared {
namespace {

// Up to here all points of a space are listed to draw from; of a larger one some are drawn blindly.
constexpr double kListedPointsMax = 4'096;
constexpr int kBlindDraws = 256;

void AddExcess(double value, const Json& side, double sign, Worth& worth) {
  if (side.is_null()) return;
  const double bound = side.get<double>();
  worth.excess.push_back(sign * (value - bound) / std::max(std::abs(bound), 1e-9));
}

// Passes in one text: points with equal ones are one candidate.
std::string KeyOf(const SearchSpace& space, const SearchPoint& point) {
  return DumpJson(PassesAt(space, point));
}

class Order {
 public:
  Order(const SearchSpace& space, const std::vector<Tried>& tried, int64_t seed)
      : space_(space), tried_(tried), seed_(seed) {
    for (const Tried& one : tried) seen_.insert(KeyOf(space, one.point));
    FindFailing();
  }

  std::optional<Proposal> Next() const {
    if (auto found = Written()) return found;
    if (auto found = Coarse()) return found;
    if (auto found = Bisected()) return found;
    if (auto found = NearFront()) return found;
    return Drawn();
  }

 private:
  bool IsNew(const SearchPoint& point) const {
    return !PassesAt(space_, point).empty() && !seen_.contains(KeyOf(space_, point));
  }

  using Value = std::tuple<size_t, size_t, size_t>;  // chain, axis, index

  // Values that were tried twice and never gave a model: others are worth more.
  void FindFailing() {
    std::map<Value, std::pair<int, int>> counts;  // tries, and failures
    for (const Tried& one : tried_) {
      for (size_t axis = 0; axis < one.point.at.size(); ++axis) {
        auto& [tries, failures] = counts[{one.point.chain, axis, one.point.at[axis]}];
        ++tries;
        failures += one.worth.has_failed();
      }
    }
    for (const auto& [value, count] : counts) {
      if (count.first >= 2 && count.first == count.second) failing_.insert(value);
    }
  }

  bool IsPromising(const SearchPoint& point) const {
    for (size_t axis = 0; axis < point.at.size(); ++axis) {
      if (failing_.contains({point.chain, axis, point.at[axis]})) return false;
    }
    return IsNew(point);
  }

  SearchPoint StartOf(size_t chain) const {
    SearchPoint point = {chain, {}};
    for (const SearchAxis& axis : space_.chains[chain].axes) point.at.push_back(axis.start);
    return point;
  }

  static SearchPoint Moved(SearchPoint point, size_t axis, size_t to) {
    point.at[axis] = to;
    return point;
  }

  std::optional<Proposal> Written() const {
    for (size_t chain = 0; chain < space_.chains.size(); ++chain) {
      const SearchPoint point = StartOf(chain);
      if (IsNew(point)) return Proposal{point, "the chain as it is written"};
    }
    return std::nullopt;
  }

  // Ordered axes of all chains first: they say where the bounds lie.
  std::optional<Proposal> Coarse() const {
    for (const bool is_ordered : {true, false}) {
      for (size_t chain = 0; chain < space_.chains.size(); ++chain) {
        if (auto found = CoarseOf(chain, is_ordered)) return found;
      }
    }
    return std::nullopt;
  }

  std::optional<Proposal> CoarseOf(size_t chain, bool is_ordered) const {
    const std::vector<SearchAxis>& axes = space_.chains[chain].axes;
    const SearchPoint start = StartOf(chain);
    for (size_t i = 0; i < axes.size(); ++i) {
      if (axes[i].is_ordered != is_ordered) continue;
      for (size_t to = 0; to < axes[i].values.size(); ++to) {
        const bool is_end = to == 0 || to + 1 == axes[i].values.size();
        if (is_ordered && !is_end) continue;
        const SearchPoint point = Moved(start, i, to);
        if (IsNew(point)) return Proposal{point, "coarse over " + axes[i].name};
      }
    }
    return std::nullopt;
  }

  // The nearest that was tried on the line through `from` along the axis, above or below it.
  const Tried* Nearest(const SearchPoint& from, size_t axis, bool is_up) const {
    const Tried* nearest = nullptr;
    for (const Tried& other : tried_) {
      if (other.point.chain != from.chain || other.point == from) continue;
      const size_t at = other.point.at[axis];
      if (is_up ? at <= from.at[axis] : at >= from.at[axis]) continue;
      if (Moved(other.point, axis, from.at[axis]) != from) continue;
      if (nearest == nullptr ||
          (is_up ? at < nearest->point.at[axis] : at > nearest->point.at[axis])) {
        nearest = &other;
      }
    }
    return nearest;
  }

  struct Ranked {
    double gap = 0;   // as a part of the axis's length
    size_t rank = 0;  // of the point that it is next to; 0: the best
    Proposal proposal;

    // Wide gaps first, and those of the best: the second's count half, and so on.
    double promise() const { return gap / static_cast<double>(rank + 1); }
  };

  static void Take(std::optional<Ranked>& best, Ranked other) {
    if (!best || other.promise() > best->promise()) best = std::move(other);
  }

  std::optional<Proposal> Bisected() const {
    std::optional<Ranked> best;
    for (size_t i = 0; i < tried_.size(); ++i) {
      const Tried& low = tried_[i];
      const std::vector<SearchAxis>& axes = space_.chains[low.point.chain].axes;
      for (size_t axis = 0; axis < axes.size(); ++axis) {
        if (!axes[axis].is_ordered) continue;
        const Tried* high = Nearest(low.point, axis, /*is_up=*/true);
        if (high == nullptr || !AreApart(low.worth.broken, high->worth.broken)) continue;
        const size_t gap = high->point.at[axis] - low.point.at[axis];
        const SearchPoint middle = Moved(low.point, axis, low.point.at[axis] + gap / 2);
        if (gap < 2 || !IsNew(middle)) continue;
        Take(best, {Share(gap, axes[axis]), 0, {middle, "bisection of " + axes[axis].name}});
      }
    }
    if (!best) return std::nullopt;
    return std::move(best->proposal);
  }

  // Whether something better may lie between: one of the two meets all, or each what the other
  // does not.
  static bool AreApart(uint64_t a, uint64_t b) {
    if (a == b) return false;
    return a == 0 || b == 0 || ((a & ~b) != 0 && (b & ~a) != 0);
  }

  static double Share(size_t gap, const SearchAxis& axis) {
    return static_cast<double>(gap) / static_cast<double>(axis.values.size());
  }

  std::optional<Proposal> NearFront() const {
    const std::vector<size_t> front = Surroundings();
    std::optional<Ranked> best;
    for (size_t rank = 0; rank < front.size(); ++rank) {
      const SearchPoint& point = tried_[front[rank]].point;
      for (size_t axis = 0; axis < point.at.size(); ++axis) {
        if (space_.chains[point.chain].axes[axis].is_ordered) {
          AddHalves(point, axis, rank, best);
        } else {
          AddOthers(point, axis, rank, best);
        }
      }
    }
    if (!best) return std::nullopt;
    return std::move(best->proposal);
  }

  // What to look around: the front, and what is not on it but has more to spare before a bound.
  std::vector<size_t> Surroundings() const {
    std::vector<Worth> worths;
    for (const Tried& one : tried_) {
      Worth& worth = worths.emplace_back(one.worth);
      if (!worth.has_failed()) {
        worth.costs.insert(worth.costs.end(), worth.excess.begin(), worth.excess.end());
      }
    }
    return FrontOf(worths);
  }

  // Halfway to the next that was tried on either side; where there is none, to the end.
  void AddHalves(const SearchPoint& point, size_t axis, size_t rank,
                 std::optional<Ranked>& best) const {
    const SearchAxis& values = space_.chains[point.chain].axes[axis];
    const size_t own = point.at[axis];
    const std::string why = "near the front in " + values.name;
    const Tried* above = Nearest(point, axis, true);
    const size_t high = above == nullptr ? values.values.size() : above->point.at[axis];
    const Tried* below = Nearest(point, axis, false);
    // One less than the first, as `high` may be one more than the last.
    const size_t below_gap = below == nullptr ? own + 1 : own - below->point.at[axis];
    for (const auto& [gap, to] : {std::pair(high - own, own + (high - own) / 2),
                                  std::pair(below_gap, own - below_gap / 2)}) {
      const SearchPoint middle = Moved(point, axis, to);
      if (gap >= 2 && IsNew(middle)) Take(best, {Share(gap, values), rank, {middle, why}});
    }
  }

  void AddOthers(const SearchPoint& point, size_t axis, size_t rank,
                 std::optional<Ranked>& best) const {
    // As wide as a quarter of an ordered axis: after its coarse steps, before its fine ones.
    constexpr double kGap = 0.25;
    const SearchAxis& values = space_.chains[point.chain].axes[axis];
    for (size_t to = 0; to < values.values.size(); ++to) {
      const SearchPoint other = Moved(point, axis, to);
      if (IsPromising(other)) Take(best, {kGap, rank, {other, "near the front in " + values.name}});
    }
  }

  double PointCount() const {
    double count = 0;
    for (const SearchChain& chain : space_.chains) {
      double product = 1;
      for (const SearchAxis& axis : chain.axes) product *= static_cast<double>(axis.values.size());
      count += product;
    }
    return count;
  }

  std::optional<Proposal> Drawn() const {
    const std::string why = "drawn from what is left";
    std::mt19937_64 random(static_cast<uint64_t>(seed_) + tried_.size());
    if (PointCount() <= kListedPointsMax) {
      std::vector<SearchPoint> left = Untried();
      if (left.empty()) return std::nullopt;
      const auto rest = std::ranges::stable_partition(
          left, [&](const SearchPoint& point) { return IsPromising(point); });
      if (rest.begin() != left.begin()) left.erase(rest.begin(), rest.end());
      return Proposal{left[random() % left.size()], why};
    }
    for (int i = 0; i < kBlindDraws; ++i) {
      SearchPoint point = {random() % space_.chains.size(), {}};
      for (const SearchAxis& axis : space_.chains[point.chain].axes) {
        point.at.push_back(random() % axis.values.size());
      }
      if (IsNew(point)) return Proposal{std::move(point), why};
    }
    return std::nullopt;
  }

  std::vector<SearchPoint> Untried() const {
    std::vector<SearchPoint> points;
    for (size_t chain = 0; chain < space_.chains.size(); ++chain) {
      const std::vector<SearchAxis>& axes = space_.chains[chain].axes;
      SearchPoint point = {chain, std::vector<size_t>(axes.size(), 0)};
      while (true) {
        if (IsNew(point)) points.push_back(point);
        size_t axis = 0;  // counts up: the first axis fastest
        while (axis < axes.size() && ++point.at[axis] == axes[axis].values.size()) {
          point.at[axis++] = 0;
        }
        if (axis == axes.size()) break;
      }
    }
    return points;
  }

  const SearchSpace& space_;
  const std::vector<Tried>& tried_;
  const int64_t seed_;
  std::set<std::string> seen_;
  std::set<Value> failing_;
};

std::vector<size_t> Eligible(const std::vector<Worth>& worths) {
  const bool is_met = std::ranges::any_of(worths, &Worth::meets_bounds);
  std::vector<size_t> eligible;
  for (size_t i = 0; i < worths.size(); ++i) {
    if (is_met ? worths[i].meets_bounds() : !worths[i].has_failed()) eligible.push_back(i);
  }
  return eligible;
}

ParetoPoints PointsOf(const std::vector<Worth>& worths, const std::vector<size_t>& indices) {
  ParetoPoints points(indices.empty() ? 1 : worths[indices.front()].costs.size() + 1);
  for (const size_t i : indices) {
    std::vector<double> values = worths[i].costs;
    values.push_back(worths[i].violation);  // 0 of all where one meets the bounds
    points.Add(static_cast<int64_t>(i), values);
  }
  return points;
}

}  // namespace

std::optional<double> MetricValue(const std::string& name, const MetricValues& metrics,
                                  const MetricValues& baseline) {
  const auto find = [](const MetricValues& values, const std::string& key) {
    const auto found = values.find(key);
    const bool is_there = found != values.end() && !std::isnan(found->second);
    return is_there ? std::optional(found->second) : std::nullopt;
  };
  if (const auto own = find(metrics, name)) return own;
  constexpr std::string_view kDrop = "_drop";
  if (!name.ends_with(kDrop)) return std::nullopt;
  const std::string metric = name.substr(0, name.size() - kDrop.size());
  const std::optional<double> own = find(metrics, metric);
  const std::optional<double> base = find(baseline, metric);
  if (!own || !base) return std::nullopt;
  return *base - *own;
}

Worth FailedWorth() { return {{}, ~uint64_t{0}, std::numeric_limits<double>::infinity(), {}}; }

Worth WorthOf(const SearchSpec& search, const MetricValues& metrics, const MetricValues& baseline) {
  Worth worth;
  for (const ObjectiveSpec& objective : search.objectives) {
    const auto value = MetricValue(objective.metric, metrics, baseline);
    if (!value) return FailedWorth();
    worth.costs.push_back(objective.direction == Direction::kMin ? *value : -*value);
  }
  for (size_t i = 0; i < search.bounds.size(); ++i) {
    const auto value = MetricValue(search.bounds[i].metric, metrics, baseline);
    if (!value) return FailedWorth();
    const size_t before = worth.excess.size();
    AddExcess(*value, search.bounds[i].min, -1, worth);
    AddExcess(*value, search.bounds[i].max, 1, worth);
    for (size_t side = before; side < worth.excess.size(); ++side) {
      if (worth.excess[side] <= 0) continue;
      worth.broken |= uint64_t{1} << i;
      worth.violation += worth.excess[side];
    }
  }
  return worth;
}

bool IsBetter(const Worth& a, const Worth& b) {
  return std::tuple(a.has_failed(), a.violation, a.costs) <
         std::tuple(b.has_failed(), b.violation, b.costs);
}

std::vector<size_t> FrontOf(const std::vector<Worth>& worths) {
  const std::vector<size_t> eligible = Eligible(worths);
  const std::vector<bool> dominated = Dominated(PointsOf(worths, eligible));
  std::vector<size_t> front;
  for (size_t i = 0; i < eligible.size(); ++i) {
    if (!dominated[i]) front.push_back(eligible[i]);
  }
  std::ranges::stable_sort(front,
                           [&](size_t a, size_t b) { return IsBetter(worths[a], worths[b]); });
  return front;
}

std::optional<size_t> BestOf(const SearchSpec& search, const std::vector<Worth>& worths) {
  const std::vector<size_t> front = FrontOf(worths);
  if (front.empty()) return std::nullopt;
  if (!search.bounds.empty() || search.objectives.size() == 1) return front.front();
  return front[*KneeOf(PointsOf(worths, front))];
}

std::optional<Proposal> NextProposal(const SearchSpace& space, const std::vector<Tried>& tried,
                                     int64_t seed) {
  return Order(space, tried, seed).Next();
}

}  // namespace pared
