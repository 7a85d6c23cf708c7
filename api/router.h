// From method and path to a handler; the boundary where errors become answers.

#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "api/message.h"
#include "base/error.h"
#include "config/fields.h"

namespace pared {

enum class Body { kNone, kJson, kUpload };

struct QueryParameter {
  std::string_view name, help;
  std::string_view schema = R"({"type": "string"})";  // JSON Schema of its value, for openapi.cc
};

struct Route {
  Verb verb;
  std::string_view pattern;  // "/v1/jobs/{id}"
  std::string_view summary;
  Body body = Body::kNone;
  std::vector<QueryParameter> query = {};  // others are refused
  Handler handle;
  std::string_view schema = "job_spec";  // of a JSON body, in openapi.cc
  // Of an upload: asked before the body is read. Names the file that the body is appended to, which
  // then stays; or, without a file, answers at once. Where it is not set: a file that the server
  // removes after the answer.
  Handler place = {};
};

class Router {
 public:
  explicit Router(std::vector<Route> routes);

  // The route of a request, known before its body is read: it says how to read it. Fills in
  // request.params. Null: Handle will answer 404 or 405.
  const Route* Match(Request& request) const;

  // Never throws: an Error becomes application/problem+json. `route` is what Match gave.
  Response Handle(const Route* route, const Request& request) const;

  // Asks route.place in the same way.
  Response Place(const Route& route, const Request& request) const;

  // 405, and what the path takes instead; 404 where it takes nothing.
  Response NoRoute(const Request& request) const;

  // Match and Handle.
  Response Answer(Request request) const;

  const std::vector<Route>& routes() const { return routes_; }

 private:
  Response Ask(const Handler& handler, const Route& route, const Request& request) const;

  const std::vector<Route> routes_;
};

// An answer as application/problem+json.
Response Problem(int status, const std::string& title, const std::string& detail);

const char* VerbName(Verb verb);  // "GET"
int StatusOf(ErrorCode code);

// "a=1&b=%20" percent-decoded, '+' as a space (URL Standard, 5.1). Throws kInvalidArgument at
// ?NAME: given twice, badly encoded.
Params ParseQuery(std::string_view text);

// Percent-decodes. Throws kInvalidArgument at `where`.
std::string PercentDecode(std::string_view text, const std::string& where);

Response JsonResponse(const Json& json, int status = 200);

}  // namespace pared
