#include "evaluator/evaluate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <optional>
#include <string>

#include "model/onnx.h"
#include "tests/testing/matchers.h"
#include "tests/testing/models.h"
#include "tests/testing/temp_dir.h"

namespace pared {
namespace {

using std::string_literals::operator""s;
using testing::AllOf;
using testing::Contains;
using testing::Gt;
using testing::Key;
using testing::Lt;
using testing::Not;
using testing::Pair;

// Four samples of two numbers: the larger one is the class. The third label is wrong.
class EvaluateTest : public testing::Test {
 protected:
  EvaluateTest() {
    const auto npy = [](const std::string& shape, const std::string& elements) {
      const std::string header =
          "{'descr': '|i1', 'fortran_order': False, 'shape': " + shape + ", }\n";
      return "\x93NUMPY\x01\x00"s + static_cast<char>(header.size()) + '\0' + header + elements;
    };
    WriteFile(dir_ / "x.npy", npy("(4, 2)", "\x01\x02\x05\x03\x04\x01\x00\x07"s));
    WriteFile(dir_ / "y.npy", npy("(4,)", "\x01\x00\x01\x01"s));
    WriteFile(dir_ / "dataset.json", R"({"inputs": {"*": "x.npy"}, "labels": "y.npy"})");
    dataset_ = Dataset::Open(dir_.path());
    context_.dataset = &*dataset_;
  }

