// A file mapped into memory, read-only.

#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
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

  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  ~MappedFile();

  std::span<const std::byte> bytes() const { return bytes_; }

 private:
  friend class NamelessFile;
  explicit MappedFile(std::span<const std::byte> bytes) : bytes_(bytes) {}
  enum class Links { kAny, kOne };
  static std::shared_ptr<const MappedFile> Map(int descriptor, const std::string& where,
                                               Links links);

  std::span<const std::byte> bytes_;
};

// A new file on the disk of `folder`, which goes with the last mapping of it. Errors are
// kUnavailable with where = `folder`.
class NamelessFile {
 public:
  explicit NamelessFile(const std::filesystem::path& folder);
  NamelessFile(const NamelessFile&) = delete;
  NamelessFile& operator=(const NamelessFile&) = delete;
  ~NamelessFile();

  void Write(int64_t begin, std::span<const std::byte> bytes);  // thread-safe
  // From `begin` on, a whole number of pages; the end may lie behind the file's, but can be read
  // only once it is written.
  std::shared_ptr<const MappedFile> Map(int64_t begin, size_t size) const;

 private:
  [[noreturn]] void Fail() const;

  std::string folder_;
  int descriptor_;
};

// Lets the kernel take back the pages that lie wholly within `bytes`, which must be mapped from a
// file; the next reader reads them again.
void DropMappedPages(std::span<const std::byte> bytes);

// Adds to what was read of mappings since their pages were dropped. True: they are to be dropped,
// so that mappings read piece by piece do not come to lie in memory whole. Thread-safe.
bool CountMappedRead(std::atomic<size_t>& read, size_t bytes);

}  // namespace pared
