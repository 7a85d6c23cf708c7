// Buffers of activations, recycled from node to node and from run to run.

#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace pared {

// Thread-safe. Buffers may outlive the pool: they are then freed by their last owner.
class BufferPool {
 public:
  BufferPool();
  ~BufferPool();
  BufferPool(const BufferPool&) = delete;
  BufferPool& operator=(const BufferPool&) = delete;

  // What is counted by peak_bytes.
  enum class Use { kActivation, kTemporary };

  // `size` bytes, 64-byte aligned, with 64 more behind them that may be read. Not initialized. Back
  // in the pool when the last copy of the pointer is gone.
  std::shared_ptr<std::byte> Allocate(size_t size, Use use);

  // The largest sum of bytes of activations alive at once so far.
  int64_t peak_bytes() const;
  // What the pool holds of the system's memory, temporary buffers included.
  int64_t arena_bytes() const;

 private:
  struct State;
  std::shared_ptr<State> state_;
};

// A pool for each of the runs that are on at once: the buffers of a run lie together, and those of
// the next one on the same thread are still in its caches. Thread-safe.
class BufferPools {
 public:
  // Lends one that nobody else has. Lease's end gives it back, which must come before this ends.
  class Lease {
   public:
    explicit Lease(BufferPools& pools);
    ~Lease();
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;
    BufferPool& pool() const { return *pool_; }

   private:
    BufferPools& pools_;
    BufferPool* pool_ = nullptr;
  };

  // Of the pool that needed most.
  int64_t peak_bytes() const;

 private:
  struct Idle {
    std::thread::id thread;  // which had it last
    BufferPool* pool;
  };
  mutable std::mutex mutex_;
  std::vector<std::unique_ptr<BufferPool>> all_;
  std::vector<Idle> idle_;
};

}  // namespace pared
