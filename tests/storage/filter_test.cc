#include "storage/filter.h"

#include <gmock/gmock.h>

#include "storage/store.h"
#include "tests/testing/matchers.h"
#include "tests/testing/temp_dir.h"

namespace pared {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

// Job 1 on model a: baseline, int8, and fp16 without top1. Job 2 on model b: baseline, int8.
class FilterTest : public ::testing::Test {
 protected:
  FilterTest() {
    Record("a", {Named("a", "baseline", {{"top1", 0.75}, {"size_bytes", 400}}),
                 Named("a", "int8", {{"top1", 0.5}, {"size_bytes", 100}}),
                 Named("a", "fp16", {{"size_bytes", 200}})});
    Record("b", {Named("b", "baseline", {{"top1", 0.5}, {"size_bytes", 40}}),
                 Named("b", "int8", {{"top1", 0.625}, {"size_bytes", 10}})});
    store_.ChangeRun(2, {.tags = {{"keep", "yes"}}, .note = "it's \"good\""});
  }

  static RunRecord Named(const std::string& model, const std::string& chain,
                         const std::map<std::string, double>& metrics) {
    RunRecord run;
    run.experiment = "nightly";
    run.model = model;
    run.chain = chain;
    run.steps = Json::array();
    if (chain == "int8") {
      run.steps.push_back({{"pass", "quantize_int8"},
                           {"granularity", "per_" + model},
                           {"symmetric", model == "a"}});
    }
    run.machine = {{"cpu", "cpu " + model}};
    run.metrics = metrics;
    return run;
  }

  void Record(const std::string&, const std::vector<RunRecord>& runs) {
    const JobId id = store_.Submit(Json::object());
    store_.Claim({});
    store_.Finish(id, JobState::kSucceeded, nullptr, runs);
  }

  std::vector<int64_t> Ids(const std::string& filter) {
    RunQuery query;
    query.filter = filter;
    std::vector<int64_t> ids;
    for (const auto& run : store_.Runs(query)) ids.push_back(run.id);
    EXPECT_EQ(store_.CountRuns(query), static_cast<int64_t>(ids.size())) << filter;
    return ids;
  }

