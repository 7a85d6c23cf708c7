// A file under another name, beside the one that it gets when it is whole.

#pragma once

#include <filesystem>

namespace pared {

struct AsideFile {
  std::filesystem::path path;
  int descriptor = -1;  // for writing, the caller's to close; -1: errno says why there is none
};

// A new file in the folder of `target`, under a name that no other has; never through a link that
// somebody left there.
AsideFile CreateAside(const std::filesystem::path& target);

}  // namespace pared
