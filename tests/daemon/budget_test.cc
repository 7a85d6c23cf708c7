#include "daemon/budget.h"

#include <gtest/gtest.h>

#include <future>

namespace pared {
namespace {

TEST(Budget, ARaiseLetsInWhoWaits) {
  Budget budget({.memory_mb = 100, .threads = 2});
  const auto first = budget.Take({.memory_mb = 100, .threads = 1}, {});
  std::promise<void> waits;
  auto second = std::async(std::launch::async, [&] {
    return budget.Take({.memory_mb = 150, .threads = 1}, {}, [&] { waits.set_value(); });
  });
  waits.get_future().wait();
  budget.SetTotal({.memory_mb = 250, .threads = 2});
  EXPECT_EQ(second.get()->memory_mb, 150);
  budget.GiveBack(*first);
}

TEST(Budget, ACutHoldsOnceJobsHaveGivenBack) {
  Budget budget({.memory_mb = 100, .threads = 2});
  const auto first = budget.Take({.memory_mb = 80, .threads = 1}, {});
  budget.SetTotal({.memory_mb = 50, .threads = 2});
  std::promise<void> waits;
  auto second = std::async(std::launch::async, [&] {
    return budget.Take({.memory_mb = 60, .threads = 1}, {}, [&] { waits.set_value(); });
  });
  waits.get_future().wait();
  budget.GiveBack(*first);
  EXPECT_EQ(second.get()->memory_mb, 50);
}

TEST(Budget, EndsToWaitWhenStopped) {
  Budget budget({.memory_mb = 100, .threads = 2});
  const auto first = budget.Take({.memory_mb = 100, .threads = 2}, {});
  std::stop_source stop;
  EXPECT_FALSE(
      budget.Take({.memory_mb = 1, .threads = 1}, stop.get_token(), [&] { stop.request_stop(); })
          .has_value());
  budget.GiveBack(*first);
}

}  // namespace
}  // namespace pared
