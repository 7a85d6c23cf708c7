// Lists: jobs, models, datasets, experiments, passes; one job; cancelling.

#include <map>

#include "client/commands.h"

namespace pared {
namespace {

std::string JobTarget(int64_t job) { return "/v1/jobs/" + std::to_string(job); }

std::string ChainsText(const Json& spec) {
  std::string text;
  for (const Json& chain : spec.value("chains", Json::array())) {
    text += (text.empty() ? "" : " ") + chain.value("name", "");
  }
  return text;
}

Colour ColourOf(const Json& job) {
  const std::string state = job.value("state", "");
  if (state == "failed" || state == "goal_not_met") return Colour::kRed;
  return state == "running" ? Colour::kYellow : Colour::kNone;
}

void WriteJobs(const Terminal& terminal, const Json& jobs) {
  Table table({"id", "state", "model", "experiment", "created", "chains", "error"});
  for (const Json& job : jobs) {
    const Json& spec = job.at("spec");
    const std::string error =
        job.at("error").is_object() ? job.at("error").value("message", "") : "";
    table.Add({HumanText("id", job.at("id")), job.value("state", ""), spec.value("model", ""),
               spec.value("experiment", ""), HumanText("created_ms", job.at("created_ms")),
               Shortened(ChainsText(spec), 40, terminal.has_unicode),
               Shortened(error, 60, terminal.has_unicode)},
              ColourOf(job));
  }
  table.Write(terminal);
}

// A table of the fields that `names` lists, of each item.
void WriteItems(const Terminal& terminal, const Json& items,
                const std::vector<std::string>& names) {
  Table table(names);
  for (const Json& entry : items) {
    const Json item = entry.is_string() ? Json{{"name", entry}} : entry;
    std::vector<std::string> cells;
    for (const std::string& name : names) {
      const std::string as = name == "bytes" ? "size_bytes" : name;
      cells.push_back(HumanText(as, item.value(name, Json())));
    }
    table.Add(std::move(cells));
  }
  table.Write(terminal);
}

int Finish(const Context& context, const Json& answer, size_t count, const std::string& nothing) {
  if (context.is_json) {
    context.terminal.out << DumpJson(answer) << "\n";
  } else if (count == 0) {
    context.terminal.out << nothing << "\n";
  }
  return kExitDone;
}

std::string RangeText(const Json& field) {
  if (field.contains("choices")) {
    std::string text;
    for (const Json& choice : field.at("choices")) {
      text += (text.empty() ? "" : " ") + HumanText("", choice);
    }
    return text;
  }
  const bool has_low = field.contains("minimum");
  const bool has_high = field.contains("maximum");
  if (has_low && has_high) return field["minimum"].dump() + " to " + field["maximum"].dump();
  return has_low ? "from " + field["minimum"].dump() : "";
}

void WriteOptions(const Terminal& terminal, const Json& pass) {
  terminal.out << terminal.Paint(pass.value("name", ""), Colour::kBold) << ": "
               << pass.value("summary", "") << "\n";
  Table table({"option", "type", "default", "range", "effect"});
  for (const Json& field : pass.value("options", Json::array())) {
    table.Add({field.value("name", ""), field.value("type", ""),
               DumpJson(field.value("default", Json())), RangeText(field),
               field.value("help", "")});
  }
  if (table.row_count() > 0) table.Write(terminal);
}

}  // namespace

int List(const Context& context, const ListOptions& options) {
  const Terminal& terminal = context.terminal;
  if (options.what == "jobs") {
    const Json answer = context.daemon.Get(TargetOf(
        "/v1/jobs",
        {{"state", options.state}, {"order", "desc"}, {"limit", std::to_string(options.limit)}}));
    const Json& jobs = answer.at("jobs");
    if (!context.is_json && !jobs.empty()) WriteJobs(terminal, jobs);
    return Finish(context, answer, jobs.size(), "no jobs; `pare submit` makes one");
  }
  struct Listing {
    std::vector<std::string> columns;
    const char* nothing;
  };
  const std::map<std::string, Listing> listings = {
      {"models",
       {{"name", "bytes", "created_ms", "sha256"},
        "no models; `pare push FILE` registers one, ONNX or TensorFlow Lite"}},
      {"datasets", {{"name"}, "no datasets; each is a folder below the daemon's datasets_dir"}},
      {"experiments", {{"name", "runs", "first_ms", "last_ms"}, "no experiments yet"}}};
  const Listing& listing = listings.at(options.what);
  const Json answer = context.daemon.Get("/v1/" + options.what);
  const Json& items = answer.at(options.what);
  if (!context.is_json && !items.empty()) WriteItems(terminal, items, listing.columns);
  return Finish(context, answer, items.size(), listing.nothing);
}

int ShowJob(const Context& context, int64_t id) {
  const Json job = context.daemon.Get(JobTarget(id), "`pare ls` lists jobs");
  if (context.is_json) return Finish(context, job, 1, "");
  const Terminal& terminal = context.terminal;
  WriteJobs(terminal, Json::array({job}));
  if (job.at("error").is_object()) {
    terminal.out << Printable(job.at("error").value("message", "")) << "\n";
  }
  if (job.at("search").is_object()) {
    terminal.out << "\n";
    WriteSearch(terminal, job.at("search"));
  } else if (!job.at("runs").empty()) {
    terminal.out << "\n";
    WriteRuns(terminal, job.at("runs"));
  }
  return kExitDone;
}

int Cancel(const Context& context, const std::vector<int64_t>& jobs) {
  for (const int64_t id : jobs) {
    const Json job = context.daemon.Send("DELETE", JobTarget(id), nullptr);
    if (context.is_json) {
      context.terminal.out << DumpJson(job) << "\n";
    } else {
      const bool is_over = job.value("state", "") == "cancelled";
      context.terminal.out << "job " << id << (is_over ? " cancelled" : " is asked to stop")
                           << "\n";
    }
  }
  return kExitDone;
}

int ListPasses(const Context& context, const std::string& name) {
  const Json answer = context.daemon.Get("/v1/passes");
  if (context.is_json && name.empty()) return Finish(context, answer, 1, "");
  std::vector<std::string> names;
  Table table({"pass", "effect"});
  for (const Json& pass : answer.at("passes")) {
    names.push_back(pass.value("name", ""));
    table.Add({names.back(), pass.value("summary", "")});
    if (names.back() != name) continue;
    if (context.is_json) return Finish(context, pass, 1, "");
    WriteOptions(context.terminal, pass);
    return kExitDone;
  }
  if (name.empty()) {
    table.Write(context.terminal);
    context.terminal.out << "options of one: pare passes NAME\n";
    return kExitDone;
  }
  const std::string hint = DidYouMean(name, names);
  throw Error(ErrorCode::kNotFound,
              "there is no such pass" + (hint.empty() ? "; `pare passes` lists them" : hint), name);
}

}  // namespace pared
