#include "model/new_file.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>
#include <utility>

#include "base/error.h"

namespace pared {
namespace {

constexpr int64_t kPageBytes = 4096;

}  // namespace

NewFile::NewFile(std::filesystem::path path) : path_(std::move(path)), aside_(CreateAside(path_)) {
  if (aside_.descriptor < 0) Fail();
}

NewFile::~NewFile() {
  if (aside_.descriptor >= 0) ::close(aside_.descriptor);
  if (!renamed_) ::unlink(aside_.path.c_str());
}

void NewFile::Write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t count = ::write(aside_.descriptor, bytes.data(), bytes.size());
    if (count < 0) {
      if (errno == EINTR) continue;
      Fail();
    }
    bytes = bytes.subspan(static_cast<size_t>(count));
    size_ += count;
  }
}

void NewFile::PadTo(int64_t offset) {
  static constexpr std::byte kZeros[kPageBytes] = {};
  while (size_ < offset) {
    Write(std::span(kZeros, static_cast<size_t>(std::min(offset - size_, kPageBytes))));
  }
}

void NewFile::Rename() {
  const int closed = ::close(aside_.descriptor);
  aside_.descriptor = -1;
  if (closed != 0) Fail();
  if (::rename(aside_.path.c_str(), path_.c_str()) != 0) Fail();
  renamed_ = true;
}

void NewFile::Fail() const {
  throw Error(ErrorCode::kUnavailable,
              std::string("the file cannot be written: ") + std::strerror(errno), path_.string());
}

}  // namespace pared
