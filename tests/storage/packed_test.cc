#include "storage/packed.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <fstream>
#include <random>
#include <sstream>

#include "storage/block_coding.h"
#include "tests/testing/matchers.h"
#include "tests/testing/temp_dir.h"

namespace pared {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr int64_t kMuch = 1 << 30;

// Bytes of which a share is not `common`.
std::string Sparse(size_t size, double share, char common) {
  std::mt19937 random(static_cast<uint32_t>(size));
  std::bernoulli_distribution is_other(share);
  std::string bytes(size, common);
  for (char& byte : bytes) {
    if (is_other(random)) byte = static_cast<char>(random());
  }
  return bytes;
}

std::string Repeated(const std::string& text, size_t times) {
  std::string bytes;
  for (size_t i = 0; i < times; ++i) bytes += text;
  return bytes;
}

// Files of this process cannot grow beyond `bytes`, as on a full disk.
class FileLimit {
 public:
  explicit FileLimit(rlim_t bytes) {
    std::signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit limit = {bytes, before_.rlim_max};
    setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileLimit() { setrlimit(RLIMIT_FSIZE, &before_); }
  FileLimit(const FileLimit&) = delete;
  FileLimit& operator=(const FileLimit&) = delete;

 private:
  rlimit before_ = {};
};

class PackedTest : public ::testing::Test {
 protected:
  // What comes back from a packed file with these bytes.
  std::string Unpack(const std::string& bytes) {
    WriteFile(folder_ / "in.packed", bytes);
    const fs::path out = folder_ / "out";
    fs::remove_all(out);
    fs::create_directory(out);
    std::string content;
    for (const fs::path& file : UnpackFiles(folder_ / "in.packed", out, kMuch))
      content += ReadFile(file);
    return content;
  }

  std::string Pack(const std::string& content) {
    WriteFile(folder_ / "x.onnx", content);
    PackFiles({folder_ / "x.onnx"}, folder_ / "x.packed");
    return ReadFile(folder_ / "x.packed");
  }

