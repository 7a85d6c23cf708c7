// Streams and files: watching a job, fetching a model.

#include <gmock/gmock.h>

#include <thread>

#include "config/sha256.h"
#include "tests/client/client_fixture.h"

namespace pared {
namespace {

using ::testing::ContainsRegex;
using ::testing::HasSubstr;

// Waits for a state of the store, which another thread brings about.
template <class Holds>
void Await(const Holds& holds) {
  for (int i = 0; i < 2'000 && !holds(); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  ASSERT_TRUE(holds());
}

class WatchTest : public ClientTest {
 protected:
  WatchTest() {
    store_.Submit(Spec());
    id_ = store_.Claim({})->id;
    store_.SetProgress(
        id_, {{"step", "quantize_int8"}, {"fraction", 0.5}, {"chains_ended", 1}, {"chains", 2}});
  }

  // Starts `pare watch` and returns once the daemon has its request.
  void Start(const std::vector<std::string>& more = {}) {
    std::vector<std::string> arguments = {"watch", std::to_string(id_)};
    arguments.insert(arguments.end(), more.begin(), more.end());
    watcher_ = std::jthread([this, arguments] {
      said_ = Pare(arguments);
      has_ended_ = true;
    });
  }

  Said End(JobState state, const Json& error = nullptr) {
    store_.Finish(id_, state, error, {Record("baseline", {{"top1", 0.5}})});
    watcher_.join();
    return said_;
  }

  JobId id_ = 0;
  Said said_;
  std::atomic<bool> has_ended_ = false;
  std::jthread watcher_;
};

TEST_F(WatchTest, TellsStepsAndTheRunsAtTheEnd) {
  Start();
  std::this_thread::sleep_for(std::chrono::milliseconds(300));  // more than one poll of the stream
  const Said said = End(JobState::kSucceeded);
  EXPECT_EQ(said.code, kExitDone);
  EXPECT_THAT(said.out, HasSubstr("job 1  running  73 %  chains 1/2  quantize_int8\n"));
  EXPECT_THAT(said.out, HasSubstr("job 1 succeeded after"));
  EXPECT_THAT(said.out, HasSubstr("id  experiment  model  chain     top1\n"
                                  " 1  nightly     mnist  baseline   0.5\n"));
}

TEST_F(WatchTest, TellsTheLayerAndTheTimeThatIsLeft) {
  store_.SetProgress(id_, {{"step", "quantize_int8"},
                           {"fraction", 0.5},
                           {"chains_ended", 1},
                           {"chains", 2},
                           {"layer", "conv7"},
                           {"layer_index", 7},
                           {"layer_count", 40},
                           {"percent", 41.6},
                           {"estimated_end_ms", NowMs() + 3'725'000}});
  Start();
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  const Said said = End(JobState::kSucceeded);
  EXPECT_THAT(
      said.out,
      ContainsRegex("running  42 %  chains 1/2  quantize_int8  conv7 .7/40.  1:02:0.* left"));
}

TEST_F(WatchTest, ExitsWithTheJobsEnd) {
  Start();
  const Said said = End(JobState::kFailed, {{"code", "internal"}, {"message", "chain c: broke"}});
  EXPECT_EQ(said.code, kExitJobFailed);
  EXPECT_THAT(said.out, HasSubstr("  chain c: broke\n"));
}

TEST_F(WatchTest, ACancelledJobHasItsOwnCode) {
  Start({"--json"});
  const Said said = End(JobState::kCancelled);
  EXPECT_EQ(said.code, kExitJobCancelled);
  std::istringstream lines(said.out);
  std::string line;
  Json last;
  while (std::getline(lines, line)) last = ParseJson(line);
  EXPECT_EQ(last["state"], "cancelled");
}

TEST_F(WatchTest, DrawsABarOnATerminal) {
  is_terminal_ = true;
  Start();
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  const Said said = End(JobState::kSucceeded);
  EXPECT_THAT(said.out, HasSubstr("\r\x1b[Kjob 1  running  [#################.......]  73 %"));
}

TEST_F(WatchTest, GoesOnAfterARestartOfTheDaemon) {
  Start();
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  server_->Stop();
  server_.reset();
  EXPECT_FALSE(has_ended_);
  StartServer();
  const Said said = End(JobState::kSucceeded);
  EXPECT_EQ(said.code, kExitDone) << said.err;
  EXPECT_THAT(said.out, HasSubstr("job 1 succeeded"));
}

class PullTest : public ClientTest {
 protected:
  // A run whose model is 3 MB long and has external data.
  PullTest() {
    std::filesystem::create_directories(folder_ / "made");
    const std::filesystem::path file = folder_ / "made" / "int8.onnx";
    WriteFile(file, model_);
    WriteFile(file.string() + ".data", data_);
    RunRecord record = Record("int8", {});
    WriteFile(folder_ / "made" / "int8.tflite", "TFL");
    const Artifact artifact =
        artifacts_.Put(file, ArtifactForm::kTflite, folder_ / "made" / "int8.tflite");
    record.artifact = artifact.sha256;
    record.lineage = {{"tflite_sha256", artifact.tflite_sha256}};
    sha256_ = record.artifact;
    RunRecord none = Record("other", {});
    RunRecord plain = Record("plain", {});
    plain.artifact = record.artifact;
    Recorded({record, none, plain});
  }

  std::filesystem::path Partial(const std::string& name, const std::string& tag) const {
    return folder_ / "got" / (name + "." + tag.substr(0, 12) + ".partial");
  }

  const std::string model_ = std::string(3'000'000, 'm') + "end";
  const std::string data_ = std::string(70'000, 'd');
  std::string sha256_;
};

TEST_F(PullTest, FetchesTheModelAndItsDataUnderTheNamesThatFit) {
  const Said said = Pare({"pull", "1", "-o", (folder_ / "got/").string() + "/"});
  EXPECT_EQ(said.code, kExitDone) << said.err;
  EXPECT_EQ(ReadFile(folder_ / "got" / "mnist-int8.onnx"), model_);
  EXPECT_EQ(ReadFile(folder_ / "got" / "int8.onnx.data"), data_);  // what the model refers to
  EXPECT_THAT(said.out, HasSubstr("sha256 " + sha256_ + " as recorded\n"));
}

TEST_F(PullTest, GoesOnWithAPartialFile) {
  std::filesystem::create_directories(folder_ / "got");
  WriteFile(Partial("m.onnx", sha256_), model_.substr(0, 1'000'000));
  const Said said = Pare({"pull", "1", "-o", (folder_ / "got" / "m.onnx").string()});
  EXPECT_EQ(said.code, kExitDone) << said.err;
  EXPECT_EQ(ReadFile(folder_ / "got" / "m.onnx"), model_);
  EXPECT_FALSE(std::filesystem::exists(Partial("m.onnx", sha256_)));
}

TEST_F(PullTest, KeepsNothingThatIsNotWhatTheRunRecorded) {
  std::filesystem::create_directories(folder_ / "got");
  WriteFile(Partial("m.onnx", sha256_), std::string(model_.size(), 'x'));  // whole, and wrong
  const Said said = Pare({"pull", "1", "-o", (folder_ / "got" / "m.onnx").string()});
  EXPECT_EQ(said.code, kExitFailed);
  EXPECT_THAT(said.err, HasSubstr("the run recorded " + sha256_));
  EXPECT_FALSE(std::filesystem::exists(folder_ / "got" / "m.onnx"));
  EXPECT_FALSE(std::filesystem::exists(Partial("m.onnx", sha256_)));
}

TEST_F(PullTest, FetchesTheTensorFlowLiteFile) {
  const Said said =
      Pare({"pull", "1", "--form", "tflite", "-o", (folder_ / "got/").string() + "/"});
  EXPECT_EQ(said.code, kExitDone) << said.err;
  EXPECT_EQ(ReadFile(folder_ / "got" / "mnist-int8.tflite"), "TFL");
  EXPECT_FALSE(std::filesystem::exists(folder_ / "got" / "int8.onnx.data"));
  EXPECT_THAT(said.out, HasSubstr("sha256 " + Sha256Of("TFL") + " as recorded\n"));
}

TEST_F(PullTest, SaysWhyThereIsNoTensorFlowLiteFile) {
  const Said said = Pare({"pull", "3", "--form", "tflite"});
  EXPECT_EQ(said.code, kExitNotFound);
  EXPECT_THAT(said.err, HasSubstr("its job did not ask for it"));
}

TEST_F(PullTest, SaysThatARunMadeNoModel) {
  const Said said = Pare({"pull", "2"});
  EXPECT_EQ(said.code, kExitNotFound);
  EXPECT_THAT(said.err, HasSubstr("this run made no model"));
}

class PushTest : public ClientTest {
 protected:
  // A model whose 256 weights, 0 to 255, lie in m.onnx.data.
  PushTest() {
    std::string weights = "0";
    for (int i = 1; i < 256; ++i) weights += ", " + std::to_string(i);
    SaveOnnx(ParseText("<ir_version: 8, opset_import: [\"\" : 17]> "
                       "g (float[N,256] x) => (float[N,256] y) <float[256] w = {" +
                       weights + "}> { y = Mul(x, w) }"),
             file_, {.message_bytes_max = 600, .external_bytes_min = 16});
  }

  const std::filesystem::path file_ = folder_ / "m.onnx";
  const std::filesystem::path data_ = folder_ / "m.onnx.data";
};

TEST_F(PushTest, TakesTheExternalDataAlong) {
  ASSERT_TRUE(std::filesystem::exists(data_));
  const Said said = Pare({"push", file_.string(), "--json"});
  ASSERT_EQ(said.code, kExitDone) << said.err;
  EXPECT_EQ(ParseJson(said.out).at("name"), "m");
  const OpenArtifact artifact = artifacts_.Open(store_.GetModel("m")->sha256);
  const Tensor weights = LoadOnnx(artifact.model).graph.initializers.at("w").tensor;
  ASSERT_EQ(weights.data<float>().size(), 256u);
  EXPECT_EQ(weights.data<float>()[1], 1);
  EXPECT_EQ(weights.data<float>()[255], 255);
}

TEST_F(PushTest, GoesOnWithWhatHadArrived) {
  const std::string bytes = ReadFile(data_);
  const HttpClient http(ParseUrl(Url()), {});
  HttpRequest part = {.method = "PUT", .target = "/v1/uploads/" + Sha256OfFile(data_).hex};
  part.headers["content-range"] = "bytes 0-9/" + std::to_string(bytes.size());
  part.body = bytes.substr(0, 10);
  ASSERT_EQ(http.Send(part).header("upload-offset"), "10");
  const Said said = Pare({"push", file_.string(), "--data", data_.string(), "--as", "again"});
  EXPECT_EQ(said.code, kExitDone) << said.err;
  EXPECT_TRUE(store_.GetModel("again").has_value());
}

TEST_F(PushTest, SaysThatItsDataIsMissing) {
  std::filesystem::remove(data_);
  const Said said = Pare({"push", file_.string()});
  EXPECT_EQ(said.code, kExitRefused);
  EXPECT_THAT(said.err, HasSubstr("m.onnx.data"));
}

}  // namespace
}  // namespace pared
