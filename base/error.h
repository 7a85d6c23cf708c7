// The one exception type of pared.
//
// An Error is thrown where a fault is seen and caught at a boundary: the request, the step, the job
// and the process (docs/architecture.md, section 5).

#pragma once

#include <exception>
#include <string>
#include <utility>

namespace pared {

enum class ErrorCode {
  kInvalidArgument,  // the caller's input is wrong: HTTP 400
  kNotFound,         // the thing named does not exist: 404
  kConflict,         // the thing is in a state that forbids it: 409
  kUnsupported,      // valid, but pared cannot do it: 422
  kUnavailable,      // not now (queue or disk full): 503
  kInternal,         // anything else: 500
  kCancelled,        // somebody asked to stop; never leaves the daemon
};

// As jobs, runs and their readers know it: "invalid_argument".
inline const char* ErrorCodeName(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalidArgument:
      return "invalid_argument";
    case ErrorCode::kNotFound:
      return "not_found";
    case ErrorCode::kConflict:
      return "conflict";
    case ErrorCode::kUnsupported:
      return "unsupported";
    case ErrorCode::kUnavailable:
      return "unavailable";
    case ErrorCode::kInternal:
      return "internal";
    case ErrorCode::kCancelled:
      return "cancelled";
  }
  return "internal";
}

class Error : public std::exception {
 public:
  // `message` says what is wrong and what would be right; `where` is a JSON Pointer, a node or
  // value name, or a file.
  Error(ErrorCode code, std::string message, std::string where = "")
      : code_(code), message_(std::move(message)), where_(std::move(where)) {
    text_ = where_.empty() ? message_ : where_ + ": " + message_;
  }

  ErrorCode code() const { return code_; }
  const std::string& message() const { return message_; }
  const std::string& where() const { return where_; }
  const char* what() const noexcept override { return text_.c_str(); }

 private:
  ErrorCode code_;
  std::string message_;
  std::string where_;
  std::string text_;
};

}  // namespace pared
