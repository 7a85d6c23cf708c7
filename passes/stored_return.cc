#include "passes/stored_return.h"

#include <algorithm>
#include <map>
#include <memory>
#include <set>
#include <utility>

#include "base/error.h"
#include "passes/float_return.h"
#include "passes/growth.h"
#include "passes/layer_progress.h"
#include "passes/select_nodes.h"

namespace pared {
namespace {

// Whether `exclude` can name it and nothing else.
bool HasReference(const std::string& name) {
  return !name.empty() && !name.starts_with("re:") && !name.starts_with("op:");
}

std::vector<const Node*> ReadersOf(const StoredWeight& stored) {
  std::vector<const Node*> readers = stored.lookups;
  for (const WeightSite* site : stored.sites) readers.push_back(site->node);
  return readers;
}

void Add(std::vector<std::string>& to, const std::string& text) {
  if (std::ranges::find(to, text) == to.end()) to.push_back(text);
}

class Returner {
 public:
  Returner(const Model& model, const FloatBounds& bounds, const StoredPass& pass,
           PassContext& context)
      : bounds_(bounds), pass_(pass), context_(context), judge_(model, context, kJudgeSamples) {
    if (bounds.max_accuracy_drop < FloatBounds::kAnyDrop) {
      accuracy_ = std::make_unique<AccuracyJudge>(model, context);
    }
  }

  Model Run() {
    best_ = Make({});
    nearness_ = best_.result.nearness ? *best_.result.nearness : judge_.Compare(best_.result.model);
    FloatReturn floats(bounds_, accuracy_.get());
    size_t node_count = 0;
    for (const StoredUnit& unit : best_.result.units) node_count += unit.names.size();
    const auto most = floats.MostNodes(best_.result.model, nearness_, node_count);
    std::vector<StoredUnit> returned;
    if (most) {
      const std::vector<StoredUnit> order = *most > 0 ? Ranked(*most) : best_.result.units;
      if (!Search(floats, order, *most)) floats.RefuseUnmet(nearness_);
      for (const size_t place : floats.places()) returned.push_back(order[place]);
    }
    AppendReport(context_.report, best_.report);
    if (most) ReportReturned(returned);
    judge_.Report(nearness_, context_.report);
    if (accuracy_ != nullptr) {
      context_.report["accuracy_drop"] = {{floats.drop().figure, floats.drop().drop}};
    }
    return std::move(best_.result.model);
  }

 private:
  struct Made {
    StoredResult result;
    Json report;
  };

  Made Make(const std::vector<std::string>& names) const {
    Json before = std::exchange(context_.report, Json::object());
    Made made = {pass_.make(names, &judge_), {}};
    made.report = std::exchange(context_.report, std::move(before));
    return made;
  }

  // The units by the SQNR of the outputs where each alone is in codes, the worst first. Of a model
  // that takes very long to run, the smallest, which cost least to return; the others follow.
  std::vector<StoredUnit> Ranked(size_t most) const {
    const Model& source = best_.result.source;
    std::vector<StoredUnit> units = best_.result.units;
    const RankEffort effort = RankEffortOf(units.size(), most, static_cast<double>(MacsOf(source)));
    if (effort.nodes < units.size()) std::ranges::stable_sort(units, {}, &StoredUnit::elements);
    const Json before = context_.report;
    FidelityJudge judge(source, context_, effort.samples);
    judge.Remember(source);
    std::vector<std::pair<double, const StoredUnit*>> ranked;
    for (const StoredUnit& unit : units) {
      if (ranked.size() == effort.nodes) break;
      TellLayer(context_, unit.labels[0], ranked.size() + 1, effort.nodes);
      std::vector<std::string> others;
      for (const StoredUnit& other : units) {
        if (&other != &unit) others.insert(others.end(), other.names.begin(), other.names.end());
      }
      ranked.emplace_back(judge.SqnrDb(pass_.make_alone(source, others)), &unit);
    }
    context_.report = before;
    ReportEffort(effort, units.size(), context_.report);
    std::ranges::stable_sort(ranked, {}, [](const auto& entry) { return entry.first; });
    std::vector<StoredUnit> order;
    for (const auto& [sqnr_db, unit] : ranked) order.push_back(*unit);
    order.insert(order.end(), units.begin() + std::ssize(ranked), units.end());
    return order;
  }

