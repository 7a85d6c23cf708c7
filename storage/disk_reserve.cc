#include "storage/disk_reserve.h"

#include <fcntl.h>
#include <unistd.h>

namespace pared {

void DiskReserve::Take() const noexcept {
  if (file_.empty()) return;
  const int fd = ::open(file_.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0) return;
  const bool is_taken = ::posix_fallocate(fd, 0, kBytes) == 0;
  ::close(fd);
  if (!is_taken) GiveUp();
}

void DiskReserve::GiveUp() const noexcept {
  if (!file_.empty()) ::unlink(file_.c_str());
}

}  // namespace pared
