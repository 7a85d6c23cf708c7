// A free list for each size class. There are four classes to each power of two, so at most a fifth
// of a buffer is unused, and a model of fixed shapes finds all its buffers here on the second run.

#include "evaluator/memory.h"

#include <algorithm>
#include <array>
#include <bit>
#include <mutex>
#include <new>
#include <vector>

namespace pared {
namespace {

constexpr size_t kAlignment = 64;
constexpr size_t kReadablePastEnd = 64;  // vector loads of kernels may cross the end
constexpr size_t kClassCount = 4 * 64;

// Class c holds buffers of (4 + c % 4) << (c / 4) bytes.
size_t ClassOf(size_t bytes) {
  const size_t shift = bytes <= 4 ? 0 : static_cast<size_t>(std::bit_width(bytes - 1)) - 3;
  const size_t quarter = (bytes + (size_t{1} << shift) - 1) >> shift;  // 5 to 8
  return quarter == 8 ? (shift + 1) * 4 : shift * 4 + (quarter - 4);
}

size_t ClassBytes(size_t size_class) { return (4 + size_class % 4) << (size_class / 4); }

}  // namespace

struct BufferPool::State {
  ~State() {
    for (const std::vector<void*>& list : free) {
      for (void* buffer : list) ::operator delete (buffer, std::align_val_t{kAlignment});
    }
  }

  void* Take(size_t size_class, size_t activation_bytes) {
    {
      const std::lock_guard lock(mutex);
      live_bytes += activation_bytes;
      peak_bytes = std::max(peak_bytes, live_bytes);
      taken_bytes += ClassBytes(size_class);
      taken_peak_bytes = std::max(taken_peak_bytes, taken_bytes);
      std::vector<void*>& list = free[size_class];
      if (!list.empty()) {
        void* buffer = list.back();
        list.pop_back();
        free_bytes -= ClassBytes(size_class);
        return buffer;
      }
    }
    return ::operator new (ClassBytes(size_class), std::align_val_t{kAlignment});
  }

  // Keeps no more than was ever in use at once, so that changing shapes do not pile up buffers.
  void Return(void* buffer, size_t size_class, size_t activation_bytes) noexcept {
    {
      const std::lock_guard lock(mutex);
      live_bytes -= activation_bytes;
      taken_bytes -= ClassBytes(size_class);
      std::vector<void*>& list = free[size_class];
      const size_t kept = taken_bytes + free_bytes + ClassBytes(size_class);
      if (kept <= taken_peak_bytes + taken_peak_bytes / 4 && list.size() < list.capacity()) {
        list.push_back(buffer);
        free_bytes += ClassBytes(size_class);
        return;
      }
    }
    ::operator delete (buffer, std::align_val_t{kAlignment});
  }

  std::mutex mutex;
  std::array<std::vector<void*>, kClassCount> free;              // all guarded by mutex
  size_t live_bytes = 0, peak_bytes = 0;                         // of activations, as asked for
  size_t taken_bytes = 0, taken_peak_bytes = 0, free_bytes = 0;  // by class
};

BufferPool::BufferPool() : state_(std::make_shared<State>()) {
  constexpr size_t kBuffersKept = 256;  // of one class; reserved, for Return must not throw
  for (std::vector<void*>& list : state_->free) list.reserve(kBuffersKept);
}

BufferPool::~BufferPool() = default;

std::shared_ptr<std::byte> BufferPool::Allocate(size_t size, Use use) {
  const size_t size_class = ClassOf(std::max(size, kAlignment) + kReadablePastEnd);
  const size_t counted = use == Use::kActivation ? size : 0;
  void* buffer = state_->Take(size_class, counted);
  return std::shared_ptr<std::byte>(static_cast<std::byte*>(buffer),
                                    [state = state_, size_class, counted](std::byte* p) {
                                      state->Return(p, size_class, counted);
                                    });
}

int64_t BufferPool::peak_bytes() const {
  const std::lock_guard lock(state_->mutex);
  return static_cast<int64_t>(state_->peak_bytes);
}

}  // namespace pared
