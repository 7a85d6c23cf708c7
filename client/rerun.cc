// A run done again: the same model bytes, passes, options, seed and data must give the same bytes.

#include "client/commands.h"

namespace pared {
namespace {

// The job of the run with that chain alone. Options stand in the run's steps, each of them, so that
// defaults that have changed since do not matter.
Json SpecOf(const Json& run, const Json& job) {
  Json spec = job.at("spec");
  spec["chains"] = {{{"name", run.at("chain")}, {"passes", run.at("steps")}}};
  spec.erase("search");
  spec["cache"] = false;  // bytes that were only fetched again would prove nothing
  return spec;
}

const Json& RunOf(const Json& job, const Json& chain) {
  for (const Json& run : job.at("runs")) {
    if (run.at("chain") == chain) return run;
  }
  throw Error(ErrorCode::kInternal, "the job ended without a run of this chain",
              "job " + job.at("id").dump());
}

// What the two were made from and is not the same; latencies are no input.
Json InputsThatDiffer(const Json& before, const Json& after) {
  Json differ = Json::array();
  for (const char* pointer : {"/lineage/model/sha256", "/lineage/passes", "/lineage/seed",
                              "/lineage/calibration", "/lineage/version", "/machine/isa"}) {
    const Json::json_pointer at(pointer);
    const Json old_value = before.contains(at) ? before.at(at) : Json();
    const Json new_value = after.contains(at) ? after.at(at) : Json();
    if (old_value != new_value) {
      differ.push_back({{"at", pointer}, {"values", {old_value, new_value}}});
    }
  }
  return differ;
}

}  // namespace

int Rerun(const Context& context, int64_t id) {
  const std::string target = "/v1/runs/";
  const Json run = context.daemon.Get(target + std::to_string(id), "`pare history` lists runs");
  if (run.at("chain") == "baseline" || run.at("steps").empty()) {
    throw Error(ErrorCode::kInvalidArgument, "is the model as it came: no pass made it",
                "run " + std::to_string(id));
  }
  if (!run.at("artifact").is_string()) {
    throw Error(ErrorCode::kInvalidArgument, "made no model that could come out the same",
                "run " + std::to_string(id));
  }
  const Json job = context.daemon.Get("/v1/jobs/" + run.at("job").dump());
  const Json submitted = context.daemon.Send("POST", "/v1/jobs", SpecOf(run, job));
  const Json ended = WaitForEnd(context, submitted.at("id").get<int64_t>());
  const int64_t again_id = RunOf(ended, run.at("chain")).at("id").get<int64_t>();
  context.daemon.Send("PATCH", target + std::to_string(again_id),
                      {{"tags", {{"rerun_of", std::to_string(id)}}}});
  const Json again = context.daemon.Get(target + std::to_string(again_id));
  const bool is_same = again.at("artifact") == run.at("artifact");
  const Json differ = InputsThatDiffer(run, again);
  if (context.is_json) {
    context.terminal.out << DumpJson({{"run", id},
                                      {"rerun", again_id},
                                      {"same_bytes", is_same},
                                      {"artifacts", {run.at("artifact"), again.at("artifact")}},
                                      {"inputs_that_differ", differ}})
                         << "\n";
    return is_same ? kExitDone : kExitDiffers;
  }
  const Terminal& terminal = context.terminal;
  terminal.out << "run " << id << " again: run " << again_id << " of job " << ended.at("id")
               << "\n";
  if (is_same) {
    terminal.out << terminal.Paint("the same bytes", Colour::kGreen) << ", sha256 "
                 << run.at("artifact").get<std::string>() << "\n";
    return kExitDone;
  }
  terminal.out << terminal.Paint("other bytes", Colour::kRed) << ": sha256 "
               << HumanText("", again.at("artifact")) << ", was "
               << HumanText("", run.at("artifact")) << "\n";
  for (const Json& input : differ) {
    terminal.out << "  " << input.at("at").get<std::string>() << " is "
                 << Printable(HumanText("", input.at("values")[1])) << ", was "
                 << Printable(HumanText("", input.at("values")[0])) << "\n";
  }
  if (differ.empty()) terminal.out << "  though all that is recorded of its inputs is the same\n";
  return kExitDiffers;
}

}  // namespace pared
