// From method and path to a handler; the boundary where errors become answers.

#pragma once

#include <array>
#include <atomic>
#include <memory>
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
};

struct Route {
  Verb verb;
  std::string_view pattern;  // "/v1/jobs/{id}"
  std::string_view summary;
  Body body = Body::kNone;
  std::vector<QueryParameter> query = {};  // others are refused
  Handler handle;
};

class Router {
 public:
  explicit Router(std::vector<Route> routes);

  // The route of a request, known before its body is read: it says how to read it. Fills in
  // request.params. Null: Handle will answer 404 or 405.
  const Route* Match(Request& request) const;

  // Never throws: an Error becomes application/problem+json. `route` is what Match gave.
  Response Handle(const Route* route, const Request& request) const;

  // Match and Handle.
  Response Answer(Request request) const;

  const std::vector<Route>& routes() const { return routes_; }

  // Requests answered with 1xx to 5xx, by their first digit.
  int64_t AnsweredCount(int first_digit) const;

 private:
  Response Guarded(const Route* route, const Request& request) const;

  const std::vector<Route> routes_;
  mutable std::array<std::atomic<int64_t>, 6> answered_ = {};
};

// The answer to a request that failed: RFC 9457, with "errors" saying where.
Response ProblemOf(const Error& error);
Response Problem(int status, const std::string& title, const std::string& detail);

int StatusOf(ErrorCode code);

// "a=1&b=%20" percent-decoded. Throws kInvalidArgument at ?NAME: given twice, badly encoded.
Params ParseQuery(std::string_view text);

// Percent-decodes. Throws kInvalidArgument at `where`.
std::string PercentDecode(std::string_view text, const std::string& where);

Response JsonResponse(const Json& json, int status = 200);

}  // namespace pared
