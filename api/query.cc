// Queries over runs: pages as JSON, JSON Lines or CSV; fronts.

#include <algorithm>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "api/service.h"

namespace pared {
namespace {

const std::vector<std::string> kCsvColumns = {"id",    "job",        "experiment", "model",
                                              "chain", "created_ms", "artifact",   "error"};

[[noreturn]] void Refuse(const std::string& where, const std::string& message) {
  throw Error(ErrorCode::kInvalidArgument, message, where);
}

std::vector<std::string> Split(const std::string& text) {
  std::vector<std::string> parts;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(',', begin), text.size());
    parts.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

RunQuery QueryOf(const Request& request) {
  RunQuery query;
  query.experiment = QueryText(request, "experiment");
  query.model = QueryText(request, "model");
  query.chain = QueryText(request, "chain");
  if (request.query.contains("job")) query.job = QueryInteger(request, "job", {1}, 0);
  query.filter = QueryText(request, "filter").value_or("");
  if (const std::optional<std::string> sort = QueryText(request, "sort")) {
    for (const std::string& key : Split(*sort)) {
      const bool is_descending = key.starts_with('-');
      query.sort.push_back({key.substr(is_descending ? 1 : 0), is_descending});
    }
  }
  query.limit = LimitOf(request);
  query.after = QueryInteger(request, "after", {0}, 0);
  return query;
}

bool Flag(const Request& request, const std::string& name) {
  return QueryInteger(request, name, {0, 1}, 0) == 1;
}

// RFC 4180. A text that a spreadsheet would take for a formula is kept from it by an apostrophe.
std::string CsvCell(const Json& value) {
  if (value.is_null()) return "";
  if (value.is_primitive() && !value.is_string()) return DumpJson(value);
  std::string text = value.is_string() ? value.get<std::string>() : DumpJson(value);
  if (text.find_first_of("=+-@\t\r") == 0) text.insert(0, "'");
  if (text.find_first_of("\",\r\n") == std::string::npos) return text;
  std::string quoted = "\"";
  for (const char c : text) quoted += c == '"' ? std::string("\"\"") : std::string(1, c);
  return quoted + "\"";
}

std::string CsvLine(const std::vector<Json>& cells) {
  std::string line;
  for (size_t i = 0; i < cells.size(); ++i) line += (i > 0 ? "," : "") + CsvCell(cells[i]);
  return line + "\r\n";
}

// The rows as objects, and the last one's id where the page is full.
Json Objects(const RunTable& table, const std::vector<std::string>& columns) {
  Json objects = Json::array();
  for (const std::vector<Json>& row : table.rows) {
    Json& object = objects.emplace_back(Json::object());
    for (size_t i = 0; i < columns.size(); ++i) object[columns[i]] = row[i];
  }
  return objects;
}

Json NextOf(const std::vector<int64_t>& ids, int64_t limit) {
  return static_cast<int64_t>(ids.size()) == limit ? Json(ids.back()) : Json();
}

struct Listing {
  Json runs = Json::array();
  std::vector<int64_t> ids;
};

Listing ListingOf(const Service& service, const RunQuery& query,
                  const std::vector<std::string>& columns) {
  Listing listing;
  if (!columns.empty()) {
    const RunTable table = service.store.Table(query, columns);
    return {Objects(table, columns), table.ids};
  }
  for (const Run& run : service.store.Runs(query)) {
    listing.runs.push_back(RunJson(run));
    listing.ids.push_back(run.id);
  }
  return listing;
}

// What the body cannot say stands in the header, in every format.
void SetHeaders(Response& response, const std::vector<int64_t>& ids, const RunQuery& query,
                const std::optional<int64_t>& count) {
  const Json next = NextOf(ids, query.limit);
  if (!next.is_null()) response.headers["x-next-after"] = next.dump();
  if (count) response.headers["x-total-count"] = std::to_string(*count);
}

Response CsvResponse(const RunTable& table, const std::vector<std::string>& columns) {
  Response response;
  response.type = "text/csv; charset=utf-8; header=present";
  response.body = CsvLine({columns.begin(), columns.end()});
  for (const std::vector<Json>& row : table.rows) response.body += CsvLine(row);
  return response;
}

Objective ObjectiveOf(const std::string& text) {
  const size_t colon = std::min(text.rfind(':'), text.size());
  const std::string direction = text.substr(std::min(colon + 1, text.size()));
  if (colon == 0 || (direction != "min" && direction != "max")) {
    Refuse("?objectives",
           "must be FIELD:min or FIELD:max, with commas between; has \"" + text + "\"");
  }
  return {text.substr(0, colon), direction == "max"};
}

Json FrontRuns(const Service& service, const Front& front) {
  std::vector<int64_t> ids;
  for (const FrontRun& found : front.runs) {
    if (!found.is_dominated) ids.push_back(found.id);
  }
  std::map<int64_t, Json> whole;
  for (const Run& run : service.store.RunsWith(ids)) whole.emplace(run.id, RunJson(run));
  Json runs = Json::array();
  for (const FrontRun& found : front.runs) {
    const auto run = whole.find(found.id);
    // Deleted since: a front is of the moment that it was asked for.
    Json json = run == whole.end() ? Json{{"id", found.id}} : std::move(run->second);
    json["values"] = found.values;
    json["dominated"] = found.is_dominated;
    json["knee"] = found.id == front.knee;
    runs.push_back(std::move(json));
  }
  return runs;
}

Response FrontResponse(const Service& service, const Request& request) {
  FrontQuery query = {QueryOf(request), {}, Flag(request, "dominated")};
  Json objectives = Json::array();
  for (const std::string& text : Split(*QueryText(request, "objectives"))) {
    const Objective objective = ObjectiveOf(text);
    query.objectives.push_back(objective);
    objectives.push_back(
        {{"name", objective.field}, {"direction", objective.is_maximum ? "max" : "min"}});
  }
  const Front front = service.store.FrontOf(query);
  Json json = {{"objectives", std::move(objectives)},
               {"runs", FrontRuns(service, front)},
               {"knee", front.knee == 0 ? Json() : Json(front.knee)},
               {"candidates", front.candidate_count},
               {"excluded", front.excluded_count},
               {"machines", front.machines},
               {"warnings", Json::array()}};
  if (front.machines.size() > 1) {
    json["warnings"].push_back("latencies of " + std::to_string(front.machines.size()) +
                               " machines do not compare; keep to one by a filter such as "
                               "machine.cpu = \"...\"");
  }
  return JsonResponse(json);
}

}  // namespace

Response ListRuns(const Service& service, const Request& request) {
  const RunQuery query = QueryOf(request);
  const std::string format = QueryText(request, "format").value_or("json");
  if (format != "json" && format != "jsonl" && format != "csv") {
    Refuse("?format", "must be json, jsonl or csv, is \"" + format + "\"");
  }
  std::vector<std::string> columns;
  if (request.query.contains("columns")) columns = Split(*QueryText(request, "columns"));
  std::optional<int64_t> count;
  if (Flag(request, "count")) count = service.store.CountRuns(query);
  Response response;
  if (format == "csv") {
    if (columns.empty()) columns = kCsvColumns;
    const RunTable table = service.store.Table(query, columns);
    response = CsvResponse(table, columns);
    SetHeaders(response, table.ids, query, count);
    return response;
  }
  Listing listing = ListingOf(service, query, columns);
  if (format == "jsonl") {
    response.type = "application/jsonl";
    for (const Json& run : listing.runs) response.body += DumpJson(run) + "\n";
  } else {
    Json page = {{"runs", std::move(listing.runs)}, {"next", NextOf(listing.ids, query.limit)}};
    if (count) page["count"] = *count;
    response = JsonResponse(page);
  }
  SetHeaders(response, listing.ids, query, count);
  return response;
}

Response GetPareto(const Service& service, const Request& request) {
  const std::string cost = QueryText(request, "cost").value_or("size_bytes");
  const std::string quality = QueryText(request, "quality").value_or("top1");
  if (request.query.contains("objectives")) {
    for (const char* name : {"cost", "quality"}) {
      if (request.query.contains(name)) {
        Refuse(std::string("?") + name, "says again what ?objectives says");
      }
    }
    return FrontResponse(service, request);
  }
  if (request.query.contains("dominated")) {
    Refuse("?dominated", "goes with ?objectives only: size_bytes:min,top1:max, say");
  }
  CheckName(cost, "?cost");
  CheckName(quality, "?quality");
  Json runs = Json::array();
  for (const Run& run : service.store.ParetoFront(QueryOf(request), cost, quality)) {
    runs.push_back(RunJson(run));
  }
  return JsonResponse({{"cost", cost}, {"quality", quality}, {"runs", std::move(runs)}});
}

}  // namespace pared
