#include "daemon/provenance.h"

#include <algorithm>
#include <string>
#include <utility>

#include "passes/registry.h"

namespace pared {
namespace {

constexpr const char* kVersion = "pared.version";
constexpr const char* kPasses = "pared.passes";

std::string& EntryOf(const std::string& key, Model& model) {
  const auto found =
      std::ranges::find(model.metadata, key, &std::pair<std::string, std::string>::first);
  if (found != model.metadata.end()) return found->second;
  return model.metadata.emplace_back(key, "").second;
}

// Whatever the file says there: anybody may have written it, nested as deep as they liked.
Json ReadSteps(const std::string& text) {
  const auto is_shallow = [](int depth, Json::parse_event_t, const Json&) {
    return depth < static_cast<int>(kJsonDepthMax);
  };
  Json steps = Json::parse(text, is_shallow, /*allow_exceptions=*/false);
  return steps.is_array() ? steps : Json::array();
}

Json DescribeStep(const Step& step) {
  Json described = {{"pass", step.pass}, {"version", step.version}};
  const PassInfo* pass = FindPass(step.pass);
  const Json options = pass == nullptr ? Json::array() : pass->describe();
  for (const Json& option : options) {
    const auto value = step.options.find(option.at("name").get<std::string>());
    if (value == step.options.end() || *value == option.value("default", Json())) continue;
    described[value.key()] = *value;
  }
  return described;
}

}  // namespace

void RecordProvenance(const Step& step, Model& model) {
  EntryOf(kVersion, model) = PARED_VERSION;
  std::string& passes = EntryOf(kPasses, model);
  Json steps = ReadSteps(passes);
  steps.push_back(DescribeStep(step));
  passes = DumpJson(steps);
}

}  // namespace pared
