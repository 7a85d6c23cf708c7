#include "api/files.h"

#include <algorithm>
#include <charconv>
#include <optional>
#include <string_view>

#include "api/router.h"
#include "base/error.h"
#include "config/sha256.h"

namespace pared {
namespace {

std::string HeaderOf(const Request& request, const std::string& name) {
  const auto header = request.headers.find(name);
  return header == request.headers.end() ? "" : header->second;
}

struct Range {
  int64_t first = 0, last = 0;  // both are of the range; last < first: it has no byte of the file
};

std::optional<int64_t> NumberOf(std::string_view text) {
  int64_t value = 0;
  const auto [rest, code] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (code != std::errc() || rest != text.data() + text.size() || value < 0) return std::nullopt;
  return value;
}

// RFC 9110, section 14.1.2: "bytes=0-99", "bytes=100-", "bytes=-100". nullopt: none, or of another
// unit, or several, all of which may be answered by the whole file.
std::optional<Range> RangeOf(std::string_view header, int64_t bytes) {
  constexpr std::string_view kUnit = "bytes=";
  if (!header.starts_with(kUnit)) return std::nullopt;
  header.remove_prefix(kUnit.size());
  const size_t dash = header.find('-');
  if (dash == header.npos) return std::nullopt;
  const std::optional<int64_t> first = NumberOf(header.substr(0, dash));
  const std::optional<int64_t> last = NumberOf(header.substr(dash + 1));
  const bool is_open = dash + 1 == header.size();
  if (dash == 0 && last) return Range{std::max<int64_t>(bytes - *last, 0), bytes - 1};
  if (!first || (!last && !is_open) || (last && *last < *first)) return std::nullopt;
  if (*first >= bytes) return Range{*first, -1};
  return Range{*first, is_open ? bytes - 1 : std::min(*last, bytes - 1)};
}

std::string Quoted(const std::string& tag) { return "\"" + tag + "\""; }

Response TaggedResponse(const std::string& tag) {
  Response response;
  response.headers["etag"] = Quoted(tag);
  response.headers["cache-control"] = "private, max-age=31536000, immutable";
  response.headers["accept-ranges"] = "bytes";
  return response;
}

}  // namespace

bool NamesTag(const Request& request, const std::string& quoted_tag) {
  const std::string header = HeaderOf(request, "if-none-match");
  return header == "*" || header.find(quoted_tag) != std::string::npos;
}

std::optional<Response> NotModified(const Request& request, const std::string& tag) {
  if (!NamesTag(request, Quoted(tag))) return std::nullopt;
  Response response = TaggedResponse(tag);
  response.status = 304;
  return response;
}

Response FileResponse(const Request& request, const std::filesystem::path& file,
                      const std::string& tag, const std::string& name) {
  if (const std::optional<Response> known = NotModified(request, tag)) return *known;
  Response response = TaggedResponse(tag);
  response.type = "application/octet-stream";
  response.headers["content-disposition"] = "attachment; filename=\"" + name + "\"";
  response.file = file;
  response.file_bytes = static_cast<int64_t>(std::filesystem::file_size(file));
  const std::string if_range = HeaderOf(request, "if-range");
  if (!if_range.empty() && if_range != Quoted(tag)) return response;
  const std::optional<Range> range = RangeOf(HeaderOf(request, "range"), response.file_bytes);
  if (!range) return response;
  const std::string size = std::to_string(response.file_bytes);
  if (range->last < range->first) {
    Response refusal = Problem(416, "range not satisfiable", "the file has " + size + " bytes");
    refusal.headers["content-range"] = "bytes */" + size;
    return refusal;
  }
  response.status = 206;
  response.headers["content-range"] =
      "bytes " + std::to_string(range->first) + "-" + std::to_string(range->last) + "/" + size;
  response.file_first = range->first;
  response.file_bytes = range->last - range->first + 1;
  return response;
}

void CheckDigest(const Request& request) {
  for (const char* name : {"content-digest", "repr-digest"}) {
    const std::string header = HeaderOf(request, name);
    if (header.empty()) continue;
    constexpr std::string_view kAlgorithm = "sha-256=:";
    const size_t begin = header.find(kAlgorithm);
    const size_t end = begin == header.npos ? begin : header.find(':', begin + kAlgorithm.size());
    if (end == header.npos) {
      throw Error(ErrorCode::kInvalidArgument,
                  "must be sha-256=:BASE64: as in RFC 9530, is \"" + header + "\"", name);
    }
    const size_t first = begin + kAlgorithm.size();
    const std::string got = Sha256OfFile(request.upload).base64;
    if (header.substr(first, end - first) == got) continue;
    throw Error(ErrorCode::kInvalidArgument, "what arrived has sha-256=:" + got + ":", name);
  }
}

}  // namespace pared
