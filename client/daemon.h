// The daemon as the client's commands see it: JSON in and out, refusals as errors that say what to
// do.

#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "client/http.h"
#include "config/fields.h"

namespace pared {

// What the program ends with; docs/pare.md lists them for scripts.
enum ExitCode {
  kExitDone = 0,
  kExitFailed = 1,       // anything that has no number of its own
  kExitRefused = 2,      // wrong usage, or the daemon refuses the request: 400, 413, 422
  kExitUnreachable = 3,  // no daemon answers, or it cannot now: 503
  kExitForbidden = 4,    // 401, 403
  kExitNotFound = 5,     // 404
  kExitConflict = 6,     // 409
  kExitJobFailed = 10,
  kExitJobCancelled = 11,
  kExitDiffers = 12,     // a run that was done again gave other bytes
  kExitWorse = 13,       // a batch is worse than the one before
  kExitGoalNotMet = 14,  // the job has models, none of which is as was asked for
};

// An answer of 4xx or 5xx.
class Refusal : public Error {
 public:
  Refusal(ErrorCode code, int exit_code, std::string message, std::string where)
      : Error(code, std::move(message), std::move(where)), exit_code_(exit_code) {}
  int exit_code() const { return exit_code_; }

 private:
  int exit_code_;
};

int ExitCodeOf(const Error& error);

using Query = std::vector<std::pair<std::string, std::string>>;

// `path` with a query; pairs with an empty value are left out.
std::string TargetOf(const std::string& path, const Query& query);

struct Access {
  std::string url = "http://127.0.0.1:8080";
  std::string token = {};  // empty: none is sent
  std::string ca_file = {};
};

class Daemon {
 public:
  explicit Daemon(const Access& access);

  // All throw Refusal, and kUnavailable where no daemon answers.
  // `hint` says what to do where the thing is not there (404).
  Json Get(const std::string& target, const std::string& hint = "") const;
  Json Send(const std::string& method, const std::string& target, const Json& body) const;
  // Any request, with the token added. A sink takes the body of a success.
  HttpReply Exchange(HttpRequest request, const BodySink& sink = {}) const;
  // nullopt where no daemon answers: for a caller that tries again.
  std::optional<HttpReply> TryExchange(HttpRequest request, const BodySink& sink = {}) const;

  // What GET would answer, without its body; nullopt: 404.
  std::optional<HttpReply> Head(const std::string& target) const;

  std::string url() const { return http_.url().text(); }

 private:
  void Authorize(HttpRequest& request) const;

  HttpClient http_;
  std::string token_;
};

}  // namespace pared