  bool Search(FloatReturn& floats, const std::vector<StoredUnit>& order, size_t most) {
    int64_t elements = 0;
    for (const StoredUnit& unit : order) elements += unit.elements;
    FloatCandidates candidates;
    for (const StoredUnit& unit : order) {
      candidates.order.push_back(
          {unit.names.size(), static_cast<double>(unit.elements) / static_cast<double>(elements)});
    }
    Made tried;
    candidates.make = [&](const std::vector<size_t>& places) -> const Model& {
      std::vector<std::string> names;
      for (const size_t place : places) {
        names.insert(names.end(), order[place].names.begin(), order[place].names.end());
      }
      tried = {};  // two of them at a time are enough
      tried = Make(names);
      return tried.result.model;
    };
    candidates.keep = [&](const Nearness& nearness) {
      best_ = std::move(tried);
      nearness_ = nearness;
    };
    return floats.Search(candidates, judge_, most, nearness_.sqnr_db);
  }

  void ReportReturned(const std::vector<StoredUnit>& returned) {
    Json& report = context_.report["returned_to_float"] = Json::array();
    std::set<std::string> labels;
    for (const StoredUnit& unit : returned) {
      for (const std::string& label : unit.labels) report.push_back(label);
      labels.insert(unit.labels.begin(), unit.labels.end());
    }
    for (Json& skipped : context_.report["skipped"]) {
      if (labels.contains(skipped.at("node").get<std::string>())) {
        skipped["reason"] = kReturnedToFloat;
      }
    }
  }

  const FloatBounds& bounds_;
  const StoredPass& pass_;
  PassContext& context_;
  const FidelityJudge judge_;
  std::unique_ptr<AccuracyJudge> accuracy_;  // null: accuracy has no bound
  Made best_;
  Nearness nearness_;  // of best_
};

// A bound that nothing can be measured for must not pass for one that holds.
void CheckMeasurable(const Model& model, const FloatBounds& bounds, const PassContext& context) {
  const std::string bound = BoundIn(bounds);
  if (bound.empty()) return;
  const std::string option = bound.substr(0, bound.find(' '));
  if (context.calibration == nullptr) {
    throw Error(ErrorCode::kInvalidArgument,
                bound +
                    " is measured on calibration data, and there is none: give some, or no "
                    "bound",
                option);
  }
  if (IsSmallEnoughToRun(model)) return;
  throw Error(ErrorCode::kUnsupported,
              bound + " cannot be measured: models of more than " + std::to_string(kRunBytesMax) +
                  " bytes are not run; name the nodes in exclude, without a bound",
              option);
}

}  // namespace

bool IsSmallEnoughToRun(const Model& model) { return BytesOf(model.graph) <= kRunBytesMax; }

std::vector<StoredUnit> UnitsOf(const StoredWeights& stored, const Json& untied) {
  std::map<std::string, std::string> originals;  // of copies of tables
  for (const Json& entry : untied) originals.emplace(entry.at("copy"), entry.at("weight"));
  struct Unit {
    StoredUnit unit;
    std::set<std::string> weights;
  };
  std::vector<Unit> units;
  for (const auto& [root, weight] : stored) {
    const std::vector<const Node*> readers = ReadersOf(weight);
    const auto has_reference = [](const Node* node) { return HasReference(NameOf(*node)); };
    if (!weight.reason.empty() || !std::ranges::all_of(readers, has_reference)) continue;
    const auto original = originals.find(root.second);
    Unit joined = {{}, {original == originals.end() ? root.second : original->second}};
    joined.unit.elements = weight.tensor.count();
    for (const Node* reader : readers) {
      Add(joined.unit.names, NameOf(*reader));
      Add(joined.unit.labels, NodeLabel(*reader));
    }
    // With all that read one of its weights, or are called as one of its readers.
    for (auto unit = units.begin(); unit != units.end();) {
      const bool is_joined =
          std::ranges::any_of(joined.weights,
                              [&](const auto& name) { return unit->weights.contains(name); }) ||
          std::ranges::any_of(joined.unit.names, [&](const auto& name) {
            return std::ranges::count(unit->unit.names, name) > 0;
          });
      if (!is_joined) {
        ++unit;
        continue;
      }
      for (const std::string& name : unit->unit.names) Add(joined.unit.names, name);
      for (const std::string& label : unit->unit.labels) Add(joined.unit.labels, label);
      joined.unit.elements += unit->unit.elements;
      joined.weights.insert(unit->weights.begin(), unit->weights.end());
      unit = units.erase(unit);
    }
    units.push_back(std::move(joined));
  }
  std::vector<StoredUnit> result;
  for (Unit& unit : units) result.push_back(std::move(unit.unit));
  return result;
}

Model MakeWithinBounds(const Model& model, const FloatBounds& bounds, bool is_judged,
                       const StoredPass& pass, PassContext& context) {
  CheckMeasurable(model, bounds, context);
  const bool is_run = context.calibration != nullptr && (is_judged || bounds.are_measured()) &&
                      IsSmallEnoughToRun(model);
  if (!is_run) return pass.make({}, nullptr).model;
  return Returner(model, bounds, pass, context).Run();
}

}  // namespace pared
