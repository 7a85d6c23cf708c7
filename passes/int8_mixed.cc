#include "passes/int8_mixed.h"

#include <algorithm>
#include <iterator>
#include <limits>
#include <map>
#include <optional>
#include <utility>

#include "base/error.h"
#include "passes/int8_half.h"
#include "passes/layer_progress.h"
#include "passes/select_nodes.h"

namespace pared {
namespace {

constexpr int64_t kRankSamples = 4;
// A model with less has suffered visibly: some of its nodes return to float, one in kNodesPerFloat
// at most, and one of a small model of no less than kNodesForOne.
constexpr double kPoorDb = 20;
constexpr size_t kNodesPerFloat = 5, kNodesForOne = 3;
constexpr double kLargeShare = 0.1;     // of the model's weights or multiplications
constexpr double kDropRounding = 1e-9;  // 0.9 - 0.8 is more than 0.1

// Outputs of nodes that stay float.
using Values = std::unordered_set<std::string>;

bool LeavesSqnrBound(const Nearness& nearness, const Int8Options& options) {
  const double worst_db = std::min(nearness.sqnr_db, nearness.output_db);
  return options.min_sqnr_db > 0 && worst_db < options.min_sqnr_db;
}

// Accuracy, which costs more to measure, comes last: `drop` is what it was then.
bool IsWithinBounds(const Model& model, const Nearness& nearness, const Int8Found& found,
                    const Int8Options& options, AccuracyDrop& drop) {
  if (LeavesSqnrBound(nearness, options)) return false;
  if (found.accuracy == nullptr) return true;
  drop = found.accuracy->DropOf(model);
  return drop.drop <= options.max_accuracy_drop + kDropRounding;
}

class Mixer {
 public:
  Mixer(Int8Found& found, const Int8Request& request, PassContext& context)
      : found_(found), request_(request), context_(context) {}

  void Run() {
    ReportSensitivity();
    const Int8Options& options = *request_.options;
    if (options.max_accuracy_drop < Int8Options::kAnyDrop) {
      found_.accuracy = std::make_unique<AccuracyJudge>(found_.candidate->model, context_);
    }
    const bool has_bound = options.min_sqnr_db > 0 || found_.accuracy != nullptr;
    if (options.min_sqnr_db > 0) wanted_db_ = options.min_sqnr_db;
    if (has_bound && !Holds(found_.best.model, found_.best_near) &&
        !ReturnNodes(static_cast<size_t>(options.max_nodes_float)) && !SearchAgain()) {
      Refuse();
    }
    if (!has_bound && options.keep_float == Int8Options::KeepFloat::kAuto &&
        found_.best_near.sqnr_db < kPoorDb) {
      wanted_db_ = kPoorDb;
      const size_t most =
          order_.size() < kNodesForOne ? 0 : std::max<size_t>(1, order_.size() / kNodesPerFloat);
      if (!ReturnNodes(std::min(most, static_cast<size_t>(options.max_nodes_float)))) SearchAgain();
    }
    if (options.keep_as == Int8Options::KeepAs::kFloat16) KeepAsFloat16();
    if (found_.accuracy != nullptr) {
      context_.report["accuracy_drop"] = {{drop_.figure, drop_.drop}};
    }
  }

 private:
  // The compute nodes by the SQNR of their outputs, the worst first.
  std::vector<std::pair<double, const Node*>> BySensitivity() const {
    const std::map<std::string, double> sqnr =
        NodeSqnrDb(found_.candidate->model, found_.candidate->choice, found_.best.model, context_);
    std::vector<std::pair<double, const Node*>> order;
    for (const Node& node : found_.candidate->model.graph.nodes) {
      const auto found = sqnr.find(node.outputs.empty() ? "" : node.outputs[0]);
      if (found != sqnr.end()) order.emplace_back(found->second, &node);
    }
    std::ranges::stable_sort(order, {}, [](const auto& entry) { return entry.first; });
    return order;
  }

  void ReportSensitivity() {
    order_ = BySensitivity();
    if (request_.options->sensitivity) found_.judge->Remember(found_.candidate->model);
    node_count_ = order_.size();
    Json& report = context_.report["sensitivity"] = Json::array();
    size_t index = 0;
    for (const auto& [sqnr_db, node] : order_) {
      Json entry = {{"node", NodeLabel(*node)}, {"sqnr_db", sqnr_db}};
      TellLayer(context_, NodeLabel(*node), ++index, order_.size());
      if (request_.options->sensitivity)
        entry["output_sqnr_db"] = AloneSqnrDb(*node, *found_.judge);
      report.push_back(std::move(entry));
    }
  }

  double AloneSqnrDb(const Node& alone, const FidelityJudge& judge) const {
    Values others;
    for (const auto& [sqnr_db, node] : order_) {
      if (node != &alone) others.insert(node->outputs[0]);
    }
    return judge.SqnrDb(WithFloat(others).model);
  }

