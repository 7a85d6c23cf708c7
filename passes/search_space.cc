#include "passes/search_space.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/error.h"
#include "passes/plan.h"
#include "passes/registry.h"
#include "passes/select_nodes.h"

namespace pared {
namespace {

const std::string kOver = "/search/over/";

[[noreturn]] void Refuse(const std::string& pointer, const std::string& message) {
  throw Error(ErrorCode::kInvalidArgument, message, pointer);
}

// Values from `from` in steps, without the dust of repeated sums.
std::vector<Json> Steps(double from, double to, double step) {
  std::vector<Json> values;
  const auto count = static_cast<int64_t>(std::floor((to - from) / step + 1e-9)) + 1;
  for (int64_t i = 0; i < count; ++i) {
    values.emplace_back(std::round((from + static_cast<double>(i) * step) * 1e9) / 1e9);
  }
  return values;
}

// What a search tries of a pass where its spec does not say. Listed are the options that trade size
// and speed for accuracy; those that are better left to the pass itself ("auto") are not.
std::vector<AxisSpec> UsualAxes(const std::string& pass, const Json& options) {
  const auto list = [&](const char* option, Json values) {
    AxisSpec axis;
    axis.pass = pass;
    axis.option = option;
    axis.values = std::move(values);
    return axis;
  };
  const auto steps = [&](const char* option, double from, double to, double step) {
    return list(option, Steps(from, to, step));
  };
  if (pass == "magnitude_prune" || pass == "second_order_prune") {
    std::vector<AxisSpec> axes = {steps("sparsity", 0.3, 0.95, 0.05)};
    Json patterns = {"unstructured", "2x1", "4x1", "2:4"};
    const Json& own = options.at("pattern");
    if (std::ranges::find(patterns, own) == patterns.end()) patterns.push_back(own);
    axes.push_back(list("pattern", std::move(patterns)));
    return axes;
  }
  if (pass == "channel_prune") return {steps("sparsity", 0.1, 0.7, 0.05)};
  if (pass == "quantize_int8") {
    return {steps("min_sqnr_db", 0, 40, 5), list("method", {"auto", "percentile", "mse"})};
  }
  if (pass == "quantize_weights") return {list("bits", {"8", "4"})};
  return {};
}

std::vector<AxisSpec> UsualAxes(const ChainSpec& chain) {
  std::vector<AxisSpec> axes;
  for (const Json& pass : chain.passes) {
    const std::string name = pass.at("pass");
    for (AxisSpec& axis : UsualAxes(name, pass)) axes.push_back(std::move(axis));
    if (chain.passes.size() == 1) continue;
    AxisSpec without;
    without.pass = name;
    without.leave_out = true;
    axes.push_back(std::move(without));
  }
  return axes;
}

// Whether one value suits a field of a pass, as DescribeFields has it; what is not told there the
// pass checks when it is bound.
void CheckValue(const Json& field, const Json& value, const std::string& pointer) {
  const std::string is = ", is " + DumpJson(value).substr(0, 64);
  const std::string type = field.at("type");
  if (type == "number" && !value.is_number()) Refuse(pointer, "must be a number" + is);
  if (type == "integer" && !value.is_number_integer()) Refuse(pointer, "must be an integer" + is);
  if (type == "boolean" && !value.is_boolean()) Refuse(pointer, "must be true or false" + is);
  if (field.contains("choices")) {
    const Json& choices = field.at("choices");
    if (std::ranges::find(choices, value) != choices.end()) return;
    Refuse(pointer, "must be one of " + DumpJson(choices) + is);
  }
  const bool is_low = field.contains("minimum") && value.is_number() && value < field["minimum"];
  const bool is_high = field.contains("maximum") && value.is_number() && value > field["maximum"];
  if (!is_low && !is_high) return;
  Refuse(pointer, "must be " + std::string(is_low ? "at least " : "at most ") +
                      DumpJson(field.at(is_low ? "minimum" : "maximum")) + is);
}

// The description of the option that an axis names.
Json FieldOf(const AxisSpec& axis, const std::string& pointer) {
  const PassInfo* pass = FindPass(axis.pass);
  std::vector<std::string> names;
  for (const Json& field : pass->describe()) {
    if (field.at("name") == axis.option) return field;
    names.push_back(field.at("name"));
  }
  Refuse(pointer + "/option", axis.pass + " has no option \"" + axis.option +
                                  "\"; nearest: " + JoinNames(NearestNames(axis.option, names)));
}

// Binds the pass of the axis with each of its values.
void CheckValues(const AxisSpec& axis, const Json& pass, const JobSpec& spec,
                 const std::string& pointer) {
  const Json field = FieldOf(axis, pointer);
  const auto check = [&](const Json& value, const std::string& at) {
    CheckValue(field, value, at);
    Json entry = pass;
    entry[axis.option] = value;
    BindStep(entry, at, spec);
  };
  if (axis.step > 0) {
    check(axis.from, pointer + "/from");
    check(axis.to, pointer + "/to");
    return;
  }
  for (size_t i = 0; i < axis.values.size(); ++i) {
    check(axis.values[i], pointer + "/values/" + std::to_string(i));
  }
}

SearchAxis AxisOf(const AxisSpec& spec, const std::vector<Json>& passes, size_t pass) {
  SearchAxis axis;
  axis.pass = pass;
  axis.option = spec.option;
  axis.name = spec.option.empty() ? spec.pass : spec.pass + "." + spec.option;
  if (spec.leave_out) {
    axis.values = {true, false};
    return axis;
  }
  axis.values =
      spec.step > 0 ? Steps(spec.from, spec.to, spec.step) : spec.values.get<std::vector<Json>>();
  axis.is_ordered = std::ranges::all_of(axis.values, [](const Json& v) { return v.is_number(); });
  if (axis.is_ordered) std::ranges::sort(axis.values);
  const auto own = std::ranges::find(axis.values, passes[pass].at(spec.option));
  if (own != axis.values.end()) {
    axis.start = static_cast<size_t>(own - axis.values.begin());
  } else if (axis.is_ordered) {
    axis.start = axis.values.size() / 2;
  }
  return axis;
}

size_t CountPass(const std::vector<Json>& passes, const std::string& name) {
  return static_cast<size_t>(
      std::ranges::count_if(passes, [&](const Json& pass) { return pass.at("pass") == name; }));
}

// Adds the axis to the chain, where it is one of the chain's; whether it is.
bool AddAxis(SearchChain& chain, const AxisSpec& axis, const JobSpec& spec,
             const std::string& pointer) {
  if (!axis.chain.empty() && axis.chain != chain.name) return false;
  const size_t count = CountPass(chain.passes, axis.pass);
  if (count == 0) return false;
  if (count > 1) {
    Refuse(pointer + "/pass", "chain " + chain.name + " has " + axis.pass +
                                  " more than once: which one is meant is not known");
  }
  const auto place = std::ranges::find_if(
      chain.passes, [&](const Json& pass) { return pass.at("pass") == axis.pass; });
  if (!axis.leave_out) CheckValues(axis, *place, spec, pointer);
  SearchAxis added = AxisOf(axis, chain.passes, static_cast<size_t>(place - chain.passes.begin()));
  for (const SearchAxis& other : chain.axes) {
    if (other.name == added.name) {
      Refuse(pointer, added.name + " of chain " + chain.name + " is varied already");
    }
  }
  chain.axes.push_back(std::move(added));
  return true;
}

void AddUsualAxes(SearchChain& chain, const JobSpec& spec) {
  for (const AxisSpec& axis : UsualAxes({chain.name, chain.passes})) {
    // A pass that a chain has twice stays as it is written.
    if (CountPass(chain.passes, axis.pass) == 1) AddAxis(chain, axis, spec, "/search/over");
  }
}

void AddGivenAxis(SearchSpace& space, size_t index, const JobSpec& spec) {
  const AxisSpec& axis = spec.search->over[index];
  const std::string pointer = kOver + std::to_string(index);
  bool is_used = false;
  std::vector<std::string> chains;
  for (SearchChain& chain : space.chains) {
    is_used |= AddAxis(chain, axis, spec, pointer);
    chains.push_back(chain.name);
  }
  if (is_used) return;
  if (!axis.chain.empty() && std::ranges::find(chains, axis.chain) == chains.end()) {
    Refuse(pointer + "/chain",
           "no chain is named \"" + axis.chain + "\"; there are " + JoinNames(chains));
  }
  Refuse(pointer + "/pass", "no chain that is meant has the pass \"" + axis.pass + "\"");
}

// An N:M pattern says itself how many weights stay.
bool HasNmPattern(const Json& pass) {
  const auto pattern = pass.find("pattern");
  return pattern != pass.end() &&
         pattern->get_ref<const std::string&>().find(':') != std::string::npos;
}

bool IsLeftOut(const SearchChain& chain, const SearchPoint& point, size_t pass) {
  for (size_t i = 0; i < chain.axes.size(); ++i) {
    const SearchAxis& axis = chain.axes[i];
    if (axis.pass == pass && axis.option.empty() && axis.values[point.at[i]] == false) return true;
  }
  return false;
}

// The passes in their places, with what was chosen.
std::vector<Json> AllPassesAt(const SearchChain& chain, const SearchPoint& point) {
  std::vector<Json> passes = chain.passes;
  for (size_t i = 0; i < chain.axes.size(); ++i) {
    const SearchAxis& axis = chain.axes[i];
    if (!axis.option.empty()) passes[axis.pass][axis.option] = axis.values[point.at[i]];
  }
  for (size_t i = 0; i < passes.size(); ++i) {
    if (HasNmPattern(passes[i])) passes[i]["sparsity"] = chain.passes[i].at("sparsity");
  }
  return passes;
}

}  // namespace

SearchSpace MakeSearchSpace(const JobSpec& spec) {
  SearchSpace space;
  for (const ChainSpec& chain : BindPasses(spec).chains) {
    space.chains.push_back({chain.name, chain.passes, {}});
  }
  for (size_t i = 0; i < spec.search->over.size(); ++i) AddGivenAxis(space, i, spec);
  if (!spec.search->over.empty()) return space;
  for (SearchChain& chain : space.chains) AddUsualAxes(chain, spec);
  return space;
}

std::vector<Json> PassesAt(const SearchSpace& space, const SearchPoint& point) {
  const SearchChain& chain = space.chains[point.chain];
  std::vector<Json> all = AllPassesAt(chain, point);
  std::vector<Json> passes;
  for (size_t i = 0; i < all.size(); ++i) {
    if (!IsLeftOut(chain, point, i)) passes.push_back(std::move(all[i]));
  }
  return passes;
}

Json ChoiceAt(const SearchSpace& space, const SearchPoint& point) {
  const SearchChain& chain = space.chains[point.chain];
  const std::vector<Json> passes = AllPassesAt(chain, point);
  Json choice = Json::object();
  for (size_t i = 0; i < chain.axes.size(); ++i) {
    const SearchAxis& axis = chain.axes[i];
    if (axis.option.empty()) {
      choice[axis.name] = axis.values[point.at[i]];
    } else if (!IsLeftOut(chain, point, axis.pass) &&
               !(axis.option == "sparsity" && HasNmPattern(passes[axis.pass]))) {
      choice[axis.name] = axis.values[point.at[i]];
    }
  }
  return choice;
}

}  // namespace pared
