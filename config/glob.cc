#include "config/glob.h"

#include <fnmatch.h>

#include <algorithm>
#include <span>

namespace pared {
namespace {

std::vector<std::string> Split(std::string_view path) {
  std::vector<std::string> parts;
  for (size_t begin = 0; begin <= path.size();) {
    const size_t end = std::min(path.find('/', begin), path.size());
    parts.emplace_back(path.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

// row[i]: whether the segments of the pattern so far match the first i parts of the path. O(n m),
// whatever the number of "**".
bool MatchesParts(std::span<const std::string> pattern, std::span<const std::string> path) {
  std::vector<bool> row(path.size() + 1, false);
  row[0] = true;
  for (const std::string& segment : pattern) {
    std::vector<bool> next(path.size() + 1, false);
    const bool is_any = segment == "**";
    next[0] = is_any && row[0];
    for (size_t i = 1; i <= path.size(); ++i) {
      next[i] = is_any ? row[i] || next[i - 1]
                       : row[i - 1] && fnmatch(segment.c_str(), path[i - 1].c_str(), 0) == 0;
    }
    row = std::move(next);
  }
  return row.back();
}

}  // namespace

bool MatchesGlob(std::string_view pattern, std::string_view path) {
  if (pattern.find('/') == std::string_view::npos) {
    path.remove_prefix(std::min(path.size(), path.rfind('/') + 1));
  }
  return MatchesParts(Split(pattern), Split(path));
}

bool MatchesAny(const std::vector<std::string>& patterns, std::string_view path) {
  return std::ranges::any_of(
      patterns, [&](const std::string& pattern) { return MatchesGlob(pattern, path); });
}

}  // namespace pared