  TempDir dir_;
  std::optional<Dataset> dataset_;
  EvaluateContext context_;
  const Model identity_ = ModelFromText(
      "g (float[N,2] x) => (float[N,2] y) <float[2,2] w = {1,0,0,1}> { y = MatMul(x, w) }");
  // Swaps the two numbers and doubles them.
  const Model swapped_ = ModelFromText(
      "g (float[N,2] x) => (float[N,2] y) <float[2,2] w = {0,2,2,0}> { y = MatMul(x, w) }");
};

TEST_F(EvaluateTest, MeasuresTheReferenceAgainstItself) {
  const Reference reference = RunReference(identity_, context_);
  ASSERT_EQ(reference.outputs.size(), 4u);
  EXPECT_THAT(reference.outputs[1].front(), SameTensor(Tensor::Make<float>({1, 2}, {5, 3})));
  const Metrics metrics = EvaluateOutputs(reference, reference, context_);
  EXPECT_EQ(metrics.at("top1"), 0.75);
  EXPECT_EQ(metrics.at("agreement"), 1);
  EXPECT_EQ(metrics.at("sqnr_db"), 200);
  EXPECT_EQ(metrics.at("cosine"), 1);
  EXPECT_EQ(metrics.at("sparsity"), 0.5);
  EXPECT_EQ(metrics.at("int8_weight_share"), 0);
  EXPECT_EQ(metrics.at("int8_mac_share"), 0);
  EXPECT_THAT(metrics, Not(Contains(Key("nonfinite_samples"))));
}

TEST_F(EvaluateTest, MeasuresAnotherModelAgainstTheReference) {
  const Metrics metrics = EvaluateAccuracy(swapped_, RunReference(identity_, context_), context_);
  EXPECT_EQ(metrics.at("top1"), 0.25);  // only the sample with the wrong label
  EXPECT_EQ(metrics.at("agreement"), 0);
  EXPECT_EQ(metrics.at("agreement_low"), 0);
  EXPECT_NEAR(metrics.at("agreement_high"), 3.841458820694124 / 7.841458820694124,
              1e-12);  // z2 / (n + z2)
  // Sums over (1,2) (5,3) (4,1) (0,7) and (4,2) (6,10) (2,8) (14,0):
  // squares 105 and 420, products 8 + 60 + 16 + 0 = 84, errors 105 + 420 - 2 * 84 = 357.
  EXPECT_NEAR(metrics.at("cosine"), 84.0 / 210.0, 1e-12);
  EXPECT_NEAR(metrics.at("sqnr_db"), -5.314789170422551, 1e-9);  // 10 log10(105 / 357)
}

TEST_F(EvaluateTest, OutputsOfAnEarlierRunGiveTheSameMetrics) {
  const Reference reference = RunReference(identity_, context_);
  EXPECT_EQ(EvaluateOutputs(RunReference(swapped_, context_), reference, context_),
            EvaluateAccuracy(swapped_, reference, context_));
}

TEST(AccuracyDrop, IsOfTheFirstFigureThatBothHave) {
  const Metrics baseline = {{"psnr_db", 30}, {"top1", 0.75}, {"cer", 0.25}};
  const auto drop = FindAccuracyDrop({{"top1", 0.5}, {"cer", 0.5}}, baseline);
  ASSERT_TRUE(drop);
  EXPECT_EQ(drop->figure, "top1");
  EXPECT_EQ(drop->drop, 0.25);
  EXPECT_EQ(FindAccuracyDrop({{"psnr_db", 32}}, baseline)->drop, -2);
  EXPECT_EQ(FindAccuracyDrop({{"cer", 0.5}}, baseline)->drop, 0.25);  // more errors are worse
  EXPECT_FALSE(FindAccuracyDrop({{"agreement", 1}}, baseline));
}

TEST_F(EvaluateTest, CountsSamplesThatBecameNotANumber) {
  const Model broken = ModelFromText(
      "g (float[N,2] x) => (float[N,2] y) <float[2,2] w = {1,0,0,1}> "
      "{ m = MatMul(x, w) y = Div(m, x) }");  // 0 / 0 in the last sample
  const Metrics metrics = EvaluateAccuracy(broken, RunReference(identity_, context_), context_);
  EXPECT_EQ(metrics.at("nonfinite_samples"), 1);
}

TEST_F(EvaluateTest, CountsSamplesInWhichTheReferenceItselfIsNoNumber) {
  const Model broken = ModelFromText(
      "g (float[N,2] x) => (float[N,2] y) { y = Div(x, x) }");  // 0 / 0 in the last sample
  const Reference reference = RunReference(broken, context_);
  EXPECT_EQ(EvaluateOutputs(reference, reference, context_).at("nonfinite_samples"), 1);
  EXPECT_THAT(EvaluateAccuracy(broken, reference, context_),
              Not(Contains(Key("nonfinite_samples"))));
}

// A class number, or ids that are handed on, stay as they are whatever becomes of the weights.
TEST_F(EvaluateTest, MeasuresTheFirstOutputOfFloats) {
  const std::string nodes = "k = ArgMax <axis = 1, keepdims = 0> (y) y = MatMul(x, w) }";
  const Model model = ModelFromText(
      "g (float[N,2] x) => (int64[N] k, float[N,2] y) <float[2,2] w = {1,0,0,1}> {" + nodes);
  const Model doubled = ModelFromText(
      "g (float[N,2] x) => (int64[N] k, float[N,2] y) <float[2,2] w = {2,0,0,2}> {" + nodes);
  const Reference reference = RunReference(model, context_);
  EXPECT_THAT(reference.outputs[1].front(), SameTensor(Tensor::Make<float>({1, 2}, {5, 3})));
  EXPECT_EQ(EvaluateAccuracy(doubled, reference, context_).at("sqnr_db"), 0);
}

// Each sample fills it; what is measured is one of them.
TEST_F(EvaluateTest, AModelOfAFixedBatchIsMeasuredBySamples) {
  const Model batched = ModelFromText(
      "g (float[4,2] x) => (float[4,2] y) <float[2,2] w = {1,0,0,1}> { y = MatMul(x, w) }");
  const Reference reference = RunReference(batched, context_);
  EXPECT_THAT(reference.outputs[1].front(), SameTensor(Tensor::Make<float>({1, 2}, {5, 3})));
  EXPECT_EQ(EvaluateOutputs(reference, reference, context_).at("top1"), 0.75);
  EXPECT_EQ(EvaluateAccuracy(swapped_, reference, context_).at("top1"), 0.25);
}

// Labels that count from 1 would only lower the figures.
TEST_F(EvaluateTest, ALabelThatIsNoClassOfTheModelIsAnError) {
  const Model one = ModelFromText(
      "g (float[N,2] x) => (float[N,1] y) <float[2,1] w = {1,0}> { y = MatMul(x, w) }");
  const Reference reference = RunReference(one, context_);
  EXPECT_THAT([&] { EvaluateOutputs(reference, reference, context_); },
              ThrowsError(ErrorCode::kInvalidArgument, testing::StartsWith("dataset "),
                          testing::HasSubstr("is 1, the model's classes are 0 to 0")));
}

TEST_F(EvaluateTest, TakesTheFirstSamplesOnly) {
  context_.samples = 2;
  const Reference reference = RunReference(identity_, context_);
  EXPECT_EQ(reference.outputs.size(), 2u);
  EXPECT_EQ(EvaluateOutputs(reference, reference, context_).at("top1"), 1);
  context_.samples = 100;
  EXPECT_EQ(RunReference(identity_, context_).outputs.size(), 4u);
}

TEST_F(EvaluateTest, EndsWhenCancelled) {
  std::atomic<int> asked = 0;
  context_.cancelled = [&] { return ++asked > 2; };
  EXPECT_THAT([&] { RunReference(identity_, context_); }, ThrowsError(ErrorCode::kCancelled, ""));
}

// Writes `data` beside `model`, which names its first 1000 bytes as a weight.
void SaveWithData(Model model, const std::filesystem::path& path, const std::string& data) {
  std::vector<uint8_t> bytes(1000);
  model.graph.initializers.set("w", {Tensor::Make<uint8_t>({1000}, std::move(bytes)), ""});
  SaveOnnx(model, path, {.message_bytes_max = 900, .external_bytes_min = 1000});
  WriteFile(path.string() + ".data", data);
}

TEST_F(EvaluateTest, SizeCountsTheFileAndTheDataThatItNames) {
  SaveOnnx(identity_, dir_ / "m.onnx");
  const uintmax_t alone = FileBytes(dir_ / "m.onnx");
  WriteFile(dir_ / "m.onnx.data", std::string(500, 'b'));
  EXPECT_EQ(FileBytes(dir_ / "m.onnx"), alone);
  SaveWithData(identity_, dir_ / "m.onnx", std::string(1500, 'b'));
  const uintmax_t model = std::filesystem::file_size(dir_ / "m.onnx");
  EXPECT_EQ(FileBytes(dir_ / "m.onnx"), model + 1500);
  EXPECT_EQ(EvaluateSize(dir_ / "m.onnx").at("size_bytes"), static_cast<double>(model + 1500));
  EXPECT_THAT([&] { EvaluateSize(dir_ / "none.onnx"); },
              ThrowsError(ErrorCode::kNotFound, (dir_ / "none.onnx").string()));
}

TEST_F(EvaluateTest, PartsOfAFileAreCompressedByThemselves) {
  const auto compressed_with = [&](const std::string& data) {
    SaveWithData(identity_, dir_ / "m.onnx", data);
    return EvaluateSize(dir_ / "m.onnx").at("size_compressed_bytes");
  };
  // len(zlib.compress(b"a" * 1000, 6)) is 17; the rest is the model file.
  const double model = compressed_with(std::string(1000, 'a')) - 17;
  const auto compressed = [&](const std::string& data) { return compressed_with(data) - model; };
  std::string text;
  for (int64_t i = 0; i < 300'000; ++i) text += std::to_string(i * i) + ' ';
  ASSERT_EQ(text.size(), 3'453'751u);
  const double whole = compressed(text);
  // Of zlib, the sum of len(zlib.compress(part, 6)) over the parts of 1 MiB; libdeflate searches a
  // little harder.
  EXPECT_THAT(whole / 1'387'571, AllOf(Gt(0.92), Lt(1.0)));
  double sum = 0;
  for (size_t at = 0; at < text.size(); at += 1 << 20) sum += compressed(text.substr(at, 1 << 20));
  EXPECT_EQ(whole, sum);
}

TEST_F(EvaluateTest, LatenciesAreInOrder) {
  SaveOnnx(identity_, dir_ / "m.onnx");
  const Metrics metrics = EvaluateLatency(dir_ / "m.onnx", context_, 20, 1);
  EXPECT_GT(metrics.at("latency_ms_min"), 0);
  EXPECT_LE(metrics.at("latency_ms_min"), metrics.at("latency_ms_p50"));
  EXPECT_LE(metrics.at("latency_ms_p50"), metrics.at("latency_ms_p90"));
  EXPECT_LE(metrics.at("latency_ms_p90"), metrics.at("latency_ms_p99"));
  EXPECT_LE(metrics.at("latency_ms_min"), metrics.at("latency_ms_mean"));
  EXPECT_THAT(metrics, Contains(Pair("peak_activation_bytes", Gt(0))));
}

TEST_F(EvaluateTest, FindsTheKnownAccuracyOfARealModel) {
  PARED_REQUIRE_MODEL("mnist-conv/mnist-conv.onnx");
  PARED_REQUIRE_MODEL("datasets/mnist-5k/dataset.json");
  const Dataset digits = Dataset::Open(RealModelFolder() / "datasets/mnist-5k");
  context_.dataset = &digits;
  const Model model = LoadOnnx(RealModelFolder() / "mnist-conv/mnist-conv.onnx");
  const Reference reference = RunReference(model, context_);
  const Metrics metrics = EvaluateOutputs(reference, reference, context_);
  EXPECT_DOUBLE_EQ(metrics.at("top1"), 0.9936);  // what onnxruntime finds
}

}  // namespace
}  // namespace pared
