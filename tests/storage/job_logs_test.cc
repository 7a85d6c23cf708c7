#include "storage/job_logs.h"

#include <gmock/gmock.h>

#include "config/fields.h"
#include "tests/testing/temp_dir.h"

namespace pared {
namespace {

class JobLogsTest : public testing::Test {
 protected:
  TempDir dir_;
  const JobLogs logs_{dir_ / "logs"};
};

TEST_F(JobLogsTest, GivesLinesFromAnOffsetOn) {
  EXPECT_EQ(logs_.Read(7, 0).text, "");
  logs_.Append(7, R"({"event":"a"})", LogSource::kWorker);
  const JobLogPart first = logs_.Read(7, 0);
  EXPECT_EQ(first.text, "{\"event\":\"a\"}\n");
  EXPECT_EQ(first.next, 14);
  logs_.Append(7, R"({"event":"b"})", LogSource::kRunner);
  EXPECT_EQ(logs_.Read(7, 14).text, "{\"event\":\"b\"}\n");
  EXPECT_EQ(logs_.Read(7, 28).text, "");
  EXPECT_EQ(logs_.Read(7, 1'000).next, 1'000);
}

TEST_F(JobLogsTest, EveryLineIsAnObject) {
  logs_.Append(7, "what(): bad \"thing\"", LogSource::kWorker);
  const Json json = ParseJson(logs_.Read(7, 0).text);
  EXPECT_EQ(json.at("event"), "output");
  EXPECT_EQ(json.at("text"), "what(): bad \"thing\"");
}

TEST_F(JobLogsTest, ATalkativeWorkerIsCutAndTheRunnerHasTheLastWord) {
  const std::string line = "{\"x\":\"" + std::string(8'000, 'x') + "\"}";
  for (int i = 0; i < 200; ++i) logs_.Append(7, line, LogSource::kWorker);
  logs_.Append(7, R"({"event":"job_ended"})", LogSource::kRunner);
  std::string text;
  for (JobLogPart part = logs_.Read(7, 0); !part.text.empty(); part = logs_.Read(7, part.next)) {
    EXPECT_EQ(part.text.back(), '\n');
    text += part.text;
  }
  EXPECT_LT(text.size(), static_cast<size_t>(kJobLogBytesMax) + 10'000);
  EXPECT_THAT(text, testing::EndsWith("\"event\":\"log_is_full\"}\n{\"event\":\"job_ended\"}\n"));
}

TEST_F(JobLogsTest, SweepsWhatIsNotKeptAndNothingElse) {
  for (const int64_t job : {1, 2}) logs_.Append(job, "{}", LogSource::kRunner);
  WriteFile(dir_ / "logs" / "notes.txt", "mine");
  const auto is_kept = [](int64_t job) { return job == 2; };
  EXPECT_EQ(logs_.Sweep(is_kept, true), 1);
  EXPECT_EQ(logs_.Read(1, 0).text, "{}\n");
  EXPECT_EQ(logs_.Sweep(is_kept, false), 1);
  EXPECT_EQ(logs_.Read(1, 0).text, "");
  EXPECT_EQ(logs_.Read(2, 0).text, "{}\n");
  EXPECT_TRUE(std::filesystem::exists(dir_ / "logs" / "notes.txt"));
}

}  // namespace
}  // namespace pared
