#include <gmock/gmock.h>

#include "storage/job_logs.h"
#include "tests/api/service_fixture.h"

namespace pared {
namespace {

using ::testing::HasSubstr;

std::string PointerOf(const Response& response) {
  return ParseJson(response.body)["errors"][0].value("pointer", "");
}

RunRecord RunOf(const std::string& chain, double size, double top1) {
  RunRecord run;
  run.experiment = "default";
  run.model = "m";
  run.chain = chain;
  run.metrics = {{"size_bytes", size}, {"top1", top1}};
  return run;
}

TEST_F(ServiceTest, SubmitStoresTheCanonicalSpec) {
  const Response response = Post(Spec());
  ASSERT_EQ(response.status, 201) << response.body;
  EXPECT_EQ(response.headers.at("location"), "/v1/jobs/1");
  const Json spec = store_.GetJob(1)->spec;
  EXPECT_EQ(spec["model_sha256"], std::string(64, 'a'));
  EXPECT_EQ(spec["chains"][0]["passes"][0]["pass"], "magnitude_prune");
  EXPECT_EQ(spec["chains"][0]["passes"][0]["sparsity"], 0.8);
  EXPECT_GT(spec["chains"][0]["passes"][0].size(), 2);
  EXPECT_EQ(Post(spec).status, 201);
}

TEST_F(ServiceTest, SubmitPointsAtTheFaultBeforeAnythingRuns) {
  const auto pointer = [&](const std::string& at, const Json& value) {
    Json spec = Spec();
    spec[Json::json_pointer(at)] = value;
    const Response response = Post(spec);
    EXPECT_EQ(response.status, 400) << response.body;
    return PointerOf(response);
  };
  EXPECT_EQ(pointer("/model", "n"), "/model");
  EXPECT_EQ(pointer("/model_sha256", std::string(64, 'b')), "/model_sha256");
  EXPECT_EQ(pointer("/calibration", Json{{"dataset", "none"}}), "/calibration/dataset");
  EXPECT_EQ(pointer("/evaluate", Json{{"dataset", "digit"}}), "/evaluate/dataset");
  EXPECT_EQ(pointer("/chains/0/passes/0/sparsity", 1.8), "/chains/0/passes/0/sparsity");
  EXPECT_EQ(pointer("/chains/0/passes/0/pass", "prune"), "/chains/0/passes/0/pass");
  EXPECT_TRUE(store_.Jobs({}).empty());
}

TEST_F(ServiceTest, SubmitRefusesWhenTheQueueIsFull) {
  for (int i = 0; i < 3; ++i) ASSERT_EQ(Post(Spec()).status, 201);
  const Response response = Post(Spec());
  EXPECT_EQ(response.status, 503);
  EXPECT_EQ(response.headers.at("retry-after"), "5");
}

TEST_F(ServiceTest, SubmitWithAKeyHappensOnce) {
  EXPECT_EQ(Post(Spec(), {{"idempotency-key", "k"}}).headers.at("location"), "/v1/jobs/1");
  EXPECT_EQ(Post(Spec(), {{"idempotency-key", "k"}}).headers.at("location"), "/v1/jobs/1");
  Json other = Spec();
  other["seed"] = 1;
  EXPECT_EQ(Post(other, {{"idempotency-key", "k"}}).status, 409);
}

TEST_F(ServiceTest, LimitsThatTheDaemonNeverGrantsAreRefusedAtTheirPlace) {
  settings_.memory_total_mb = 10'000;
  settings_.time_s_max = 100;
  Json spec = Spec();
  spec["limits"] = {{"memory_mb", 10'000}, {"time_s", 100}};
  EXPECT_EQ(Post(spec).status, 201);
  spec["limits"] = {{"memory_mb", 10'001}};
  EXPECT_EQ(Post(spec).status, 400);
  EXPECT_THAT(Post(spec).body, HasSubstr("/limits/memory_mb"));
  EXPECT_THAT(Post(spec).body, HasSubstr("10000 MB"));
  spec["limits"] = {{"time_s", 101}};
  EXPECT_THAT(Post(spec).body, HasSubstr("/limits/time_s"));
}

TEST_F(ServiceTest, AJobsLogIsGivenFromAnOffsetOn) {
  Post(Spec());
  EXPECT_EQ(Ask(Verb::kGet, "/v1/jobs/1/log").body, "");
  const JobLogs logs(settings_.LogsDir());
  logs.Append(1, R"({"event":"a"})", LogSource::kRunner);
  const Response first = Ask(Verb::kGet, "/v1/jobs/1/log");
  EXPECT_EQ(first.body, "{\"event\":\"a\"}\n");
  EXPECT_EQ(first.headers.at("x-next-after"), "14");
  logs.Append(1, R"({"event":"b"})", LogSource::kRunner);
  EXPECT_EQ(Ask(Verb::kGet, "/v1/jobs/1/log", "after=14").body, "{\"event\":\"b\"}\n");
  EXPECT_EQ(Ask(Verb::kGet, "/v1/jobs/2/log").status, 404);
}

TEST_F(ServiceTest, AJobThatGoesBackIntoTheQueueIsAnEvent) {
  Post(Spec());
  const Response all = Ask(Verb::kGet, "/v1/events");
  store_.Claim({});
  EXPECT_THAT(*all.stream(), HasSubstr("running"));
  store_.Retry(1, {{"code", "internal"}, {"message", "killed by signal 9"}, {"where", ""}});
  EXPECT_THAT(*all.stream(), ::testing::AllOf(HasSubstr("\"state\":\"queued\""),
                                              HasSubstr("\"requeues\":1"), HasSubstr("signal 9")));
  EXPECT_EQ(*all.stream(), "");
}

TEST_F(ServiceTest, GetJobWaitsUntilItHasEndedOrTheTimeIsUp) {
  Post(Spec());
  EXPECT_FALSE(Ask(Verb::kGet, "/v1/jobs/1").pending);
  Request request;
  request.path = "/v1/jobs/1";
  request.query_text = "wait=2";
  EXPECT_TRUE(router_.Answer(request).pending);
  request.waited_ms = 2000;
  EXPECT_FALSE(router_.Answer(request).pending);
  request.waited_ms = 0;
  store_.RequestCancel(1);
  EXPECT_FALSE(router_.Answer(request).pending);
  EXPECT_EQ(Ask(Verb::kGet, "/v1/jobs/1", "wait=61").status, 400);
}

TEST_F(ServiceTest, JobsAreCancelledOnce) {
  Post(Spec());
  EXPECT_EQ(Ask(Verb::kDelete, "/v1/jobs/1").status, 202);
  EXPECT_EQ(Ask(Verb::kDelete, "/v1/jobs/1").status, 409);
  EXPECT_EQ(Ask(Verb::kDelete, "/v1/jobs/2").status, 404);
  EXPECT_EQ(Ask(Verb::kGet, "/v1/jobs/x").status, 400);
  EXPECT_EQ(Ask(Verb::kGet, "/v1/jobs/2").status, 404);
}

TEST_F(ServiceTest, JobsAreListedByPage) {
  Post(Spec());
  Post(Spec());
  const Json page = ParseJson(Ask(Verb::kGet, "/v1/jobs", "limit=1").body);
  EXPECT_EQ(page["jobs"].size(), 1);
  EXPECT_EQ(page["next"], 1);
  const Json rest = ParseJson(Ask(Verb::kGet, "/v1/jobs", "after=1&state=queued").body);
  EXPECT_EQ(rest["jobs"][0]["id"], 2);
  EXPECT_TRUE(rest["next"].is_null());
  EXPECT_EQ(Ask(Verb::kGet, "/v1/jobs", "state=done").status, 400);
  EXPECT_EQ(Ask(Verb::kGet, "/v1/jobs", "limit=1001").status, 400);
}

TEST_F(ServiceTest, RunsModelsAndFrontAreServed) {
  WriteFile(folder_ / "c.onnx", "abc");
  RunRecord run = RunOf("c", 10, 0.9);
  run.artifact = artifacts_.Put(folder_ / "c.onnx").sha256;
  Post(Spec());
  store_.Claim({});
  store_.Finish(1, JobState::kSucceeded, nullptr, {run, RunOf("beaten", 11, 0.8)});

  EXPECT_EQ(ParseJson(Ask(Verb::kGet, "/v1/jobs/1").body)["runs"].size(), 2);
  EXPECT_EQ(ParseJson(Ask(Verb::kGet, "/v1/runs", "chain=beaten").body)["runs"].size(), 1);
  EXPECT_EQ(ParseJson(Ask(Verb::kGet, "/v1/runs/1").body)["metrics"]["top1"], 0.9);
  EXPECT_EQ(ParseJson(Ask(Verb::kGet, "/v1/pareto").body)["runs"].size(), 1);
  const Response model = Ask(Verb::kGet, "/v1/runs/1/model");
  EXPECT_EQ(model.file, artifacts_.Open(run.artifact).model);
  EXPECT_EQ(model.headers.at("content-disposition"), "attachment; filename=\"m-c.onnx\"");
  EXPECT_EQ(Ask(Verb::kGet, "/v1/runs/1/model", "form=packed").status, 404);
  EXPECT_EQ(Ask(Verb::kGet, "/v1/runs/2/model").status, 404);
  EXPECT_EQ(Ask(Verb::kGet, "/v1/runs/1/model/data").status, 404);

  Request again;
  again.path = "/v1/runs/1/model";
  again.headers["if-none-match"] = model.headers.at("etag");
  EXPECT_EQ(router_.Answer(again).status, 304);
}

TEST_F(ServiceTest, AModelsNameIsForgottenAndItsJobsGoOn) {
  Post(Spec());
  EXPECT_EQ(ParseJson(Ask(Verb::kDelete, "/v1/models/m").body)["deleted"], 1);
  EXPECT_EQ(Ask(Verb::kGet, "/v1/models/m").status, 404);
  EXPECT_EQ(Ask(Verb::kDelete, "/v1/models/m").status, 404);
  EXPECT_EQ(store_.ReferencedArtifacts().count(std::string(64, 'a')), 1);  // the job's
  EXPECT_EQ(store_.Claim({})->spec["model_sha256"], std::string(64, 'a'));
  EXPECT_THAT(Post(Spec()).body, HasSubstr("no model is registered as"));
}

TEST_F(ServiceTest, WhatIsNotThereIsToldWithWhatIs) {
  Json spec = Spec();
  spec["evaluate"] = {{"dataset", "photographs"}};
  EXPECT_THAT(Post(spec).body,
              HasSubstr("there is no dataset \\\"photographs\\\"; there are: digits"));
  spec["evaluate"]["dataset"] = "digit";
  EXPECT_THAT(Post(spec).body, HasSubstr("did you mean \\\"digits\\\"?"));
}

TEST_F(ServiceTest, APackedModelIsServedInBothForms) {
  WriteFile(folder_ / "c.onnx", "abc");
  RunRecord run = RunOf("c", 10, 0.9);
  run.artifact = artifacts_.Put(folder_ / "c.onnx", ArtifactForm::kPacked).sha256;
  Post(Spec());
  store_.Claim({});
  store_.Finish(1, JobState::kSucceeded, nullptr, {run});
  {
    const Response packed = Ask(Verb::kGet, "/v1/runs/1/model", "form=packed");
    EXPECT_EQ(packed.file, *artifacts_.PackedPath(run.artifact));
    const Response model = Ask(Verb::kGet, "/v1/runs/1/model", "form=onnx");
    EXPECT_EQ(model.headers.at("etag"), "\"" + run.artifact + "\"");
    EXPECT_TRUE(std::filesystem::exists(model.file));
    EXPECT_NE(model.headers.at("etag"), packed.headers.at("etag"));
  }
  EXPECT_TRUE(std::filesystem::is_empty(artifacts_.IncomingDir()));  // what was expanded has gone
  Request again;
  again.path = "/v1/runs/1/model";
  again.headers["if-none-match"] = "\"" + run.artifact + "\"";
  const Response known = router_.Answer(again);
  EXPECT_EQ(known.status, 304);
  EXPECT_EQ(known.keeper, nullptr);  // nothing was expanded for it
  EXPECT_EQ(Ask(Verb::kGet, "/v1/runs/1/model", "form=zip").status, 400);
}

TEST_F(ServiceTest, ATensorFlowLiteFileIsServedToTheRunsThatMadeIt) {
  WriteFile(folder_ / "c.onnx", "abc");
  WriteFile(folder_ / "c.tflite", "TFL");
  const Artifact artifact =
      artifacts_.Put(folder_ / "c.onnx", ArtifactForm::kTflite, folder_ / "c.tflite");
  RunRecord made = RunOf("c", 10, 0.9), plain = RunOf("plain", 10, 0.9);
  RunRecord refused = RunOf("refused", 10, 0.9), baseline = RunOf("baseline", 12, 0.9);
  for (RunRecord* run : {&made, &plain, &refused, &baseline}) run->artifact = artifact.sha256;
  made.lineage = {{"tflite_sha256", artifact.tflite_sha256}};
  refused.reports = {
      {{"pass", "cast_fp16"}, {"report", Json::object()}},
      {{"pass", "evaluate"}, {"report", {{"tflite", {{"error", {{"message", "no Twirl"}}}}}}}}};
  Post(Spec());
  store_.Claim({});
  store_.Finish(1, JobState::kSucceeded, nullptr, {made, plain, refused, baseline});

  const Response tflite = Ask(Verb::kGet, "/v1/runs/1/model", "form=tflite");
  EXPECT_EQ(tflite.file, *artifacts_.TflitePath(artifact.sha256, artifact.tflite_sha256));
  EXPECT_EQ(tflite.headers.at("content-disposition"), "attachment; filename=\"m-c.tflite\"");
  EXPECT_EQ(tflite.headers.at("etag"), "\"" + artifact.tflite_sha256 + "\"");
  EXPECT_EQ(Ask(Verb::kGet, "/v1/runs/1/model").headers.at("etag"), "\"" + artifact.sha256 + "\"");
  const auto refusal = [&](const std::string& path) {
    const Response response = Ask(Verb::kGet, path, "form=tflite");
    EXPECT_EQ(response.status, 404);
    return response.body;
  };
  // The file lies in the folder that they share; theirs it is not.
  EXPECT_THAT(refusal("/v1/runs/2/model"), HasSubstr("its job did not ask for it"));
  EXPECT_THAT(refusal("/v1/runs/3/model"), HasSubstr("no Twirl"));
  EXPECT_THAT(refusal("/v1/runs/4/model"), HasSubstr("it is the input model"));
}

TEST_F(ServiceTest, AJobThatAsksForAnotherFormIsAnotherJob) {
  Json spec = Spec();
  const Headers key = {{"idempotency-key", "once"}};
  EXPECT_EQ(Post(spec, key).status, 201);
  spec["artifact"] = "tflite";
  EXPECT_EQ(Post(spec, key).status, 409);
}

TEST_F(ServiceTest, RegistersAModelBelowARootAndNoOther) {
  WriteFile(folder_ / "roots/x.onnx", ModelBytes());
  WriteFile(folder_ / "outside.onnx", ModelBytes());
  std::filesystem::create_symlink(folder_ / "outside.onnx", folder_ / "roots/link.onnx");
  const auto put = [&](const std::string& file) {
    const TemporaryFolder incoming(artifacts_.IncomingDir());
    Request request;
    request.verb = Verb::kPut;
    request.path = "/v1/models/x";
    request.headers["content-type"] = "application/json";
    request.upload = incoming.path() / "upload.onnx";
    WriteFile(request.upload, Json{{"path", (folder_ / file).string()}}.dump());
    return router_.Answer(request).status;
  };
  EXPECT_EQ(put("roots/../outside.onnx"), 400);
  EXPECT_EQ(put("roots/link.onnx"), 400);
  EXPECT_EQ(put("roots/missing.onnx"), 400);
  EXPECT_EQ(put("roots/x.onnx"), 201);
  EXPECT_TRUE(store_.GetModel("x").has_value());
}

TEST_F(ServiceTest, TellsWhatASpecMayName) {
  EXPECT_THAT(Ask(Verb::kGet, "/v1/passes").body, HasSubstr("\"magnitude_prune\""));
  EXPECT_EQ(Ask(Verb::kGet, "/v1/datasets").body, "{\"datasets\":[\"digits\"]}\n");
  EXPECT_EQ(Ask(Verb::kGet, "/v1/datasets/none").status, 404);
  EXPECT_EQ(ParseJson(Ask(Verb::kGet, "/healthz").body)["status"], "ok");
  EXPECT_THAT(Ask(Verb::kGet, "/metrics").body, HasSubstr("pared_models 1\n"));
  const Json openapi = ParseJson(Ask(Verb::kGet, "/openapi.json").body);
  EXPECT_TRUE(openapi["paths"]["/v1/jobs/{id}"].contains("delete"));
  EXPECT_EQ(openapi["components"]["schemas"]["job_spec"]["required"].dump(),
            R"(["model","chains"])");
}

}  // namespace
}  // namespace pared
