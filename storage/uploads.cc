#include "storage/uploads.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <system_error>
#include <utility>

#include "base/error.h"
#include "config/sha256.h"

namespace pared {
namespace {

namespace fs = std::filesystem;

constexpr uintmax_t kFreeBytesMin = uintmax_t{64} << 20;  // that an upload leaves to the store

[[noreturn]] void ThrowSystem(const std::string& doing, const fs::path& file, int error) {
  const bool is_full = error == ENOSPC || error == EDQUOT;
  throw Error(is_full ? ErrorCode::kUnavailable : ErrorCode::kInternal,
              "cannot " + doing + ": " + std::strerror(error), file.string());
}

void CheckSha256(const std::string& sha256) {
  if (IsSha256(sha256)) return;
  throw Error(ErrorCode::kInvalidArgument,
              "must be a SHA-256 as 64 hexadecimal digits, 0 to f, is \"" + sha256 + "\"",
              "{sha256}");
}

int64_t SizeOf(const fs::path& path) {
  std::error_code error;
  const uintmax_t bytes = fs::file_size(path, error);
  return error ? 0 : static_cast<int64_t>(bytes);
}

// Opens and locks a part. Null: it is not there and `flags` do not create it, or it is taken.
std::shared_ptr<const void> Lock(const fs::path& part, int flags) {
  const int descriptor = open(part.c_str(), O_WRONLY | O_CLOEXEC | O_NOFOLLOW | flags, 0600);
  if (descriptor < 0 && errno == ENOENT) return nullptr;
  if (descriptor < 0) ThrowSystem("open", part, errno);
  const auto close_it = [](const int* open_file) {
    close(*open_file);
    delete open_file;
  };
  std::shared_ptr<const int> lock(new int(descriptor), close_it);
  if (flock(descriptor, LOCK_EX | LOCK_NB) != 0) return nullptr;
  // Whoever held the lock may have moved the file away meanwhile.
  struct stat opened = {};
  struct stat named = {};
  const bool is_there = fstat(descriptor, &opened) == 0 && stat(part.c_str(), &named) == 0;
  return is_there && opened.st_ino == named.st_ino ? lock : nullptr;
}

}  // namespace

fs::path Uploads::WholePath(const std::string& sha256) const {
  CheckSha256(sha256);
  return folder_ / sha256;
}

fs::path Uploads::PartPath(const std::string& sha256) const {
  CheckSha256(sha256);
  return folder_ / (sha256 + ".part");
}

std::optional<UploadState> Uploads::Find(const std::string& sha256) const {
  const fs::path whole = WholePath(sha256);
  const fs::path part = PartPath(sha256);
  if (fs::exists(whole)) return UploadState{.bytes = SizeOf(whole), .is_whole = true};
  if (fs::exists(part)) return UploadState{.bytes = SizeOf(part), .is_whole = false};
  return std::nullopt;
}

OpenUpload Uploads::Append(const std::string& sha256, int64_t offset, int64_t bytes_left) const {
  OpenUpload upload;
  upload.part = PartPath(sha256);
  std::error_code error;
  fs::create_directories(folder_, error);
  if (error) ThrowSystem("create", folder_, error.value());
  const fs::space_info space = fs::space(folder_, error);
  if (!error && space.available < static_cast<uintmax_t>(bytes_left) + kFreeBytesMin) {
    throw Error(ErrorCode::kUnavailable,
                "the disk has no room for another " + std::to_string(bytes_left) + " bytes");
  }
  upload.lock = Lock(upload.part, O_CREAT);
  if (!upload.lock) throw Error(ErrorCode::kConflict, "another request is sending this upload");
  const int64_t bytes = SizeOf(upload.part);
  if (offset != 0 && offset != bytes) {
    throw Error(ErrorCode::kConflict, std::to_string(bytes) +
                                          " bytes have arrived: the next part begins there, not "
                                          "at " +
                                          std::to_string(offset));
  }
  fs::resize_file(upload.part, static_cast<uintmax_t>(offset), error);
  if (error) ThrowSystem("truncate", upload.part, error.value());
  return upload;
}

void Uploads::Finish(const std::string& sha256) const {
  const fs::path part = PartPath(sha256);
  const std::string got = Sha256OfFile(part).hex;
  std::error_code error;
  if (got != sha256) {
    fs::remove(part, error);
    throw Error(ErrorCode::kInvalidArgument, "what arrived has the SHA-256 " + got, "{sha256}");
  }
  MoveBack(sha256, part);
}

void Uploads::MoveOut(const std::string& sha256, const fs::path& target) const {
  std::error_code error;
  fs::rename(WholePath(sha256), target, error);
  if (error == std::errc::no_such_file_or_directory) {
    throw Error(ErrorCode::kNotFound, "no upload " + sha256 + " has arrived whole");
  }
  if (error) ThrowSystem("move to " + target.string(), WholePath(sha256), error.value());
}

void Uploads::MoveBack(const std::string& sha256, const fs::path& source) const {
  std::error_code error;
  fs::rename(source, WholePath(sha256), error);
  if (error) ThrowSystem("move", source, error.value());
}

void Uploads::Remove(const std::string& sha256) const {
  if (!Find(sha256)) throw Error(ErrorCode::kNotFound, "there is no such upload", "{sha256}");
  std::error_code error;
  fs::remove(WholePath(sha256), error);
  const fs::path part = PartPath(sha256);
  if (!fs::exists(part)) return;
  const std::shared_ptr<const void> lock = Lock(part, 0);
  if (!lock) throw Error(ErrorCode::kConflict, "another request is sending this upload");
  fs::remove(part, error);
  if (error) ThrowSystem("remove", part, error.value());
}

int64_t Uploads::Sweep(std::chrono::seconds age, bool is_dry) const {
  int64_t swept = 0;
  std::error_code error;  // a folder that is not there holds no uploads
  const auto before = fs::file_time_type::clock::now() - age;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder_, error)) {
    std::error_code gone;
    if (entry.last_write_time(gone) > before || gone) continue;
    const std::shared_ptr<const void> lock = Lock(entry.path(), 0);
    if (lock && (is_dry || fs::remove(entry.path(), gone))) ++swept;
  }
  return swept;
}

}  // namespace pared
