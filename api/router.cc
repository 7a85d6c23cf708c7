#include "api/router.h"

#include <algorithm>
#include <charconv>
#include <exception>
#include <utility>

#include "base/log.h"

namespace pared {
namespace {

std::string TitleOf(ErrorCode code) {
  if (code == ErrorCode::kInternal || code == ErrorCode::kCancelled) return "internal error";
  std::string title = ErrorCodeName(code);
  std::ranges::replace(title, '_', ' ');
  return title;
}

// The text up to the next '/', which is taken off `rest` too.
std::string_view TakeSegment(std::string_view& rest) {
  const size_t end = std::min(rest.find('/'), rest.size());
  const std::string_view segment = rest.substr(0, end);
  rest.remove_prefix(std::min(end + 1, rest.size()));
  return segment;
}

// Whether `path` has the shape of `pattern`; if so, what stands for its {names}, still encoded.
bool Matches(std::string_view pattern, std::string_view path, Params& params) {
  if (std::count(pattern.begin(), pattern.end(), '/') !=
      std::count(path.begin(), path.end(), '/')) {
    return false;
  }
  while (!pattern.empty() || !path.empty()) {
    const std::string_view want = TakeSegment(pattern);
    const std::string_view got = TakeSegment(path);
    if (!want.starts_with('{')) {
      if (want != got) return false;
    } else if (got.empty()) {
      return false;
    } else {
      params[std::string(want.substr(1, want.size() - 2))] = got;
    }
  }
  return true;
}

void CheckQuery(const Route& route, const Params& query) {
  std::vector<std::string> names;
  for (const QueryParameter& parameter : route.query) names.emplace_back(parameter.name);
  for (const auto& [name, value] : query) {
    if (std::find(names.begin(), names.end(), name) != names.end()) continue;
    throw Error(ErrorCode::kInvalidArgument,
                "is no parameter of this route" + DidYouMean(name, names), "?" + name);
  }
}

// RFC 9457, with "errors" saying where: a pointer into the JSON body, a parameter of the query or
// the path, or a node or file by its name.
Response ProblemOf(const Error& error, const Route& route, const Request& request) {
  const int status = StatusOf(error.code());
  Response response = Problem(status, TitleOf(error.code()), error.message());
  if (status == 503) response.headers["retry-after"] = "5";
  std::string where = error.where();
  if (where.empty()) return response;
  const char* kind = "where";
  if (where.front() == '?' || where.front() == '{') {
    kind = "parameter";
    where = where.front() == '?' ? where.substr(1) : where.substr(1, where.size() - 2);
  } else if (where.front() == '/' && route.body == Body::kJson) {
    kind = "pointer";
  } else if (where == request.upload) {
    where = "body";  // the name of the file it was put in means nothing to the client
  }
  Json json = ParseJson(response.body);
  json["errors"] = Json::array({Json{{kind, where}, {"detail", error.message()}}});
  response.body = DumpJson(json) + "\n";
  return response;
}

void LogFailure(const Request& request, const std::exception& error) {
  LogEvent(LogLevel::kError, "request_failed", {{"path", request.path}, {"error", error.what()}});
}

}  // namespace

Router::Router(std::vector<Route> routes) : routes_(std::move(routes)) {}

const Route* Router::Match(Request& request) const {
  for (const Route& route : routes_) {
    Params params;
    if (route.verb != request.verb || !Matches(route.pattern, request.path, params)) continue;
    request.params = std::move(params);
    return &route;
  }
  return nullptr;
}

Response Router::Answer(Request request) const {
  const Route* route = Match(request);
  return Handle(route, request);
}

Response Router::NoRoute(const Request& request) const {
  std::string allowed;
  for (const Route& route : routes_) {
    Params params;
    if (!Matches(route.pattern, request.path, params)) continue;
    allowed += (allowed.empty() ? "" : ", ") + std::string(VerbName(route.verb));
  }
  if (allowed.empty()) {
    return Problem(404, TitleOf(ErrorCode::kNotFound),
                   "there is nothing here; /openapi.json lists what there is");
  }
  Response response = Problem(405, "method not allowed", "this path takes " + allowed);
  response.headers["allow"] = allowed;
  return response;
}

Response Router::Handle(const Route* route, const Request& request) const {
  return route == nullptr ? NoRoute(request) : Ask(route->handle, *route, request);
}

Response Router::Place(const Route& route, const Request& request) const {
  return Ask(route.place, route, request);
}

// The request boundary: what went wrong ends here, as an answer.
Response Router::Ask(const Handler& handler, const Route& route, const Request& request) const {
  try {
    Request decoded = request;
    decoded.query = ParseQuery(request.query_text);
    CheckQuery(route, decoded.query);
    for (auto& [name, value] : decoded.params) value = PercentDecode(value, "{" + name + "}");
    return handler(decoded);
  } catch (const Error& error) {
    Response response = ProblemOf(error, route, request);
    if (response.status >= 500) LogFailure(request, error);
    return response;
  } catch (const std::exception& error) {
    LogFailure(request, error);
    return Problem(500, TitleOf(ErrorCode::kInternal), "the daemon's log says more");
  }
}

const char* VerbName(Verb verb) {
  constexpr const char* kNames[] = {"GET", "POST", "PUT", "PATCH", "DELETE"};
  return kNames[static_cast<size_t>(verb)];
}

int StatusOf(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalidArgument:
      return 400;
    case ErrorCode::kNotFound:
      return 404;
    case ErrorCode::kConflict:
      return 409;
    case ErrorCode::kUnsupported:
      return 422;
    case ErrorCode::kUnavailable:
      return 503;
    default:
      return 500;
  }
}

Response Problem(int status, const std::string& title, const std::string& detail) {
  Response response =
      JsonResponse({{"title", title}, {"status", status}, {"detail", detail}}, status);
  response.type = "application/problem+json";
  return response;
}

std::string PercentDecode(std::string_view text, const std::string& where) {
  std::string decoded;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      decoded += text[i];
      continue;
    }
    unsigned value = 0;
    const std::string_view digits = text.substr(i + 1, 2);
    const auto [end, code] =
        std::from_chars(digits.data(), digits.data() + digits.size(), value, 16);
    if (code != std::errc() || end != digits.data() + 2 || value == 0) {
      throw Error(ErrorCode::kInvalidArgument, "has a '%' that no two hexadecimal digits follow",
                  where);
    }
    decoded += static_cast<char>(value);
    i += 2;
  }
  return decoded;
}

Params ParseQuery(std::string_view text) {
  Params query;
  while (!text.empty()) {
    const size_t end = std::min(text.find('&'), text.size());
    const std::string_view pair = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (pair.empty()) continue;
    const size_t equals = std::min(pair.find('='), pair.size());
    const std::string name = PercentDecode(pair.substr(0, equals), "?");
    std::string value(pair.substr(std::min(equals + 1, pair.size())));
    std::ranges::replace(value, '+', ' ');  // as forms and most HTTP libraries write a space
    if (!query.emplace(name, PercentDecode(value, "?" + name)).second) {
      throw Error(ErrorCode::kInvalidArgument, "is given twice", "?" + name);
    }
  }
  return query;
}

Response JsonResponse(const Json& json, int status) {
  Response response;
  response.status = status;
  response.body = DumpJson(json) + "\n";
  return response;
}

}  // namespace pared