  TempDir folder_;
};

TEST_F(PackedTest, GivesBackEveryKindOfContent) {
  const std::vector<std::string> contents = {"",
                                             "a",
                                             std::string(3 * kPackedBlockBytes + 5, '\0'),
                                             Sparse(2'500'000, 0.1, 0),
                                             Sparse(70'000, 0.01, 'x'),
                                             Sparse(70'000, 0.0005, 0),  // gaps of more than a byte
                                             Sparse(300'000, 0.5, 0),
                                             Sparse(300'000, 1, 0),
                                             Sparse(kPackedBlockBytes, 0.1, 0),
                                             Repeated(std::string("ab\0\0", 4), 40'000)};
  for (const std::string& content : contents) {
    EXPECT_EQ(Unpack(Pack(content)), content) << content.size();
  }
}

// 10 % of values with 7 random bits of entropy: 0.469 + 0.1 x 8 bits of 8.
TEST_F(PackedTest, TakesHardlyMoreThanTheEntropy) {
  const std::string content = Sparse(4 << 20, 0.1, 0);
  EXPECT_LT(Pack(content).size(), content.size() * 175 / 1000);
}

TEST_F(PackedTest, TakesFewBytesForPatternsThatRepeat) {
  std::string content;
  std::mt19937 random(3);
  for (int group = 0; group < 100'000; ++group) {  // 2 of 4, always in the same places
    content += {static_cast<char>(random()), '\0', static_cast<char>(random()), '\0'};
  }
  EXPECT_LT(Pack(content).size(), content.size() * 51 / 100);
}

TEST_F(PackedTest, KeepsSeveralFilesByTheirNames) {
  WriteFile(folder_ / "m.onnx", "model");
  WriteFile(folder_ / "m.onnx.data", "data");
  PackFiles({folder_ / "m.onnx", folder_ / "m.onnx.data"}, folder_ / "m.packed");
  const auto files = UnpackFiles(folder_ / "m.packed", folder_ / "out", 9);
  EXPECT_THAT(files, ElementsAre(folder_ / "out/m.onnx", folder_ / "out/m.onnx.data"));
  EXPECT_EQ(ReadFile(files[1]), "data");
}

TEST_F(PackedTest, KeepsFoldersBesideTheModel) {
  fs::create_directories(folder_ / "sub/deep");
  WriteFile(folder_ / "m.onnx", "model");
  WriteFile(folder_ / "sub/deep/w.bin", "data");
  PackFiles({folder_ / "m.onnx", folder_ / "./sub/deep/w.bin"}, folder_ / "m.packed");
  const auto files = UnpackFiles(folder_ / "m.packed", folder_ / "out", 9);
  EXPECT_THAT(files, ElementsAre(folder_ / "out/m.onnx", folder_ / "out/sub/deep/w.bin"));
  EXPECT_EQ(ReadFile(files[1]), "data");
}

TEST_F(PackedTest, PacksNothingFromOutsideTheModelsFolder) {
  fs::create_directories(folder_ / "model/sub");
  WriteFile(folder_ / "model/m.onnx", "model");
  WriteFile(folder_ / "secret", "data");
  for (const fs::path& file : {folder_ / "secret", folder_ / "model/../secret"}) {
    EXPECT_THAT(
        [&] {
          PackFiles({folder_ / "model/m.onnx", file}, folder_ / "m.packed");
        },
        ThrowsError(ErrorCode::kInvalidArgument, file.string()));
  }
  EXPECT_FALSE(fs::exists(folder_ / "m.packed"));
}

// The folder itself may be reached through one, also where a slash ends its name.
TEST_F(PackedTest, UnpacksIntoAFolderBehindALink) {
  fs::create_directories(folder_ / "disk");
  fs::create_directory_symlink(folder_ / "disk", folder_ / "link");
  const std::string longest = std::string(250, 'm') + ".onnx";
  WriteFile(folder_ / longest, "model");
  PackFiles({folder_ / longest}, folder_ / "m.packed");
  const fs::path out = folder_ / "link/out/";
  EXPECT_THAT(UnpackFiles(folder_ / "m.packed", out, kMuch), ElementsAre(out / longest));
  EXPECT_EQ(ReadFile(folder_ / "disk/out" / longest), "model");
}

TEST_F(PackedTest, UnpacksThroughNoLink) {
  fs::create_directories(folder_ / "sub");
  fs::create_directories(folder_ / "elsewhere");
  fs::create_directories(folder_ / "out");
  WriteFile(folder_ / "m.onnx", "model");
  WriteFile(folder_ / "sub/w.bin", "data");
  PackFiles({folder_ / "m.onnx", folder_ / "sub/w.bin"}, folder_ / "m.packed");
  fs::create_directory_symlink(folder_ / "elsewhere", folder_ / "out/sub");
  EXPECT_THAT([&] { UnpackFiles(folder_ / "m.packed", folder_ / "out", kMuch); },
              ThrowsError(ErrorCode::kConflict, (folder_ / "out/sub").string()));
  EXPECT_TRUE(fs::is_empty(folder_ / "elsewhere"));
  EXPECT_FALSE(fs::exists(folder_ / "out/m.onnx"));
}

TEST_F(PackedTest, AnOlderFileStaysWhereTheNewOneFails) {
  WriteFile(folder_ / "m.onnx", "model");
  PackFiles({folder_ / "m.onnx"}, folder_ / "m.packed");
  const std::string old = ReadFile(folder_ / "m.packed");
  EXPECT_THAT(
      [&] {
        PackFiles({folder_ / "m.onnx", folder_ / "w.bin"}, folder_ / "m.packed");
      },
      ThrowsError(ErrorCode::kNotFound, (folder_ / "w.bin").string()));
  EXPECT_EQ(ReadFile(folder_ / "m.packed"), old);
  EXPECT_EQ(std::distance(fs::directory_iterator(folder_.path()), {}), 2);  // nothing aside
}

TEST_F(PackedTest, FilesThatDoNotFitTheDiskLeaveNothingAndTheOldOne) {
  WriteFile(folder_ / "m.onnx", "model");
  PackFiles({folder_ / "m.onnx"}, folder_ / "m.packed");
  const std::string old = ReadFile(folder_ / "m.packed");
  WriteFile(folder_ / "m.onnx", Sparse(100'000, 1, 0));
  PackFiles({folder_ / "m.onnx"}, folder_ / "large.packed");
  const FileLimit limit(50'000);
  EXPECT_THAT([&] { PackFiles({folder_ / "m.onnx"}, folder_ / "m.packed"); },
              ThrowsError(ErrorCode::kUnavailable, (folder_ / "m.packed").string()));
  EXPECT_EQ(ReadFile(folder_ / "m.packed"), old);
  EXPECT_THAT([&] { UnpackFiles(folder_ / "large.packed", folder_ / "out", kMuch); },
              ThrowsError(ErrorCode::kUnavailable, (folder_ / "out/m.onnx").string()));
  EXPECT_FALSE(fs::exists(folder_ / "out"));
}

TEST_F(PackedTest, RefusesMoreContentThanAllowedAndLeavesNothing) {
  WriteFile(folder_ / "a", "12345");
  WriteFile(folder_ / "b", "12345");
  PackFiles({folder_ / "a", folder_ / "b"}, folder_ / "p");
  fs::create_directory(folder_ / "out");
  EXPECT_THAT([&] { UnpackFiles(folder_ / "p", folder_ / "out", 9); },
              ThrowsError(ErrorCode::kInvalidArgument, (folder_ / "p").string()));
  EXPECT_TRUE(fs::is_empty(folder_ / "out"));
}

TEST_F(PackedTest, ReplacesNoFile) {
  WriteFile(folder_ / "a", "old");
  PackFiles({folder_ / "a"}, folder_ / "p");
  EXPECT_THAT([&] { UnpackFiles(folder_ / "p", folder_.path(), kMuch); },
              ThrowsError(ErrorCode::kConflict, (folder_ / "a").string()));
  EXPECT_EQ(ReadFile(folder_ / "a"), "old");
}

TEST_F(PackedTest, NoticesDamageAnywhere) {
  const std::string content = Sparse(3000, 0.2, 0) + "a tail of text";
  const std::string packed = Pack(content);
  for (size_t size = 0; size < packed.size(); ++size) {
    EXPECT_THAT([&] { Unpack(packed.substr(0, size)); },
                ThrowsError(ErrorCode::kInvalidArgument, ::testing::_))
        << size;
  }
  EXPECT_THAT([&] { Unpack(packed + "x"); },
              ThrowsError(ErrorCode::kInvalidArgument, ::testing::_));
  // A flipped bit is found, or falls on the name.
  for (size_t place = 0; place < packed.size(); ++place) {
    std::string flipped = packed;
    flipped[place] = static_cast<char>(flipped[place] ^ 1);
    try {
      EXPECT_TRUE(Unpack(flipped) == content) << place;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument) << place;
    }
    fs::remove_all(folder_ / "out");
  }
}

TEST_F(PackedTest, WritesNowhereElse) {
  for (const std::string& name :
       {std::string("../x"), std::string("/x"), std::string("."), std::string(".."),
        std::string("a\0b", 3), std::string("a/../x"), std::string("./x"), std::string("a/")}) {
    std::string packed = "PAREDPK1";
    AppendNumber(packed, name.size(), 1);
    packed += name;
    AppendNumber(packed, 0, 8);
    packed += '\0';
    EXPECT_THAT([&] { Unpack(packed); }, ThrowsError(ErrorCode::kInvalidArgument, ::testing::_))
        << name;
  }
}

}  // namespace
}  // namespace pared
