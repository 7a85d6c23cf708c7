#include "passes/int8_mixed.h"

#include <tbb/parallel_for.h>
#include <tbb/task_arena.h>

#include <algorithm>
#include <map>
#include <optional>
#include <utility>

#include "passes/float_return.h"
#include "passes/int8_half.h"
#include "passes/layer_progress.h"
#include "passes/select_nodes.h"

namespace pared {
namespace {

// Outputs of nodes that stay float.
using Values = std::unordered_set<std::string>;

class Mixer {
 public:
  Mixer(Int8Found& found, const Int8Request& request, PassContext& context)
      : found_(found), request_(request), context_(context) {}

  void Run() {
    ReportSensitivity();
    const FloatBounds& bounds = request_.options->bounds;
    if (bounds.max_accuracy_drop < FloatBounds::kAnyDrop) {
      found_.accuracy = std::make_unique<AccuracyJudge>(found_.candidate->model, context_);
    }
    floats_.emplace(bounds, found_.accuracy.get());
    const auto most = floats_->MostNodes(found_.best.model, found_.best_near, order_.size());
    if (most && !ReturnNodes(*most) && !SearchAgain()) floats_->RefuseUnmet(found_.best_near);
    if (request_.options->keep_as == Int8Options::KeepAs::kFloat16) KeepAsFloat16();
    if (found_.accuracy != nullptr) {
      const AccuracyDrop& drop = floats_->drop();
      context_.report["accuracy_drop"] = {{drop.figure, drop.drop}};
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
    Json& report = context_.report["sensitivity"] = Json::array();
    size_t index = 0;
    for (const auto& [sqnr_db, node] : order_) {
      Json entry = {{"node", NodeLabel(*node)}, {"sqnr_db", sqnr_db}};
      TellLayer(context_, NodeLabel(*node), ++index, order_.size());
      if (request_.options->sensitivity)
        entry["output_sqnr_db"] = AloneSqnrDb({node}, *found_.judge)[0];
      report.push_back(std::move(entry));
    }
  }

  // Of the outputs, where each of `nodes` is the only one in INT8. Several are run at once: one has
  // few samples.
  std::vector<double> AloneSqnrDb(const std::vector<const Node*>& nodes,
                                  const FidelityJudge& judge) const {
    const auto at_once = 4 * static_cast<size_t>(tbb::this_task_arena::max_concurrency());
    std::vector<double> sqnr_db(nodes.size());
    for (size_t begin = 0; begin < nodes.size(); begin += at_once) {
      std::vector<Model> models;
      for (size_t i = begin; i < std::min(begin + at_once, nodes.size()); ++i) {
        models.push_back(WithAlone(*nodes[i]));
      }
      tbb::parallel_for(size_t{0}, models.size(),
                        [&](size_t i) { sqnr_db[begin + i] = judge.SqnrDb(models[i]); });
    }
    return sqnr_db;
  }

  Model WithAlone(const Node& alone) const {
    Values others;
    for (const auto& [sqnr_db, node] : order_) {
      if (node != &alone) others.insert(node->outputs[0]);
    }
    return WithFloat(others).model;
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

  // The nodes whose INT8 form alone costs the outputs most, the worst first. Of a model that takes
  // very long to run, those that cost their own outputs least follow unranked.
  std::vector<const Node*> ByOutputSqnr(size_t most) {
    const auto macs = static_cast<double>(MacsOf(*found_.candidate));
    const RankEffort effort = RankEffortOf(order_.size(), most, macs);
    ReportEffort(effort, order_.size(), context_.report);
    FidelityJudge judge(found_.candidate->model, context_, effort.samples);
    judge.Remember(found_.candidate->model);
    std::vector<const Node*> first;
    for (const auto& [sqnr_db, node] : order_) {
      if (first.size() < effort.nodes) first.push_back(node);
    }
    const std::vector<double> alone = AloneSqnrDb(first, judge);
    std::vector<std::pair<double, const Node*>> ranked;
    for (size_t i = 0; i < first.size(); ++i) ranked.emplace_back(alone[i], first[i]);
    std::ranges::stable_sort(ranked, {}, &std::pair<double, const Node*>::first);
    ranked.insert(ranked.end(), order_.begin() + std::ssize(ranked), order_.end());
    std::vector<const Node*> nodes;
    for (const auto& [sqnr_db, node] : ranked) nodes.push_back(node);
    return nodes;
  }

  // Returns the most sensitive nodes. False: the bounds do not hold with `most` of them.
  bool ReturnNodes(size_t most) {
    const std::vector<const Node*> nodes = ByOutputSqnr(most);
    const std::map<const Node*, double> shares = Shares();
    FloatCandidates candidates;
    for (const Node* node : nodes) candidates.order.push_back({1, shares.at(node)});
    Int8Rewrite tried;
    candidates.make = [&](const std::vector<size_t>& places) -> const Model& {
      Values outputs;
      for (const size_t place : places) outputs.insert(nodes[place]->outputs[0]);
      tried = WithFloat(outputs);
      return tried.model;
    };
    candidates.keep = [&](const Nearness& nearness) {
      found_.best = std::move(tried);
      found_.best_near = nearness;
    };
    const bool holds = floats_->Search(candidates, *found_.judge, most, found_.best_near.sqnr_db);
    std::vector<const Node*> returned;
    for (const size_t place : floats_->places()) returned.push_back(nodes[place]);
    ReportFloat(returned);
    return holds;
  }

  // Of each compute node, how much of the weights or of the multiplications it has, the larger.
  std::map<const Node*, double> Shares() const {
    double weights = 0;
    const auto macs = static_cast<double>(MacsOf(*found_.candidate));
    const auto& types = found_.candidate->context.types;
    for (const auto& [node, site] : found_.candidate->choice.weights) {
      weights += static_cast<double>(site->stored.count());
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
    AppendReport(context_.report, report);
    return floats_->Holds(found_.best.model, found_.best_near);
  }

  void ReportFloat(const std::vector<const Node*>& nodes) {
    Json& report = context_.report["returned_to_float"] = Json::array();
    std::unordered_set<std::string> returned;
    for (const Node* node : nodes) {
      report.push_back(NodeLabel(*node));
      returned.insert(NodeLabel(*node));
      context_.report["skipped"].push_back(
          {{"node", NodeLabel(*node)}, {"reason", kReturnedToFloat}});
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
    const Nearness nearness = found_.judge->Compare(*half);
    if (!floats_->StillHolds(*half, nearness, found_.best_near.sqnr_db)) {
      context_.report["kept_as"] = "float32: in float16 the bound does not hold";
      return;
    }
    found_.best.model = std::move(*half);
    found_.best_near = nearness;
  }

  Int8Found& found_;
  const Int8Request& request_;
  PassContext& context_;
  std::vector<std::pair<double, const Node*>> order_;
  std::optional<FloatReturn> floats_;
  Values kept_;  // float, as keep_as says
};

}  // namespace

void ReturnToFloat(Int8Found& found, const Int8Request& request, PassContext& context) {
  Mixer(found, request, context).Run();
}

bool HoldsBounds(const Model& model, const Nearness& nearness, const Int8Found& found,
                 const Int8Request& request, PassContext& context) {
  AccuracyDrop drop;
  if (!IsWithinBounds(request.options->bounds, found.accuracy.get(), model, nearness, drop))
    return false;
  if (found.accuracy != nullptr) context.report["accuracy_drop"] = {{drop.figure, drop.drop}};
  return true;
}

}  // namespace pared
