#include "daemon/budget.h"

#include <algorithm>
#include <utility>

namespace pared {

std::optional<Resources> Budget::Take(Resources wanted, std::stop_token stop,
                                      const std::function<void()>& on_wait) {
  Resources taken;
  const auto fits = [&] {
    taken = {std::min(wanted.memory_mb, total_.memory_mb),
             std::min(wanted.threads, total_.threads)};
    return free_.memory_mb >= taken.memory_mb && free_.threads >= taken.threads;
  };
  std::unique_lock lock(mutex_);
  if (!fits()) {
    lock.unlock();  // nothing is called under the lock
    on_wait();
    lock.lock();
  }
  if (!changed_.wait(lock, stop, fits)) return std::nullopt;
  free_.memory_mb -= taken.memory_mb;
  free_.threads -= taken.threads;
  return taken;
}

void Budget::GiveBack(Resources taken) {
  {
    const std::lock_guard lock(mutex_);
    free_.memory_mb += taken.memory_mb;
    free_.threads += taken.threads;
  }
  changed_.notify_all();
}

void Budget::SetTotal(Resources total) {
  {
    const std::lock_guard lock(mutex_);
    free_.memory_mb += total.memory_mb - total_.memory_mb;
    free_.threads += total.threads - total_.threads;
    total_ = total;
  }
  changed_.notify_all();
}

}  // namespace pared
