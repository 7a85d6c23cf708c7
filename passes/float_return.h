// Which nodes of a quantized model return to float: the least number of the most sensitive ones
// with which it keeps its bounds.

#pragma once

#include <cstddef>
#include <functional>
#include <limits>
#include <optional>
#include <vector>

#include "passes/accuracy_judge.h"
#include "passes/float_bounds.h"
#include "passes/int8_fidelity.h"

namespace pared {

// Samples on which nodes are ranked.
inline constexpr int64_t kRankSamples = 4;
inline constexpr const char* kReturnedToFloat =
    "returned to float: of the nodes, its quantized form costs the outputs most";

// How many samples nodes are ranked on, and how many of them: `nodes` is all, or those of a model
// that takes `macs` multiplications a sample, so many that ranking `node_count` nodes would take
// hours. Twice as many as may return are ranked, at least.
struct RankEffort {
  int64_t samples = kRankSamples;
  size_t nodes = 0;
};
RankEffort RankEffortOf(size_t node_count, size_t nodes_max, double macs);
// report["ranked"], where it is less than of models that run fast.
void ReportEffort(const RankEffort& effort, size_t node_count, Json& report);

// Nodes that return together.
struct FloatUnit {
  size_t nodes = 1;
  double share = 0;  // of the model's weights or multiplications, the larger
};

// Models with some of the units float, as a pass makes them. A place is that of a unit in `order`.
struct FloatCandidates {
  std::vector<FloatUnit> order;  // the most sensitive first
  // The model with these units float. It stays until the next is made.
  std::function<const Model&(const std::vector<size_t>& places)> make;
  // What was made last is the best so far.
  std::function<void(const Nearness& nearness)> keep;
};

// Whether `model` is within the bounds that are asked for; `accuracy` null: that has none.
// Accuracy, which costs more to measure, comes last: `drop` is what it was then.
bool IsWithinBounds(const FloatBounds& bounds, const AccuracyJudge* accuracy, const Model& model,
                    const Nearness& nearness, AccuracyDrop& drop);

class FloatReturn {
 public:
  // Both live longer. `accuracy`: not null where the bounds have one of it.
  FloatReturn(const FloatBounds& bounds, const AccuracyJudge* accuracy)
      : bounds_(bounds), accuracy_(accuracy) {}

  // How many of its `node_count` nodes may return, where `model` is not as it should be; nullopt:
  // it is.
  std::optional<size_t> MostNodes(const Model& model, const Nearness& nearness, size_t node_count);

  // Whether the bounds that MostNodes() found hold.
  bool Holds(const Model& model, const Nearness& nearness);
  // Whether they hold for `model`, which was made of one of `best_db`, as far as they hold for
  // that.
  bool StillHolds(const Model& model, const Nearness& nearness, double best_db);

  // Finds the least number of units by bisection; where none suffices, as many as are best. Nodes
  // of them: `nodes_max` at most, and never all. False: none suffices. `best_db`: of the model
  // without any.
  bool Search(const FloatCandidates& candidates, const FidelityJudge& judge, size_t nodes_max,
              double best_db);

  // The units of the best model.
  const std::vector<size_t>& places() const { return places_; }
  // What was measured last, of the best model.
  const AccuracyDrop& drop() const { return drop_; }

  // Throws kUnsupported, with how far it is, where a bound is asked for: the best has `nearness`.
  void RefuseUnmet(const Nearness& nearness) const;

 private:
  using Places = std::vector<size_t>;
  bool Attempt(const Places& places);
  void ReplaceLarge();
  size_t NodesOf(const Places& places) const;

  const FloatBounds& bounds_;
  const AccuracyJudge* accuracy_;
  double wanted_db_ = -std::numeric_limits<double>::infinity();
  AccuracyDrop drop_;
  bool has_held_ = false;                  // the bounds, of the best
  size_t nodes_max_ = 0, node_count_ = 0;  // nodes that may return, of so many
  double best_db_ = 0;
  Places places_;
  const FloatCandidates* candidates_ = nullptr;  // of the search
  const FidelityJudge* judge_ = nullptr;
};

// Adds what `more` has to a report: lists are continued, other entries replaced.
void AppendReport(Json& report, const Json& more);

}  // namespace pared
