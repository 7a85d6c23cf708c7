// A request and its answer, free of HTTP's machinery: handlers are tested with these alone.

#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <string>

namespace pared {

enum class Verb { kGet, kPost, kPut, kDelete };

using Headers = std::map<std::string, std::string>;  // names in lower case
using Params = std::map<std::string, std::string>;   // percent-decoded

struct Request {
  Verb verb = Verb::kGet;
  std::string path;  // as it came, without the query
  Params params;     // of the route's pattern: {id}, {name}
  Params query;
  Headers headers;
  std::string body;
  std::filesystem::path upload;  // of an upload route: the body, in a file that the server removes
};

struct Response {
  int status = 200;
  std::string type = "application/json";
  std::string body;
  Headers headers;
  std::filesystem::path file;  // where it is not empty: the body, streamed
  bool pending = false;  // not yet: the server sleeps 200 ms and asks again, then sends it anyway
};

using Handler = std::function<Response(const Request&)>;

}  // namespace pared
