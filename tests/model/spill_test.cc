#include "model/spill.h"

#include <gmock/gmock.h>

#include "tests/testing/matchers.h"
#include "tests/testing/temp_dir.h"

namespace pared {
namespace {

TEST(Spilled, KeepsElementsWhenItsPagesAreDropped) {
  const TempDir folder;
  std::vector<float> values(1 << 18);
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i);
  const Tensor tensor = Tensor::Make<float>({512, 512}, values);
  const Tensor spilled = Spilled(tensor, folder.path());
  EXPECT_NE(spilled.bytes().data(), tensor.bytes().data());
  EXPECT_TRUE(std::filesystem::is_empty(folder.path())) << "its file has no name";
  EXPECT_THAT(spilled, SameTensor(tensor));
  spilled.DropPages();
  EXPECT_THAT(spilled, SameTensor(tensor));
}

TEST(Spilled, LeavesSmallTensorsAndThoseWithoutAPlace) {
  const TempDir folder;
  const Tensor small = Tensor::Make<float>({2}, {1, 2});
  EXPECT_EQ(Spilled(small, folder.path()).bytes().data(), small.bytes().data());
  const Tensor large = Tensor::Make<float>({1 << 18}, std::vector<float>(1 << 18));
  EXPECT_EQ(Spilled(large, "").bytes().data(), large.bytes().data());
}

TEST(Spilled, NamesTheFolderThatTakesNoFile) {
  const Tensor large = Tensor::Make<float>({1 << 18}, std::vector<float>(1 << 18));
  EXPECT_THAT([&] { Spilled(large, "/nowhere/at/all"); },
              ThrowsError(ErrorCode::kUnavailable, "/nowhere/at/all"));
}

// More than one mapping holds.
TEST(SpillFile, HoldsManyTensors) {
  const TempDir folder;
  SpillFile file(folder.path());
  ASSERT_TRUE(file.exists());
  std::vector<Tensor> tensors, put;
  for (int i = 0; i < 5; ++i) {
    tensors.push_back(Tensor::Make<int64_t>({4'000'001}, std::vector<int64_t>(4'000'001, i)));
    put.push_back(file.Put(tensors.back()));
  }
  file.DropPages();
  for (size_t i = 0; i < put.size(); ++i) EXPECT_THAT(put[i], SameTensor(tensors[i]));
  EXPECT_FALSE(file.is_unused());
  put.clear();
  EXPECT_TRUE(file.is_unused());
}

}  // namespace
}  // namespace pared
