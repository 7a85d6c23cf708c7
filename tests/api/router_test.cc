#include "api/router.h"

#include <gmock/gmock.h>

#include <stdexcept>

#include "tests/testing/matchers.h"

namespace pared {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;

Router MakeRouter() {
  const Handler echo = [](const Request& request) {
    return JsonResponse({{"params", request.params}, {"query", request.query}});
  };
  return Router({
      {Verb::kGet, "/a", "", Body::kNone, {{"limit", ""}}, echo},
      {Verb::kPost,
       "/a",
       "",
       Body::kJson,
       {},
       [](const Request&) -> Response {
         throw Error(ErrorCode::kInvalidArgument, "must be 1", "/x/0");
       }},
      {Verb::kGet, "/a/{id}/b", "", Body::kNone, {}, echo},
      {Verb::kGet,
       "/bug",
       "",
       Body::kNone,
       {},
       [](const Request&) -> Response { throw std::logic_error("private"); }},
  });
}

Response Ask(Verb verb, const std::string& path, const std::string& query = "") {
  Request request;
  request.verb = verb;
  request.path = path;
  request.query_text = query;
  return MakeRouter().Answer(request);
}

TEST(Router, FillsInPathAndQuery) {
  EXPECT_EQ(Ask(Verb::kGet, "/a", "limit=%31").body,
            "{\"params\":{},\"query\":{\"limit\":\"1\"}}\n");
  EXPECT_EQ(Ask(Verb::kGet, "/a/x%2Fy/b").body, "{\"params\":{\"id\":\"x/y\"},\"query\":{}}\n");
}

TEST(Router, AnswersWhatItDoesNotKnow) {
  for (const char* path : {"/", "/b", "/a/", "/a//b", "/a/1", "/a/1/b/", "//a", ""}) {
    EXPECT_EQ(Ask(Verb::kGet, path).status, 404) << path;
  }
}

TEST(Router, NamesTheMethodsThatAPathTakes) {
  const Response response = Ask(Verb::kDelete, "/a");
  EXPECT_EQ(response.status, 405);
  EXPECT_EQ(response.headers.at("allow"), "GET, POST");
}

TEST(Router, PointsIntoAJsonBody) {
  const Response response = Ask(Verb::kPost, "/a");
  EXPECT_EQ(response.status, 400);
  EXPECT_EQ(response.type, "application/problem+json");
  EXPECT_EQ(ParseJson(response.body), ParseJson(R"({
    "title": "invalid argument", "status": 400, "detail": "must be 1",
    "errors": [{"pointer": "/x/0", "detail": "must be 1"}]})"));
}

TEST(Router, RefusesUnknownParameters) {
  const Response response = Ask(Verb::kGet, "/a", "limt=1");
  EXPECT_EQ(response.status, 400);
  EXPECT_THAT(response.body, HasSubstr("did you mean \\\"limit\\\"?"));
  EXPECT_EQ(ParseJson(response.body)["errors"][0]["parameter"], "limt");
}

TEST(Router, KeepsTheTextOfABugToItself) {
  const Response response = Ask(Verb::kGet, "/bug");
  EXPECT_EQ(response.status, 500);
  EXPECT_THAT(response.body, ::testing::Not(HasSubstr("private")));
}

TEST(ParseQuery, DecodesAndRefuses) {
  EXPECT_THAT(ParseQuery("a=1&b=%20x+%2B&&c"),
              ElementsAre(Pair("a", "1"), Pair("b", " x +"), Pair("c", "")));
  EXPECT_THAT([] { ParseQuery("a=1&a=2"); }, ThrowsError(ErrorCode::kInvalidArgument, "?a"));
  for (const char* text : {"a=%", "a=%2", "a=%zz", "a=%00", "a=%+1"}) {
    EXPECT_THAT([&] { ParseQuery(text); }, ThrowsError(ErrorCode::kInvalidArgument, "?a")) << text;
  }
}

TEST(StatusOf, FollowsTheCode) {
  EXPECT_EQ(StatusOf(ErrorCode::kInvalidArgument), 400);
  EXPECT_EQ(StatusOf(ErrorCode::kNotFound), 404);
  EXPECT_EQ(StatusOf(ErrorCode::kConflict), 409);
  EXPECT_EQ(StatusOf(ErrorCode::kUnsupported), 422);
  EXPECT_EQ(StatusOf(ErrorCode::kUnavailable), 503);
  EXPECT_EQ(StatusOf(ErrorCode::kInternal), 500);
}

}  // namespace
}  // namespace pared
