#include "evaluator/memory.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <thread>
#include <vector>

namespace pared {
namespace {

using Buffer = std::shared_ptr<std::byte>;
constexpr auto kActivation = BufferPool::Use::kActivation;
constexpr auto kTemporary = BufferPool::Use::kTemporary;

// What a network does: each layer's input goes when its output is made.
void RunChain(BufferPool& pool, const std::vector<size_t>& sizes) {
  Buffer last;
  for (const size_t size : sizes) last = pool.Allocate(size, kActivation);
}

TEST(BufferPool, PeakCountsActivationsAliveAtOnce) {
  BufferPool pool;
  const Buffer temporary = pool.Allocate(1000, kTemporary);
  RunChain(pool, {100, 200, 50, 300});
  EXPECT_EQ(pool.peak_bytes(), 350);  // 50 and 300
}

TEST(BufferPool, LaterRunsNeedNoMoreMemory) {
  BufferPool pool;
  const std::vector<size_t> sizes = {1 << 20, 3 << 20, 100, 2 << 20, 2 << 20, 5 << 19, 64};
  for (int run = 0; run < 3; ++run) RunChain(pool, sizes);
  const int64_t learned = pool.arena_bytes();
  EXPECT_GE(learned, pool.peak_bytes());
  EXPECT_LE(learned, 2 * pool.peak_bytes());
  for (int run = 0; run < 5; ++run) RunChain(pool, sizes);
  EXPECT_EQ(pool.arena_bytes(), learned);
}

TEST(BufferPools, RunsAtOnceHaveEachTheirOwn) {
  BufferPools pools;
  BufferPool* first = nullptr;
  BufferPool* second = nullptr;
  {
    const BufferPools::Lease lease(pools);
    first = &lease.pool();
    RunChain(*first, {100, 200});
    std::thread([&] {
      const BufferPools::Lease other(pools);
      second = &other.pool();
      RunChain(*second, {500, 100});
    }).join();
  }
  EXPECT_NE(first, second);
  EXPECT_EQ(pools.peak_bytes(), 600);
  std::thread([&] { second = &BufferPools::Lease(pools).pool(); }).join();
  EXPECT_EQ(&BufferPools::Lease(pools).pool(), first);  // its thread had it last
}

TEST(BufferPool, BuffersNeverOverlap) {
  BufferPool pool;
  std::mt19937 random(3);
  struct Held {
    Buffer buffer;
    size_t size;
    unsigned char mark;
  };
  std::vector<Held> held;
  const auto check = [](const Held& h) {
    for (size_t i = 0; i < h.size; ++i) {
      ASSERT_EQ(std::to_integer<unsigned char>(h.buffer.get()[i]), h.mark);
    }
  };
  for (int step = 0; step < 3000; ++step) {
    if (!held.empty() && random() % 2 == 0) {
      std::swap(held[random() % held.size()], held.back());
      check(held.back());
      held.pop_back();
    } else {
      const size_t size = 1 + random() % 5000;
      Held h{pool.Allocate(size, kActivation), size, static_cast<unsigned char>(step)};
      ASSERT_EQ(reinterpret_cast<uintptr_t>(h.buffer.get()) % 64, 0U);
      std::memset(h.buffer.get(), h.mark, size + 64);  // the slack is its own as well
      held.push_back(std::move(h));
    }
  }
  for (const Held& h : held) check(h);
}

TEST(BufferPool, BuffersMayOutliveThePoolAndComeBackFromOtherThreads) {
  Buffer kept;
  {
    BufferPool pool;
    kept = pool.Allocate(100, kActivation);
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
      threads.emplace_back([&pool] {
        for (size_t i = 0; i < 500; ++i) RunChain(pool, {10 + i, 3000 - i, 500});
      });
    }
    for (std::thread& thread : threads) thread.join();
  }
  std::memset(kept.get(), 1, 100);
}

// Each is a mapping of its own: giving one back must not take a page of another.
TEST(BufferPool, LargeBuffersOfAnySizeComeAndGoByThemselves) {
  std::vector<std::pair<Buffer, size_t>> alive;
  for (size_t i = 0; i < 200; ++i) {
    const size_t size = (size_t{2} << 20) + i * 4099;
    BufferPool pool;
    alive.emplace_back(pool.Allocate(size, kActivation), size);
    std::memset(alive.back().first.get(), static_cast<int>(i), size);
    if (i % 3 == 2) alive.erase(alive.begin() + static_cast<int64_t>(alive.size() / 2));
  }
  for (const auto& [buffer, size] : alive) {
    const std::byte first = *buffer;
    EXPECT_EQ(std::count(buffer.get(), buffer.get() + size, first), static_cast<int64_t>(size));
  }
}

}  // namespace
}  // namespace pared