  Int8Rewrite WithFloat(const Values& kept_float) const {
    const auto candidate = MakeInt8Candidate(found_.candidate->model, request_, kept_float);
    const auto rewrite = [&](const Calibration& calibration) {
      return RewriteInt8(candidate->context, candidate->choice, calibration, found_.settings);
    };
    const bool is_seen = std::ranges::all_of(candidate->choice.values, [&](const auto& value) {
      return found_.calibration.sketches.contains(value);
    });
    return is_seen ? rewrite(found_.calibration)
                   : rewrite(CalibrateInt8(*candidate, *request_.options, context_));
  }

  // The nodes whose INT8 form alone costs the outputs most, the worst first.
  std::vector<const Node*> ByOutputSqnr() {
    FidelityJudge judge(found_.candidate->model, context_, kRankSamples);
    judge.Remember(found_.candidate->model);
    std::vector<std::pair<double, const Node*>> ranked;
    for (const auto& [sqnr_db, node] : order_) ranked.emplace_back(AloneSqnrDb(*node, judge), node);
    std::ranges::stable_sort(ranked, {}, &std::pair<double, const Node*>::first);
    std::vector<const Node*> nodes;
    for (const auto& [sqnr_db, node] : ranked) nodes.push_back(node);
    return nodes;
  }

  // Whether the bounds that are asked for hold.
  bool Holds(const Model& model, const Nearness& nearness) {
    return nearness.sqnr_db >= wanted_db_ &&
           IsWithinBounds(model, nearness, found_, *request_.options, drop_);
  }

  // Takes the model with these nodes float where the bounds hold, or, as long as they have not,
  // where it is better than what there is. Whether they hold.
  bool Attempt(const std::vector<const Node*>& floats) {
    Values outputs;
    for (const Node* node : floats) outputs.insert(node->outputs[0]);
    Int8Rewrite tried = WithFloat(outputs);
    const Nearness nearness =
        found_.judge->Compare(tried.model, std::min(wanted_db_, found_.best_near.sqnr_db));
    AccuracyDrop before = drop_;
    const bool holds = Holds(tried.model, nearness);
    if (holds || (!has_held_ && nearness.sqnr_db > found_.best_near.sqnr_db)) {
      found_.best = std::move(tried);
      found_.best_near = nearness;
      floats_ = floats;
    } else {
      drop_ = std::move(before);
    }
    has_held_ = has_held_ || holds;
    return holds;
  }

