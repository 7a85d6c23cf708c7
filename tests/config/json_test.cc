#include <gmock/gmock.h>

#include "config/fields.h"
#include "tests/config/refused.h"

namespace pared {
namespace {

using ::testing::StartsWith;

std::string Nested(size_t depth) { return std::string(depth, '[') + std::string(depth, ']'); }

TEST(ParseJson, BuildsWhatTheTextSays) {
  const Json json = ParseJson(R"( {"a": [1, -2, 2.5, true, null, "é\u00e9"], "b": {"c": {}}} )");
  EXPECT_EQ(json.dump(), R"({"a":[1,-2,2.5,true,null,"éé"],"b":{"c":{}}})");
  EXPECT_EQ(ParseJson("7"), 7);
}

TEST(ParseJson, NamesTheByteOfASyntaxError) {
  EXPECT_THAT([] { ParseJson("{\"a\": tru}"); },
              ThrowsError(ErrorCode::kInvalidArgument, "byte 10",
                          StartsWith("is not JSON: parse error at line 1, column 10")));
  EXPECT_THAT([] { ParseJson(""); }, RefusedAt("byte 1"));
  EXPECT_THAT([] { ParseJson("{} {}"); }, RefusedAt("byte 4"));
  EXPECT_THAT([] { ParseJson("[1,]"); }, RefusedAt("byte 4"));
}

TEST(ParseJson, RefusesNumbersThatNoDoubleHolds) {
  EXPECT_THAT([] { ParseJson("NaN"); }, RefusedAt("byte 1"));
  EXPECT_THAT([] { ParseJson("[1e999]"); }, RefusedAt("byte 6"));
  EXPECT_THAT([] { ParseJson("-Infinity"); }, RefusedAt("byte 2"));
}

TEST(ParseJson, RefusesAKeyGivenTwiceAtItsPlace) {
  EXPECT_THAT([] { ParseJson(R"({"a": 1, "a": 2})"); },
              ThrowsError(ErrorCode::kInvalidArgument, "/a", "is given twice"));
  EXPECT_THAT([] { ParseJson(R"({"chains": [{}, {"p/q": [0, {"x": 1, "y": 2, "x": 3}]}]})"); },
              RefusedAt("/chains/1/p~1q/1/x"));
  EXPECT_EQ(ParseJson(R"([{"a": 1}, {"a": 2}])").size(), 2);
}

TEST(ParseJson, LimitsDepth) {
  EXPECT_EQ(ParseJson(Nested(64)).size(), 1);
  EXPECT_THAT([] { ParseJson(Nested(65)); },
              ThrowsError(ErrorCode::kInvalidArgument, StartsWith("/0/0/0/")));
  EXPECT_THAT([] { ParseJson(std::string(10'000'000, '[')); },
              ThrowsError(ErrorCode::kInvalidArgument, StartsWith("/0/0/0/")));
}

TEST(ParseJson, LimitsLength) {
  const std::string text = "\"" + std::string(kJsonBytesMax - 2, 'x') + "\"";
  EXPECT_TRUE(ParseJson(text).is_string());
  EXPECT_THAT([&] { ParseJson(text + " "); }, RefusedAt(""));
}

TEST(ParseJson, RefusesBytesThatAreNotUtf8) {
  EXPECT_THAT([] { ParseJson("\"\xff\""); },
              ThrowsError(ErrorCode::kInvalidArgument, StartsWith("byte ")));
}

TEST(DumpJson, ReplacesBytesThatAreNotUtf8) {
  EXPECT_EQ(DumpJson(Json{{"node", "a\xff"}}), "{\"node\":\"a\xEF\xBF\xBD\"}");
}

}  // namespace
}  // namespace pared
