#include "api/auth.h"

#include <span>
#include <string>
#include <string_view>

#include "api/web.h"
#include "config/sha256.h"

namespace pared {
namespace {

// In a time that does not tell how much of them is equal.
bool AreEqual(std::string_view a, std::string_view b) {
  if (a.size() != b.size()) return false;
  unsigned difference = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    difference |=
        static_cast<unsigned char>(a[i]) ^ static_cast<unsigned>(static_cast<unsigned char>(b[i]));
  }
  return difference == 0;
}

// The token after "Bearer ", whose case does not matter (RFC 9110, section 11.1).
std::optional<std::string> BearerOf(const Headers& headers) {
  const auto header = headers.find("authorization");
  if (header == headers.end() || header->second.size() <= 7) return std::nullopt;
  std::string scheme = header->second.substr(0, 7);
  for (char& c : scheme) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  if (scheme != "bearer ") return std::nullopt;
  return header->second.substr(7);
}

Response Unauthorized(const std::string& challenge, const std::string& detail) {
  Response response = Problem(401, "unauthorized", detail);
  response.headers["www-authenticate"] = challenge;
  return response;
}

}  // namespace

std::optional<Response> RefuseStranger(const Settings& settings, const Request& request,
                                       int64_t now_ms) {
  if (settings.tokens.empty()) return std::nullopt;
  if (request.path == "/healthz" || request.path == "/readyz") return std::nullopt;
  if (IsWebPath(request.path)) return std::nullopt;
  const std::optional<std::string> bearer = BearerOf(request.headers);
  if (!bearer) return Unauthorized("Bearer", "needs the header \"Authorization: Bearer TOKEN\"");
  const std::string digest = Sha256Of(*bearer);
  const TokenSetting* found = nullptr;
  for (const TokenSetting& token : settings.tokens) {  // all of them, found or not
    if (AreEqual(token.sha256, digest)) found = &token;
  }
  const char* invalid = "Bearer error=\"invalid_token\"";
  if (found == nullptr) return Unauthorized(invalid, "this token is not known");
  if (found->expires_ms != 0 && found->expires_ms <= now_ms) {
    return Unauthorized(invalid, "this token has expired");
  }
  if (found->scope == TokenScope::kWrite || request.verb == Verb::kGet) return std::nullopt;
  Response response = Problem(403, "forbidden", "this token may only read");
  response.headers["www-authenticate"] = "Bearer error=\"insufficient_scope\", scope=\"write\"";
  return response;
}

}  // namespace pared
