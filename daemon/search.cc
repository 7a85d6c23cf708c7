#include "daemon/search.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "daemon/judge.h"
#include "passes/select_nodes.h"

namespace pared {
namespace {

constexpr size_t kFailedShownMax = 20;

// Of a point that this space does not have (another pared wrote it) nullopt.
std::optional<SearchPoint> PointOf(const SearchSpace& space, const Json& about) {
  for (size_t chain = 0; chain < space.chains.size(); ++chain) {
    if (space.chains[chain].name != about.at("from")) continue;
    const std::vector<SearchAxis>& axes = space.chains[chain].axes;
    SearchPoint point = {chain, about.at("point").get<std::vector<size_t>>()};
    if (point.at.size() != axes.size()) return std::nullopt;
    for (size_t i = 0; i < axes.size(); ++i) {
      if (point.at[i] >= axes[i].values.size()) return std::nullopt;
    }
    return point;
  }
  return std::nullopt;
}

int64_t NumberOf(const SearchRun& run) { return run.search.at("number").get<int64_t>(); }

std::string Digits(double value) { return Json(value).dump(); }

}  // namespace

void Fields(FieldVisitor& f, SearchRun& run) {
  f.Integer("run", run.run, {0}, "The run's id.");
  f.Required();
  f.Text("chain", run.chain, TextRule::kName, "The candidate's name.");
  f.Raw("search", run.search, "Its place in the search.");
  f.Raw("metrics", run.metrics, "Metric name to number.");
  f.Raw("error", run.error, "Why it failed.");
}

Search::Search(const JobSpec& spec, std::vector<SearchRun> runs)
    : spec_(*spec.search), space_(MakeSearchSpace(spec)), seed_(spec.seed) {
  for (SearchRun& run : runs) Add(std::move(run));
}

void Search::Add(SearchRun run) {
  if (run.search.is_null()) {
    baseline_ = ValuesOf(run);
    return;
  }
  seconds_ += run.search.value("seconds", 0.0);
  const auto after = std::ranges::upper_bound(candidates_, NumberOf(run), {}, NumberOf);
  candidates_.insert(after, std::move(run));
}

MetricValues Search::ValuesOf(const SearchRun& run) const {
  MetricValues values;
  if (!run.metrics.is_object()) return values;
  for (const auto& [name, value] : run.metrics.items()) {
    if (value.is_number()) values[name] = value.get<double>();
  }
  return values;
}

std::vector<Worth> Search::Worths() const {
  std::vector<Worth> worths;
  for (const SearchRun& run : candidates_) {
    worths.push_back(run.error.is_null() ? WorthOf(spec_, ValuesOf(run), baseline_)
                                         : FailedWorth());
  }
  return worths;
}

std::optional<SearchCandidate> Search::Next() const {
  if (!BudgetUsed().empty()) return std::nullopt;
  const std::vector<Worth> worths = Worths();
  std::vector<Tried> tried;
  for (size_t i = 0; i < candidates_.size(); ++i) {
    const std::optional<SearchPoint> point = PointOf(space_, candidates_[i].search);
    if (point) tried.push_back({*point, worths[i]});
  }
  std::optional<Proposal> proposal = NextProposal(space_, tried, seed_);
  if (!proposal) return std::nullopt;
  const int64_t number = candidates_.empty() ? 1 : NumberOf(candidates_.back()) + 1;
  const std::string& from = space_.chains[proposal->point.chain].name;
  return SearchCandidate{{from + "." + std::to_string(number), PassesAt(space_, proposal->point)},
                         {{"number", number},
                          {"from", from},
                          {"point", proposal->point.at},
                          {"choice", ChoiceAt(space_, proposal->point)},
                          {"why", proposal->why}}};
}

std::string Search::BudgetUsed() const {
  if (candidate_count() >= spec_.budget.candidates) {
    return "its budget of " + std::to_string(spec_.budget.candidates) + " candidates is used up";
  }
  if (spec_.budget.seconds > 0 && seconds_ >= static_cast<double>(spec_.budget.seconds)) {
    return "its budget of " + std::to_string(spec_.budget.seconds) + " s is used up";
  }
  return "";
}

std::string Search::WhyEnded() const {
  const std::string used = BudgetUsed();
  return !used.empty() || Next() ? used : "every candidate has been tried";
}

void Search::CheckMetrics() const {
  std::vector<std::string> names;
  for (const auto& [name, value] : baseline_) names.push_back(name);
  const auto check = [&](const std::string& metric, const std::string& pointer) {
    if (MetricValue(metric, baseline_, baseline_)) return;
    throw Error(ErrorCode::kInvalidArgument,
                "\"" + metric + "\" is not measured on this model and data; there are " +
                    JoinNames(names) + ", and METRIC_drop of each",
                pointer);
  };
  for (size_t i = 0; i < spec_.objectives.size(); ++i) {
    check(spec_.objectives[i].metric, "/search/objectives/" + std::to_string(i) + "/metric");
  }
  for (size_t i = 0; i < spec_.bounds.size(); ++i) {
    check(spec_.bounds[i].metric, "/search/bounds/" + std::to_string(i) + "/metric");
  }
}

Json Search::EntryOf(size_t candidate) const {
  const SearchRun& run = candidates_[candidate];
  const MetricValues metrics = ValuesOf(run);
  const Worth worth = WorthOf(spec_, metrics, baseline_);
  Json values = Json::object();
  const auto add = [&](const std::string& metric) {
    if (const auto value = MetricValue(metric, metrics, baseline_)) values[metric] = *value;
  };
  for (const ObjectiveSpec& objective : spec_.objectives) add(objective.metric);
  Json broken = Json::array();
  for (size_t i = 0; i < spec_.bounds.size(); ++i) {
    add(spec_.bounds[i].metric);
    if ((worth.broken >> i & 1) != 0) broken.push_back(BoundText(spec_.bounds[i]));
  }
  return {{"run", run.run},
          {"chain", run.chain},
          {"choice", run.search.at("choice")},
          {"values", std::move(values)},
          {"broken", std::move(broken)}};
}

Json Search::Status() const {
  const std::vector<Worth> worths = Worths();
  const std::optional<size_t> best = BestOf(spec_, worths);
  Json front = Json::array();
  for (const size_t i : pared::FrontOf(worths)) front.push_back(EntryOf(i));
  Json failed = Json::array();
  for (const SearchRun& run : candidates_) {
    if (run.error.is_null() || failed.size() == kFailedShownMax) continue;
    failed.push_back({{"run", run.run},
                      {"chain", run.chain},
                      {"choice", run.search.at("choice")},
                      {"reason", run.error.value("message", "")}});
  }
  const std::string ended = WhyEnded();
  return {{"candidates", candidate_count()},
          {"budget", spec_.budget.candidates},
          {"seconds", seconds_},
          {"goal_met", best && worths[*best].meets_bounds()},
          {"best", best ? EntryOf(*best) : Json()},
          {"front", std::move(front)},
          {"failed", std::move(failed)},
          {"ended", ended.empty() ? Json() : Json(ended)}};
}

std::set<int64_t> Search::KeptRuns() const {
  const std::vector<Worth> worths = Worths();
  std::set<int64_t> kept;
  for (const size_t i : pared::FrontOf(worths)) kept.insert(candidates_[i].run);
  if (const std::optional<size_t> best = BestOf(spec_, worths)) {
    kept.insert(candidates_[*best].run);
  }
  return kept;
}

Verdict Search::Judge() const {
  const std::vector<Worth> worths = Worths();
  const std::optional<size_t> best = BestOf(spec_, worths);
  if (!best) {
    const std::string why =
        candidates_.empty() ? "there was none"
                            : candidates_.back().chain + ": " +
                                  candidates_.back().error.value("message", "a metric is missing");
    return {JobState::kFailed,
            {{"code", "unsupported"},
             {"message", "no candidate of " + std::to_string(candidate_count()) +
                             " gave a model that holds; the last, " + why},
             {"where", "/search"}}};
  }
  const Worth& worth = worths[*best];
  if (worth.meets_bounds()) return {};
  size_t first = 0;
  while ((worth.broken >> first & 1) == 0) ++first;
  const BoundSpec& bound = spec_.bounds[first];
  const auto value = MetricValue(bound.metric, ValuesOf(candidates_[*best]), baseline_);
  return {
      JobState::kGoalNotMet,
      {{"code", kGoalMissed},
       {"message", "no candidate of " + std::to_string(candidate_count()) +
                       " meets every bound; the nearest, " + candidates_[*best].chain + ", has " +
                       bound.metric + " " + Digits(*value) + ", not " + BoundText(bound)},
       {"where", "/search/bounds/" + std::to_string(first)}}};
}

}  // namespace pared
