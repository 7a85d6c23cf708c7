#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <stop_token>

namespace pared {

// Waits a second before another try, unless stopped before.
inline void Pause(std::stop_token stop) {
  std::mutex mutex;
  std::unique_lock lock(mutex);
  std::condition_variable_any().wait_for(lock, stop, std::chrono::seconds(1), [] { return false; });
}

}  // namespace pared
