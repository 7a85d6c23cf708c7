#include "config/glob.h"

#include <gtest/gtest.h>

namespace pared {
namespace {

TEST(MatchesGlob, WithoutASlashLooksAtTheFileNameInAnyFolder) {
  EXPECT_TRUE(MatchesGlob("*.onnx", "a.onnx"));
  EXPECT_TRUE(MatchesGlob("*.onnx", "vision/deep/a.onnx"));
  EXPECT_TRUE(MatchesGlob("yolo?.onnx", "vision/yolo8.onnx"));
  EXPECT_TRUE(MatchesGlob("[a-c]*", "x/b.onnx"));
  EXPECT_FALSE(MatchesGlob("*.onnx", "a.onnx.data"));
  EXPECT_FALSE(MatchesGlob("vision", "vision/a.onnx"));
  EXPECT_FALSE(MatchesGlob("", "a"));
}

TEST(MatchesGlob, WithASlashLooksAtTheWholePath) {
  EXPECT_TRUE(MatchesGlob("vision/*.onnx", "vision/a.onnx"));
  EXPECT_FALSE(MatchesGlob("vision/*.onnx", "vision/deep/a.onnx"));
  EXPECT_FALSE(MatchesGlob("vision/*.onnx", "x/vision/a.onnx"));
  EXPECT_FALSE(MatchesGlob("vision/*", "vision"));
}

TEST(MatchesGlob, TwoStarsStandForAnyFoldersOrNone) {
  EXPECT_TRUE(MatchesGlob("**/a.onnx", "a.onnx"));
  EXPECT_TRUE(MatchesGlob("**/a.onnx", "x/y/a.onnx"));
  EXPECT_TRUE(MatchesGlob("x/**/a.onnx", "x/a.onnx"));
  EXPECT_TRUE(MatchesGlob("x/**/a.onnx", "x/y/z/a.onnx"));
  EXPECT_TRUE(MatchesGlob("x/**", "x/y/z/a.onnx"));
  EXPECT_FALSE(MatchesGlob("x/**/a.onnx", "y/a.onnx"));
  EXPECT_FALSE(MatchesGlob("x/**/y/**/b", "x/y/c"));
}

TEST(MatchesGlob, IsQuickHoweverManyTwoStarsThereAre) {
  std::string pattern, path;
  for (int i = 0; i < 200; ++i) {
    pattern += "**/a/";
    path += "a/";
  }
  EXPECT_FALSE(MatchesGlob(pattern + "b", path + "c"));
}

}  // namespace
}  // namespace pared
