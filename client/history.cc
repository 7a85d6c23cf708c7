// Many runs: the history and the front.

#include <algorithm>
#include <sstream>

#include "client/commands.h"
#include "client/plot.h"

namespace pared {
namespace {

// What a table shows unasked, where any of its runs has it.
constexpr const char* kMetrics[] = {"top1",     "top5",           "agreement",
                                    "sqnr_db",  "size_bytes",     "size_ratio",
                                    "sparsity", "latency_ms_p50", "latency_ratio"};

std::string IdText(int64_t id) { return id == 0 ? "" : std::to_string(id); }

bool AnyHas(const Json& runs, const std::string& metric) {
  return std::any_of(runs.begin(), runs.end(), [&](const Json& run) {
    return run.value("metrics", Json::object()).contains(metric);
  });
}

std::string ErrorText(const Json& run) {
  const Json error = run.value("error", Json());
  return error.is_object() ? error.value("code", "failed") : "";
}

bool AnyFailed(const Json& runs) {
  return std::any_of(runs.begin(), runs.end(), [](const Json& r) { return !ErrorText(r).empty(); });
}

Query QueryOf(const HistoryOptions& options) {
  return {{"filter", options.filter},   {"sort", options.sort},
          {"columns", options.columns}, {"experiment", options.experiment},
          {"model", options.model},     {"chain", options.chain},
          {"job", IdText(options.job)}, {"count", options.has_count ? "1" : ""}};
}

constexpr int64_t kPageMax = 1'000;

// Pages of a format that can be strung together, up to options.limit rows.
void WritePages(const Context& context, const HistoryOptions& options) {
  int64_t left = options.limit;
  std::string after;
  while (left > 0) {
    Query query = QueryOf(options);
    const int64_t count = std::min(left, kPageMax);
    query.emplace_back("format", options.format);
    query.emplace_back("limit", std::to_string(count));
    query.emplace_back("after", after);
    const HttpReply reply = context.daemon.Exchange({.target = TargetOf("/v1/runs", query)});
    const bool has_head = options.format == "csv" && !after.empty();  // which came already
    context.terminal.out << (has_head ? reply.body.substr(reply.body.find("\r\n") + 2)
                                      : reply.body);
    after = reply.header("x-next-after");
    if (after.empty()) return;
    left -= count;
  }
}

void WriteColumns(const Terminal& terminal, const Json& runs, const std::string& columns) {
  std::vector<std::string> names;
  std::istringstream stream(columns);
  for (std::string name; std::getline(stream, name, ',');) names.push_back(name);
  Table table(names);
  for (const Json& run : runs) {
    std::vector<std::string> cells;
    for (const std::string& name : names) cells.push_back(HumanText(name, run.value(name, Json())));
    table.Add(std::move(cells));
  }
  table.Write(terminal);
}

std::vector<std::string> Objectives(const Json& front) {
  std::vector<std::string> names;
  for (const Json& objective : front.at("objectives")) names.push_back(objective.at("name"));
  return names;
}

void WriteFront(const Terminal& terminal, const Json& front) {
  std::vector<std::string> head = {"", "id", "model", "chain"};
  const std::vector<std::string> names = Objectives(front);
  head.insert(head.end(), names.begin(), names.end());
  Table table(head);
  for (const Json& run : front.at("runs")) {
    if (run.at("dominated") == true) continue;
    const bool is_knee = run.at("knee") == true;
    std::vector<std::string> cells = {is_knee ? "knee" : "", HumanText("id", run.at("id")),
                                      run.value("model", ""), run.value("chain", "")};
    for (size_t i = 0; i < names.size(); ++i) {
      cells.push_back(HumanText(names[i], run.at("values").at(i)));
    }
    table.Add(std::move(cells), is_knee ? Colour::kGreen : Colour::kNone);
  }
  table.Write(terminal);
}

// Of the first two objectives.
void WritePlot(const Terminal& terminal, const Json& front) {
  const std::vector<std::string> names = Objectives(front);
  if (names.size() < 2) return;
  std::vector<PlotPoint> points;
  for (const Json& run : front.at("runs")) {
    const Json& values = run.at("values");
    if (!values.at(0).is_number() || !values.at(1).is_number()) continue;  // infinity is null
    const Mark mark = run.at("knee") == true        ? Mark::kKnee
                      : run.at("dominated") == true ? Mark::kDominated
                                                    : Mark::kFront;
    points.push_back({values.at(0).get<double>(), values.at(1).get<double>(), mark});
  }
  terminal.out << "\n"
               << Plot(points, {.width = std::min(terminal.width, 100),
                                .has_unicode = terminal.has_unicode,
                                .x_name = names[0],
                                .y_name = names[1]})
               << (terminal.has_unicode ? "● front  ◆ knee  · dominated\n"
                                        : "* front  O knee  . dominated\n");
}

}  // namespace

void WriteRuns(const Terminal& terminal, const Json& runs) {
  std::vector<std::string> head = {"id", "experiment", "model", "chain"};
  std::vector<std::string> metrics;
  for (const char* metric : kMetrics) {
    if (AnyHas(runs, metric)) metrics.emplace_back(metric);
  }
  head.insert(head.end(), metrics.begin(), metrics.end());
  const bool has_errors = AnyFailed(runs);
  if (has_errors) head.emplace_back("error");
  Table table(head);
  for (const Json& run : runs) {
    std::vector<std::string> cells = {HumanText("id", run.at("id")), run.value("experiment", ""),
                                      run.value("model", ""), run.value("chain", "")};
    for (const std::string& metric : metrics) {
      cells.push_back(HumanText(metric, run.at("metrics").value(metric, Json())));
    }
    const std::string error = ErrorText(run);
    if (has_errors) cells.push_back(error);
    table.Add(std::move(cells), error.empty() ? Colour::kNone : Colour::kRed);
  }
  table.Write(terminal);
}

int History(const Context& context, const HistoryOptions& options) {
  HistoryOptions asked = options;
  if (context.is_json && options.format == "table") asked.format = "jsonl";
  if (asked.format != "table") {
    WritePages(context, asked);
    return kExitDone;
  }
  Query query = QueryOf(options);
  query.emplace_back("limit", std::to_string(std::min(options.limit, kPageMax)));
  const Json page = context.daemon.Get(TargetOf("/v1/runs", query));
  const Json& runs = page.at("runs");
  if (runs.empty()) {
    context.terminal.out << "no run matches\n";
  } else if (options.columns.empty()) {
    WriteRuns(context.terminal, runs);
  } else {
    WriteColumns(context.terminal, runs, options.columns);
  }
  if (options.has_count) context.terminal.out << page.at("count") << " runs match\n";
  if (!options.has_count && page.at("next").is_number()) {
    context.terminal.out << "there may be more: --limit " << 2 * options.limit
                         << ", or --count to count them\n";
  }
  return kExitDone;
}

int Pareto(const Context& context, const ParetoOptions& options) {
  std::string objectives = options.objectives;
  if (objectives.empty() && options.job != 0) {
    objectives =
        ObjectivesOf(context.daemon.Get("/v1/jobs/" + IdText(options.job), "`pare ls` lists jobs"));
  }
  if (objectives.empty()) objectives = "size_bytes:min,top1:max";
  const Json front =
      context.daemon.Get(TargetOf("/v1/pareto", {{"objectives", objectives},
                                                 {"filter", options.filter},
                                                 {"experiment", options.experiment},
                                                 {"model", options.model},
                                                 {"chain", options.chain},
                                                 {"job", IdText(options.job)},
                                                 {"dominated", options.has_dominated ? "1" : ""}}));
  const Terminal& terminal = context.terminal;
  if (context.is_json) {
    terminal.out << DumpJson(front) << "\n";
    return kExitDone;
  }
  const int64_t candidates = front.at("candidates").get<int64_t>();
  const int64_t excluded = front.at("excluded").get<int64_t>();
  if (candidates > excluded) {
    WriteFront(terminal, front);
    if (options.has_plot) WritePlot(terminal, front);
  }
  terminal.out << candidates << " candidates, " << excluded
               << " of them left out for lack of an objective or NaN\n";
  for (const Json& warning : front.at("warnings")) {
    terminal.out << terminal.Paint("warning: " + warning.get<std::string>(), Colour::kYellow)
                 << "\n";
  }
  return kExitDone;
}

}  // namespace pared
