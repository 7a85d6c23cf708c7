#include "daemon/lineage.h"

#include <utility>

#include "passes/registry.h"

namespace pared {
namespace {

Json StepLineage(const Json& step) {
  Json options = step;
  const std::string name = step.at("pass").get<std::string>();
  options.erase("pass");
  const PassInfo* pass = FindPass(name);
  return {{"pass", name},
          {"version", pass == nullptr ? Json() : Json(pass->version)},
          {"options", std::move(options)}};
}

}  // namespace

Json LineageOf(const JobSpec& spec, const std::string& model_sha256, const Json& steps,
               const WorkResult& result) {
  Json passes = Json::array();
  for (const Json& step : steps) passes.push_back(StepLineage(step));
  return {{"model", {{"name", spec.model}, {"sha256", model_sha256}}},
          {"passes", std::move(passes)},
          {"calibration", result.data.value("calibration", Json())},
          {"evaluation", result.data.value("evaluation", Json())},
          {"seed", spec.seed},
          {"version", result.machine.value("version", Json())}};
}

}  // namespace pared
