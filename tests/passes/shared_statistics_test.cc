#include "passes/shared_statistics.h"

#include <gmock/gmock.h>

#include <atomic>
#include <cstdlib>
#include <map>

#include "evaluator/npy.h"
#include "model/onnx.h"
#include "passes/calibrate.h"
#include "tests/passes/run_pass.h"
#include "tests/testing/random_tensor.h"
#include "tests/testing/temp_dir.h"

namespace pared {
namespace {

using testing::ElementsAre;
using testing::Pointee;

Model Start() {
  return ModelFromText(
      "g (float[N,2] x) => (float[N,2] y) <float[2,2] w = {1,0,0,1}> { y = MatMul(x, w) }");
}

TEST(ModelDigest, SeesEveryWeightByteAndTheGraph) {
  const std::string digest = ModelDigest(Start());
  EXPECT_EQ(ModelDigest(Start()), digest);
  EXPECT_NE(ModelDigest(
                WithInitializer(Start(), "w", Tensor::Make<float>({2, 2}, {1, 0, 0, 1.0000001f}))),
            digest);
  EXPECT_NE(
      ModelDigest(ModelFromText("g (float[N,2] x) => (float[N,2] y) <float[2,2] w = {1,0,0,1}> "
                                "{ y = MatMul(w, x) }")),
      digest);
}

// SHA-256 of the file that SaveOnnx writes, by another tool: `sha256sum`.
TEST(ModelDigest, IsThatOfTheModelsFile) {
  const TempDir dir;
  SaveOnnx(Start(), dir / "m.onnx");
  const std::string command =
      "sha256sum " + (dir / "m.onnx").string() + " > " + (dir / "sum").string();
  ASSERT_EQ(std::system(command.c_str()), 0);
  EXPECT_EQ(ModelDigest(Start()), ReadFile(dir / "sum").substr(0, 64));
}

std::shared_ptr<const int> Number(int number) { return std::make_shared<const int>(number); }

TEST(SharedStatistics, WhatWasUsedLongestAgoGoesFirst) {
  SharedStatistics shared(100);
  shared.Put("a", Number(1), 40);
  shared.Put("b", Number(2), 40);
  EXPECT_THAT(shared.Find<int>("a"), Pointee(1));
  shared.Put("c", Number(3), 40);
  EXPECT_EQ(shared.Find<int>("b"), nullptr);
  EXPECT_THAT(shared.Find<int>("a"), Pointee(1));
  EXPECT_THAT(shared.Find<int>("c"), Pointee(3));
  shared.Put("a", Number(4), 60);  // in place of the 40: nothing else goes
  EXPECT_THAT(shared.Find<int>("a"), Pointee(4));
  EXPECT_THAT(shared.Find<int>("c"), Pointee(3));
}

TEST(SharedStatistics, WhatIsLargerThanTheBoundIsNotKeptAndMovesNothingOut) {
  SharedStatistics shared(100);
  shared.Put("a", Number(1), 40);
  shared.Put("b", Number(2), 101);
  EXPECT_EQ(shared.Find<int>("b"), nullptr);
  EXPECT_THAT(shared.Find<int>("a"), Pointee(1));
}

// What a job has: its data, and what its passes share.
struct Sharing {
  explicit Sharing(const Model& model) : data(Dataset::Random(model.graph.inputs, 16, 3)) {
    context.calibration = &data;
    context.shared = &shared;
    // Asked before each sample.
    context.cancelled = [this] {
      ++samples_run;
      return false;
    };
  }
  int64_t TakeSamplesRun() { return samples_run.exchange(0); }

