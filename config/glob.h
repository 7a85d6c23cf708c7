// Patterns over the paths of files.

#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace pared {

// '*' and '?' stand for characters other than '/', "[a-z]" for one of a set, a segment "**" for any
// number of folders. A pattern without '/' is matched against the file's name alone, as in
// .gitignore; one with '/' against the whole path, which is relative and has '/' between its parts.
bool MatchesGlob(std::string_view pattern, std::string_view path);

bool MatchesAny(const std::vector<std::string>& patterns, std::string_view path);

}  // namespace pared