  TempDir folder_;
  Store store_{folder_ / "pared.db", {}};
};

TEST_F(FilterTest, ComparesFieldsAndMetrics) {
  EXPECT_THAT(Ids("model = \"a\""), ElementsAre(1, 2, 3));
  EXPECT_THAT(Ids("model != 'a'"), ElementsAre(4, 5));
  EXPECT_THAT(Ids("size_bytes<=100"), ElementsAre(2, 4, 5));
  EXPECT_THAT(Ids("size_bytes < 1e2"), ElementsAre(4, 5));
  EXPECT_THAT(Ids("job == 2 AND id > 4"), ElementsAre(5));
  EXPECT_THAT(Ids("chain in ('int8', 'fp16')"), ElementsAre(2, 3, 5));
  EXPECT_THAT(Ids("chain not in ('int8', 'fp16')"), ElementsAre(1, 4));
  EXPECT_THAT(Ids("chain like 'int%'"), ElementsAre(2, 5));
  EXPECT_THAT(Ids("chain not like 'int%'"), ElementsAre(1, 3, 4));
  EXPECT_THAT(Ids("created_ms > 0 and created_ms < 1"), IsEmpty());
}

TEST_F(FilterTest, TakesDropsAgainstTheBaselineOfTheSameJob) {
  EXPECT_THAT(Ids("top1_drop = 0.25"), ElementsAre(2));
  EXPECT_THAT(Ids("top1_drop < 0"), ElementsAre(5));
  EXPECT_THAT(Ids("size_bytes_drop = 30"), ElementsAre(5));
}

TEST_F(FilterTest, ReachesTagsMachinesAndOptions) {
  EXPECT_THAT(Ids("tags.keep = 'yes'"), ElementsAre(2));
  EXPECT_THAT(Ids("note like '%good%'"), ElementsAre(2));
  EXPECT_THAT(Ids("machine.cpu = 'cpu b'"), ElementsAre(4, 5));
  EXPECT_THAT(Ids("passes.quantize_int8.granularity = 'per_a'"), ElementsAre(2));
  EXPECT_THAT(Ids("passes.quantize_int8.symmetric = false"), ElementsAre(5));
  EXPECT_THAT([&] { Ids("passes.quantize_int8.symetric = false"); },
              ThrowsError(ErrorCode::kInvalidArgument, "filter:1",
                          "no run has an option \"symetric\" of quantize_int8; did you mean "
                          "\"symmetric\"?"));
  EXPECT_THAT([&] { Ids("id = 1 or passes.quantise_int8.symmetric = false"); },
              ThrowsError(ErrorCode::kInvalidArgument, "filter:11",
                          HasSubstr("no run has a pass \"quantise_int8\"; did you mean")));
}

TEST_F(FilterTest, BindsAndBeforeOr) {
  EXPECT_THAT(Ids("id = 1 or id = 2 and id = 3"), ElementsAre(1));
  EXPECT_THAT(Ids("(id = 1 or id = 3) and id = 3"), ElementsAre(3));
  EXPECT_THAT(Ids("not id = 1 and not not id < 3"), ElementsAre(2));
  EXPECT_THAT(Ids("not (id = 1 or id = 2 or job = 2)"), ElementsAre(3));
}

TEST_F(FilterTest, WhatIsMissingMatchesOnlyIsNull) {
  EXPECT_THAT(Ids("top1 > 0"), ElementsAre(1, 2, 4, 5));
  EXPECT_THAT(Ids("not top1 > 0"), IsEmpty());
  EXPECT_THAT(Ids("top1 is null"), ElementsAre(3));
  EXPECT_THAT(Ids("top1 is not null and job = 1"), ElementsAre(1, 2));
}

TEST_F(FilterTest, NothingThatIsWrittenReachesTheSql) {
  EXPECT_THAT(Ids("model = 'a'' or ''1''=''1'"), IsEmpty());
  EXPECT_THAT(Ids("note = 'it''s \"good\"'"), ElementsAre(2));
  EXPECT_THAT(Ids("note = \"it's \"\"good\"\"\""), ElementsAre(2));
  EXPECT_THAT(Ids("tags.x = '); DROP TABLE runs; --'"), IsEmpty());
  const SqlText sql = ParseFilter("model = 'secret' and top1 < 7.5", {{"top1"}});
  EXPECT_THAT(sql.sql, Not(HasSubstr("secret")));
  EXPECT_THAT(sql.sql, Not(HasSubstr("7.5")));
  EXPECT_THAT(sql.sql, Not(HasSubstr("top1")));
  EXPECT_EQ(sql.values.size(), 3);
}

TEST_F(FilterTest, PointsAtTheColumn) {
  const auto at = [](const std::string& text, const std::string& where) {
    EXPECT_THAT([&] { ParseFilter(text, {{"top1"}}); },
                ThrowsError(ErrorCode::kInvalidArgument, "filter:" + where))
        << text;
  };
  at("", "1");
  at("model", "6");
  at("model = ", "9");
  at("model = a", "9");
  at("model = 'a", "9");
  at("model = 'a' top1 < 1", "13");
  at("model = 1", "9");
  at("top1 < 'x'", "8");
  at("top1 like 'x'", "11");
  at("top1 in 1", "9");
  at("top1 in (1", "11");
  at("top1 not < 1", "10");
  at("top1 < 1x", "9");
  at("top1 < 1e999", "8");
  at("top1 < -", "8");
  at("(top1 < 1", "10");
  at("top1 < 1)", "9");
  at("top1 is 1", "9");
  at("top1 < 1 and ; 2", "14");
  at("job = 1 and top2 < 1", "13");
  at("passes.x = 1", "1");
}

TEST_F(FilterTest, HasLimits) {
  const auto nested = [](size_t depth) {
    return std::string(depth, '(') + "id = 1" + std::string(depth, ')');
  };
  EXPECT_THAT(Ids(nested(31)), ElementsAre(1));
  EXPECT_THAT([&] { Ids(nested(32)); }, ThrowsError(ErrorCode::kInvalidArgument, "filter:33"));
  std::string many = "id = 1";
  for (int i = 1; i < 64; ++i) many += " or id=1";
  EXPECT_THAT(Ids(many), ElementsAre(1));
  EXPECT_THAT([&] { Ids(many + " or id=1"); },
              ThrowsError(ErrorCode::kInvalidArgument, "filter:515"));
  const std::string text = "model = '" + std::string(4'086, 'a') + "'";
  EXPECT_THAT(Ids(text), IsEmpty());
  EXPECT_THAT([&] { Ids(text + " "); }, ThrowsError(ErrorCode::kInvalidArgument, "filter:4097"));
}

TEST_F(FilterTest, SortsByManyKeysAndPagesThroughThem) {
  RunQuery query;
  query.sort = {{"top1", true}, {"size_bytes", false}};
  query.limit = 2;
  std::vector<int64_t> ids;
  for (int page = 0; page < 3; ++page) {
    for (const auto& run : store_.Runs(query)) ids.push_back(run.id);
    query.after = ids.back();
  }
  EXPECT_THAT(ids, ElementsAre(1, 5, 4, 2, 3));  // 0.75, 0.625, 0.5 (40), 0.5 (100), none
  EXPECT_THAT(store_.Runs(query), IsEmpty());
  query.after = 99;
  EXPECT_THAT([&] { store_.Runs(query); }, ThrowsError(ErrorCode::kInvalidArgument, "?after"));
  query.sort = {{"topp1", false}};
  EXPECT_THAT([&] { store_.Runs(query); }, ThrowsError(ErrorCode::kInvalidArgument, "?sort"));
}

TEST_F(FilterTest, GivesChosenColumns) {
  RunQuery query;
  query.filter = "chain = 'int8'";
  const RunTable table = store_.Table(query, {"model", "top1_drop", "tags.keep"});
  EXPECT_THAT(table.ids, ElementsAre(2, 5));
  EXPECT_THAT(table.rows[0], ElementsAre("a", 0.25, "yes"));
  EXPECT_THAT(table.rows[1], ElementsAre("b", -0.125, nullptr));
  EXPECT_THAT([&] { store_.Table(query, {"modell"}); },
              ThrowsError(ErrorCode::kInvalidArgument, "?columns"));
}

TEST_F(FilterTest, TagsAreChangedAndRunsDeletedWithAllTheyHave) {
  store_.ChangeRun(2, {.tags = {{"keep", std::nullopt}, {"a", "1"}}, .note = {}});
  const auto run = *store_.GetRun(2);
  EXPECT_THAT(run.tags, ElementsAre(std::pair<const std::string, std::string>("a", "1")));
  EXPECT_EQ(run.note, "it's \"good\"");
  store_.DeleteRun(2);
  EXPECT_FALSE(store_.GetRun(2).has_value());
  EXPECT_THAT([&] { store_.DeleteRun(2); }, ThrowsError(ErrorCode::kNotFound, "{id}"));
  EXPECT_THAT([&] { store_.ChangeRun(2, {}); }, ThrowsError(ErrorCode::kNotFound, "{id}"));
  EXPECT_EQ(store_.Experiments().at(0).runs, 4);
  EXPECT_EQ(store_.DeleteExperiment("nightly"), 4);
  EXPECT_THAT([&] { store_.DeleteExperiment("nightly"); },
              ThrowsError(ErrorCode::kNotFound, "{name}"));
}

}  // namespace
}  // namespace pared
