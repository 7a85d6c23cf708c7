#include "api/web.h"

#include <algorithm>
#include <string>

#include "base/error.h"
#include "config/sha256.h"

namespace pared {
namespace {

// Nothing from elsewhere, nothing inline, in nobody's frame.
constexpr const char* kContentSecurityPolicy =
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

std::string EntityTag(std::string_view bytes) {
  Sha256 sha256;
  sha256.Update(std::as_bytes(std::span(bytes)));
  return '"' + sha256.Finish().substr(0, 32) + '"';
}

Response Answer(const WebFile& file, const Request& request) {
  Response response;
  response.type = std::string(file.type);
  response.headers["etag"] = EntityTag(file.bytes);
  response.headers["cache-control"] = "no-cache";  // ask whether it has changed
  response.headers["content-security-policy"] = kContentSecurityPolicy;
  response.headers["x-content-type-options"] = "nosniff";
  response.headers["referrer-policy"] = "no-referrer";
  const auto known = request.headers.find("if-none-match");
  if (known != request.headers.end() && known->second == response.headers["etag"]) {
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
  return Answer(*file, request);
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
