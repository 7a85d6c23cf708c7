#include "model/mapped_file.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "base/error.h"

namespace pared {
namespace {

class Descriptor {
 public:
  explicit Descriptor(int value) : value_(value) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() {
    if (value_ >= 0) ::close(value_);
  }
  int value() const { return value_; }

 private:
  int value_;
};

// O_NONBLOCK: opening a FIFO must not wait for a writer.
constexpr int kOpenFlags = O_RDONLY | O_CLOEXEC | O_NONBLOCK;

[[noreturn]] void FailToOpen(int error, const std::string& what, const std::string& where) {
  switch (error) {
    case ENOENT:
    case ENOTDIR:
      throw Error(ErrorCode::kNotFound, what + " does not exist", where);
    case EXDEV:
      throw Error(ErrorCode::kInvalidArgument, what + " lies outside the model's folder", where);
    case ELOOP:
      throw Error(ErrorCode::kInvalidArgument, what + " is reached through a symbolic link", where);
    case ENOSYS:
      throw Error(ErrorCode::kUnsupported,
                  what + " cannot be opened safely: this kernel has no openat2", where);
    default:
      throw Error(ErrorCode::kInvalidArgument, what + " cannot be opened: " + std::strerror(error),
                  where);
  }
}

}  // namespace

std::shared_ptr<const MappedFile> MappedFile::Map(int descriptor, const std::string& where,
                                                  Links links) {
  struct stat info = {};
  if (::fstat(descriptor, &info) != 0) FailToOpen(errno, "the file", where);
  if (!S_ISREG(info.st_mode)) {
    throw Error(ErrorCode::kInvalidArgument, "not a regular file", where);
  }
  if (links == Links::kOne && info.st_nlink != 1) {
    throw Error(ErrorCode::kInvalidArgument,
                "the external data file has a second hard link: it may be a file of others", where);
  }
  const auto size = static_cast<size_t>(info.st_size);
  if (size == 0) return std::shared_ptr<const MappedFile>(new MappedFile({}));
  void* data = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, descriptor, 0);
  if (data == MAP_FAILED) {
    throw Error(ErrorCode::kUnavailable,
                std::string("the file cannot be mapped: ") + std::strerror(errno), where);
  }
  return std::shared_ptr<const MappedFile>(
      new MappedFile({static_cast<const std::byte*>(data), size}));
}

std::shared_ptr<const MappedFile> MappedFile::Open(const std::filesystem::path& path) {
  const Descriptor file(::open(path.c_str(), kOpenFlags));
  if (file.value() < 0) FailToOpen(errno, "the file", path.string());
  return Map(file.value(), path.string(), Links::kAny);
}

std::shared_ptr<const MappedFile> MappedFile::OpenBeneath(const std::filesystem::path& folder,
                                                          const std::string& location,
                                                          const std::string& where) {
  const std::string what = "external data file '" + location + "'";
  if (location.empty() || location.find('\0') != std::string::npos) {
    throw Error(ErrorCode::kInvalidArgument, "external data without a usable location", where);
  }
  const Descriptor base(::open(folder.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (base.value() < 0) FailToOpen(errno, "the folder of the model", where);
  open_how how = {};
  how.flags = static_cast<uint64_t>(kOpenFlags);
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
  const Descriptor file(
      static_cast<int>(::syscall(SYS_openat2, base.value(), location.c_str(), &how, sizeof how)));
  if (file.value() < 0 && (errno == ENOENT || errno == ENOTDIR)) {
    throw Error(ErrorCode::kInvalidArgument,
                what + " is not beside the model: a model comes along with its data", where);
  }
  if (file.value() < 0) FailToOpen(errno, what, where);
  return Map(file.value(), where, Links::kOne);
}

MappedFile::~MappedFile() {
  if (bytes_.empty()) return;
  ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
}

NamelessFile::NamelessFile(const std::filesystem::path& folder) : folder_(folder.string()) {
  std::string name = (folder / "tensor-XXXXXX").string();
  descriptor_ = ::mkostemp(name.data(), O_CLOEXEC);
  if (descriptor_ < 0) Fail();
  ::unlink(name.c_str());
}

NamelessFile::~NamelessFile() { ::close(descriptor_); }

void NamelessFile::Fail() const {
  throw Error(ErrorCode::kUnavailable,
              std::string("no file can be written for large tensors: ") + std::strerror(errno),
              folder_);
}

void NamelessFile::Write(int64_t begin, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t count = ::pwrite(descriptor_, bytes.data(), bytes.size(), begin);
    if (count < 0 && errno != EINTR) Fail();
    if (count <= 0) continue;
    bytes = bytes.subspan(static_cast<size_t>(count));
    begin += count;
  }
}

std::shared_ptr<const MappedFile> NamelessFile::Map(int64_t begin, size_t size) const {
  void* data = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, descriptor_, begin);
  if (data == MAP_FAILED) Fail();
  return std::shared_ptr<const MappedFile>(
      new MappedFile({static_cast<const std::byte*>(data), size}));
}

void DropMappedPages(std::span<const std::byte> bytes) {
  const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const uintptr_t begin = (reinterpret_cast<uintptr_t>(bytes.data()) + page - 1) / page * page;
  const uintptr_t end = (reinterpret_cast<uintptr_t>(bytes.data()) + bytes.size()) / page * page;
  if (begin >= end) return;
  // Only advice: where it fails the pages stay, which is correct too.
  static_cast<void>(::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED));
}

bool CountMappedRead(std::atomic<size_t>& read, size_t bytes) {
  constexpr size_t kReadMax = size_t{8} << 20;
  if (read.fetch_add(bytes) + bytes < kReadMax) return false;
  read = 0;
  return true;
}

}  // namespace pared
