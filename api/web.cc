#include "api/web.h"

#include <algorithm>
#include <string>
#include <vector>

#include "api/files.h"
#include "base/error.h"
#include "config/sha256.h"

namespace pared {
namespace {

// Nothing from elsewhere, nothing inline, in nobody's frame.
constexpr const char* kContentSecurityPolicy =
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

// Of each file, in the order of WebFiles; hashed once.
const std::vector<std::string>& EntityTags() {
  static const std::vector<std::string> tags = [] {
    std::vector<std::string> made;
    for (const WebFile& file : WebFiles()) {
      made.push_back('"' + Sha256Of(file.bytes).substr(0, 32) + '"');
    }
    return made;
  }();
  return tags;
}

Response Answer(const WebFile& file, const std::string& tag, const Request& request) {
  Response response;
  response.type = std::string(file.type);
  response.headers["etag"] = tag;
  response.headers["cache-control"] = "no-cache";  // ask whether it has changed
  response.headers["content-security-policy"] = kContentSecurityPolicy;
  response.headers["x-content-type-options"] = "nosniff";
  response.headers["referrer-policy"] = "no-referrer";
  if (NamesTag(request, tag)) {
    response.status = 304;
  } else {
    response.body = std::string(file.bytes);
  }
  return response;
}

Response AnswerByName(const std::string& name, const Request& request) {
  const std::span<const WebFile> files = WebFiles();
  const auto file = std::ranges::find(files, name, &WebFile::name);
  if (file == files.end()) {
    throw Error(ErrorCode::kNotFound, "the page has no file \"" + name + "\"");
  }
  return Answer(*file, EntityTags()[static_cast<size_t>(file - files.begin())], request);
}

}  // namespace

Response GetWebPage(const Service&, const Request& request) {
  return AnswerByName("index.html", request);
}

Response GetWebFile(const Service&, const Request& request) {
  return AnswerByName(request.params.at("name"), request);
}

bool IsWebPath(std::string_view path) { return path == "/" || path.starts_with("/web/"); }

}  // namespace pared
