#include "model/spill.h"

#include "model/mapped_file.h"

namespace pared {
namespace {

constexpr size_t kLeastBytes = size_t{1} << 20;

}  // namespace

Tensor Spilled(const Tensor& tensor, const std::filesystem::path& folder) {
  const std::span<const std::byte> bytes = tensor.bytes();
  if (folder.empty() || bytes.size() < kLeastBytes) return tensor;
  const auto file = MappedFile::WithoutName(folder, bytes);
  return Tensor::MappedView(tensor.dtype(), tensor.shape(), file->bytes(), file);
}

}  // namespace pared
