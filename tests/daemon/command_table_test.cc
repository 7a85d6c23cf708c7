#include <gmock/gmock.h>

#include <set>
#include <sstream>

#include "daemon/commands.h"
#include "tests/testing/matchers.h"

namespace pared {
namespace {

using ::testing::HasSubstr;
using ::testing::IsSupersetOf;

auto RefusedAt(const std::string& where, const std::string& message) {
  return ThrowsError(ErrorCode::kInvalidArgument, where, HasSubstr(message));
}

TEST(CommandTable, HasEveryCommandOnceAndTellsItsFlags) {
  std::set<std::string> names;
  for (const Command& command : Commands()) {
    EXPECT_TRUE(names.insert(command.name).second) << command.name;
    EXPECT_THAT(command.flags(), HasSubstr("  --")) << command.name;
  }
  EXPECT_THAT(names, IsSupersetOf({"serve", "optimize", "evaluate", "bench", "pack", "unpack", "gc",
                                   "backup"}));
}

TEST(CommandTable, HelpNamesWhatIsRequired) {
  for (const Command& command : Commands()) {
    if (std::string(command.name) != "optimize") continue;
    EXPECT_THAT(
        command.flags(),
        HasSubstr("  MODEL\n      The model's file, ONNX or TensorFlow Lite. (required)\n"));
    EXPECT_THAT(command.flags(), HasSubstr("else as ONNX. (required)\n"));
    EXPECT_THAT(command.flags(), HasSubstr("(0 to 1024, default 0)"));
  }
}

TEST(CommandTable, WhatIsMissingIsNamedAsItIsTyped) {
  std::ostringstream out;
  EXPECT_THAT([&] { RunOptimize({}, out); }, RefusedAt("MODEL", "is required"));
  EXPECT_THAT([&] { RunOptimize({"m.onnx"}, out); }, RefusedAt("--out", "is required"));
  EXPECT_THAT([&] { RunBench({"--runs=3"}, out); }, RefusedAt("MODEL", "is required"));
  EXPECT_THAT(
      [&] {
        RunBench({"m.onnx", "--runs=x"}, out);
      },
      RefusedAt("--runs", "must be of type integer, is \"x\""));
  EXPECT_THAT(
      [&] {
        RunBench({"m.onnx", "--run=3"}, out);
      },
      RefusedAt("--run=3", "did you mean --runs?"));
  EXPECT_THAT(
      [&] {
        RunOptimize({"m.onnx", "--out=o", "--passes=[{"}, out);
      },
      RefusedAt("--passes", "must be JSON, is \"[{\""));
}

}  // namespace
}  // namespace pared
