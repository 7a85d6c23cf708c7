#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <sstream>

#include "config/fields.h"
#include "daemon/commands.h"
#include "evaluator/dataset.h"
#include "evaluator/npy.h"
#include "model/onnx.h"
#include "model/tflite.h"
#include "tests/testing/matchers.h"
#include "tests/testing/models.h"
#include "tests/testing/temp_dir.h"

namespace pared {
namespace {

using testing::ElementsAre;

class OptimizeTest : public testing::Test {
 protected:
  OptimizeTest() {
    SaveOnnx(ModelFromText("g (float[N,4] x) => (float[N,2] y) "
                           "<float[4,2] w = {1,2,3,4,5,6,7,8}> { y = MatMul(x, w) }"),
             dir_ / "in.onnx");
    std::filesystem::create_directories(dir_ / "data");
    SaveNpy(Tensor::Make<float>({2, 4}, {1, 2, 3, 4, -1, -2, -3, -4}), dir_ / "data" / "x.npy");
    WriteFile(dir_ / "data" / "dataset.json", R"({"inputs": {"x": "x.npy"}})");
  }

  // The arguments after the model.
  Json Optimize(std::vector<std::string> arguments) const {
    arguments.insert(arguments.begin(), (dir_ / "in.onnx").string());
    std::ostringstream out;
    RunOptimize(arguments, out);
    return ParseJson(out.str());
  }

  std::vector<std::string> OpTypes() const {
    std::vector<std::string> types;
    for (const Node& node : LoadOnnx(out_).graph.nodes) types.push_back(node.op_type);
    return types;
  }

  // What lies in the folder.
  std::vector<std::string> Names() const {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(dir_.path())) {
      names.push_back(entry.path().filename().string());
    }
    std::ranges::sort(names);
    return names;
  }

  TempDir dir_;
  const std::string out_ = (dir_ / "out.onnx").string();
};

TEST_F(OptimizeTest, WritesTheModelThatAChainGivesAndWhatItsPassesSaid) {
  const Json said =
      Optimize({R"(--passes=[{"pass": "magnitude_prune", "sparsity": 0.5}])", "--out=" + out_});
  const Tensor w = LoadOnnx(out_).graph.initializers.at("w").tensor;
  EXPECT_THAT(w.data<float>(), ElementsAre(0, 0, 0, 0, 5, 6, 7, 8));
  EXPECT_EQ(said["reports"][0]["pass"], "magnitude_prune");
  EXPECT_EQ(said["steps"][0]["sparsity"], 0.5);
  EXPECT_EQ(said["size_bytes"], static_cast<double>(std::filesystem::file_size(out_)));
}

TEST_F(OptimizeTest, SaysThatThereAreFewerSamplesThanAreAskedFor) {
  const std::string data = "--calibration=" + (dir_ / "data").string();
  const Json said = Optimize({"--pass=quantize_int8", data, "--out=" + out_, "--samples=1000"});
  EXPECT_THAT(said.at("warnings"), ElementsAre("--samples asks for 1000 samples, \"data\" has 2"));
  EXPECT_TRUE(Optimize({"--pass=quantize_int8", data, "--out=" + out_, "--samples=2"})
                  .at("warnings")
                  .empty());
}

TEST_F(OptimizeTest, TakesPassesByNameAndValuesAsArgumentsOfTheirOwn) {
  const Json said =
      Optimize({"--pass", "magnitude_prune", "--pass", "quantize_int8", "--calibration",
                (dir_ / "data").string(), "--samples", "1", "--out", out_});
  EXPECT_EQ(said["reports"].size(), 2u);
  EXPECT_THAT(OpTypes(), testing::Contains("DequantizeLinear"));
}

TEST_F(OptimizeTest, MayWriteOverItsInput) {
  const Json said = Optimize({"--pass=cast_fp16", "--out=" + (dir_ / "in.onnx").string()});
  EXPECT_NE(said["size_ratio"], 1);  // of what was there
  EXPECT_EQ(LoadOnnx(dir_ / "in.onnx").graph.initializers.at("w").tensor.dtype(), DType::kFloat16);
}

TEST_F(OptimizeTest, WritesTensorFlowLiteByTheNameOfTheFile) {
  const std::string data = "--calibration=" + (dir_ / "data").string();
  for (const std::string& more : {std::string("--seed=0"), data}) {
    const std::string out = (dir_ / "out.TFLite").string();
    const Json said = Optimize({"--pass=cast_fp16", more, "--out=" + out});
    EXPECT_TRUE(IsTfliteFile(out));
    EXPECT_EQ(said["size_tflite_bytes"], static_cast<double>(std::filesystem::file_size(out)));
    EXPECT_EQ(said["size_bytes"], said["size_tflite_bytes"]);
    EXPECT_GT(said["tflite_sqnr_db"], 50);  // halves here, floats there
    EXPECT_THAT(said["warnings"], testing::IsEmpty());
  }
  EXPECT_THAT(Names(), ElementsAre("data", "in.onnx", "out.TFLite"));
}

TEST_F(OptimizeTest, WritesNothingWhereTensorFlowLiteHasNoCounterpart) {
  SaveOnnx(ModelFromText("g (float[N,4] x) => (float[N,4] y) { [odd] y = Twirl(x) }"),
           dir_ / "in.onnx");
  WriteFile(dir_ / "out.tflite", "older");
  EXPECT_THAT(
      [&] {
        Optimize({"--pass=fold_constants", "--out=" + (dir_ / "out.tflite").string()});
      },
      ThrowsError(ErrorCode::kUnsupported, testing::_, testing::HasSubstr("Twirl")));
  EXPECT_EQ(ReadFile(dir_ / "out.tflite"), "older");
  EXPECT_THAT(Names(), ElementsAre("data", "in.onnx", "out.tflite"));
}

TEST_F(OptimizeTest, PointsAtWhatIsWrong) {
  const std::string out = "--out=" + out_;
  EXPECT_THAT(
      [&] {
        Optimize({"--passes=[{\"pass\": \"cast_fp16\", \"x\": 1}]", out});
      },
      ThrowsError(ErrorCode::kInvalidArgument, "--passes#/0/x"));
  EXPECT_THAT(
      [&] {
        Optimize({"--pass=cast_fp61", out});
      },
      ThrowsError(ErrorCode::kInvalidArgument, "--pass#/pass"));
  EXPECT_THAT(
      [&] {
        Optimize({"--pass=quantize_int8", out});
      },
      ThrowsError(ErrorCode::kInvalidArgument, "--calibration",
                  testing::HasSubstr("quantize_int8 needs calibration data")));
  EXPECT_THAT([&] { Optimize({out}); }, ThrowsError(ErrorCode::kInvalidArgument, "--passes"));
  EXPECT_THAT(
      [&] {
        Optimize({"--passes={}", out});
      },
      ThrowsError(ErrorCode::kInvalidArgument, "--passes"));
  EXPECT_THAT([&] { Optimize({"--pass=cast_fp16"}); },
              ThrowsError(ErrorCode::kInvalidArgument, "--out"));
  EXPECT_THAT(
      [&] {
        Optimize({"--odd=1", out});
      },
      ThrowsError(ErrorCode::kInvalidArgument, "--odd=1"));
  EXPECT_THAT([&] { Optimize({"--out"}); }, ThrowsError(ErrorCode::kInvalidArgument, "--out"));
  EXPECT_THAT(
      [&] {
        Optimize({"second.onnx", out});
      },
      ThrowsError(ErrorCode::kInvalidArgument, "second.onnx"));
  EXPECT_FALSE(std::filesystem::exists(out_));
}

}  // namespace
}  // namespace pared
