// Over real sockets, by a client that writes and reads plain bytes.

#include "api/http_server.h"

#include <gmock/gmock.h>

#include "tests/api/http_fixture.h"

namespace pared {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

TEST_F(HttpServerTest, AnswersOnThePortItReports) {
  EXPECT_NE(server_->port(), 0);
  EXPECT_THAT(Ask("GET /healthz"), StartsWith("HTTP/1.1 200 OK\r\n"));
  EXPECT_THAT(Ask("GET /nothing"), StartsWith("HTTP/1.1 404 "));
  const std::string refused = Ask("TRACE /healthz");
  EXPECT_THAT(refused, StartsWith("HTTP/1.1 405 "));
  EXPECT_THAT(refused, HasSubstr("allow: GET\r\n"));
  EXPECT_THAT(Ask("QUERY /v1/jobs"), StartsWith("HTTP/1.1 405 "));
  EXPECT_THAT(Ask("FROBNICATE /healthz"), StartsWith("HTTP/1.1 501 "));
}

TEST_F(HttpServerTest, KeepsAConnectionForSeveralRequests) {
  Client client(server_->port());
  client.Send(
      "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
      "GET /v1/jobs HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
  const std::string answers = client.ReadToEnd();
  EXPECT_THAT(answers, HasSubstr("\"status\":\"ok\""));
  EXPECT_THAT(answers, HasSubstr("\"jobs\":[]"));
}

TEST_F(HttpServerTest, AnswersHeadWithoutABody) {
  const std::string answer = Ask("HEAD /v1/models");
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 200 OK\r\n"));
  EXPECT_TRUE(answer.ends_with("\r\n\r\n")) << answer;
}

TEST_F(HttpServerTest, RefusesWhatIsNotHttp) {
  Client client(server_->port());
  client.Send("hello\r\n\r\n");
  EXPECT_THAT(client.ReadToEnd(), StartsWith("HTTP/1.1 400 "));
}

TEST_F(HttpServerTest, LimitsHeaders) {
  EXPECT_THAT(Ask("GET /healthz", "X: " + std::string(20'000, 'x') + "\r\n\r\n"),
              StartsWith("HTTP/1.1 431 "));
}

TEST_F(HttpServerTest, LimitsBodies) {
  EXPECT_THAT(Ask("POST /v1/jobs", Sized(std::string(1024, ' '))), StartsWith("HTTP/1.1 400 "));
  EXPECT_THAT(Ask("POST /v1/jobs", Sized(std::string(1025, ' '))), StartsWith("HTTP/1.1 413 "));
  EXPECT_THAT(Ask("PUT /v1/models/x", Sized(std::string(4097, ' '))), StartsWith("HTTP/1.1 413 "));
}

TEST_F(HttpServerTest, RefusesPagesOfOtherSites) {
  EXPECT_THAT(Ask("GET /healthz", "Origin: http://evil.example\r\n\r\n"),
              StartsWith("HTTP/1.1 403 "));
  EXPECT_THAT(Ask("GET /healthz", "Origin: http://localhost\r\n\r\n"), StartsWith("HTTP/1.1 200 "));
  Client rebound(server_->port());
  rebound.Send("GET /healthz HTTP/1.1\r\nHost: evil.example:8080\r\nConnection: close\r\n\r\n");
  EXPECT_THAT(rebound.ReadToEnd(), StartsWith("HTTP/1.1 403 "));
}

TEST_F(HttpServerTest, TakesAModelAndGivesItBackByItsName) {
  EXPECT_THAT(Ask("PUT /v1/models/relu", Sized(ModelBytes())), StartsWith("HTTP/1.1 201 "));
  EXPECT_THAT(Ask("PUT /v1/models/relu", Sized(ModelBytes())), StartsWith("HTTP/1.1 200 "));
  EXPECT_THAT(Ask("GET /v1/models/relu"), HasSubstr("\"shape\":[\"N\",4]"));
  EXPECT_THAT(Ask("PUT /v1/models/junk", Sized("junk")), HasSubstr("\"errors\":[{"));
  EXPECT_THAT(Ask("PUT /v1/models/UP", Sized(ModelBytes())), StartsWith("HTTP/1.1 400 "));
  EXPECT_FALSE(store_.GetModel("junk").has_value());
  EXPECT_TRUE(std::filesystem::is_empty(folder_ / "incoming"));
}

TEST_F(HttpServerTest, StreamsAnArtifact) {
  const std::string bytes(1'000'000, 'x');
  WriteFile(folder_ / "c.onnx", bytes);
  RunRecord run;
  run.chain = "c";
  run.artifact = artifacts_.Put(folder_ / "c.onnx").sha256;
  store_.Submit(Json::object());
  store_.Claim({});
  store_.Finish(1, JobState::kSucceeded, nullptr, {run});
  const std::string answer = Ask("GET /v1/runs/1/model");
  EXPECT_THAT(answer, HasSubstr("Content-Length: 1000000\r\n"));
  EXPECT_TRUE(answer.ends_with("\r\n\r\n" + bytes));
}

TEST_F(HttpServerTest, WaitEndsWithTheJob) {
  store_.Submit(Json::object());
  Client client(server_->port());
  client.Send("GET /v1/jobs/1?wait=30 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
  EXPECT_THAT(Ask("GET /healthz"), StartsWith("HTTP/1.1 200 "));  // meanwhile
  store_.RequestCancel(1);
  EXPECT_THAT(client.ReadToEnd(), HasSubstr("\"state\":\"cancelled\""));
}

TEST_F(HttpServerTest, StopAnswersThoseWhoWaitAndClosesTheRest) {
  store_.Submit(Json::object());
  Client idle(server_->port());
  Client waiting(server_->port());
  waiting.Send("GET /v1/jobs/1?wait=30 HTTP/1.1\r\nHost: localhost\r\n\r\n");
  EXPECT_THAT(Ask("GET /healthz"), StartsWith("HTTP/1.1 200 "));
  server_->Stop();
  EXPECT_EQ(idle.ReadToEnd(), "");
  server_->Stop();
}

TEST_F(HttpServerTest, SaysThatAPortIsTaken) {
  Settings taken = settings_;
  taken.port = server_->port();
  EXPECT_THROW(HttpServer(taken, router_, folder_ / "incoming2"), Error);
  taken.address = "nowhere";
  EXPECT_THROW(HttpServer(taken, router_, folder_ / "incoming2"), Error);
}

}  // namespace
}  // namespace pared
