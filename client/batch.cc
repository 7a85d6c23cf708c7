// A batch from its spec to its report; a job's log.

#include "client/commands.h"

namespace pared {
namespace {

std::string BatchTarget(int64_t batch) { return "/v1/batches/" + std::to_string(batch); }

int64_t Begin(const Context& context, const BatchOptions& options) {
  Json spec = ReadSpec(options.spec_file);
  if (options.is_dry) spec["dry_run"] = true;
  if (options.has_force) spec["force"] = true;
  const Json batch = context.daemon.Send("POST", "/v1/batches", spec);
  const int64_t id = batch.at("id").get<int64_t>();
  if (!context.is_json) context.terminal.out << "batch " << id << " begun\n" << std::flush;
  return id;
}

bool IsOver(const Json& batch) {
  const std::string state = batch.value("state", "");
  return state != "scanning" && state != "running";
}

void WriteItems(const Terminal& terminal, const Json& batch) {
  Table table({"model", "decision", "job", "state", "why"});
  for (const Json& item : batch.at("items")) {
    const Json& reason = item.at("reason");
    const std::string why =
        reason.is_object() ? reason.value("message", "") : HumanText("", reason);
    table.Add({HumanText("", item.value("model", item.at("path"))), item.value("decision", ""),
               HumanText("id", item.at("job")), HumanText("", item.at("job_state")),
               Shortened(why, 60, terminal.has_unicode)});
  }
  if (table.row_count() > 0) table.Write(terminal);
}

}  // namespace

int Batch(const Context& context, const BatchOptions& options) {
  const int64_t id = options.batch != 0 ? options.batch : Begin(context, options);
  Json batch;
  do {
    batch = context.daemon.Get(BatchTarget(id) + "?wait=30");
  } while (!IsOver(batch) && !options.has_no_wait);
  const Json report = context.daemon.Get(BatchTarget(id) + "/report");
  const bool is_worse = report.value("verdict", "") == "worse";
  if (context.is_json) {
    context.terminal.out << DumpJson({{"batch", batch}, {"report", report}}) << "\n";
  } else {
    WriteItems(context.terminal, batch);
    HttpRequest request = {.method = "GET", .target = BatchTarget(id) + "/report?format=md"};
    context.terminal.out << "\n" << context.daemon.Exchange(std::move(request)).body;
  }
  if (!IsOver(batch) || options.is_dry) return kExitDone;
  if (batch.value("state", "") != "ended") return kExitFailed;
  return is_worse ? kExitWorse : kExitDone;
}

int Log(const Context& context, int64_t job) {
  HttpRequest request = {.method = "GET", .target = "/v1/jobs/" + std::to_string(job) + "/log"};
  context.terminal.out << context.daemon.Exchange(std::move(request)).body;
  return kExitDone;
}

}  // namespace pared
