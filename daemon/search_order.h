// What a search tries next: a function of what has been tried and of the seed, and of nothing else.
// So a search that was interrupted goes on as if it had not been.
//
// In this order, from coarse to fine:
//   1. each chain as it is written;
//   2. from there each axis alone: the ends of an ordered one, every value of another;
//   3. where two neighbours on an ordered axis differ in the bounds that they break, halfway
//   between
//      them: bisection towards the boundary;
//   4. the surroundings of the front, the widest gaps first;
//   5. points that are left, drawn by the seed.

#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "config/search_spec.h"
#include "passes/search_space.h"

namespace pared {

// What a candidate's metrics are worth to the search.
struct Worth {
  std::vector<double> costs;   // of the objectives, small is good; empty: the candidate failed
  uint64_t broken = 0;         // bit i: bound i is not met; of a failed candidate: all
  double violation = 0;        // how far beyond the bounds, relative to them; 0: all are met
  std::vector<double> excess;  // of each side of a bound the part of violation, below 0 where it is
                               // met: what there is to spare

  bool has_failed() const { return costs.empty(); }
  bool meets_bounds() const { return broken == 0; }
};

using MetricValues = std::map<std::string, double>;

// The metric, or where it ends in _drop and is none itself the baseline's less the run's own.
// nullopt: it was not measured, or is no number.
std::optional<double> MetricValue(const std::string& name, const MetricValues& metrics,
                                  const MetricValues& baseline);

// Of a candidate without an error. One that lacks a metric that is asked for counts as failed.
Worth WorthOf(const SearchSpec& search, const MetricValues& metrics, const MetricValues& baseline);
Worth FailedWorth();

// Whether `a` is to be preferred: it meets the bounds and `b` does not; or both do and the first
// objective in which they differ says so; or neither does and it is nearer to them.
bool IsBetter(const Worth& a, const Worth& b);

// The indices of those that no other beats, the best first: of those that meet the bounds where
// there are any; else of all that did not fail, by their nearness to the bounds, too.
std::vector<size_t> FrontOf(const std::vector<Worth>& worths);

// The index of the one to take; nullopt: all failed. Where no bound is asked for the first
// objective alone would give the smallest wreck: then it is the knee of the front.
std::optional<size_t> BestOf(const SearchSpec& search, const std::vector<Worth>& worths);

struct Tried {
  SearchPoint point;
  Worth worth;
};

struct Proposal {
  SearchPoint point;
  std::string why;
};

// nullopt: everything has been tried.
std::optional<Proposal> NextProposal(const SearchSpace& space, const std::vector<Tried>& tried,
                                     int64_t seed);

}  // namespace pared
