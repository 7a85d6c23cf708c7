// What the jobs that run at once share.

#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <stop_token>

namespace pared {

// What jobs use, and what there is of it.
struct Resources {
  int64_t memory_mb = 0, threads = 0;
};

// The resources of the jobs that run at once.
class Budget {
 public:
  explicit Budget(Resources total) : total_(total), free_(total) {}

  // Waits until there is so much, and calls `on_wait` where it must; a job that wants more than
  // there ever is runs alone. Returns what to give back; nullopt: stopped.
  std::optional<Resources> Take(
      Resources wanted, std::stop_token stop, const std::function<void()>& on_wait = [] {});
  void GiveBack(Resources taken);
  // From now on there is so much. Where jobs have more than that, others wait until they end.
  void SetTotal(Resources total);

 private:
  std::mutex mutex_;
  std::condition_variable_any changed_;
  Resources total_, free_;  // guarded by mutex_; less than nothing is free after a cut
};

}  // namespace pared
