// What a job's search asks for: among which settings of its chains, for what, within which bounds.

#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "config/fields.h"

namespace pared {

enum class Direction { kMin, kMax };

struct ObjectiveSpec {
  std::string metric;  // a metric of runs, or METRIC_drop: the baseline's less the candidate's
  Direction direction = Direction::kMin;
};

// A candidate meets it where the metric is not above `max` and not below `min`; null: no such side.
struct BoundSpec {
  std::string metric;
  Json min, max;
};

// Values that one option of a pass is tried with: a list, or numbers from `from` to `to` in steps.
struct AxisSpec {
  std::string pass, option;
  std::string chain;  // empty: every chain that has the pass
  Json values;        // null: none
  double from = 0, to = 0, step = 0;
  bool leave_out = false;  // in place of an option: try the chain without the pass, too
};

struct BudgetSpec {
  int64_t candidates = 32;
  int64_t seconds = 0;  // of all candidates together, over every start of the job; 0: no such limit
};

enum class KeptModels { kFront, kAll };

struct SearchSpec {
  std::vector<ObjectiveSpec> objectives;  // the first decides among those that meet the bounds
  std::vector<BoundSpec> bounds;
  std::vector<AxisSpec> over;  // empty: what suits each pass (passes/search_space.h)
  BudgetSpec budget;
  KeptModels keep = KeptModels::kFront;
};

constexpr size_t kSearchObjectivesMax = 4;
constexpr size_t kBoundsMax = 16;
constexpr size_t kAxesMax = 16;
constexpr size_t kAxisValuesMax = 128;
constexpr int64_t kCandidatesMax = 1'000;

void Fields(FieldVisitor& f, SearchSpec& s);

// What Fields() cannot see by itself: fills in objectives where there are none, checks bounds and
// values. Throws kInvalidArgument below `pointer`.
void CompleteSearch(SearchSpec& search, const std::string& pointer);

// "size_ratio at most 0.3".
std::string BoundText(const BoundSpec& bound);

}  // namespace pared
