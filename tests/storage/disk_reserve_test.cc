#include "storage/disk_reserve.h"

#include <gtest/gtest.h>

#include "tests/testing/temp_dir.h"

namespace pared {
namespace {

TEST(DiskReserve, IsTakenAndGivenUpAsOftenAsOneLikes) {
  const TempDir folder;
  const std::filesystem::path file = folder.path() / "reserve";
  const DiskReserve reserve(file);
  EXPECT_FALSE(std::filesystem::exists(file));
  for (int i = 0; i < 2; ++i) {
    reserve.Take();
    reserve.Take();
    EXPECT_EQ(std::filesystem::file_size(file), DiskReserve::kBytes);
    reserve.GiveUp();
    reserve.GiveUp();
    EXPECT_FALSE(std::filesystem::exists(file));
  }
}

TEST(DiskReserve, WithoutAFolderThereIsNone) {
  const TempDir folder;
  DiskReserve(folder.path() / "none" / "reserve").Take();
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
  DiskReserve("").Take();
}

}  // namespace
}  // namespace pared
