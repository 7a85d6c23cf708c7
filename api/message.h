// A request and its answer, free of HTTP's machinery: handlers are tested with these alone.

#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>

namespace pared {

enum class Verb { kGet, kPost, kPut, kPatch, kDelete };

using Headers = std::map<std::string, std::string>;  // names in lower case
using Params = std::map<std::string, std::string>;   // percent-decoded

struct Request {
  Verb verb = Verb::kGet;
  std::string path;        // as it came, without the query
  std::string query_text;  // as it came, without '?'
  Params params;           // of the route's pattern: {id}, {name}
  Params query;            // filled in by the router
  Headers headers;
  std::string body;
  int64_t waited_ms = 0;         // since the first time that this request was asked
  std::filesystem::path upload;  // of an upload route: the file that the body is in
};

// What a stream has to say by now, perhaps nothing; nullopt: it has ended.
using Stream = std::function<std::optional<std::string>()>;

struct Response {
  int status = 200;
  std::string type = "application/json";
  std::string body;
  Headers headers;
  std::filesystem::path file;          // where it is not empty: the body, streamed
  int64_t file_first = 0;              // the first byte of it that is sent
  int64_t file_bytes = 0;              // how many are
  std::shared_ptr<const void> keeper;  // keeps the file there until it has been sent
  Stream stream;         // where it is set: the body, asked every 200 ms until it ends
  bool pending = false;  // not yet: the server sleeps 200 ms and asks again, then sends it anyway
};

using Handler = std::function<Response(const Request&)>;

}  // namespace pared