  // Returns the least number of the most sensitive nodes that suffices, by bisection; where none
  // does, as many as are best. False: none does.
  bool ReturnNodes(size_t most) {
    const std::vector<const Node*> nodes = ByOutputSqnr();
    // With none left the model would be no INT8 model.
    size_t low = 0, high = std::min(nodes.size() - 1, most);
    most_ = high;
    const auto attempt = [&](size_t count) {
      return Attempt({nodes.begin(), nodes.begin() + static_cast<int64_t>(count)});
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
    if (holds) ReplaceLarge(nodes);
    ReportFloat(floats_);
    return holds;
  }

  // Tries each large node that returned in INT8 again, the largest first: without more, or with
  // the next ones of the order float in its place, which together are half as large at most.
  void ReplaceLarge(const std::vector<const Node*>& order) {
    const std::map<const Node*, double> shares = Shares();
    const auto is_large = [&](const Node* node) { return shares.at(node) >= kLargeShare; };
    std::vector<const Node*> large;
    std::ranges::copy_if(floats_, std::back_inserter(large), is_large);
    std::ranges::stable_sort(large, std::greater(), [&](const Node* n) { return shares.at(n); });
    for (const Node* node : large) {
      std::vector<const Node*> floats = floats_;
      std::erase(floats, node);
      if (Attempt(floats)) continue;
      const std::unordered_set<const Node*> chosen(floats_.begin(), floats_.end());
      double share = 0;
      size_t next_attempt = 1, added = 0;
      for (const Node* other : order) {
        if (chosen.contains(other) || is_large(other)) continue;
        share += shares.at(other);
        if (share > shares.at(node) / 2 || floats.size() == most_) break;
        floats.push_back(other);
        if (++added < next_attempt) continue;
        if (Attempt(floats)) break;
        next_attempt *= 2;
      }
    }
  }

  // Of each compute node, how much of the weights or of the multiplications it has, the larger.
  std::map<const Node*, double> Shares() const {
    double weights = 0, macs = 0;
    const auto& types = found_.candidate->context.types;
    for (const auto& [node, site] : found_.candidate->choice.weights) {
      weights += static_cast<double>(site->stored.count());
      macs += static_cast<double>(MacsOf(*site, types));
    }
    std::map<const Node*, double> shares;
    for (const auto& [sqnr_db, node] : order_) shares[node] = 0;
    for (const auto& [node, site] : found_.candidate->choice.weights) {
      shares[node] = std::max(static_cast<double>(site->stored.count()) / weights,
                              static_cast<double>(MacsOf(*site, types)) / macs);
    }
    return shares;
  }

  // Ranges and rounding were chosen for all nodes together. Where too little holds without the
  // worst of them, they are chosen again for those that are left. Whether the bounds hold then.
  bool SearchAgain() {
    if (kept_.empty()) return false;
    // What is found keeps a reference to the context.
    Json report = std::exchange(context_.report, Json::object());
    Int8Found again =
        SearchInt8(MakeInt8Candidate(found_.candidate->model, request_, kept_), request_, context_);
    std::swap(report, context_.report);
    if (again.best_near.sqnr_db <= found_.best_near.sqnr_db) return false;
    again.accuracy = std::move(found_.accuracy);
    found_ = std::move(again);
    order_.clear();  // of the candidate that is gone
    context_.report["searched_again"] = true;
    for (const auto& [key, value] : report.items()) {
      Json& entry = context_.report[key];
      if (value.is_array() && entry.is_array()) {
        entry.insert(entry.end(), value.begin(), value.end());
      } else {
        entry = value;
      }
    }
    return Holds(found_.best.model, found_.best_near);
  }

  [[noreturn]] void Refuse() const {
    const Int8Options& options = *request_.options;
    const std::string nodes = " with at most " + std::to_string(most_) + " of its " +
                              std::to_string(node_count_) + " nodes in float";
    if (LeavesSqnrBound(found_.best_near, options)) {
      const double worst_db = std::min(found_.best_near.sqnr_db, found_.best_near.output_db);
      throw Error(ErrorCode::kUnsupported,
                  "min_sqnr_db is not reached: " + std::to_string(worst_db) + " dB" + nodes);
    }
    throw Error(ErrorCode::kUnsupported, "max_accuracy_drop does not hold: " + drop_.figure +
                                             " drops by " + std::to_string(drop_.drop) + nodes);
  }

  void ReportFloat(const std::vector<const Node*>& nodes) {
    Json& report = context_.report["returned_to_float"] = Json::array();
    std::unordered_set<std::string> returned;
    for (const Node* node : nodes) {
      report.push_back(NodeLabel(*node));
      returned.insert(NodeLabel(*node));
      context_.report["skipped"].push_back(
          {{"node", NodeLabel(*node)},
           {"reason", "returned to float: of the nodes, its INT8 form costs the outputs most"}});
      kept_.insert(node->outputs[0]);
    }
    std::erase_if(context_.report["changed"].get_ref<Json::array_t&>(), [&](const Json& entry) {
      return returned.contains(entry.at("node").get<std::string>());
    });
  }

  void KeepAsFloat16() {
    for (const WeightSite& site : found_.candidate->scan.sites) {
      if (request_.exclusions->Contains(*site.node)) kept_.insert(site.node->outputs[0]);
    }
    if (kept_.empty()) return;
    std::optional<Model> half = KeepAsHalf(found_.best.model, kept_, context_);
    if (!half) return;
    const AccuracyDrop drop = drop_;
    const Nearness nearness = found_.judge->Compare(*half);
    wanted_db_ = std::min(wanted_db_, found_.best_near.sqnr_db);
    if (!Holds(*half, nearness)) {
      context_.report["kept_as"] = "float32: in float16 the bound does not hold";
      drop_ = drop;
      return;
    }
    found_.best.model = std::move(*half);
    found_.best_near = nearness;
  }

  Int8Found& found_;
  const Int8Request& request_;
  PassContext& context_;
  std::vector<std::pair<double, const Node*>> order_;
  double wanted_db_ = -std::numeric_limits<double>::infinity();
  AccuracyDrop drop_;                 // of what was measured last
  bool has_held_ = false;             // the bounds, of found_.best
  size_t most_ = 0, node_count_ = 0;  // nodes that may return, of so many
  std::vector<const Node*> floats_;   // the nodes that returned in found_.best
  Values kept_;                       // float, as keep_as says
};

}  // namespace

void ReturnToFloat(Int8Found& found, const Int8Request& request, PassContext& context) {
  Mixer(found, request, context).Run();
}

bool HoldsBounds(const Model& model, const Nearness& nearness, const Int8Found& found,
                 const Int8Request& request, PassContext& context) {
  AccuracyDrop drop;
  if (!IsWithinBounds(model, nearness, found, *request.options, drop)) return false;
  if (found.accuracy != nullptr) context.report["accuracy_drop"] = {{drop.figure, drop.drop}};
  return true;
}

}  // namespace pared
