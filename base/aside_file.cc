#include "base/aside_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <string>

namespace pared {

AsideFile CreateAside(const std::filesystem::path& target) {
  static std::atomic<int64_t> counter = 0;
  // Not longer than the name that it stands for may be.
  std::filesystem::path path = target.parent_path() / ("." + std::to_string(::getpid()) + "-" +
                                                       std::to_string(counter++) + ".part");
  const int descriptor = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  return {std::move(path), descriptor};
}

}  // namespace pared
