#include "model/spill.h"

#include <algorithm>
#include <span>

namespace pared {
namespace {

// Of tensors, and of mappings: a multiple of the largest page.
constexpr size_t kAlignment = 4096, kMappingAlignment = size_t{1} << 16;

size_t RoundedUp(size_t bytes, size_t multiple) {
  return (bytes + multiple - 1) / multiple * multiple;
}

}  // namespace

Tensor Spilled(const Tensor& tensor, const std::filesystem::path& folder) {
  constexpr size_t kLeastBytes = size_t{1} << 20;
  if (folder.empty() || tensor.bytes().size() < kLeastBytes) return tensor;
  return SpillFile(folder, 0).Put(tensor);
}

Tensor SpillFile::Put(const Tensor& tensor) {
  const std::span<const std::byte> bytes = tensor.bytes();
  Chunk chunk;
  size_t at = 0;
  {
    const std::lock_guard lock(mutex_);
    if (!file_) file_.emplace(folder_);
    if (chunks_.empty() || taken_ + bytes.size() > chunks_.back().mapping->bytes().size()) {
      const size_t size = RoundedUp(std::max(chunk_, bytes.size()), kMappingAlignment);
      chunks_.push_back({file_->Map(mapped_, size), mapped_});
      mapped_ += static_cast<int64_t>(size);
      taken_ = 0;
    }
    chunk = chunks_.back();
    at = taken_;
    taken_ += RoundedUp(bytes.size(), kAlignment);
  }
  file_->Write(chunk.begin + static_cast<int64_t>(at), bytes);
  return Tensor::MappedView(tensor.dtype(), tensor.shape(),
                            chunk.mapping->bytes().subspan(at, bytes.size()), chunk.mapping);
}

void SpillFile::DropPages() const {
  const std::lock_guard lock(mutex_);
  for (const Chunk& chunk : chunks_) DropMappedPages(chunk.mapping->bytes());
}

bool SpillFile::is_unused() const {
  const std::lock_guard lock(mutex_);
  return std::ranges::all_of(chunks_, [](const Chunk& c) { return c.mapping.use_count() == 1; });
}

}  // namespace pared
