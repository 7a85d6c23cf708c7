// Queries, changes, comparison, tokens and streams, without sockets.

#include <gmock/gmock.h>

#include "api/auth.h"
#include "tests/api/service_fixture.h"

namespace pared {
namespace {

using ::testing::HasSubstr;

class QueryTest : public ServiceTest {
 protected:
  QueryTest() {
    store_.Submit(Json::object());
    store_.Claim({});
    store_.Finish(1, JobState::kSucceeded, nullptr,
                  {Made("baseline", 100, 0.75), Made("int8", 25, 0.5), Made("big", 200, 0.5)});
  }

  static RunRecord Made(const std::string& chain, double size, double top1) {
    RunRecord run;
    run.experiment = "default";
    run.model = "m";
    run.chain = chain;
    run.reports = {{{"layers", {{{"node", "conv"}, {"zeros", size}}, {{"node", "same"}}}}}};
    run.metrics = {{"size_bytes", size}, {"top1", top1}};
    return run;
  }

  Response Patch(const std::string& body) {
    Request request;
    request.verb = Verb::kPatch;
    request.path = "/v1/runs/2";
    request.body = body;
    return router_.Answer(request);
  }
};

TEST_F(QueryTest, FiltersSortsCountsAndChoosesColumns) {
  const Response page =
      Ask(Verb::kGet, "/v1/runs",
          "filter=size_bytes%20%3C%20150&sort=-top1&columns=id,top1_drop&count=1&limit=1");
  const Json want = {{"runs", {{{"id", 1}, {"top1_drop", 0.0}}}}, {"next", 1}, {"count", 2}};
  EXPECT_EQ(ParseJson(page.body), want);
  const Response csv = Ask(Verb::kGet, "/v1/runs", "format=csv&columns=id,chain&sort=-size_bytes");
  EXPECT_EQ(csv.body, "id,chain\r\n3,big\r\n1,baseline\r\n2,int8\r\n");
  const Response fault = Ask(Verb::kGet, "/v1/runs", "filter=id%20~%201");
  EXPECT_EQ(fault.status, 400);
  EXPECT_EQ(ParseJson(fault.body)["errors"][0]["where"], "filter:4");
}

TEST_F(QueryTest, AFrontByAMetricThatNoRunHasIsAnError) {
  const Response front = Ask(Verb::kGet, "/v1/pareto", "cost=size_bytes&quality=top5");
  EXPECT_EQ(front.status, 400);
  EXPECT_EQ(ParseJson(front.body)["errors"][0]["parameter"], "quality");
  EXPECT_EQ(ParseJson(front.body)["detail"],
            "no run has a field or metric \"top5\"; did you mean \"top1\"?");
}

// The same object as in a run that is given whole; one cell of a table.
TEST_F(QueryTest, AnErrorIsAnObjectInEveryListing) {
  RunRecord failed = Made("failed", 1, 0);
  failed.error = {{"code", "degraded"}, {"message", "a, b"}};
  store_.Submit(Json::object());
  store_.Claim({});
  store_.Finish(2, JobState::kFailed, nullptr, {failed});
  const std::string chosen = "chain=failed&columns=id,error";
  EXPECT_EQ(ParseJson(Ask(Verb::kGet, "/v1/runs", chosen).body)["runs"][0]["error"], failed.error);
  EXPECT_EQ(Ask(Verb::kGet, "/v1/runs", chosen + "&format=csv").body,
            "id,error\r\n4,\"{\"\"code\"\":\"\"degraded\"\",\"\"message\"\":\"\"a, b\"\"}\"\r\n");
}

TEST_F(QueryTest, FrontsOfManyObjectivesMarkTheKnee) {
  const Json front = ParseJson(
      Ask(Verb::kGet, "/v1/pareto", "objectives=size_bytes:min,top1:max&dominated=1").body);
  ASSERT_EQ(front["runs"].size(), 3);
  EXPECT_EQ(front["runs"][2]["id"], 3);
  EXPECT_EQ(front["runs"][2]["dominated"], true);
  EXPECT_EQ(front["excluded"], 0);
  EXPECT_EQ(Ask(Verb::kGet, "/v1/pareto", "objectives=top1").status, 400);
  EXPECT_EQ(Ask(Verb::kGet, "/v1/pareto", "objectives=top1:max&cost=top1").status, 400);
}

TEST_F(QueryTest, ComparesOnlyWhatDiffers) {
  const Json json = ParseJson(Ask(Verb::kGet, "/v1/compare", "runs=1,2").body);
  std::vector<std::string> places;
  for (const Json& difference : json["differences"]) places.push_back(difference["at"]);
  EXPECT_THAT(places, ::testing::ElementsAre("/chain", "/metrics/size_bytes", "/metrics/top1",
                                             "/reports/0/layers/conv/zeros"));
  EXPECT_EQ(Ask(Verb::kGet, "/v1/compare", "runs=1").status, 400);
  EXPECT_EQ(Ask(Verb::kGet, "/v1/compare", "runs=1,9").status, 404);
}

TEST_F(QueryTest, ComparesScalesOfLayersAndTimesBeyondNoise) {
  const auto with_layer = [](double scale, double time_us) {
    RunRecord run = Made("layered", 1, 1);
    Json layer = {{"node", "conv"}, {"input_scale", scale}, {"time_us", time_us}};
    run.reports = ParseJson(R"([{"pass": "evaluate", "report": {"layers": []}}])");
    run.reports[0]["report"]["layers"].push_back(std::move(layer));
    return run;
  };
  std::vector<int64_t> ids;
  for (const RunRecord& run : {with_layer(0.5, 100), with_layer(0.25, 120), with_layer(0.5, 130)}) {
    Post(Spec());
    const JobId job = store_.Claim({})->id;
    store_.Finish(job, JobState::kSucceeded, nullptr, {run});
    RunQuery query;
    query.job = job;
    ids.push_back(store_.Runs(query).at(0).id);
  }
  const auto differences = [&](size_t a, size_t b) {
    const std::string runs = "runs=" + std::to_string(ids[a]) + "," + std::to_string(ids[b]);
    std::vector<std::string> places;
    const Json json = ParseJson(Ask(Verb::kGet, "/v1/compare", runs).body);
    for (const Json& one : json["differences"]) {
      if (one["at"] != "/job") places.push_back(one["at"]);
    }
    return places;
  };
  const std::string layer = "/reports/evaluate/report/layers/conv/";
  EXPECT_THAT(differences(0, 1), ::testing::ElementsAre(layer + "input_scale"));
  EXPECT_THAT(differences(0, 2), ::testing::ElementsAre(layer + "time_us"));
}

TEST_F(QueryTest, TagsNotesAndDeletion) {
  const Json run = ParseJson(Patch(R"({"tags": {"keep": "yes"}, "note": "n"})").body);
  EXPECT_EQ(run["tags"]["keep"], "yes");
  EXPECT_EQ(run["note"], "n");
  EXPECT_EQ(Patch(R"({"chain": "x"})").status, 400);
  EXPECT_EQ(Patch(R"({"tags": {"Keep": "x"}})").status, 400);
  EXPECT_EQ(Ask(Verb::kDelete, "/v1/runs/2").status, 200);
  EXPECT_EQ(Ask(Verb::kGet, "/v1/runs/2").status, 404);
  EXPECT_EQ(Ask(Verb::kDelete, "/v1/experiments/default").status, 200);
}

TEST_F(QueryTest, StreamsAJobToItsEnd) {
  Post(Spec());
  const Response response = Ask(Verb::kGet, "/v1/jobs/2/events");
  EXPECT_EQ(response.type, "text/event-stream");
  EXPECT_THAT(*response.stream(), HasSubstr("\"state\":\"queued\""));
  EXPECT_EQ(*response.stream(), "");
  store_.RequestCancel(2);
  EXPECT_THAT(*response.stream(), HasSubstr("\"state\":\"cancelled\""));
  EXPECT_FALSE(response.stream().has_value());
  EXPECT_EQ(Ask(Verb::kGet, "/v1/jobs/9/events").status, 404);
}

TEST_F(QueryTest, StreamsAllJobsOnceAChange) {
  const Response response = Ask(Verb::kGet, "/v1/events");
  Post(Spec());
  EXPECT_THAT(*response.stream(), HasSubstr("\"state\":\"queued\""));
  store_.RequestCancel(2);
  EXPECT_THAT(*response.stream(), HasSubstr("\"state\":\"cancelled\""));
  EXPECT_EQ(*response.stream(), "");
}

TEST_F(QueryTest, TokensOpenWhatTheirScopeAllows) {
  Request request;
  request.path = "/v1/runs";
  EXPECT_FALSE(RefuseStranger(settings_, request, 0).has_value());
  // printf %s secret | sha256sum
  settings_.tokens = {{"ci", "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b",
                       TokenScope::kRead, 1'000}};
  EXPECT_EQ(RefuseStranger(settings_, request, 0)->status, 401);
  request.headers["authorization"] = "Bearer secret";
  EXPECT_FALSE(RefuseStranger(settings_, request, 999).has_value());
  EXPECT_EQ(RefuseStranger(settings_, request, 1'000)->status, 401);
  request.verb = Verb::kDelete;
  EXPECT_EQ(RefuseStranger(settings_, request, 0)->status, 403);
  settings_.tokens[0].scope = TokenScope::kWrite;
  EXPECT_FALSE(RefuseStranger(settings_, request, 0).has_value());
  request.headers["authorization"] = "Bearer Secret";
  EXPECT_EQ(RefuseStranger(settings_, request, 0)->status, 401);
  request.path = "/readyz";
  EXPECT_FALSE(RefuseStranger(settings_, request, 0).has_value());
}

}  // namespace
}  // namespace pared
