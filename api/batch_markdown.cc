// A night's report for people: what needs a look comes first, what is as it was is a line.

#include <ctime>
#include <iomanip>
#include <sstream>

#include "api/batch_report.h"

namespace pared {
namespace {

// Inside a table, where '|' ends a cell and a line ends a row.
std::string Cell(const Json& value) {
  std::string text = value.is_string() ? value.get<std::string>() : value.dump();
  if (value.is_null()) text = "(all)";
  std::string cell;
  for (const char c : text) {
    if (c == '|' || c == '\\') cell += '\\';
    cell += c == '\n' || c == '\r' ? ' ' : c;
  }
  return cell;
}

std::string Number(double value) {
  std::ostringstream text;
  text << std::setprecision(5) << value;
  return text.str();
}

std::string Percent(double before, double after) {
  if (before == 0) return "";
  std::ostringstream text;
  text << std::showpos << std::fixed << std::setprecision(1) << (after / before - 1) * 100 << " %";
  return text.str();
}

std::string TimeText(const Json& time_ms) {
  if (time_ms.is_null()) return "not ended";
  const std::time_t seconds = time_ms.get<int64_t>() / 1000;
  std::tm utc = {};
  gmtime_r(&seconds, &utc);
  std::ostringstream text;
  text << std::put_time(&utc, "%Y-%m-%d %H:%M UTC");
  return text.str();
}

std::string Because(const Json& entry) {
  const bool model = entry.at("model_changed").get<bool>();
  const bool recipe = entry.at("recipe_changed").get<bool>();
  if (model && recipe) return "model and recipe changed";
  if (model) return "model changed";
  return recipe ? "recipe changed" : "";
}

void WriteChanges(std::ostream& out, const std::string& title, const Json& changes) {
  if (changes.empty()) return;
  out << "\n## " << title
      << "\n\n| model | chain | metric | before | after | change | why | runs |\n"
      << "|---|---|---|---|---|---|---|---|\n";
  for (const Json& change : changes) {
    const double before = change.at("before").get<double>();
    const double after = change.at("after").get<double>();
    out << "| " << Cell(change.at("model")) << " | " << Cell(change.at("chain")) << " | "
        << Cell(change.at("metric")) << " | " << Number(before) << " | " << Number(after) << " | "
        << Percent(before, after) << " | " << Because(change) << " | " << change.at("run_before")
        << " → " << change.at("run") << " |\n";
  }
}

void WriteFailures(std::ostream& out, const std::string& title, const Json& failures) {
  if (failures.empty()) return;
  out << "\n## " << title << "\n\n| model | chain | error | where |\n|---|---|---|---|\n";
  for (const Json& failure : failures) {
    const Json error = failure.at("error").is_object() ? failure.at("error") : Json::object();
    out << "| " << Cell(failure.at("model")) << " | " << Cell(failure.at("chain")) << " | "
        << Cell(error.value("code", "") + ": " + error.value("message", "")) << " | "
        << Cell(error.value("where", "")) << " |\n";
  }
}

void WriteNames(std::ostream& out, const std::string& title, const Json& names) {
  if (names.empty()) return;
  out << "\n## " << title << "\n\n";
  for (const Json& name : names) {
    out << "- " << (name.is_object() ? Cell(name.at("model")) : Cell(name));
    if (name.is_object() && !name.at("chain").is_null()) out << ", " << Cell(name.at("chain"));
    out << "\n";
  }
}

}  // namespace

std::string ReportMarkdown(const Json& report) {
  std::ostringstream out;
  out << "# " << report.at("name").get<std::string>() << ", batch " << report.at("id") << ": "
      << report.at("verdict").get<std::string>() << "\n\n"
      << TimeText(report.at("created_ms")) << " to " << TimeText(report.at("finished_ms")) << ", "
      << report.at("state").get<std::string>() << ". ";
  if (report.at("against").is_null()) {
    out << "There is no earlier night to compare with.";
  } else {
    out << "Compared with batch " << report.at("against") << ".";
  }
  for (const auto& [name, count] : report.at("counts").items())
    out << " " << name << ": " << count << ".";
  out << "\n";
  if (!report.at("error").is_null())
    WriteFailures(
        out, "The night failed",
        Json::array({{{"model", "(all)"}, {"chain", nullptr}, {"error", report.at("error")}}}));
  WriteChanges(out, "Worse", report.at("worse"));
  WriteFailures(out, "Failed newly", report.at("failed_newly"));
  WriteNames(out, "Warnings", report.at("warnings"));
  WriteChanges(out, "Better", report.at("better"));
  WriteNames(out, "Fixed", report.at("fixed"));
  WriteFailures(out, "Failed as before", report.at("failed_still"));
  WriteNames(out, "New", report.at("new"));
  WriteNames(out, "Vanished", report.at("vanished"));
  WriteNames(out, "Not finished", report.at("unfinished"));
  WriteNames(out, "Excluded", report.at("excluded"));
  WriteNames(out, "Unchanged, not run again", report.at("unchanged"));
  return out.str();
}

}  // namespace pared
