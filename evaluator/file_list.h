// The files of a dataset, with a class each or none: pictures, sound.

#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace pared {

struct ListedFile {
  std::string path;    // below the folder
  int64_t label = -1;  // none
};

struct FileList {
  std::vector<ListedFile> files;
  bool has_labels = false;
};

// A folder for each class, in the order of their names, or the files themselves without classes;
// those with one of `extensions` (".wav"; case does not matter). Throws kNotFound where the folder
// cannot be read, kInvalidArgument where it holds both.
FileList ReadFolders(const std::filesystem::path& folder,
                     std::span<const std::string_view> extensions);

// A text file of lines PATH or PATH CLASS, the class a number after the last blank or comma. Throws
// kNotFound, or kInvalidArgument at "FILE:LINE".
FileList ReadFileList(const std::filesystem::path& list);

// Throws kInvalidArgument at `where` unless the path is relative and climbs nowhere.
void CheckBelow(const std::filesystem::path& path, const std::string& where);

}  // namespace pared
