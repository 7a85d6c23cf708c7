#include "passes/own_copy.h"

#include <cstddef>
#include <cstring>
#include <memory>
#include <span>

namespace pared {

Tensor OwnCopy(const Tensor& tensor) {
  constexpr size_t kAlignment = 64;
  if (ElementBits(tensor.dtype()) == 0 || tensor.layout() != Layout::kRowMajor) return tensor;
  const std::span<const std::byte> bytes = tensor.bytes();
  // Kernels may read past the end. Blocks of one size from malloc, which the next sample's fit;
  // those of an aligned allocation do not fit where one of the same size was freed (glibc).
  size_t space = bytes.size() + 2 * kAlignment;
  const auto block = std::make_shared_for_overwrite<std::byte[]>(space);
  void* begin = block.get();
  std::align(kAlignment, bytes.size(), begin, space);
  auto* const copy = static_cast<std::byte*>(begin);
  if (!bytes.empty()) std::memcpy(copy, bytes.data(), bytes.size());
  return Tensor::View(tensor.dtype(), tensor.shape(), {copy, bytes.size()}, block);
}

Tensor KeptCopy(const Tensor& value, bool stays, SpillFile& file) {
  constexpr size_t kSmall = size_t{1} << 14;
  const bool is_plain = value.layout() == Layout::kRowMajor;
  if (stays || value.bytes().size() < kSmall || !is_plain || !file.exists()) return OwnCopy(value);
  return file.Put(value);
}

}  // namespace pared
