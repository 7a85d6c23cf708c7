// Pieces that need no daemon: URLs, numbers for people, tables, plots.

#include <gmock/gmock.h>

#include <sstream>

#include "client/http.h"
#include "client/mlflow.h"
#include "client/plot.h"
#include "client/terminal.h"
#include "tests/testing/matchers.h"

namespace pared {
namespace {

TEST(ParseUrl, KnowsHostPortAndPrefix) {
  const Url plain = ParseUrl("http://127.0.0.1:8080/");
  EXPECT_EQ(plain.host, "127.0.0.1");
  EXPECT_EQ(plain.port, "8080");
  EXPECT_EQ(plain.prefix, "");
  const Url tls = ParseUrl("https://pared.example/deep/er/");
  EXPECT_TRUE(tls.is_tls);
  EXPECT_EQ(tls.port, "443");
  EXPECT_EQ(tls.text(), "https://pared.example/deep/er");
  const Url six = ParseUrl("http://[::1]:9");
  EXPECT_EQ(six.host, "::1");
  EXPECT_EQ(six.authority(), "[::1]:9");
}

TEST(ParseUrl, RefusesWhatIsNone) {
  for (const char* text : {"", "localhost:8080", "ftp://x", "http://", "http://:80", "http://h:x",
                           "http://user@h", "http://h:"}) {
    EXPECT_THAT([&] { ParseUrl(text); }, ThrowsError(ErrorCode::kInvalidArgument, text)) << text;
  }
}

TEST(PercentEncode, KeepsOnlyWhatIsUnreserved) {
  EXPECT_EQ(PercentEncode("a-Z_9.~"), "a-Z_9.~");
  EXPECT_EQ(PercentEncode("top1 < 0.1 & +"), "top1%20%3C%200.1%20%26%20%2B");
  EXPECT_EQ(PercentEncode("\xC3\xA4"), "%C3%A4");
}

TEST(HumanText, RoundsNumbersAndNamesUnits) {
  EXPECT_EQ(HumanText("top1", 0.99364), "0.9936");
  EXPECT_EQ(HumanText("size_bytes", 999), "999 B");
  EXPECT_EQ(HumanText("size_bytes", 1000), "1 kB");
  EXPECT_EQ(HumanText("size_bytes", 26454), "26.45 kB");
  EXPECT_EQ(HumanText("size_bytes", 2'200'000'000), "2.2 GB");
  EXPECT_EQ(HumanText("size_bytes", -3550.0), "-3.55 kB");
  EXPECT_EQ(HumanText("created_ms", 1'795'626'401'736), "2026-11-25 17:06:41");
  EXPECT_EQ(HumanText("x", nullptr), "-");
  EXPECT_EQ(HumanText("x", true), "yes");
  EXPECT_EQ(HumanText("job", 1'234'567), "1234567");
}

TEST(Shortened, CountsCharactersAndNotBytes) {
  EXPECT_EQ(Shortened("größer", 6, true), "größer");
  EXPECT_EQ(Shortened("größere", 6, true), "größe…");
  EXPECT_EQ(Shortened("abcdef", 4, false), "abc~");
}

TEST(Table, SetsNumbersToTheRight) {
  std::ostringstream out;
  Table table({"name", "n"});
  table.Add({"größe", "5"});
  table.Add({"b", "-12"});
  table.Add({"c", "-"});
  table.Write({out, out});
  EXPECT_EQ(out.str(),
            "name     n\n"
            "größe    5\n"
            "b      -12\n"
            "c        -\n");
}

TEST(Table, ColoursWholeRowsWhereATerminalHasColours) {
  std::ostringstream out;
  Table table({"a"});
  table.Add({"x"}, Colour::kRed);
  Terminal terminal = {out, out};
  terminal.has_colour = true;
  table.Write(terminal);
  EXPECT_EQ(out.str(), "\x1b[1ma\x1b[0m\n\x1b[31mx\x1b[0m\n");
}

TEST(Plot, PlacesPointsByTheirValues) {
  EXPECT_EQ(Plot({{0, 0, Mark::kFront}, {10, 1, Mark::kKnee}, {5, 0.5, Mark::kDominated}},
                 {.width = 30, .height = 3, .x_name = "x", .y_name = "y"}),
            "y\n"
            "1 |                          O\n"
            "  |             .\n"
            "0 |*\n"
            "  +---------------------------\n"
            "   0                        10\n"
            "                x\n");
}

TEST(Plot, ShowsTheFrontWhereItFallsTogetherWithOthers) {
  const std::string text = Plot({{1, 1, Mark::kFront}, {1, 1, Mark::kDominated}},
                                {.width = 30, .height = 3, .x_name = "x", .y_name = "y"});
  EXPECT_NE(text.find('*'), std::string::npos);
  EXPECT_EQ(text.find('.'), std::string::npos);
}

TEST(Plot, IsLogarithmicOverALongRange) {
  const std::string text =
      Plot({{1, 1, Mark::kFront}, {10, 1, Mark::kFront}, {100, 1, Mark::kFront}},
           {.width = 30, .height = 2, .x_name = "size", .y_name = "y"});
  EXPECT_NE(text.find("|*            *            *\n"), std::string::npos) << text;
  EXPECT_NE(text.find("size (log)"), std::string::npos);
}

Json SmallRun() {
  return {{"id", 7},
          {"job", 3},
          {"model", "m"},
          {"chain", "c"},
          {"experiment", "e"},
          {"created_ms", 1000},
          {"steps", {{{"pass", "cast_fp16"}}}},
          {"machine", {{"isa", "avx2"}}},
          {"artifact", nullptr},
          {"error", nullptr},
          {"tags", Json::object()},
          {"note", ""},
          {"metrics", {{"top1", 0.5}, {"auc", nullptr}}}};
}

// All that the batches hold of one kind, by key.
Json Gathered(const std::vector<Json>& batches, const char* kind) {
  Json all = Json::object();
  for (const Json& batch : batches) {
    for (const Json& pair : batch.value(kind, Json::array())) {
      all[pair.at("key").get<std::string>()] = pair.at("value");
    }
  }
  return all;
}

TEST(Mlflow, NamesWhatWasNotMeasured) {
  const std::vector<Json> batches = MlflowBatches(SmallRun(), "http://h");
  EXPECT_EQ(Gathered(batches, "metrics"), Json({{"top1", 0.5}}));
  const Json tags = Gathered(batches, "tags");
  EXPECT_EQ(tags["pared.not_measured"], "auc");
  EXPECT_EQ(tags["pared.url"], "http://h/v1/runs/7");
  EXPECT_FALSE(tags.contains("pared.artifact"));
}

TEST(Mlflow, KeepsToTheLimitsOfABatchAndOfATextAndSaysSo) {
  Json run = SmallRun();
  for (int i = 0; i < 150; ++i) run["steps"][0]["option" + std::to_string(i)] = i;
  run["steps"][0]["long"] = std::string(7'000, 'x');
  for (int i = 0; i < 1'001; ++i) run["metrics"]["m" + std::to_string(i)] = i;
  const std::vector<Json> batches = MlflowBatches(run, "http://h");
  for (const Json& batch : batches) {
    EXPECT_LE(batch.value("params", Json::array()).size(), kMlflowParamsMax);
    EXPECT_LE(batch.value("tags", Json::array()).size(), kMlflowTagsMax);
    EXPECT_LE(batch.value("metrics", Json::array()).size(), kMlflowMetricsMax);
  }
  const Json params = Gathered(batches, "params");
  EXPECT_EQ(params.size(), 155u);  // 3 names, the pass, its 151 options
  EXPECT_EQ(params["1.cast_fp16.option149"], "149");
  EXPECT_EQ(params["1.cast_fp16.long"].get<std::string>().size(), kMlflowParamBytesMax);
  EXPECT_EQ(Gathered(batches, "tags")["pared.shortened"], "1.cast_fp16.long");
  EXPECT_EQ(Gathered(batches, "metrics").size(), 1'002u);
}

TEST(Plot, OfNothingIsEmpty) { EXPECT_EQ(Plot({}, {}), ""); }

}  // namespace
}  // namespace pared
