// Single runs: one in full, several side by side, their tags and notes, deletion.

#include <algorithm>
#include <cmath>
#include <map>

#include "client/commands.h"

namespace pared {
namespace {

// Of a section of a comparison that is not asked for whole.
constexpr size_t kRowsMax = 20;
constexpr const char* kRunHint = "`pare history` lists runs";

std::string RunTarget(int64_t run) { return "/v1/runs/" + std::to_string(run); }

void WriteSteps(const Terminal& terminal, const Json& steps) {
  for (size_t i = 0; i < steps.size(); ++i) {
    std::string line = "  " + std::to_string(i + 1) + ". " + steps[i].value("pass", "");
    for (const auto& [name, value] : steps[i].items()) {
      if (name != "pass") line += " " + name + "=" + HumanText("", value);
    }
    terminal.out << Printable(line) << "\n";
  }
}

// What a pass reported, in a line: lists by their length.
std::string ReportText(const Json& report) {
  std::string text;
  for (const auto& [name, value] : report.items()) {
    if (name == "warnings") continue;
    const std::string shown = value.is_array()    ? std::to_string(value.size())
                              : value.is_object() ? "{" + std::to_string(value.size()) + "}"
                                                  : HumanText(name, value);
    text += (text.empty() ? "" : ", ") + name + " " + shown;
  }
  return text;
}

void WriteReports(const Terminal& terminal, const Json& reports) {
  for (const Json& entry : reports) {
    const Json report = entry.value("report", Json::object());
    terminal.out << Printable("  " + entry.value("pass", "") + ": " +
                              HumanText("", entry.value("seconds", 0.0)) + " s; " +
                              ReportText(report))
                 << "\n";
    for (const Json& warning : report.value("warnings", Json::array())) {
      terminal.out << terminal.Paint("  warning: " + Printable(HumanText("", warning)),
                                     Colour::kYellow)
                   << "\n";
    }
  }
}

void WriteMetrics(const Terminal& terminal, const Json& metrics) {
  Table table({"metric", "value"});
  for (const auto& [name, value] : metrics.items()) table.Add({name, HumanText(name, value)});
  if (table.row_count() > 0) table.Write(terminal);
}

// Digests in full: they are there to be compared.
std::string DataText(const Json& data) {
  if (!data.is_object()) return "";
  if (data.value("random", false)) return "random inputs";
  const int64_t samples = data.value("samples", int64_t{0});
  return data.value("dataset", "") + " (" + (samples == 0 ? "all" : std::to_string(samples)) +
         " samples, sha256 " + data.value("sha256", "") + ")";
}

// model -> passes -> artifact.
void WriteLineage(const Terminal& terminal, const Json& run) {
  const Json lineage = run.value("lineage", Json());
  if (!lineage.is_object()) return;
  terminal.out << "lineage\n";
  const auto line = [&](const char* name, const std::string& text) {
    if (!text.empty()) terminal.out << "  " << name << Printable(text) << "\n";
  };
  const Json& model = lineage.at("model");
  line("model       ", model.value("name", "") + " (sha256 " + model.value("sha256", "") + ")");
  for (const Json& pass : lineage.at("passes")) {
    line("pass        ",
         pass.value("pass", "") + ", version " + HumanText("", pass.value("version", Json())));
  }
  line("calibration ", DataText(lineage.at("calibration")));
  line("evaluation  ", DataText(lineage.at("evaluation")));
  line("seed        ", HumanText("", lineage.at("seed")));
  if (run.at("artifact").is_string()) line("artifact    ", "sha256 " + run.value("artifact", ""));
  if (lineage.contains("tflite_sha256")) {
    line("tflite      ", "sha256 " + lineage.value("tflite_sha256", ""));
  }
}

void WriteRun(const Terminal& terminal, const Json& run) {
  const auto line = [&](const char* name, const std::string& text) {
    if (!text.empty()) terminal.out << name << Printable(text) << "\n";
  };
  line("run        ", HumanText("id", run.at("id")) + " of job " + HumanText("id", run.at("job")));
  line("experiment ", run.value("experiment", ""));
  line("model      ", run.value("model", ""));
  line("chain      ", run.value("chain", ""));
  line("created    ", HumanText("created_ms", run.at("created_ms")) + " UTC");
  const Json& machine = run.at("machine");
  line("machine    ", machine.value("cpu", "") + ", " + machine.value("isa", "") + ", pared " +
                          machine.value("version", ""));
  line("note       ", run.value("note", ""));
  for (const auto& [name, value] : run.at("tags").items()) {
    line("tag        ", name + "=" + value.get<std::string>());
  }
  if (run.at("error").is_object()) {
    terminal.out << terminal.Paint("error      " + Printable(run.at("error").value("message", "")),
                                   Colour::kRed)
                 << "\n";
  }
}

void WriteSection(const Terminal& terminal, const std::string& section,
                  const std::vector<const Json*>& rows, const CompareOptions& options) {
  std::vector<std::string> head = {section};
  for (const int64_t run : options.runs) head.push_back("run " + std::to_string(run));
  const auto is_pair_of_numbers = [](const Json* row) {
    const Json& values = row->at("values");
    return values.size() == 2 && values[0].is_number() && values[1].is_number();
  };
  if (std::ranges::any_of(rows, is_pair_of_numbers)) head.emplace_back("change");
  Table table(head);
  const size_t cell_max = std::max<size_t>(12, static_cast<size_t>(terminal.width) / head.size());
  const size_t count = options.is_whole ? rows.size() : std::min(rows.size(), kRowsMax);
  for (size_t i = 0; i < count; ++i) {
    const std::string at = rows[i]->at("at").get<std::string>().substr(section.size() + 1);
    const std::string name = at.substr(at.rfind('/') + 1);
    const Json& values = rows[i]->at("values");
    std::vector<std::string> cells = {at.empty() ? section : at.substr(1)};
    for (const Json& value : values) {
      cells.push_back(Shortened(HumanText(name, value), cell_max, terminal.has_unicode));
    }
    if (is_pair_of_numbers(rows[i])) {
      const double change = values[1].get<double>() - values[0].get<double>();
      cells.push_back((change < 0 ? "" : "+") + HumanText(name, change));
    }
    table.Add(std::move(cells));
  }
  table.Write(terminal);
  if (count < rows.size()) {
    terminal.out << rows.size() - count << " more differences in " << section
                 << ": --whole shows them\n";
  }
}

}  // namespace

int Show(const Context& context, int64_t id, bool has_reports) {
  const Json run = context.daemon.Get(RunTarget(id), kRunHint);
  const Terminal& terminal = context.terminal;
  if (context.is_json) {
    terminal.out << DumpJson(run) << "\n";
    return kExitDone;
  }
  WriteRun(terminal, run);
  if (!run.at("steps").empty()) {
    terminal.out << "passes\n";
    WriteSteps(terminal, run.at("steps"));
  }
  WriteLineage(terminal, run);
  if (!run.at("reports").empty()) {
    terminal.out << "reports\n";
    WriteReports(terminal, run.at("reports"));
  }
  if (has_reports) {
    terminal.out << run.at("reports").dump(2, ' ', false, Json::error_handler_t::replace) << "\n";
  }
  WriteMetrics(terminal, run.at("metrics"));
  return kExitDone;
}

int Compare(const Context& context, const CompareOptions& options) {
  std::string ids;
  for (const int64_t run : options.runs) ids += (ids.empty() ? "" : ",") + std::to_string(run);
  const Json answer = context.daemon.Get(TargetOf("/v1/compare", {{"runs", ids}}), kRunHint);
  const Terminal& terminal = context.terminal;
  if (context.is_json) {
    terminal.out << DumpJson(answer) << "\n";
    return kExitDone;
  }
  std::vector<std::string> order = {"metrics", "steps", "artifact"};  // what is asked for most
  std::map<std::string, std::vector<const Json*>> sections;
  for (const Json& difference : answer.at("differences")) {
    const std::string at = difference.at("at").get<std::string>();
    const std::string section = at.substr(1, at.find('/', 1) - 1);
    sections[section].push_back(&difference);
    if (std::ranges::find(order, section) == order.end()) order.push_back(section);
  }
  for (const std::string& section : order) {
    const auto rows = sections.find(section);
    if (rows == sections.end()) continue;
    WriteSection(terminal, section, rows->second, options);
    terminal.out << "\n";
  }
  terminal.out << answer.at("differences").size() << " values differ, " << answer.at("same")
               << " are the same\n";
  return kExitDone;
}

int Tag(const Context& context, int64_t id, const std::vector<std::string>& tags) {
  Json change = {{"tags", Json::object()}};
  for (const std::string& tag : tags) {
    const size_t equals = std::min(tag.find('='), tag.size());
    const std::string value = tag.substr(std::min(equals + 1, tag.size()));
    if (equals == tag.size()) {
      throw Error(ErrorCode::kInvalidArgument, "a tag is written NAME=VALUE; NAME= removes it",
                  tag);
    }
    change["tags"][tag.substr(0, equals)] = value.empty() ? Json() : Json(value);
  }
  const Json run = context.daemon.Send("PATCH", RunTarget(id), change);
  if (context.is_json) {
    context.terminal.out << DumpJson(run) << "\n";
  } else {
    WriteRun(context.terminal, run);
  }
  return kExitDone;
}

int Note(const Context& context, int64_t id, const std::string& text) {
  const Json run = context.daemon.Send("PATCH", RunTarget(id), {{"note", text}});
  if (context.is_json) context.terminal.out << DumpJson(run) << "\n";
  return kExitDone;
}

int Remove(const Context& context, const RemoveOptions& options) {
  if (!options.model.empty()) {
    const std::string target = "/v1/models/" + PercentEncode(options.model);
    const Json answer = context.daemon.Send("DELETE", target, nullptr);
    context.terminal.out << (context.is_json ? DumpJson(answer) : "1 model deleted") << "\n";
    return kExitDone;
  }
  int64_t count = 0;
  for (const int64_t run : options.runs) {
    const Json answer = context.daemon.Send("DELETE", RunTarget(run), nullptr);
    count += answer.at("deleted").get<int64_t>();
  }
  if (!options.experiment.empty()) {
    const std::string target = "/v1/experiments/" + PercentEncode(options.experiment);
    count += context.daemon.Send("DELETE", target, nullptr).at("deleted").get<int64_t>();
  }
  if (context.is_json) {
    context.terminal.out << DumpJson({{"deleted", count}}) << "\n";
  } else {
    context.terminal.out << count << (count == 1 ? " run deleted\n" : " runs deleted\n");
  }
  return kExitDone;
}

}  // namespace pared
