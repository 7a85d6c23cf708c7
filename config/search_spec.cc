#include "config/search_spec.h"

#include <cmath>
#include <set>

#include "base/error.h"

namespace pared {

void Fields(FieldVisitor& f, ObjectiveSpec& o) {
  f.Required();
  f.Text("metric", o.metric, TextRule::kName,
         "A metric of runs, or METRIC_drop: the baseline's less the candidate's.");
  f.Choice("direction", o.direction, {"min", "max"}, "Which way is better.");
}

void Fields(FieldVisitor& f, BoundSpec& b) {
  f.Required();
  f.Text("metric", b.metric, TextRule::kName, "As in an objective.");
  f.Raw("min", b.min, "A candidate whose metric is below this does not meet the bound.");
  f.Raw("max", b.max, "Likewise above this.");
}

void Fields(FieldVisitor& f, AxisSpec& a) {
  f.Required();
  f.Text("pass", a.pass, TextRule::kName, "A pass of the chains.");
  f.Text("option", a.option, TextRule::kAny, "The option that is tried with several values.");
  f.Text("chain", a.chain, TextRule::kAny, "Only in this chain; else in each that has the pass.");
  f.Raw("values", a.values, "The values, as the pass takes them.");
  f.Number("from", a.from, {-1e9, 1e9}, "In place of values: numbers from here");
  f.Number("to", a.to, {-1e9, 1e9}, "to here");
  f.Number("step", a.step, {0, 1e9}, "in steps of this, at most 128; 0: values are given.");
  f.Flag("leave_out", a.leave_out, "In place of an option: try the chain without the pass, too.");
}

void Fields(FieldVisitor& f, BudgetSpec& b) {
  f.Integer("candidates", b.candidates, {1, kCandidatesMax}, "So many candidates at most.");
  f.Integer("seconds", b.seconds, {0, 31'536'000},
            "No candidate begins after so many seconds of candidates, over every start of the "
            "job; 0: no such limit.");
}

void Fields(FieldVisitor& f, SearchSpec& s) {
  f.List("objectives", s.objectives, kSearchObjectivesMax,
         "What candidates are compared by; the first decides which is the best. Without any: "
         "size_compressed_bytes and sqnr_db.");
  f.List("bounds", s.bounds, kBoundsMax,
         "What the best must meet; where no candidate does the job ends as goal_not_met.");
  f.List("over", s.over, kAxesMax,
         "The options that are tried, with their values; without any: what suits each pass.");
  f.Object("budget", s.budget, "When to end.");
  f.Choice("keep", s.keep, {"front", "all"},
           "The models that stay: those of the front and the best, or of every candidate.");
}

namespace {

[[noreturn]] void Refuse(const std::string& pointer, const std::string& message) {
  throw Error(ErrorCode::kInvalidArgument, message, pointer);
}

void CheckSide(const Json& side, const std::string& pointer) {
  if (side.is_null() || side.is_number()) return;
  Refuse(pointer, "must be a number, is " + DumpJson(side).substr(0, 64));
}

void CheckBound(const BoundSpec& bound, const std::string& pointer) {
  CheckSide(bound.min, pointer + "/min");
  CheckSide(bound.max, pointer + "/max");
  if (bound.min.is_null() && bound.max.is_null()) {
    Refuse(pointer, "must have \"min\" or \"max\", a number each");
  }
  if (bound.min.is_null() || bound.max.is_null()) return;
  if (bound.min.get<double>() > bound.max.get<double>()) {
    Refuse(pointer + "/min", "must not be above max, which is " + DumpJson(bound.max));
  }
}

void CheckSteps(const AxisSpec& axis, const std::string& pointer) {
  if (!axis.values.is_null()) {
    Refuse(pointer + "/step", "values are given already: leave out from, to and step");
  }
  if (axis.to < axis.from) {
    Refuse(pointer + "/to", "must be at least from, which is " + DumpJson(axis.from));
  }
  const double count = std::floor((axis.to - axis.from) / axis.step) + 1;
  if (count <= static_cast<double>(kAxisValuesMax)) return;
  Refuse(pointer + "/step",
         "gives " + DumpJson(count) + " values; at most " + std::to_string(kAxisValuesMax));
}

void CheckValues(const Json& values, const std::string& pointer) {
  if (!values.is_array() || values.empty() || values.size() > kAxisValuesMax) {
    Refuse(pointer, "must be a list of 1 to " + std::to_string(kAxisValuesMax) + " values, is " +
                        DumpJson(values).substr(0, 64));
  }
  std::set<Json> seen;
  for (size_t i = 0; i < values.size(); ++i) {
    if (seen.insert(values[i]).second) continue;
    Refuse(JoinPointer(pointer, std::to_string(i)),
           DumpJson(values[i]).substr(0, 64) + " stands in the list already");
  }
}

void CheckAxis(const AxisSpec& axis, const std::string& pointer) {
  if (axis.leave_out) {
    if (!axis.option.empty() || !axis.values.is_null() || axis.step > 0) {
      Refuse(pointer + "/leave_out", "stands in place of an option with values");
    }
    return;
  }
  if (axis.option.empty()) {
    Refuse(pointer + "/option", "must name an option of " + axis.pass + ", or set leave_out");
  }
  if (axis.step > 0) return CheckSteps(axis, pointer);
  if (axis.values.is_null()) {
    Refuse(pointer + "/values", "must be given, or from, to and a step above 0");
  }
  CheckValues(axis.values, pointer + "/values");
}

}  // namespace

void CompleteSearch(SearchSpec& search, const std::string& pointer) {
  if (search.objectives.empty()) {
    search.objectives = {{"size_compressed_bytes", Direction::kMin}, {"sqnr_db", Direction::kMax}};
  }
  std::set<std::string> metrics;
  for (size_t i = 0; i < search.objectives.size(); ++i) {
    if (metrics.insert(search.objectives[i].metric).second) continue;
    Refuse(pointer + "/objectives/" + std::to_string(i) + "/metric",
           search.objectives[i].metric + " is an objective already");
  }
  for (size_t i = 0; i < search.bounds.size(); ++i) {
    CheckBound(search.bounds[i], pointer + "/bounds/" + std::to_string(i));
  }
  for (size_t i = 0; i < search.over.size(); ++i) {
    CheckAxis(search.over[i], pointer + "/over/" + std::to_string(i));
  }
}

std::string BoundText(const BoundSpec& bound) {
  std::string text = bound.metric;
  if (!bound.min.is_null()) text += " at least " + DumpJson(bound.min);
  if (!bound.max.is_null()) {
    text += (bound.min.is_null() ? " at most " : " and at most ") + DumpJson(bound.max);
  }
  return text;
}

}  // namespace pared
