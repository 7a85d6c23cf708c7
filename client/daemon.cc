#include "client/daemon.h"

namespace pared {
namespace {

struct Status {
  int status;
  ErrorCode code;
  int exit_code;
  const char* hint;  // what to do about it; empty: the daemon's own words say it
};
constexpr Status kStatuses[] = {
    {400, ErrorCode::kInvalidArgument, kExitRefused, ""},
    {401, ErrorCode::kConflict, kExitForbidden,
     "set PARED_TOKEN, or give --token-file, with a token that the daemon's settings list"},
    {403, ErrorCode::kConflict, kExitForbidden, "this takes a token with the scope write"},
    {404, ErrorCode::kNotFound, kExitNotFound, ""},
    {409, ErrorCode::kConflict, kExitConflict, ""},
    {413, ErrorCode::kInvalidArgument, kExitRefused,
     "the daemon's settings body_bytes_max and model_bytes_max say how much it takes"},
    {422, ErrorCode::kUnsupported, kExitRefused, ""},
    {503, ErrorCode::kUnavailable, kExitUnreachable, "try again later"},
};

// The first place that the problem names, as the daemon wrote it.
std::string PlaceOf(const Json& problem) {
  const auto errors = problem.find("errors");
  if (errors == problem.end() || !errors->is_array() || errors->empty()) return "";
  for (const char* kind : {"pointer", "parameter", "where"}) {
    const Json& first = errors->front();
    if (first.is_object() && first.contains(kind) && first.at(kind).is_string()) {
      const std::string place = first.at(kind).get<std::string>();
      return place == "id" ? "" : place;  // which the message names by its value
    }
  }
  return "";
}

[[noreturn]] void ThrowRefusal(const HttpReply& reply, const std::string& url,
                               const std::string& hint = "") {
  Status status = {reply.status, ErrorCode::kInternal, kExitFailed, ""};
  for (const Status& known : kStatuses) {
    if (known.status == reply.status) status = known;
  }
  const bool is_problem = reply.header("content-type").starts_with("application/problem+json");
  if (!is_problem) {
    throw Refusal(status.code, status.exit_code,
                  "answered " + std::to_string(reply.status) +
                      " without a problem report: is this pared's address?",
                  url);
  }
  const Json problem = reply.body.empty() ? Json::object() : ParseJson(reply.body);
  std::string message =
      problem.value("detail", "the daemon answered " + std::to_string(reply.status));
  if (*status.hint != '\0') message += std::string("; ") + status.hint;
  if (reply.status == 404 && !hint.empty()) message += "; " + hint;
  throw Refusal(status.code, status.exit_code, message, PlaceOf(problem));
}

}  // namespace

int ExitCodeOf(const Error& error) {
  if (const auto* refusal = dynamic_cast<const Refusal*>(&error)) return refusal->exit_code();
  switch (error.code()) {
    case ErrorCode::kInvalidArgument:
    case ErrorCode::kUnsupported:
      return kExitRefused;
    case ErrorCode::kNotFound:
      return kExitNotFound;
    case ErrorCode::kConflict:
      return kExitConflict;
    case ErrorCode::kUnavailable:
      return kExitUnreachable;
    default:
      return kExitFailed;
  }
}

std::string TargetOf(const std::string& path, const Query& query) {
  std::string target = path;
  char separator = '?';
  for (const auto& [name, value] : query) {
    if (value.empty()) continue;
    target += separator + name + "=" + PercentEncode(value);
    separator = '&';
  }
  return target;
}

Daemon::Daemon(const Access& access)
    : http_(ParseUrl(access.url), {.ca_file = access.ca_file}), token_(access.token) {}

void Daemon::Authorize(HttpRequest& request) const {
  if (!token_.empty()) request.headers["authorization"] = "Bearer " + token_;
}

HttpReply Daemon::Exchange(HttpRequest request, const BodySink& sink) const {
  Authorize(request);
  HttpReply reply = http_.Send(request, sink);
  if (reply.status >= 400) ThrowRefusal(reply, url() + request.target);
  return reply;
}

std::optional<HttpReply> Daemon::TryExchange(HttpRequest request, const BodySink& sink) const {
  Authorize(request);
  std::optional<HttpReply> reply = http_.TrySend(request, sink);
  if (reply && reply->status >= 400) ThrowRefusal(*reply, url() + request.target);
  return reply;
}

std::optional<HttpReply> Daemon::Head(const std::string& target) const {
  HttpRequest request = {.method = "HEAD", .target = target};
  Authorize(request);
  HttpReply reply = http_.Send(request);
  if (reply.status == 404) return std::nullopt;
  if (reply.status >= 400) ThrowRefusal(reply, url() + target);
  return reply;
}

Json Daemon::Get(const std::string& target, const std::string& hint) const {
  HttpRequest request = {.target = target};
  Authorize(request);
  const HttpReply reply = http_.Send(request);
  if (reply.status >= 400) ThrowRefusal(reply, url() + target, hint);
  if (!reply.is_whole) throw Error(ErrorCode::kUnavailable, "the answer broke off", url());
  return ParseJson(reply.body);
}

Json Daemon::Send(const std::string& method, const std::string& target, const Json& body) const {
  HttpRequest request = {.method = method, .target = target};
  if (!body.is_null()) {
    request.headers["content-type"] = "application/json";
    request.body = DumpJson(body);
  }
  const HttpReply reply = Exchange(std::move(request));
  if (!reply.is_whole) throw Error(ErrorCode::kUnavailable, "the answer broke off", url());
  return reply.body.empty() ? Json() : ParseJson(reply.body);
}

}  // namespace pared
