// Every line must be JSON, whatever is logged: read back with an independent parser.

#include "base/log.h"

#include <gtest/gtest.h>

#include <limits>
#include <nlohmann/json.hpp>
#include <string>

namespace pared {
namespace {

using Json = nlohmann::json;

// The value that a line with this text carries.
std::string ReadBack(const std::string& text) {
  testing::internal::CaptureStderr();
  LogEvent(LogLevel::kError, "test", {{"text", text}});
  const std::string line = testing::internal::GetCapturedStderr();
  EXPECT_EQ(line.find('\n'), line.size() - 1) << line;
  return Json::parse(line).at("text").get<std::string>();
}

TEST(Log, WritesTextsAsTheyAre) {
  EXPECT_EQ(ReadBack("plain"), "plain");
  EXPECT_EQ(ReadBack("a \"quote\", a \\, a \n and a \x01"), "a \"quote\", a \\, a \n and a \x01");
  EXPECT_EQ(ReadBack(std::string("a\0b", 3)), std::string("a\0b", 3));
  const std::string letters =
      "\xC3\xA4 \xE2\x82\xAC \xED\x9F\xBF \xF0\x9F\x98\x80 \xF4\x8F\xBF\xBF";
  EXPECT_EQ(ReadBack(letters), letters);
}

TEST(Log, ReplacesWhatIsNoUtf8) {
  const std::string no = "\xEF\xBF\xBD";
  EXPECT_EQ(ReadBack("\xFF"), no);
  EXPECT_EQ(ReadBack("a\x80z"), "a" + no + "z");
  EXPECT_EQ(ReadBack("\xC3"), no);           // cut short
  EXPECT_EQ(ReadBack("\xC3("), no + "(");    // followed by something else
  EXPECT_EQ(ReadBack("\xC0\xAF"), no + no);  // overlong
  EXPECT_EQ(ReadBack("\xE0\x80\xAF"), no + no + no);
  EXPECT_EQ(ReadBack("\xED\xA0\x80"), no + no + no);           // a surrogate
  EXPECT_EQ(ReadBack("\xF4\x90\x80\x80"), no + no + no + no);  // beyond U+10FFFF
}

TEST(Log, WritesNumbersThatJsonHasNoWordForAsText) {
  testing::internal::CaptureStderr();
  LogEvent(LogLevel::kError, "test",
           {{"nan", std::numeric_limits<double>::quiet_NaN()},
            {"inf", std::numeric_limits<double>::infinity()},
            {"small", 5e-324},
            {"flag", true},
            {"count", int64_t{1} << 62}});
  const Json line = Json::parse(testing::internal::GetCapturedStderr());
  EXPECT_EQ(line.at("nan"), "nan");
  EXPECT_EQ(line.at("inf"), "inf");
  EXPECT_TRUE(line.at("small").is_number());
  EXPECT_EQ(line.at("flag"), true);
  EXPECT_EQ(line.at("count"), int64_t{1} << 62);
}

TEST(Log, DropsWhatIsBelowItsLevel) {
  SetLogLevel(LogLevel::kWarning);
  testing::internal::CaptureStderr();
  LogEvent(LogLevel::kInfo, "quiet");
  LogEvent(LogLevel::kWarning, "loud");
  const Json line = Json::parse(testing::internal::GetCapturedStderr());
  EXPECT_EQ(line.at("event"), "loud");
  SetLogLevel(LogLevel::kInfo);
}

}  // namespace
}  // namespace pared
