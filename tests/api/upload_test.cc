// Uploads in parts, digests, ranges: over real sockets. Digests are of coreutils' sha256sum.

#include <gmock/gmock.h>

#include <thread>

#include "config/sha256.h"
#include "storage/uploads.h"
#include "tests/api/http_fixture.h"
#include "tests/testing/matchers.h"

namespace pared {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

// printf hello | sha256sum, and its 32 bytes as base64.
const std::string kHello = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
const std::string kHelloBase64 = "LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=";

class UploadTest : public HttpServerTest {
 protected:
  // PUT of a part that begins at `first`.
  std::string PutPart(const std::string& sha256, const std::string& bytes, size_t first,
                      size_t total) {
    return Ask("PUT /v1/uploads/" + sha256, "Content-Range: bytes " + std::to_string(first) + "-" +
                                                std::to_string(first + bytes.size() - 1) + "/" +
                                                std::to_string(total) + "\r\n" + Sized(bytes));
  }

  std::string PutJson(const std::string& name, const Json& json) {
    return Ask("PUT /v1/models/" + name, "Content-Type: application/json\r\n" + Sized(json.dump()));
  }

  // Sends a whole file and returns its digest.
  std::string Upload(const std::string& bytes) {
    WriteFile(folder_ / "bytes", bytes);
    const std::string sha256 = Sha256OfFile(folder_ / "bytes").hex;
    EXPECT_THAT(Ask("PUT /v1/uploads/" + sha256, Sized(bytes)), StartsWith("HTTP/1.1 201 "));
    return sha256;
  }

