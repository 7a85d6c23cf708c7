// A file mapped into memory, read-only.

#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>
#include <string>

namespace pared {

class MappedFile {
 public:
  // Throws kNotFound, or kInvalidArgument where `path` is no regular file, with where = `path`.
  static std::shared_ptr<const MappedFile> Open(const std::filesystem::path& path);

  // Opens `location` beneath `folder`: no "..", no absolute path, no symbolic link on the way and
  // no second hard link, so that a model cannot name files of others. Errors have where = `where`.
  static std::shared_ptr<const MappedFile> OpenBeneath(const std::filesystem::path& folder,
                                                       const std::string& location,
                                                       const std::string& where);

  // A new file of these bytes on the disk of `folder`, which goes with the mapping. Throws
  // kUnavailable with where = `folder`.
  static std::shared_ptr<const MappedFile> WithoutName(const std::filesystem::path& folder,
                                                       std::span<const std::byte> bytes);

  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  ~MappedFile();

  std::span<const std::byte> bytes() const { return bytes_; }

 private:
  explicit MappedFile(std::span<const std::byte> bytes) : bytes_(bytes) {}
  enum class Links { kAny, kOne };
  static std::shared_ptr<const MappedFile> Map(int descriptor, const std::string& where,
                                               Links links);

  std::span<const std::byte> bytes_;
};

// Lets the kernel take back the pages that lie wholly within `bytes`, which must be mapped from a
// file; the next reader reads them again.
void DropMappedPages(std::span<const std::byte> bytes);

}  // namespace pared