  const Dataset data;
  SharedStatistics shared;
  PassContext context;
  std::atomic<int64_t> samples_run = 0;
};

TEST(Calibrate, RunsTheSamplesOnceForWhatIsAskedTwice) {
  const Model model = Start();
  Sharing job(model);
  CalibrationRequest one, both;
  one.values = {"x"};
  both.values = {"x", "y"};
  both.with_bins = true;
  both.channels = {{"x", -1}};
  Calibrate(model, one, job.context);
  EXPECT_EQ(job.TakeSamplesRun(), 16);
  Calibrate(model, both, job.context);
  EXPECT_EQ(job.TakeSamplesRun(), 16);
  EXPECT_FALSE(job.context.report.contains("shared"));
  // Each of both is there by now.
  const Calibration x = Calibrate(model, one, job.context);
  const Calibration xy = Calibrate(model, both, job.context);
  EXPECT_EQ(job.TakeSamplesRun(), 0);
  EXPECT_THAT(job.context.report.at("shared"), ElementsAre("calibration"));
  EXPECT_EQ(x.sketches.size(), 1u);
  EXPECT_TRUE(x.channels.empty());
  PassContext alone = {.calibration = &job.data};
  const Calibration want = Calibrate(model, both, alone);
  EXPECT_EQ(xy.sketches.at("y").min_max().max, want.sketches.at("y").min_max().max);
  EXPECT_EQ(xy.sketches.at("y").Percentile(90).max, want.sketches.at("y").Percentile(90).max);
  EXPECT_EQ(xy.channels.at("x").sums, want.channels.at("x").sums);
}

TEST(Calibrate, AnotherModelSampleCountOrAxisIsMeasuredAnew) {
  const Model model = Start();
  Sharing job(model);
  CalibrationRequest request;
  request.values = {"x"};
  request.channels = {{"x", -1}};
  Calibrate(model, request, job.context);
  EXPECT_EQ(job.TakeSamplesRun(), 16);
  const Model other = WithInitializer(model, "w", Tensor::Make<float>({2, 2}, {1, 0, 0, 2}));
  Calibrate(other, request, job.context);
  EXPECT_EQ(job.TakeSamplesRun(), 16);
  request.channels = {{"x", 0}};
  Calibrate(model, request, job.context);
  EXPECT_EQ(job.TakeSamplesRun(), 16);
  job.context.calibration_samples = 8;
  Calibrate(model, request, job.context);
  EXPECT_EQ(job.TakeSamplesRun(), 8);
  EXPECT_FALSE(job.context.report.contains("shared"));
}

TEST(Calibrate, WhatIsNotFiniteIsToldOfThoughItIsShared) {
  const Model model = ModelFromText("g (float[1,512] x) => (float[1,512] y) { y = Log(x) }");
  const TempDir dir;
  std::vector<float> elements(4 * 512, 1.0f);
  elements[7] = 0;  // -inf, of 2,048
  SaveNpy(Tensor::Make<float>({4, 512}, std::move(elements)), dir / "x.npy");
  WriteFile(dir / "dataset.json", R"({"inputs": {"x": "x.npy"}})");
  const Dataset data = Dataset::Open(dir.path());
  SharedStatistics shared;
  CalibrationRequest request;
  request.values = {"y"};
  for (int i = 0; i < 2; ++i) {
    PassContext context;
    context.calibration = &data;
    context.shared = &shared;
    Calibrate(model, request, context);
    EXPECT_EQ(context.report.contains("shared"), i == 1);
    EXPECT_EQ(context.report.at("not_finite").at("y"), (Json{{"nan", 0}, {"infinite", 1}}));
  }
}

// A convolution and two products: every kind of statistics is taken of it.
Model Network() {
  Random random;
  Model model = ModelFromText(R"(g (float[1,3,8,8] x) => (float[1,10] y)
    <float[1] a = {0}, float[1] b = {0}, float[1] c = {0}, float[1] d = {0}>
    { [conv] h = Conv <pads = [1,1,1,1], kernel_shape = [3,3]> (x, a, b) r = Relu(h)
      m = GlobalAveragePool(r) f = Flatten(m) t = MatMul(f, c) s = Relu(t) y = MatMul(s, d) })");
  for (const auto& [name, shape] : std::map<std::string, Shape>{
           {"a", {16, 3, 3, 3}}, {"b", {16}}, {"c", {16, 32}}, {"d", {32, 10}}}) {
    model = WithInitializer(std::move(model), name, random.Normal(shape, 0.3));
  }
  return model;
}

TEST(QuantizeInt8, TheFloatModelRunsOnceToBeCalibratedAndToBeComparedWith) {
  constexpr int64_t kResultRuns = 16 + 4;  // as a whole, and node by node
  const Model model = Network();
  for (const bool is_sharing : {true, false}) {
    Sharing job(model);
    if (!is_sharing) job.context.shared = nullptr;
    const PassInfo* pass = FindPass("quantize_int8");
    const Json options = {{"pass", "quantize_int8"},
                          {"method", "minmax"},
                          {"rounding", "nearest"},
                          {"smooth", "off"},
                          {"keep_float", "off"}};
    pass->bind(*pass, options, "").run(model, job.context);
    EXPECT_EQ(job.TakeSamplesRun(), 16 + kResultRuns);
    EXPECT_GT(job.context.report.at("calibration_sqnr_db"), 20);
    if (is_sharing) {
      pass->bind(*pass, options, "").run(model, job.context);
      EXPECT_EQ(job.TakeSamplesRun(), kResultRuns);
    }
  }
}

struct Candidates {
  const char* pass;
  std::vector<Json> options;
  std::vector<std::string> shared;  // what the last of them finds there
};

class SharedByCandidates : public testing::TestWithParam<Candidates> {};

TEST_P(SharedByCandidates, TheBytesAreThoseOfEachAlone) {
  const Model model = Network();
  SharedStatistics shared;
  const Dataset data = Dataset::Random(model.graph.inputs, 16, 3);
  const PassInfo* pass = FindPass(GetParam().pass);
  std::vector<std::string> bytes;
  Json last;
  for (Json options : GetParam().options) {
    const PassResult alone = RunPass(GetParam().pass, options, model, &data);
    options["pass"] = GetParam().pass;
    PassContext context;
    context.calibration = &data;
    context.shared = &shared;
    const Model out = pass->bind(*pass, options, "").run(model, context);
    EXPECT_EQ(SerializeOnnx(out), SerializeOnnx(alone.model)) << options;
    EXPECT_FALSE(alone.report.contains("shared"));
    bytes.push_back(SerializeOnnx(out));
    last = std::move(context.report);
  }
  EXPECT_NE(bytes.front(), bytes.back());  // candidates that differ
  EXPECT_THAT(last.value("shared", Json::array()),
              testing::UnorderedElementsAreArray(GetParam().shared));
}

INSTANTIATE_TEST_SUITE_P(
    All, SharedByCandidates,
    testing::Values(
        Candidates{"quantize_int8",
                   {{{"method", "minmax"}}, Json::object(), {{"granularity", "per_tensor"}}},
                   {"calibration", "outputs", "ranges of products", "smoothing"}},
        Candidates{"quantize_int8",
                   {Json::object(), {{"format", "qoperator"}}},
                   {"calibration", "outputs", "ranges of products", "smoothing", "fitted weights"}},
        Candidates{"quantize_int8",
                   {Json::object(), {{"exclude", {"op:Conv"}}}},
                   {"calibration", "outputs"}},
        Candidates{"magnitude_prune",
                   {{{"scope", "sensitivity"}, {"sparsity", 0.3}},
                    {{"scope", "sensitivity"}, {"sparsity", 0.7}}},
                   {"losses of layers"}},
        Candidates{"magnitude_prune",
                   {{{"importance", "wanda"}, {"sparsity", 0.3}},
                    {{"importance", "wanda"}, {"sparsity", 0.7}}},
                   {"losses of layers"}},
        Candidates{
            "cast_fp16", {Json::object(), {{"exclude", {"op:Conv"}}}}, {"ranges", "outputs"}}),
    [](const auto& named) {
      return std::string(named.param.pass) + "_" + std::to_string(named.index);
    });

}  // namespace
}  // namespace pared
