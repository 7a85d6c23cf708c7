// Against archives that NumPy wrote (make_npz.py).

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "evaluator/npy.h"
#include "tests/testing/matchers.h"
#include "tests/testing/temp_dir.h"

namespace pared {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class NpzTest : public testing::TestWithParam<const char*> {
 protected:
  const std::filesystem::path path_ = std::filesystem::path("tests/evaluator") / GetParam();
};

TEST_P(NpzTest, GivesNumpysArrays) {
  EXPECT_THAT(LoadNpz(path_, "x"),
              SameTensor(Tensor::Make<float>({2, 3}, {0, 0.25f, 0.5f, 0.75f, 1, 1.25f})));
  EXPECT_THAT(LoadNpz(path_, "ids"),
              SameTensor(Tensor::Make<int64_t>({2, 3}, {7, 8, 9, 1, 2, 300})));
  EXPECT_THAT(LoadNpz(path_, "labels"), SameTensor(Tensor::Make<uint8_t>({2}, {1, 0})));
}

TEST_P(NpzTest, NamesFileAndArrayThatIsNotThere) {
  EXPECT_THAT([&] { LoadNpz(path_, "y"); },
              ThrowsError(ErrorCode::kInvalidArgument, path_.string() + ":y",
                          HasSubstr("the file has x, ids, labels")));
}

INSTANTIATE_TEST_SUITE_P(All, NpzTest, testing::Values("stored.npz", "deflated.npz"),
                         [](const auto& tested) {
                           const std::string name = tested.param;
                           return name.substr(0, name.find('.'));
                         });

TEST(Npz, ListsItsArraysInTheirOrder) {
  EXPECT_THAT(NpzArrays("tests/evaluator/deflated.npz"),
              ElementsAre("x", "ids", "labels", "zeros"));
}

class DamagedNpz : public testing::Test {
 protected:
  // A copy of an archive, with `damage` done to its bytes.
  template <class Damage>
  void Write(const char* name, const Damage& damage) {
    std::string bytes = ReadFile(std::filesystem::path("tests/evaluator") / name);
    damage(bytes);
    WriteFile(path_, bytes);
  }

  TempDir dir_;
  const std::filesystem::path path_ = dir_.path() / "a.npz";
};

TEST_F(DamagedNpz, IsRefusedByItsChecksum) {
  // The first element of x: after the member's name of 5 bytes, its 20 bytes of sizes and the .npy
  // header of 128.
  Write("stored.npz", [](std::string& bytes) { bytes[30 + 5 + 20 + 128] ^= 1; });
  EXPECT_THAT([&] { LoadNpz(path_, "x"); },
              ThrowsError(ErrorCode::kInvalidArgument, path_.string() + ":x", HasSubstr("CRC")));
  EXPECT_EQ(LoadNpz(path_, "labels").count(), 2);
}

TEST_F(DamagedNpz, IsRefusedWhereItClaimsMoreThanDeflateCanGive) {
  Write("deflated.npz", [](std::string& bytes) {
    const size_t entry = bytes.find("PK\x01\x02");  // of x in the directory: its size at 24
    bytes.replace(entry + 24, 4, "\xff\xff\xff\x3f");
  });
  EXPECT_THAT([&] { LoadNpz(path_, "x"); },
              ThrowsError(ErrorCode::kInvalidArgument, path_.string() + ":x",
                          HasSubstr("cannot hold 1073741823")));
}

TEST_F(DamagedNpz, IsRefusedWhereItEndsEarlyOrIsNone) {
  Write("deflated.npz", [](std::string& bytes) { bytes.resize(bytes.size() / 2); });
  EXPECT_THAT([&] { NpzArrays(path_); },
              ThrowsError(ErrorCode::kInvalidArgument, path_.string(), HasSubstr(".npz")));
  WriteFile(path_, "\x93NUMPY");
  EXPECT_THAT([&] { NpzArrays(path_); },
              ThrowsError(ErrorCode::kInvalidArgument, path_.string(), HasSubstr(".npz")));
  EXPECT_THAT([&] { NpzArrays(dir_.path() / "b.npz"); },
              ThrowsError(ErrorCode::kNotFound, (dir_.path() / "b.npz").string()));
}

}  // namespace
}  // namespace pared