  std::string StoreFive() {
    WriteFile(folder_ / "five.onnx", "hello");
    return artifacts_.Put(folder_ / "five.onnx").sha256;
  }
};

TEST_F(UploadTest, ArrivesInPartsAndTellsHowFarItIs) {
  EXPECT_THAT(Ask("HEAD /v1/uploads/" + kHello), StartsWith("HTTP/1.1 404 "));
  EXPECT_THAT(PutPart(kHello, "he", 0, 5), HasSubstr("\"offset\":2"));
  const std::string state = Ask("HEAD /v1/uploads/" + kHello);
  EXPECT_THAT(state, StartsWith("HTTP/1.1 200 "));
  EXPECT_THAT(state, HasSubstr("upload-offset: 2\r\n"));
  EXPECT_THAT(PutPart(kHello, "lo", 3, 5), StartsWith("HTTP/1.1 409 "));
  EXPECT_THAT(PutPart(kHello, "l", 1, 5), StartsWith("HTTP/1.1 409 "));
  EXPECT_THAT(PutPart(kHello, "llo", 2, 5), StartsWith("HTTP/1.1 201 "));
  EXPECT_THAT(Ask("GET /v1/uploads/" + kHello), HasSubstr("\"is_whole\":true"));
  EXPECT_THAT(PutPart(kHello, "he", 0, 5), StartsWith("HTTP/1.1 200 "));  // is there already
  EXPECT_EQ(ReadFile(settings_.UploadsDir() / kHello), "hello");
  EXPECT_THAT(Ask("DELETE /v1/uploads/" + kHello), StartsWith("HTTP/1.1 200 "));
  EXPECT_THAT(Ask("DELETE /v1/uploads/" + kHello), StartsWith("HTTP/1.1 404 "));
}

TEST_F(UploadTest, ABrokenConnectionLosesNothingThatHasArrived) {
  {
    Client client(server_->port());
    client.Send("PUT /v1/uploads/" + kHello +
                " HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhel");
    client.EndSending();
    client.ReadToEnd();
  }
  EXPECT_THAT(Ask("HEAD /v1/uploads/" + kHello), HasSubstr("upload-offset: 3\r\n"));
  server_.reset();  // nor does the daemon's end
  server_ = std::make_unique<HttpServer>(settings_, router_, folder_ / "incoming");
  EXPECT_THAT(PutPart(kHello, "lo", 3, 5), StartsWith("HTTP/1.1 201 "));
}

TEST_F(UploadTest, TwoSendersDoNotMix) {
  Client client(server_->port());
  client.Send("PUT /v1/uploads/" + kHello +
              " HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nExpect: "
              "100-continue\r\n\r\n");
  EXPECT_THAT(client.ReadUntil("\r\n\r\n"), StartsWith("HTTP/1.1 100 "));
  EXPECT_THAT(PutPart(kHello, "he", 0, 5), StartsWith("HTTP/1.1 409 "));
  EXPECT_THAT(Ask("DELETE /v1/uploads/" + kHello), StartsWith("HTTP/1.1 409 "));
  client.Send("hello");
  EXPECT_THAT(client.ReadUntil("\r\n\r\n"), StartsWith("HTTP/1.1 201 "));
}

TEST_F(UploadTest, OtherBytesThanPromisedAreDropped) {
  const std::string answer = Ask("PUT /v1/uploads/" + kHello, Sized("hallo"));
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 400 "));
  EXPECT_THAT(answer,
              HasSubstr("d3751d33f9cd5049c4af2b462735457e4d3baf130bcbb87f389e349fbaeb20b9"));
  EXPECT_THAT(Ask("HEAD /v1/uploads/" + kHello), StartsWith("HTTP/1.1 404 "));
}

TEST_F(UploadTest, RefusesRangesThatMakeNoSense) {
  const auto put = [&](const std::string& range) {
    return Ask("PUT /v1/uploads/" + kHello, "Content-Range: " + range + "\r\n" + Sized("he"));
  };
  for (const char* range : {"bytes 0-1/1", "bytes 1-0/5", "bytes 0-1/*", "bytes 0-1", "0-1/5",
                            "bytes -1-1/5", "bytes 0-2/5", "bytes 0-1/99999999999999999999"}) {
    EXPECT_THAT(put(range), StartsWith("HTTP/1.1 400 ")) << range;
  }
  EXPECT_THAT(put("bytes 0-1/4097"), StartsWith("HTTP/1.1 413 "));
  EXPECT_THAT(Ask("PUT /v1/uploads/abc", Sized("he")), StartsWith("HTTP/1.1 400 "));
  EXPECT_THAT(Ask("PUT /v1/uploads/..%2f..%2fx", Sized("he")), StartsWith("HTTP/1.1 400 "));
  EXPECT_THAT(Ask("HEAD /v1/uploads/" + kHello), StartsWith("HTTP/1.1 404 "));
}

TEST_F(UploadTest, IsSweptWhenItHasNotGrownForLong) {
  const Uploads uploads(settings_.UploadsDir());
  PutPart(kHello, "he", 0, 5);
  EXPECT_EQ(uploads.Sweep(std::chrono::hours(1), /*is_dry=*/false), 0);
  EXPECT_EQ(uploads.Sweep(std::chrono::seconds(-1), /*is_dry=*/true), 1);
  EXPECT_EQ(uploads.Sweep(std::chrono::seconds(-1), /*is_dry=*/false), 1);
  EXPECT_FALSE(uploads.Find(kHello).has_value());
}

TEST_F(UploadTest, BecomesAModelWithSeveralFilesOfData) {
  const std::string model = Upload(ReadFile("tests/api/two_data_files.onnx"));
  const std::string first(4, '\1');
  const std::string second(8, '\2');
  const Json both = {{"upload", model},
                     {"data",
                      {{{"name", "a.bin"}, {"upload", Upload(first)}},
                       {{"name", "sub/b.bin"}, {"upload", Upload(second)}}}}};
  Json one = both;
  one["data"].erase(1);
  EXPECT_THAT(PutJson("two", one), StartsWith("HTTP/1.1 4"));
  // The refusal consumed nothing.
  EXPECT_THAT(PutJson("two", both), StartsWith("HTTP/1.1 201 "));
  const OpenArtifact artifact = artifacts_.Open(store_.GetModel("two")->sha256);
  const Graph graph = LoadOnnx(artifact.model).graph;
  EXPECT_EQ(graph.initializers.at("a").tensor.bytes().size(), 4);
  EXPECT_EQ(graph.initializers.at("b").tensor.bytes()[7], std::byte{2});
  EXPECT_THAT(Ask("HEAD /v1/uploads/" + model), StartsWith("HTTP/1.1 404 "));  // it was used
}

TEST_F(UploadTest, DataKeepsToItsFolder) {
  const std::string model = Upload(ModelBytes());
  const std::string data = Upload("x");
  for (const char* name :
       {"../x", "/x", "a/../../x", "", ".", "a/", "model.onnx", "model.onnx/x"}) {
    const Json json = {{"upload", model}, {"data", {{{"name", name}, {"upload", data}}}}};
    EXPECT_THAT(PutJson("m2", json), StartsWith("HTTP/1.1 400 ")) << name;
  }
  const std::string part(256, 'a');
  std::string deep = "x";
  for (int i = 0; i < 600; ++i) deep += "/x";
  for (const std::string& name : {part, "sub/" + part, deep}) {
    const Json json = {{"upload", model}, {"data", {{{"name", name}, {"upload", data}}}}};
    EXPECT_THAT(PutJson("m2", json), AllOf(StartsWith("HTTP/1.1 400 "), HasSubstr("/data/0/name"),
                                           HasSubstr("255 bytes")));
  }
  EXPECT_THAT(PutJson("m2", {{"upload", "../../pared.db"}}), StartsWith("HTTP/1.1 400 "));
  EXPECT_THAT(PutJson("m2", {{"upload", kHello}}), StartsWith("HTTP/1.1 404 "));
  EXPECT_THAT(PutJson("m2", Json::object()), StartsWith("HTTP/1.1 400 "));
  EXPECT_THAT(PutJson("m2", {{"upload", model}}), StartsWith("HTTP/1.1 201 "));
}

TEST_F(UploadTest, DeclaredDigestsAreChecked) {
  const auto put = [&](const std::string& header, const std::string& body) {
    return Ask("PUT /v1/models/relu", header + "\r\n" + Sized(body));
  };
  WriteFile(folder_ / "relu.onnx", ModelBytes());
  const std::string right = Sha256OfFile(folder_ / "relu.onnx").base64;
  EXPECT_THAT(put("Content-Digest: sha-256=:" + kHelloBase64 + ":", ModelBytes()),
              StartsWith("HTTP/1.1 400 "));
  EXPECT_THAT(put("Repr-Digest: md5=:x:", ModelBytes()), StartsWith("HTTP/1.1 400 "));
  EXPECT_FALSE(store_.GetModel("relu").has_value());
  EXPECT_THAT(put("Content-Digest: sha-256=:" + right + ":", ModelBytes()),
              StartsWith("HTTP/1.1 201 "));
  // Of bytes that are no model: the digest is right, and the next check speaks.
  EXPECT_THAT(put("Repr-Digest: sha-256=:" + kHelloBase64 + ":", "hello"),
              ::testing::Not(HasSubstr("repr-digest")));
}

TEST_F(UploadTest, ArtifactsAreServedInRanges) {
  const std::string path = "GET /v1/artifacts/" + StoreFive();
  const auto get = [&](const std::string& range) { return Ask(path, range + "\r\n\r\n"); };
  const std::string middle = get("Range: bytes=1-3");
  EXPECT_THAT(middle, StartsWith("HTTP/1.1 206 "));
  EXPECT_THAT(middle, HasSubstr("content-range: bytes 1-3/5\r\n"));
  EXPECT_THAT(middle, ::testing::EndsWith("\r\n\r\nell"));
  EXPECT_THAT(get("Range: bytes=3-"), ::testing::EndsWith("\r\n\r\nlo"));
  EXPECT_THAT(get("Range: bytes=-2"), ::testing::EndsWith("\r\n\r\nlo"));
  EXPECT_THAT(get("Range: bytes=-99"), HasSubstr("bytes 0-4/5"));
  EXPECT_THAT(get("Range: bytes=4-99"), ::testing::EndsWith("\r\n\r\no"));
  const std::string beyond = get("Range: bytes=5-");
  EXPECT_THAT(beyond, StartsWith("HTTP/1.1 416 "));
  EXPECT_THAT(beyond, HasSubstr("content-range: bytes */5\r\n"));
  EXPECT_THAT(get("Range: bytes=-0"), StartsWith("HTTP/1.1 416 "));
  for (const char* whole : {"bytes=0-1,3-4", "lines=1-2", "bytes=3-1", "bytes=x-", "bytes=-"}) {
    EXPECT_THAT(get(std::string("Range: ") + whole), StartsWith("HTTP/1.1 200 ")) << whole;
  }
}

TEST_F(UploadTest, ArtifactsHaveStrongTags) {
  const std::string sha256 = StoreFive();
  EXPECT_EQ(sha256, kHello);
  const std::string path = "GET /v1/artifacts/" + sha256;
  const std::string tag = "\"" + sha256 + "\"";
  EXPECT_THAT(Ask(path), HasSubstr("etag: " + tag + "\r\n"));
  for (const std::string& known : {tag, "W/" + tag, "\"x\", " + tag, std::string("*")}) {
    const std::string answer = Ask(path, "If-None-Match: " + known + "\r\n\r\n");
    EXPECT_THAT(answer, StartsWith("HTTP/1.1 304 ")) << known;
    EXPECT_THAT(answer, ::testing::EndsWith("\r\n\r\n"));
  }
  EXPECT_THAT(Ask(path, "If-None-Match: \"x\"\r\n\r\n"), StartsWith("HTTP/1.1 200 "));
  EXPECT_THAT(Ask(path, "If-Range: " + tag + "\r\nRange: bytes=1-3\r\n\r\n"),
              StartsWith("HTTP/1.1 206 "));
  EXPECT_THAT(Ask(path, "If-Range: \"x\"\r\nRange: bytes=1-3\r\n\r\n"),
              StartsWith("HTTP/1.1 200 "));
  EXPECT_THAT(Ask("HEAD /v1/artifacts/" + sha256, "Range: bytes=1-3\r\n\r\n"),
              HasSubstr("Content-Length: 5\r\n"));
  EXPECT_THAT(Ask("GET /v1/artifacts/" + std::string(64, 'b')), StartsWith("HTTP/1.1 404 "));
}

// In the body, as an upload and by its path.
TEST_F(UploadTest, TensorFlowLiteFilesAreRegisteredAsOnnx) {
  const std::string bytes = ReadFile("tests/fuzz/corpus/tflite/prelu");
  EXPECT_THAT(Ask("PUT /v1/models/body", Sized(bytes)), StartsWith("HTTP/1.1 201 "));
  EXPECT_THAT(PutJson("upload", {{"upload", Upload(bytes)}}), StartsWith("HTTP/1.1 201 "));
  WriteFile(folder_ / "roots" / "prelu.tflite", bytes);
  EXPECT_THAT(PutJson("path", {{"path", (folder_ / "roots" / "prelu.tflite").string()}}),
              StartsWith("HTTP/1.1 201 "));
  const std::string sha256 = store_.GetModel("body")->sha256;
  EXPECT_EQ(store_.GetModel("upload")->sha256, sha256);
  EXPECT_EQ(store_.GetModel("path")->sha256, sha256);
  const Model model = LoadOnnx(artifacts_.Open(sha256).model);
  EXPECT_EQ(model.graph.nodes.size(), 4);
  EXPECT_THAT(Ask("GET /v1/models/body"), HasSubstr("\"shape\":[2,7,9,6]"));
  EXPECT_THAT(Ask("PUT /v1/models/cut", Sized(bytes.substr(0, 200))), StartsWith("HTTP/1.1 400 "));
}

}  // namespace
}  // namespace pared
