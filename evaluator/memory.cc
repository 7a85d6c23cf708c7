// One arena, cut and merged like a heap: the smallest free range that fits is cut, and what comes
// back merges with the free ranges beside it.
//
//   chunk   [ used | free | used | used | free ......... ]
//
// A run releases each buffer after its last reader, so ranges are reused as lifetimes allow. While
// the pool learns how much a run needs, the arena may be several chunks; when the last buffer has
// come back they make way for one of their total size, and the next run asks the system for
// nothing.

#include "evaluator/memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <new>
#include <set>
#include <utility>
#include <vector>

namespace pared {
namespace {

constexpr size_t kAlignment = 64;
constexpr size_t kHugePage = size_t{2} << 20;
constexpr size_t kPage = size_t{64} << 10;  // or a multiple of it, on every machine
constexpr size_t kReadablePastEnd = 64;     // vector loads of kernels may cross the end

size_t RoundUp(size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

// A part of an arena. A large one is mapped by itself, on huge pages where the system has them,
// since rows of a tile lie far apart in large images: so far aligned, it would leave gaps in the
// heap that nothing else fits in.
class Chunk {
 public:
  explicit Chunk(size_t bytes) : bytes_(bytes) {
    if (!is_mapped()) {
      begin_ = static_cast<std::byte*>(::operator new (bytes, std::align_val_t{kAlignment}));
      return;
    }
    bytes_ = (bytes + kPage - 1) / kPage * kPage;
    const size_t mapped = bytes_ + kHugePage;
    void* const at =
        mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) throw std::bad_alloc();
    auto* const first = static_cast<std::byte*>(at);
    const size_t before = -reinterpret_cast<uintptr_t>(at) % kHugePage;
    begin_ = first + before;
    if (before > 0) munmap(first, before);
    munmap(begin_ + bytes_, mapped - before - bytes_);
    madvise(begin_, bytes / kHugePage * kHugePage, MADV_HUGEPAGE);
  }
  Chunk(Chunk&& other) noexcept
      : begin_(std::exchange(other.begin_, nullptr)), bytes_(other.bytes_) {}
  Chunk& operator=(Chunk&&) = delete;
  ~Chunk() {
    if (begin_ == nullptr) return;
    if (is_mapped()) {
      munmap(begin_, bytes_);
    } else {
      ::operator delete (begin_, std::align_val_t{kAlignment});
    }
  }

  std::byte* begin() const { return begin_; }

 private:
  bool is_mapped() const { return bytes_ >= kHugePage; }

  std::byte* begin_ = nullptr;
  size_t bytes_;
};

}  // namespace

struct BufferPool::State {
  struct Range {
    size_t bytes;
    bool is_free;
    bool begins_chunk;
  };
  using Ranges = std::map<std::byte*, Range>;
  using FreeRanges = std::set<std::pair<size_t, std::byte*>>;  // by size

  std::byte* Take(size_t bytes, size_t activation_bytes) {
    const std::lock_guard lock(mutex);
    auto fit = free.lower_bound({bytes, nullptr});
    if (fit == free.end()) {
      AddChunk(std::max(bytes, ranges.empty() ? wanted_bytes : 0));
      fit = free.lower_bound({bytes, nullptr});
    }
    std::byte* const at = fit->second;
    spare.push_back(free.extract(fit));
    Range& range = ranges.at(at);
    range.is_free = false;
    if (range.bytes > bytes) {
      const size_t rest = range.bytes - bytes;
      range.bytes = bytes;
      ranges.emplace(at + bytes, Range{rest, true, false});
      free.emplace(rest, at + bytes);
    }
    live_bytes += activation_bytes;
    peak_bytes = std::max(peak_bytes, live_bytes);
    ++used;
    return at;
  }

