// How a search stands: its front as a table, the candidates that failed.

#include <set>

#include "client/commands.h"

namespace pared {
namespace {

// "magnitude_prune.sparsity=0.8 pattern=2x1"; a pass that is left out as "no magnitude_prune".
std::string ChoiceText(const Json& choice) {
  std::string text;
  for (const auto& [name, value] : choice.items()) {
    const bool is_pass = name.find('.') == name.npos;
    if (is_pass && value == true) continue;
    text +=
        (text.empty() ? "" : " ") + (is_pass ? "no " + name : name + "=" + HumanText("", value));
  }
  return text;
}

std::string BrokenText(const Json& broken) {
  std::string text;
  for (const Json& bound : broken) text += (text.empty() ? "not " : ", ") + HumanText("", bound);
  return text;
}

}  // namespace

void WriteSearch(const Terminal& terminal, const Json& search) {
  terminal.out << "search: " << search.at("candidates") << " of " << search.at("budget")
               << " candidates, " << search.at("failed").size() << " failed, "
               << HumanText("s", search.at("seconds")) << " s";
  if (search.at("ended").is_string()) terminal.out << "; " << search.value("ended", "");
  terminal.out << "\n";
  const Json& best = search.at("best");
  Json entries = search.at("front");
  if (best.is_object() && entries.empty()) entries.push_back(best);
  std::set<std::string> metrics;
  for (const Json& entry : entries) {
    for (const auto& [name, value] : entry.at("values").items()) metrics.insert(name);
  }
  std::vector<std::string> head = {"run", "candidate"};
  head.insert(head.end(), metrics.begin(), metrics.end());
  head.insert(head.end(), {"choice", "bounds"});
  Table table(head);
  for (const Json& entry : entries) {
    const bool is_best = best.is_object() && entry.at("run") == best.at("run");
    std::vector<std::string> cells = {HumanText("id", entry.at("run")),
                                      entry.value("chain", "") + (is_best ? " (best)" : "")};
    for (const std::string& name : metrics) {
      cells.push_back(HumanText(name, entry.at("values").value(name, Json())));
    }
    cells.push_back(ChoiceText(entry.at("choice")));
    cells.push_back(entry.at("broken").empty() ? "met" : BrokenText(entry.at("broken")));
    table.Add(std::move(cells), is_best ? Colour::kGreen : Colour::kNone);
  }
  if (table.row_count() > 0) table.Write(terminal);
  for (const Json& failed : search.at("failed")) {
    terminal.out << Printable("failed: " + failed.value("chain", "") + ": " +
                              failed.value("reason", ""))
                 << "\n";
  }
}

std::string ObjectivesOf(const Json& job) {
  std::string text;
  if (!job.at("search").is_object()) return text;
  for (const Json& objective : job.at("spec").at("search").at("objectives")) {
    text += (text.empty() ? "" : ",") + objective.value("metric", "") + ":" +
            objective.value("direction", "");
  }
  return text;
}

}  // namespace pared
