#include "config/settings.h"

#include <gmock/gmock.h>

#include <fstream>

#include "tests/config/refused.h"
#include "tests/testing/temp_dir.h"

namespace pared {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

TEST(Settings, AreLoopbackUnlessToldOtherwise) {
  const Start start = ReadCommandLine({});
  EXPECT_EQ(start.action, StartAction::kServe);
  EXPECT_EQ(start.settings.address, "127.0.0.1");
  EXPECT_EQ(start.settings.port, 8080);
  EXPECT_EQ(start.settings.Datasets(), "pared-data/datasets");
  EXPECT_EQ(start.settings.Database(), "pared-data/pared.db");
}

TEST(Settings, ReadFlagsInBothForms) {
  const Settings settings = ReadCommandLine({"--port=0", "--data-dir", "/srv/x", "--model_roots=/a",
                                             "--model-roots", "/b=c", "--address", "::1"})
                                .settings;
  EXPECT_EQ(settings.port, 0);
  EXPECT_EQ(settings.data_dir, "/srv/x");
  EXPECT_THAT(settings.model_roots, ElementsAre("/a", "/b=c"));
  EXPECT_EQ(settings.address, "::1");
}

TEST(Settings, ReadTheFileFirstAndFlagsOverIt) {
  const TempDir folder;
  const std::string file = (folder / "pared.json").string();
  std::ofstream(file) << R"({"port": 9000, "wait_s_max": 5, "datasets_dir": "/data"})";
  const Settings settings = ReadCommandLine({"--port=9001", "--config", file}).settings;
  EXPECT_EQ(settings.port, 9001);
  EXPECT_EQ(settings.wait_s_max, 5);
  EXPECT_EQ(settings.Datasets(), "/data");
}

TEST(Settings, RefuseWhatIsWrong) {
  EXPECT_THAT([] { ReadCommandLine({"--prot=1"}); },
              RefusedAt("--prot", HasSubstr("did you mean --port?")));
  EXPECT_THAT([] { ReadCommandLine({"--port"}); }, RefusedAt("--port", HasSubstr("needs a value")));
  EXPECT_THAT([] { ReadCommandLine({"--port=x"}); },
              RefusedAt("--port", HasSubstr("must be a number")));
  EXPECT_THAT([] { ReadCommandLine({"--port=65536"}); },
              RefusedAt("/port", HasSubstr("must be between 0 and 65535, is 65536")));
  EXPECT_THAT([] { ReadCommandLine({"serve"}); }, RefusedAt("serve", HasSubstr("is no flag")));
  EXPECT_THAT([] { ReadCommandLine({"--config=/no/such/file"}); },
              ThrowsError(ErrorCode::kNotFound, "/no/such/file"));
}

TEST(Settings, PointIntoTheFileThatIsWrong) {
  const TempDir folder;
  const std::string file = (folder / "pared.json").string();
  std::ofstream(file) << R"({"prot": 9000})";
  EXPECT_THAT(
      [&] {
        ReadCommandLine({"--config", file});
      },
      RefusedAt("/prot", HasSubstr("\"port\"")));
  std::ofstream(file) << R"({"port": })";
  EXPECT_THAT(
      [&] {
        ReadCommandLine({"--config", file});
      },
      RefusedAt(file + ": byte 10", HasSubstr("is not JSON")));
}

TEST(Settings, NameTheActions) {
  EXPECT_EQ(ReadCommandLine({"--help"}).action, StartAction::kHelp);
  EXPECT_EQ(ReadCommandLine({"--version"}).action, StartAction::kVersion);
  EXPECT_EQ(ReadCommandLine({"--check-config", "--port=1"}).action, StartAction::kCheckConfig);
}

TEST(Settings, HelpTellsRangeAndDefault) {
  EXPECT_THAT(HelpText(), HasSubstr("--port\n      The port to listen on; 0 takes any that is "
                                    "free. (0 to 65535, default 8080)"));
}

TEST(Settings, LimitsThatContradictEachOtherAreRefused) {
  EXPECT_THAT(
      [] {
        ReadCommandLine({"--memory_mb=1000", "--memory_total_mb=999"});
      },
      ThrowsError(ErrorCode::kInvalidArgument, "/memory_total_mb"));
  EXPECT_THAT(
      [] {
        ReadCommandLine({"--time_s=11", "--time_s_max=10"});
      },
      ThrowsError(ErrorCode::kInvalidArgument, "/time_s"));
  EXPECT_EQ(ReadCommandLine({"--memory_mb=1000", "--jobs_max=3"}).settings.MemoryTotalMb(), 3'000);
  EXPECT_EQ(
      ReadCommandLine({"--memory_mb=1000", "--memory_total_mb=1000"}).settings.MemoryTotalMb(),
      1'000);
}

TEST(Settings, TakeACertificateWithItsKeyOnly) {
  EXPECT_THAT([] { ReadCommandLine({"--tls_certificate=a.pem"}); },
              RefusedAt("/tls_key", HasSubstr("must be given too")));
  EXPECT_THAT([] { ReadCommandLine({"--tls_key=a.key"}); },
              RefusedAt("/tls_certificate", HasSubstr("must be given too")));
}

TEST(Settings, MergeWhatMayChangeAndKeepWhatNeedsARestart) {
  Settings now;
  now.jobs_max = 2;
  now.memory_mb = 100;
  Settings read = now;
  EXPECT_THAT(MergeSettings(now, read).changed, IsEmpty());
  read.port = 9'000;
  read.data_dir = "/elsewhere";
  read.run_days = 30;
  read.log_level = LogLevel::kDebug;
  read.tokens = {{.name = "ci", .sha256 = std::string(64, 'a')}};
  const SettingsChange change = MergeSettings(now, read);
  EXPECT_THAT(change.changed, UnorderedElementsAre("run_days", "log_level", "tokens"));
  EXPECT_THAT(change.fixed, UnorderedElementsAre("port", "data_dir"));
  EXPECT_EQ(change.settings.port, 8080);
  EXPECT_EQ(change.settings.data_dir, "pared-data");
  EXPECT_EQ(change.settings.run_days, 30);
  EXPECT_EQ(change.settings.log_level, LogLevel::kDebug);
  EXPECT_EQ(change.settings.tokens.at(0).name, "ci");
}

TEST(Settings, MergeRefusesWhatContradictsTheRest) {
  Settings read;
  read.time_s = read.time_s_max + 1;
  EXPECT_THAT([&] { MergeSettings({}, read); },
              RefusedAt("/time_s", HasSubstr("must be at most time_s_max")));
}

}  // namespace
}  // namespace pared
