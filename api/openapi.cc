// The service as OpenAPI 3.1, made from the table of routes and the listings of fields.

#include <algorithm>
#include <cctype>
#include <string>
#include <utility>

#include "api/routes.h"
#include "api/service.h"
#include "config/batch_spec.h"
#include "config/job_spec.h"

namespace pared {
namespace {

Json ObjectSchema(const Json& fields);

// One entry of DescribeFields as JSON Schema.
Json FieldSchema(const Json& field) {
  const std::string& type = field.at("type").get_ref<const std::string&>();
  Json schema = {{"description", field.at("help")}};
  if (field.contains("default") && type != "object") schema["default"] = field["default"];
  if (type == "object") {
    schema.update(ObjectSchema(field.at("fields")));
  } else if (type == "objects") {
    schema["type"] = "array";
    schema["maxItems"] = field.at("maximum");
    schema["items"] =
        field.contains("fields") ? ObjectSchema(field["fields"]) : Json{{"type", "object"}};
  } else if (type == "strings") {
    schema["type"] = "array";
    schema["items"] = {{"type", "string"}};
  } else if (type == "choice") {
    schema["enum"] = field.at("choices");
  } else if (type != "any") {
    schema["type"] = type;
    for (const char* bound : {"minimum", "maximum"}) {
      if (field.contains(bound)) schema[bound] = field[bound];
    }
  }
  return schema;
}

Json ObjectSchema(const Json& fields) {
  Json schema = {{"type", "object"}, {"additionalProperties", false}};
  schema["properties"] = Json::object();
  for (const Json& field : fields) {
    const std::string& name = field.at("name").get_ref<const std::string&>();
    schema["properties"][name] = FieldSchema(field);
    if (field.at("required") == true) schema["required"].push_back(name);
  }
  return schema;
}

// Of what stands for {name} in a path.
Json PathSchema(std::string_view name) {
  if (name == "id") return {{"type", "integer"}, {"minimum", 1}};
  if (name == "sha256") return {{"type", "string"}, {"pattern", "^[0-9a-f]{64}$"}};
  return {{"type", "string"}, {"pattern", "^[a-z0-9][a-z0-9._-]{0,127}$"}};
}

Json Parameters(const Route& route) {
  Json parameters = Json::array();
  for (std::string_view rest = route.pattern; rest.find('{') != rest.npos;) {
    rest.remove_prefix(rest.find('{') + 1);
    const std::string_view name = rest.substr(0, rest.find('}'));
    parameters.push_back(
        {{"name", name}, {"in", "path"}, {"required", true}, {"schema", PathSchema(name)}});
  }
  for (const QueryParameter& parameter : route.query) {
    parameters.push_back({{"name", parameter.name},
                          {"in", "query"},
                          {"description", parameter.help},
                          {"schema", ParseJson(parameter.schema)}});
  }
  return parameters;
}

// Routes that answer with something else than JSON, or not only with that.
std::vector<std::string_view> TypesOf(std::string_view pattern) {
  if (pattern.ends_with("/events")) return {"text/event-stream"};
  if (pattern.ends_with("/log") || pattern == "/metrics") return {"text/plain"};
  if (pattern == "/") return {"text/html"};
  if (pattern == "/web/{name}") return {"text/css", "text/javascript", "image/svg+xml"};
  if (pattern == "/v1/runs") return {"application/json", "application/jsonl", "text/csv"};
  if (pattern.ends_with("/report")) return {"application/json", "text/markdown"};
  const bool is_file = pattern.ends_with("/model") || pattern.ends_with("/data") ||
                       pattern == "/v1/artifacts/{sha256}";
  return {is_file ? "application/octet-stream" : "application/json"};
}

Json Answer(const Route& route) {
  const bool is_job = route.pattern == "/v1/jobs/{id}" ||
                      (route.pattern == "/v1/jobs" && route.verb == Verb::kPost);
  const Json json = is_job ? Json{{"$ref", "#/components/schemas/job"}} : Json{{"type", "object"}};
  Json content = Json::object();
  for (const std::string_view type : TypesOf(route.pattern)) {
    content[std::string(type)] =
        type == "application/json" ? Json{{"schema", json}} : Json::object();
  }
  return {{"description", "Done."}, {"content", std::move(content)}};
}

Json Operation(const Route& route) {
  Json operation = {{"summary", route.summary}, {"parameters", Parameters(route)}};
  operation["responses"] = {{"2XX", Answer(route)},
                            {"304", {{"description", "Nothing has changed."}}},
                            {"default",
                             {{"description", "What is wrong, and where."},
                              {"content",
                               {{"application/problem+json",
                                 {{"schema", {{"$ref", "#/components/schemas/problem"}}}}}}}}}};
  if (route.body == Body::kJson) {
    operation["requestBody"] = {
        {"required", true},
        {"content",
         {{"application/json",
           {{"schema", {{"$ref", "#/components/schemas/" + std::string(route.schema)}}}}}}}};
  } else if (route.body == Body::kUpload) {
    operation["requestBody"] = {{"required", true},
                                {"content", {{"application/octet-stream", Json::object()}}}};
  }
  return operation;
}

Json IntegerOrNull() { return {{"type", Json::array({"integer", "null"})}}; }

Json ProgressSchema() {
  const Json text = {{"type", "string"}};
  const Json number = {{"type", "number"}};
  const Json count = {{"type", "integer"}, {"minimum", 0}};
  return {{"type", Json::array({"object", "null"})},
          {"properties",
           {{"step", {{"type", "string"}, {"description", "The passes up to the one at work."}}},
            {"chain", text},
            {"fraction", {{"type", "number"}, {"description", "Of the step, 0 to 1."}}},
            {"layer", {{"type", "string"}, {"description", "The node that the pass is at."}}},
            {"layer_index", count},
            {"layer_count", count},
            {"chains_ended", count},
            {"chains", count},
            {"percent", {{"type", "number"}, {"minimum", 0}, {"maximum", 100}}},
            {"estimated_end_ms", {{"type", "integer"}, {"description", "Since 1970, UTC."}}}}}};
}

Json JobSchema() {
  const Json object_or_null = {{"type", Json::array({"object", "null"})}};
  const Json count = {{"type", "integer"}, {"minimum", 0}};
  Json schema = {
      {"type", "object"},
      {"properties",
       {{"id", {{"type", "integer"}, {"minimum", 1}}},
        {"state",
         {{"enum", {"queued", "running", "succeeded", "failed", "cancelled", "goal_not_met"}}}},
        {"tries", count},
        {"cancel_requested", {{"type", "boolean"}}},
        {"spec", {{"type", "object"}}},
        {"progress", ProgressSchema()},
        {"error", object_or_null},
        {"requeues", count},
        {"requeue", object_or_null},
        {"created_ms", {{"type", "integer"}}},
        {"started_ms", IntegerOrNull()},
        {"finished_ms", IntegerOrNull()}}}};
  for (const auto& [name, value] : schema["properties"].items()) schema["required"].push_back(name);
  return schema;
}

Json ProblemSchema() {
  return {{"type", "object"},
          {"properties",
           {{"title", {{"type", "string"}}},
            {"status", {{"type", "integer"}}},
            {"detail", {{"type", "string"}}},
            {"errors", {{"type", "array"}, {"items", {{"type", "object"}}}}}}}};
}

Json RunChangeSchema() {
  return {{"type", "object"},
          {"additionalProperties", false},
          {"properties",
           {{"note", {{"type", "string"}}},
            {"tags",
             {{"type", "object"},
              {"additionalProperties", {{"type", Json::array({"string", "null"})}}}}}}}};
}

}  // namespace

Response GetOpenApi(const Service& service, const Request&) {
  Json paths = Json::object();
  for (const Route& route : MakeRoutes(service)) {
    std::string verb = VerbName(route.verb);
    std::transform(verb.begin(), verb.end(), verb.begin(),
                   [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    paths[std::string(route.pattern)][verb] = Operation(route);
  }
  return JsonResponse({{"openapi", "3.1.0"},
                       {"info", {{"title", "pared"}, {"version", PARED_VERSION}}},
                       {"paths", std::move(paths)},
                       {"components",
                        {{"schemas",
                          {{"job_spec", ObjectSchema(DescribeJobSpec())},
                           {"batch_spec", ObjectSchema(DescribeBatchSpec())},
                           {"run_change", RunChangeSchema()},
                           {"job", JobSchema()},
                           {"problem", ProblemSchema()}}}}}});
}

}  // namespace pared
