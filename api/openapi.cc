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

Json Parameters(const Route& route) {
  Json parameters = Json::array();
  for (std::string_view rest = route.pattern; rest.find('{') != rest.npos;) {
    rest.remove_prefix(rest.find('{') + 1);
    parameters.push_back({{"name", rest.substr(0, rest.find('}'))},
                          {"in", "path"},
                          {"required", true},
                          {"schema", {{"type", "string"}}}});
  }
  for (const QueryParameter& parameter : route.query) {
    parameters.push_back({{"name", parameter.name},
                          {"in", "query"},
                          {"description", parameter.help},
                          {"schema", {{"type", "string"}}}});
  }
  return parameters;
}

Json Operation(const Route& route) {
  Json operation = {{"summary", route.summary}, {"parameters", Parameters(route)}};
  operation["responses"] = {{"2XX", {{"description", "Done."}}},
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
                           {"problem", ProblemSchema()}}}}}});
}

}  // namespace pared
