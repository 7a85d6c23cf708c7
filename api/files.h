// Files as answers, with what HTTP has for them: entity tags, ranges, digests.

#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "api/message.h"

namespace pared {

// A file that never changes, under a strong entity tag: 200, 304 (If-None-Match), 206 or 416
// (Range, If-Range; of one range, several are answered by the whole file).
Response FileResponse(const Request& request, const std::filesystem::path& file,
                      const std::string& tag, const std::string& name);

// The answer to a client that has the file already; nullopt: it has not.
std::optional<Response> NotModified(const Request& request, const std::string& tag);

// Whether If-None-Match names this tag, which is in quotes: a list of tags, weak ones included
// (RFC 9110, section 13.1.2).
bool NamesTag(const Request& request, const std::string& quoted_tag);

// Compares a body that came in a file with the header Content-Digest or Repr-Digest (RFC 9530).
// Throws kInvalidArgument where it is another, or where the header has no sha-256.
void CheckDigest(const Request& request);

}  // namespace pared
