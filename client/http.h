// One HTTP/1.1 request and its answer, over TCP or TLS.

#pragma once

#include <chrono>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>

namespace pared {

// http://HOST[:PORT][/PREFIX] or https://...; an IPv6 address stands in brackets.
struct Url {
  bool is_tls = false;
  std::string host;  // without brackets
  std::string port;
  std::string prefix;  // before every target; without a slash at its end

  std::string text() const;
  std::string authority() const;  // as the header Host has it
};

// Throws kInvalidArgument at `text`.
Url ParseUrl(const std::string& text);

struct HttpRequest {
  std::string method = "GET";
  std::string target;  // path and query, percent-encoded
  std::map<std::string, std::string> headers = {};
  std::string body = {};
  std::filesystem::path file = {};  // where it is not empty: the body, streamed
};

struct HttpReply {
  int status = 0;
  std::map<std::string, std::string> headers;  // names in lower case
  std::string body;
  bool is_whole = false;  // the body came to its end

  std::string header(const std::string& name) const;  // empty: there is none
};

// Takes the body of an answer with a status of 2xx piece by piece; false: enough. The answer's
// status and headers are there at the first call, the body stays empty.
using BodySink = std::function<bool(const HttpReply& reply, std::string_view piece)>;

struct HttpSettings {
  std::string ca_file = {};  // PEM of the authorities to trust; empty: the system's
  std::chrono::seconds connect_time{10};
  std::chrono::seconds idle_time{90};  // of a connection on which nothing comes or goes
};

class HttpClient {
 public:
  HttpClient(Url url, HttpSettings settings) : url_(std::move(url)), settings_(settings) {}

  // Throws kUnavailable where no answer comes: `where` is the URL. An answer that breaks off after
  // its header came is given as it is, with is_whole false.
  HttpReply Send(const HttpRequest& request, const BodySink& sink = {}) const;
  // nullopt in place of kUnavailable, for a caller that tries again.
  std::optional<HttpReply> TrySend(const HttpRequest& request, const BodySink& sink = {}) const;

  const Url& url() const { return url_; }

 private:
  Url url_;
  HttpSettings settings_;
};

// `text` with all but letters, digits and -._~ as %XX.
std::string PercentEncode(std::string_view text);

}  // namespace pared
