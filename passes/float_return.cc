#include "passes/float_return.h"

#include <algorithm>
#include <iterator>
#include <string>
#include <unordered_set>

#include "base/error.h"

namespace pared {
namespace {

// A model with less has suffered visibly: some of its nodes return to float, one in kNodesPerFloat
// at most, and one of a small model of no less than kNodesForOne.
constexpr double kPoorDb = 20;
constexpr size_t kNodesPerFloat = 5, kNodesForOne = 3;
constexpr double kLargeShare = 0.1;  // of the model's weights or multiplications
// Multiplications of all nodes' runs: with one sample they may take twice as many.
constexpr double kRankMacs = int64_t{1} << 40;
constexpr double kDropRounding = 1e-9;  // 0.9 - 0.8 is more than 0.1

double WorstDb(const Nearness& nearness) { return std::min(nearness.sqnr_db, nearness.output_db); }

bool LeavesSqnrBound(const FloatBounds& bounds, const Nearness& nearness) {
  return bounds.min_sqnr_db > 0 && WorstDb(nearness) < bounds.min_sqnr_db;
}

}  // namespace

RankEffort RankEffortOf(size_t node_count, size_t nodes_max, double macs) {
  const double all = macs * static_cast<double>(node_count);
  if (!(all * static_cast<double>(kRankSamples) > kRankMacs)) return {.nodes = node_count};
  RankEffort effort;
  effort.samples = std::max<int64_t>(1, static_cast<int64_t>(kRankMacs / all));
  const double affordable = std::min(2 * kRankMacs / macs, static_cast<double>(node_count));
  const size_t least = std::min(node_count, 2 * std::min(nodes_max, node_count));
  effort.nodes = std::max(static_cast<size_t>(affordable), least);
  return effort;
}

void ReportEffort(const RankEffort& effort, size_t node_count, Json& report) {
  if (effort.nodes == node_count && effort.samples == kRankSamples) return;
  report["ranked"] = {{"nodes", effort.nodes}, {"samples", effort.samples}};
}

bool IsWithinBounds(const FloatBounds& bounds, const AccuracyJudge* accuracy, const Model& model,
                    const Nearness& nearness, AccuracyDrop& drop) {
  if (LeavesSqnrBound(bounds, nearness)) return false;
  if (accuracy == nullptr) return true;
  drop = accuracy->DropOf(model);
  return drop.drop <= bounds.max_accuracy_drop + kDropRounding;
}

std::optional<size_t> FloatReturn::MostNodes(const Model& model, const Nearness& nearness,
                                             size_t node_count) {
  node_count_ = node_count;
  const auto most = static_cast<size_t>(bounds_.max_nodes_float);
  if (bounds_.has_any()) {
    if (bounds_.min_sqnr_db > 0) wanted_db_ = bounds_.min_sqnr_db;
    return Holds(model, nearness) ? std::nullopt : std::optional(most);
  }
  const bool is_auto = bounds_.keep_float == FloatBounds::KeepFloat::kAuto;
  if (!is_auto || nearness.sqnr_db >= kPoorDb) return std::nullopt;
  wanted_db_ = kPoorDb;
  const size_t few =
      node_count < kNodesForOne ? 0 : std::max<size_t>(1, node_count / kNodesPerFloat);
  return std::min(few, most);
}

bool FloatReturn::Holds(const Model& model, const Nearness& nearness) {
  return nearness.sqnr_db >= wanted_db_ &&
         IsWithinBounds(bounds_, accuracy_, model, nearness, drop_);
}

bool FloatReturn::StillHolds(const Model& model, const Nearness& nearness, double best_db) {
  const AccuracyDrop before = drop_;
  wanted_db_ = std::min(wanted_db_, best_db);
  const bool holds = Holds(model, nearness);
  if (!holds) drop_ = before;
  return holds;
}

// Takes the model with these units float where the bounds hold, or, as long as they have not,
// where it is better than what there is. Whether they hold.
bool FloatReturn::Attempt(const Places& places) {
  const Model& tried = candidates_->make(places);
  const Nearness nearness = judge_->Compare(tried, std::min(wanted_db_, best_db_));
  AccuracyDrop before = drop_;
  const bool holds = Holds(tried, nearness);
  if (holds || (!has_held_ && nearness.sqnr_db > best_db_)) {
    candidates_->keep(nearness);
    best_db_ = nearness.sqnr_db;
    places_ = places;
  } else {
    drop_ = std::move(before);
  }
  has_held_ = has_held_ || holds;
  return holds;
}

size_t FloatReturn::NodesOf(const Places& places) const {
  size_t nodes = 0;
  for (const size_t place : places) nodes += candidates_->order[place].nodes;
  return nodes;
}

bool FloatReturn::Search(const FloatCandidates& candidates, const FidelityJudge& judge,
                         size_t nodes_max, double best_db) {
  candidates_ = &candidates;
  judge_ = &judge;
  best_db_ = best_db;
  Places all;
  size_t nodes = 0;
  for (size_t place = 0; place < candidates.order.size(); ++place) {
    if (nodes + candidates.order[place].nodes > nodes_max) continue;
    nodes += candidates.order[place].nodes;
    all.push_back(place);
  }
  // With none left the model would be no quantized model.
  if (!all.empty() && all.size() == candidates.order.size()) all.pop_back();
  size_t low = 0, high = all.size();
  nodes_max_ = NodesOf(all);
  const auto attempt = [&](size_t count) {
    return Attempt({all.begin(), all.begin() + static_cast<int64_t>(count)});
  };
  bool holds = high > 0 && attempt(high);
  // Ranges were chosen for the whole: more float is better as a rule, not always.
  for (size_t count = 1; !holds && count < high; count *= 2) {
    holds = attempt(count);
    if (holds) high = count;
  }
  while (holds && high - low > 1) {
    const size_t middle = low + (high - low) / 2;
    (attempt(middle) ? high : low) = middle;
  }
  if (holds) ReplaceLarge();
  return holds;
}

// Tries each large unit that returned quantized again, the largest first: without more, or with the
// next ones of the order float in its place, which together are half as large at most.
void FloatReturn::ReplaceLarge() {
  const std::vector<FloatUnit>& order = candidates_->order;
  const auto share_of = [&](size_t place) { return order[place].share; };
  const auto is_large = [&](size_t place) { return share_of(place) >= kLargeShare; };
  Places large;
  std::ranges::copy_if(places_, std::back_inserter(large), is_large);
  std::ranges::stable_sort(large, std::greater(), share_of);
  for (const size_t place : large) {
    Places floats = places_;
    std::erase(floats, place);
    if (Attempt(floats)) continue;
    const std::unordered_set<size_t> chosen(places_.begin(), places_.end());
    double share = 0;
    size_t next_attempt = 1, added = 0;
    for (size_t other = 0; other < order.size(); ++other) {
      if (chosen.contains(other) || is_large(other)) continue;
      share += share_of(other);
      const bool is_too_many = NodesOf(floats) + order[other].nodes > nodes_max_;
      if (is_too_many || share > share_of(place) / 2) break;
      floats.push_back(other);
      if (++added < next_attempt) continue;
      if (Attempt(floats)) break;
      next_attempt *= 2;
    }
  }
}

void FloatReturn::RefuseUnmet(const Nearness& nearness) const {
  if (!bounds_.has_any()) return;
  const std::string nodes = " with at most " + std::to_string(nodes_max_) + " of its " +
                            std::to_string(node_count_) + " nodes in float";
  if (LeavesSqnrBound(bounds_, nearness)) {
    throw Error(ErrorCode::kUnsupported,
                "min_sqnr_db is not reached: " + std::to_string(WorstDb(nearness)) + " dB" + nodes);
  }
  throw Error(ErrorCode::kUnsupported, "max_accuracy_drop does not hold: " + drop_.figure +
                                           " drops by " + std::to_string(drop_.drop) + nodes);
}

void AppendReport(Json& report, const Json& more) {
  for (const auto& [key, value] : more.items()) {
    Json& entry = report[key];
    if (value.is_array() && entry.is_array()) {
      entry.insert(entry.end(), value.begin(), value.end());
    } else {
      entry = value;
    }
  }
}

}  // namespace pared
