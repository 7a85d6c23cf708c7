// Uploads: a file that arrives whole or in parts, before a model is made of it.
//
//   HEAD /v1/uploads/SHA256      404, or Upload-Offset: how much has arrived
//   PUT  /v1/uploads/SHA256      Content-Range: bytes FIRST-LAST/TOTAL, FIRST being that offset
//
// What of a part has arrived before its connection broke counts.

#include "storage/uploads.h"

#include <charconv>
#include <chrono>
#include <string_view>

#include "api/service.h"

namespace pared {
namespace {

struct Part {
  int64_t first = 0, last = 0, total = 0;
};

[[noreturn]] void RefuseRange(const std::string& header) {
  throw Error(
      ErrorCode::kInvalidArgument,
      "must be \"bytes FIRST-LAST/TOTAL\" with FIRST <= LAST < TOTAL, is \"" + header + "\"",
      "content-range");
}

// RFC 9110, section 14.4; the total must be known.
Part ParsePart(const std::string& header) {
  constexpr std::string_view kUnit = "bytes ";
  if (!header.starts_with(kUnit)) RefuseRange(header);
  const char* next = header.data() + kUnit.size();
  const char* end = header.data() + header.size();
  const auto take = [&](char after) {
    int64_t value = 0;
    const auto [rest, code] = std::from_chars(next, end, value);
    const bool is_at_end = after == '\0' ? rest == end : rest != end && *rest == after;
    if (code != std::errc() || value < 0 || !is_at_end) RefuseRange(header);
    next = rest + 1;
    return value;
  };
  Part part;
  part.first = take('-');
  part.last = take('/');
  part.total = take('\0');
  if (part.first > part.last || part.last >= part.total) RefuseRange(header);
  return part;
}

std::optional<Part> PartOf(const Request& request) {
  const auto header = request.headers.find("content-range");
  if (header == request.headers.end()) return std::nullopt;
  return ParsePart(header->second);
}

Response StateResponse(const Uploads& uploads, const std::string& sha256) {
  const std::optional<UploadState> state = uploads.Find(sha256);
  if (!state) throw Error(ErrorCode::kNotFound, "nothing of this has arrived", "{sha256}");
  Response response =
      JsonResponse({{"sha256", sha256}, {"offset", state->bytes}, {"is_whole", state->is_whole}});
  response.headers["upload-offset"] = std::to_string(state->bytes);
  response.headers["cache-control"] = "no-store";
  return response;
}

void CheckLength(const Request& request, const Part& part) {
  const auto length = request.headers.find("content-length");
  const std::string expected = std::to_string(part.last - part.first + 1);
  if (length != request.headers.end() && length->second == expected) return;
  throw Error(ErrorCode::kInvalidArgument,
              "must be " + expected + ", the length that Content-Range tells", "content-length");
}

}  // namespace

Response PlaceUpload(const Service& service, const Request& request) {
  const Uploads uploads(service.settings.UploadsDir());
  const std::string& sha256 = request.params.at("sha256");
  const std::optional<UploadState> state = uploads.Find(sha256);
  if (state && state->is_whole) return StateResponse(uploads, sha256);  // sent twice, kept once
  const std::optional<Part> part = PartOf(request);
  if (part) CheckLength(request, *part);
  if (part && part->total > service.settings.model_bytes_max) {
    return Problem(
        413, "body too large",
        "a model is at most " + std::to_string(service.settings.model_bytes_max) + " bytes long");
  }
  const auto length = request.headers.find("content-length");
  const int64_t whole_bytes = length == request.headers.end() ? 0 : std::stoll(length->second);
  uploads.Sweep(std::chrono::hours(service.settings.upload_hours), /*is_dry=*/false);
  const OpenUpload open = uploads.Append(sha256, part ? part->first : 0,
                                         part ? part->total - part->first : whole_bytes);
  Response response;
  response.file = open.part;
  response.keeper = open.lock;
  return response;
}

Response PutUpload(const Service& service, const Request& request) {
  const Uploads uploads(service.settings.UploadsDir());
  const std::string& sha256 = request.params.at("sha256");
  const std::optional<Part> part = PartOf(request);
  if (part && part->last + 1 < part->total) return StateResponse(uploads, sha256);
  uploads.Finish(sha256);
  Response response = StateResponse(uploads, sha256);
  response.status = 201;
  return response;
}

Response GetUpload(const Service& service, const Request& request) {
  return StateResponse(Uploads(service.settings.UploadsDir()), request.params.at("sha256"));
}

Response DeleteUpload(const Service& service, const Request& request) {
  Uploads(service.settings.UploadsDir()).Remove(request.params.at("sha256"));
  return JsonResponse({{"deleted", 1}});
}

}  // namespace pared
