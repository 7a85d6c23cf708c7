// A file that appears under its name when it is whole: written under another, then renamed.

#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>

#include "base/aside_file.h"

namespace pared {

// Each step throws kUnavailable where the disk refuses, and nothing is left behind.
class NewFile {
 public:
  explicit NewFile(std::filesystem::path path);
  NewFile(const NewFile&) = delete;
  NewFile& operator=(const NewFile&) = delete;
  ~NewFile();

  void Write(std::span<const std::byte> bytes);
  void PadTo(int64_t offset);  // with zeros
  void Rename();

 private:
  [[noreturn]] void Fail() const;

  std::filesystem::path path_;
  AsideFile aside_;
  int64_t size_ = 0;
  bool renamed_ = false;
};

}  // namespace pared
