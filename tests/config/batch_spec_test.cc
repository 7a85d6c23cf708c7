#include "config/batch_spec.h"

#include <gmock/gmock.h>

#include "base/error.h"
#include "tests/testing/matchers.h"

namespace pared {
namespace {

using ::testing::ElementsAre;

Json Minimal() {
  return ParseJson(R"({"chains": [{"name": "c", "passes": [{"pass": "cast_fp16"}]}]})");
}

Json BatchWith(const std::string& pointer, const Json& value) {
  Json json = Minimal();
  json[Json::json_pointer(pointer)] = value;
  return json;
}

TEST(BatchSpec, IsAJobSpecWithModelsInPlaceOfAModel) {
  const BatchSpec spec = ReadBatchSpec(BatchWith("/seed", 7));
  EXPECT_EQ(spec.name, "nightly");
  EXPECT_THAT(spec.models, ElementsAre("*.onnx", "*.tflite"));
  EXPECT_FALSE(spec.dry_run);
  const JobSpec job = JobOf(spec, std::nullopt, "yolo");
  EXPECT_EQ(job.model, "yolo");
  EXPECT_EQ(job.experiment, "nightly");
  EXPECT_EQ(job.seed, 7);
  EXPECT_EQ(job.chains[0].name, "c");
}

TEST(BatchSpec, HandsTheFormOfTheArtifactsOn) {
  const BatchSpec spec = ReadBatchSpec(BatchWith("/artifact", "tflite"));
  EXPECT_EQ(JobOf(spec, std::nullopt, "yolo").artifact, ArtifactForm::kTflite);
}

TEST(BatchSpec, IsReadAsItIsWritten) {
  Json json = BatchWith("/exclude", {"old/**"});
  json["rules"] = {{{"models", {"mnist*"}}, {"evaluate", {{"dataset", "digits"}}}}};
  const Json written = WriteBatchSpec(ReadBatchSpec(json));
  EXPECT_EQ(written, WriteBatchSpec(ReadBatchSpec(written)));
  EXPECT_EQ(written["exclude"], Json({"old/**"}));
  EXPECT_EQ(written["chains"], json["chains"]);
}

TEST(BatchSpec, TheFirstRuleThatMatchesIsMergedIn) {
  Json json = BatchWith("/evaluate", {{"runs", 20}, {"dataset", "photos"}});
  json["rules"] = {{{"models", {"mnist*"}}, {"evaluate", {{"dataset", "digits"}}}},
                   {{"models", {"speech/**"}}, {"chains", Minimal()["chains"]}},
                   {{"models", {"*"}}, {"evaluate", {{"runs", 3}}}}};
  const BatchSpec spec = ReadBatchSpec(json);
  EXPECT_EQ(FindRule(spec, "mnist-conv", "x/mnist-conv.onnx"), 0U);
  EXPECT_EQ(FindRule(spec, "speech.vad", "speech/vad.onnx"), 1U);
  EXPECT_EQ(FindRule(spec, "other", "other.onnx"), 2U);
  const JobSpec job = JobOf(spec, 0, "mnist-conv");
  EXPECT_EQ(job.evaluate.dataset, "digits");
  EXPECT_EQ(job.evaluate.runs, 20);
  EXPECT_EQ(JobOf(spec, 2, "other").evaluate.runs, 3);
}

TEST(BatchSpec, PointsAtTheFieldThatIsWrong) {
  const auto refused_at = [](const Json& json, const std::string& where) {
    EXPECT_THAT([&] { ReadBatchSpec(json); }, ThrowsError(ErrorCode::kInvalidArgument, where));
  };
  refused_at(BatchWith("/model", "yolo"), "/model");
  refused_at(BatchWith("/models", {"a", ""}), "/models/1");
  refused_at(BatchWith("/exclude", {"/abs/*"}), "/exclude/0");
  refused_at(BatchWith("/rules", {{{"evaluate", Json::object()}}}), "/rules/0/models");
  refused_at(BatchWith("/thresholds", {{{"metric", "top1"}, {"absolute", -1}}}),
             "/thresholds/0/absolute");
  refused_at(BatchWith("/thresholds", {{{"metric", "top1"}}, {{"metric", "top1"}}}),
             "/thresholds/1/metric");
  refused_at(Json::array(), "");
}

TEST(BatchSpec, JobsAreCheckedAtTheirOwnPlace) {
  const BatchSpec spec = ReadBatchSpec(BatchWith("/evaluate", {{"runs", -1}}));
  EXPECT_THAT([&] { JobOf(spec, std::nullopt, "m"); },
              ThrowsError(ErrorCode::kInvalidArgument, "/evaluate/runs"));
}

TEST(ModelNameOf, MakesANameOfAPath) {
  EXPECT_EQ(ModelNameOf("yolov8n.onnx"), "yolov8n");
  EXPECT_EQ(ModelNameOf("Vision/ResNet 50 (v2).onnx"), "vision.resnet-50--v2-");
  EXPECT_EQ(ModelNameOf("mnist/mnist.onnx"), "mnist");
  EXPECT_EQ(ModelNameOf("a/b/b.onnx"), "a.b");
  EXPECT_EQ(ModelNameOf("a/b.tflite"), "a.b.tflite");  // beside a.b of a/b.onnx
  EXPECT_EQ(ModelNameOf("_x/.y.onnx"), "x..y");
  EXPECT_EQ(ModelNameOf(".onnx"), "onnx");
  EXPECT_EQ(ModelNameOf("noext"), "noext");
}

}  // namespace
}  // namespace pared
