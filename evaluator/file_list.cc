#include "evaluator/file_list.h"

#include <algorithm>
#include <cctype>
#include <fstream>

#include "base/error.h"

namespace pared {
namespace {

namespace fs = std::filesystem;

constexpr size_t kLineBytesMax = 4096;

[[noreturn]] void Refuse(const std::string& where, const std::string& what) {
  throw Error(ErrorCode::kInvalidArgument, what, where);
}

bool IsOneOf(const fs::path& path, std::span<const std::string_view> extensions) {
  std::string extension = path.extension();
  std::ranges::transform(extension, extension.begin(),
                         [](unsigned char c) { return std::tolower(c); });
  return std::ranges::find(extensions, extension) != extensions.end();
}

std::vector<fs::path> SortedEntries(const fs::path& folder) {
  std::vector<fs::path> entries;
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder, error))
    entries.push_back(entry.path());
  if (error) throw Error(ErrorCode::kNotFound, "is no folder that can be read", folder.string());
  std::ranges::sort(entries);
  return entries;
}

}  // namespace

FileList ReadFolders(const fs::path& folder, std::span<const std::string_view> extensions) {
  FileList list;
  int64_t label = 0;
  for (const fs::path& entry : SortedEntries(folder)) {
    if (!fs::is_directory(entry)) {
      if (IsOneOf(entry, extensions)) list.files.push_back({entry.filename(), -1});
      continue;
    }
    list.has_labels = true;
    for (const fs::path& file : SortedEntries(entry)) {
      if (IsOneOf(file, extensions))
        list.files.push_back({entry.filename() / file.filename(), label});
    }
    ++label;
  }
  const bool has_loose =
      std::ranges::any_of(list.files, [](const ListedFile& file) { return file.label < 0; });
  if (list.has_labels && has_loose) {
    Refuse(folder.string(), "holds files beside folders of classes: which class do they have?");
  }
  return list;
}

FileList ReadFileList(const fs::path& path) {
  std::ifstream in(path);
  if (!in) throw Error(ErrorCode::kNotFound, "cannot be read", path.string());
  FileList list;
  std::string line;
  for (int64_t number = 1; std::getline(in, line); ++number) {
    const std::string where = path.string() + ":" + std::to_string(number);
    if (line.size() > kLineBytesMax) Refuse(where, "is longer than a path");
    if (!line.empty() && line.back() == '\r') line.pop_back();
    if (line.empty()) continue;
    // The class is what follows the last blank, if that is a number: paths may hold blanks.
    const size_t blank = line.find_last_of(" \t,");
    const std::string last = blank == std::string::npos ? "" : line.substr(blank + 1);
    const bool is_labelled = !last.empty() && last.size() < 10 &&
                             last.find_first_not_of("0123456789") == std::string::npos;
    ListedFile file = {is_labelled ? line.substr(0, blank) : line,
                       is_labelled ? std::stoll(last) : -1};
    CheckBelow(file.path, where);
    if (list.files.empty()) list.has_labels = is_labelled;
    if (list.has_labels != is_labelled)
      Refuse(where, "has a class where other lines have none, or none where they have");
    list.files.push_back(std::move(file));
  }
  return list;
}

void CheckBelow(const fs::path& path, const std::string& where) {
  const bool climbs = std::ranges::find(path, fs::path("..")) != path.end();
  if (path.empty() || path.is_absolute() || climbs) {
    Refuse(where, "must be a path below the dataset's folder, is \"" + path.string() + "\"");
  }
}

}  // namespace pared
