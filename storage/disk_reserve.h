// Space on a disk that is given up when the disk is full, so that what became of a job can still be
// written there.

#pragma once

#include <cstdint>
#include <filesystem>

namespace pared {

class DiskReserve {
 public:
  static constexpr int64_t kBytes = 1 << 20;

  // `file` is of this class alone; empty: there is no reserve.
  explicit DiskReserve(std::filesystem::path file) : file_(std::move(file)) {}

  // Takes the space unless it is taken, where there is so much. Any thread.
  void Take() const noexcept;
  void GiveUp() const noexcept;

 private:
  std::filesystem::path file_;
};

}  // namespace pared
