// Memory for packed weights: 64-byte aligned, zeroed, with slack for loads of whole vectors.

#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <span>
#include <type_traits>

namespace pared {

template <class T>
class AlignedBuffer {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  AlignedBuffer() = default;
  explicit AlignedBuffer(size_t count) : count_(count) {
    const size_t bytes = (count * sizeof(T) + kSlackBytes + 63) / 64 * 64;
    const bool is_large = bytes >= kHugePage;
    const size_t whole = is_large ? (bytes + kHugePage - 1) / kHugePage * kHugePage : bytes;
    data_.reset(static_cast<T*>(std::aligned_alloc(is_large ? kHugePage : 64, whole)));
    if (data_ == nullptr) throw std::bad_alloc();
    // Only advice: a few large pages are made sooner than many small ones.
    if (is_large) madvise(data_.get(), bytes / kHugePage * kHugePage, MADV_HUGEPAGE);
    std::memset(static_cast<void*>(data_.get()), 0, bytes);
  }
  explicit AlignedBuffer(std::span<const T> values) : AlignedBuffer(values.size()) {
    if (!values.empty()) std::memcpy(data_.get(), values.data(), values.size_bytes());
  }

  T* data() { return data_.get(); }
  const T* data() const { return data_.get(); }
  T& operator[](size_t i) { return data_.get()[i]; }
  const T& operator[](size_t i) const { return data_.get()[i]; }
  size_t size() const { return count_; }
  size_t size_bytes() const { return count_ * sizeof(T); }

 private:
  // One vector: a load that begins at the last element stays inside.
  static constexpr size_t kSlackBytes = 64;
  static constexpr size_t kHugePage = size_t{2} << 20;
  struct Free {
    void operator()(T* p) const { std::free(p); }
  };
  std::unique_ptr<T[], Free> data_;
  size_t count_ = 0;
};

}  // namespace pared