  // Allocates nothing, for it must not throw: each Take left a node for its Return.
  void Return(std::byte* at, size_t activation_bytes) noexcept {
    const std::lock_guard lock(mutex);
    live_bytes -= activation_bytes;
    auto range = ranges.find(at);
    range->second.is_free = true;
    const auto next = std::next(range);
    if (next != ranges.end() && next->second.is_free && !next->second.begins_chunk) {
      free.erase({next->second.bytes, next->first});
      range->second.bytes += next->second.bytes;
      ranges.erase(next);
    }
    if (range != ranges.begin() && !range->second.begins_chunk) {
      const auto before = std::prev(range);
      if (before->second.is_free) {
        free.erase({before->second.bytes, before->first});
        before->second.bytes += range->second.bytes;
        ranges.erase(range);
        range = before;
      }
    }
    FreeRanges::node_type node = std::move(spare.back());
    spare.pop_back();
    node.value() = {range->second.bytes, range->first};
    free.insert(std::move(node));
    if (--used == 0) Settle();
  }

  // Nothing is in use: several chunks become one.
  void Settle() {
    if (chunks.size() < 2) return;
    wanted_bytes = arena_bytes;
    FreeChunks();
  }

  void AddChunk(size_t bytes) {
    chunks.reserve(chunks.size() + 1);  // so that a chunk is never lost
    std::byte* const chunk = chunks.emplace_back(bytes).begin();
    ranges.emplace(chunk, Range{bytes, true, true});
    free.emplace(bytes, chunk);
    arena_bytes += bytes;
  }

  void FreeChunks() {
    chunks.clear();
    ranges.clear();
    free.clear();
    arena_bytes = 0;
  }

  std::mutex mutex;  // guards all below
  std::vector<Chunk> chunks;
  Ranges ranges;  // every byte of every chunk is in one
  FreeRanges free;
  std::vector<FreeRanges::node_type> spare;
  size_t used = 0;                        // ranges that are not
  size_t wanted_bytes = 0;                // of the one chunk that follows several
  size_t live_bytes = 0, peak_bytes = 0;  // of activations, as asked for
  size_t arena_bytes = 0;                 // of all chunks
};

BufferPool::BufferPool() : state_(std::make_shared<State>()) {}
BufferPool::~BufferPool() = default;

std::shared_ptr<std::byte> BufferPool::Allocate(size_t size, Use use) {
  const size_t bytes = RoundUp(std::max(size, kAlignment) + kReadablePastEnd);
  const size_t counted = use == Use::kActivation ? size : 0;
  std::byte* const buffer = state_->Take(bytes, counted);
  return std::shared_ptr<std::byte>(
      buffer, [state = state_, counted](std::byte* p) { state->Return(p, counted); });
}

int64_t BufferPool::peak_bytes() const {
  const std::lock_guard lock(state_->mutex);
  return static_cast<int64_t>(state_->peak_bytes);
}

int64_t BufferPool::arena_bytes() const {
  const std::lock_guard lock(state_->mutex);
  return static_cast<int64_t>(state_->arena_bytes);
}

BufferPools::Lease::Lease(BufferPools& pools) : pools_(pools) {
  const std::lock_guard lock(pools_.mutex_);
  auto& idle = pools_.idle_;
  if (idle.empty()) {
    pools_.all_.push_back(std::make_unique<BufferPool>());
    idle.reserve(pools_.all_.size());  // so that giving back allocates nothing
    pool_ = pools_.all_.back().get();
    return;
  }
  const auto own = std::ranges::find(idle, std::this_thread::get_id(), &Idle::thread);
  const auto taken = own == idle.end() ? std::prev(own) : own;
  pool_ = taken->pool;
  idle.erase(taken);
}

BufferPools::Lease::~Lease() {
  const std::lock_guard lock(pools_.mutex_);
  pools_.idle_.push_back({std::this_thread::get_id(), pool_});
}

int64_t BufferPools::peak_bytes() const {
  const std::lock_guard lock(mutex_);
  int64_t peak = 0;
  for (const auto& pool : all_) peak = std::max(peak, pool->peak_bytes());
  return peak;
}

}  // namespace pared
