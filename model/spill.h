// Tensors that lie in files, so that what is worked on may be larger than memory.

#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "model/mapped_file.h"
#include "model/tensor.h"

namespace pared {

// The same tensor in a file without a name in `folder`, mapped: its pages leave memory where they
// are not read. The tensor itself where `folder` is empty or it has less than a megabyte. Throws
// kUnavailable where the disk refuses.
Tensor Spilled(const Tensor& tensor, const std::filesystem::path& folder);

// Such a file for many tensors, which goes with the last of them and this. Thread-safe.
class SpillFile {
 public:
  // `folder` empty: there is no file. It is mapped in pieces of `chunk` bytes, or of a larger
  // tensor: each mapping costs every thread something to make and to end.
  explicit SpillFile(std::filesystem::path folder, size_t chunk = size_t{64} << 20)
      : folder_(std::move(folder)), chunk_(chunk) {}

  bool exists() const { return !folder_.empty(); }

  // Throws kUnavailable where the disk refuses.
  Tensor Put(const Tensor& tensor);

  // As Tensor::DropPages, of all that are in the file.
  void DropPages() const;

  // Whether no tensor that Put returned is left.
  bool is_unused() const;

 private:
  struct Chunk {
    std::shared_ptr<const MappedFile> mapping;
    int64_t begin = 0;  // in the file
  };

  std::filesystem::path folder_;
  size_t chunk_;
  mutable std::mutex mutex_;
  std::optional<NamelessFile> file_;
  std::vector<Chunk> chunks_;
  int64_t mapped_ = 0;  // bytes of all chunks
  size_t taken_ = 0;    // of them, of the last one
};

}  // namespace pared
