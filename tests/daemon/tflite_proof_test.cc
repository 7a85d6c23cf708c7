#include "daemon/tflite_proof.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "evaluator/dataset.h"
#include "model/tflite.h"
#include "tests/testing/matchers.h"
#include "tests/testing/models.h"
#include "tests/testing/temp_dir.h"

namespace pared {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

// t3 [2,7] = MaxPool(t0 [2,3,4,5]) as rows, times t1 [7,60]. Made by another program.
constexpr const char* kFile = "tests/fuzz/corpus/tflite/fully_connected_lead";

// What the file computes, `factor` times as large.
Model TimesOf(float factor) {
  Model model = LoadTflite(kFile);
  const Tensor weights = model.graph.initializers.at("t1").tensor;
  std::vector<float> scaled(weights.data<float>().begin(), weights.data<float>().end());
  for (float& weight : scaled) weight *= factor;
  return WithInitializer(std::move(model), "t1",
                         Tensor::Make<float>(weights.shape(), std::move(scaled)));
}

// `count` samples, of which those from `begin` on are `value`; the others are zeros.
Dataset Samples(int64_t count, int64_t begin, float value) {
  std::vector<float> values(static_cast<size_t>(60 * count), 0);
  std::fill(values.begin() + 60 * begin, values.end(), value);
  return Dataset::Of("made", {{"t0", Tensor::Make<float>({count, 3, 4, 5}, std::move(values))}});
}

TfliteProof Prove(const Model& model, const Dataset& data,
                  const std::filesystem::path& path = kFile) {
  EvaluateContext context;
  context.dataset = &data;
  return ProveTflite(model, path, context);
}

TfliteProof Prove(const Model& model, const std::filesystem::path& path = kFile) {
  return Prove(model, Dataset::Random(CallerInputs(model.graph), 40, 1), path);
}

TEST(TfliteProof, MeasuresTheFileAgainstTheModel) {
  const TfliteProof proof = Prove(TimesOf(1));
  EXPECT_FALSE(proof.error);
  EXPECT_EQ(proof.metrics.at("tflite_sqnr_db"), 200);
  EXPECT_EQ(proof.metrics.at("size_tflite_bytes"),
            static_cast<double>(std::filesystem::file_size(kFile)));
  EXPECT_EQ(proof.report, Json({{"samples", 16}, {"worst_output", "t3"}}));
  EXPECT_THAT(proof.warnings, IsEmpty());
}

// 20 log10(1.1 / 0.1) and 20 log10(1.02 / 0.02).
TEST(TfliteProof, WarnsBelowThirtyDecibels) {
  const TfliteProof coarse = Prove(TimesOf(1.1F));
  EXPECT_FALSE(coarse.error);
  EXPECT_NEAR(coarse.metrics.at("tflite_sqnr_db"), 20.83, 0.01);
  EXPECT_THAT(coarse.warnings, ElementsAre(HasSubstr("the SQNR of output t3 between the two is "
                                                     "20.8 dB, below 30.0 dB")));
  const TfliteProof fine = Prove(TimesOf(1.02F));
  EXPECT_NEAR(fine.metrics.at("tflite_sqnr_db"), 34.15, 0.01);
  EXPECT_THAT(fine.warnings, IsEmpty());
}

TEST(TfliteProof, LooksAtSamplesFromAllOverTheData) {
  const Dataset data = Samples(40, 39, 1);
  const TfliteProof last = Prove(TimesOf(1.1F), data);
  EXPECT_EQ(last.metrics.at("tflite_sqnr_db"), 200);  // the last of every two or three is not seen
  EXPECT_EQ(last.report["samples"], 16);
  EXPECT_NEAR(Prove(TimesOf(1.1F), Samples(40, 30, 1)).metrics.at("tflite_sqnr_db"), 20.83, 0.01);
  EXPECT_EQ(Prove(TimesOf(1.1F), Samples(3, 2, 1)).report["samples"], 3);
}

TEST(TfliteProof, OutputsThatAreIndicesDoNotCount) {
  const std::filesystem::path file = "tests/fuzz/corpus/tflite/topk_v2";
  const TfliteProof proof = Prove(LoadTflite(file), file);
  EXPECT_EQ(proof.metrics.at("tflite_sqnr_db"), 200);
  EXPECT_EQ(proof.report["worst_output"], "t2");
}

TEST(TfliteProof, SaysWhereTheFileIsNotFinite) {
  const TfliteProof proof = Prove(TimesOf(1e-3F), Samples(1, 0, 3e38F));
  EXPECT_THAT(proof.warnings, testing::Contains(HasSubstr("NaN or infinity in output t3")));
}

TEST(TfliteProof, AFileThatCannotBeUsedIsAFaultOfPared) {
  const TempDir dir;
  WriteFile(dir / "cut.tflite", ReadFile(kFile).substr(0, 100));
  const TfliteProof cut = Prove(TimesOf(1), dir / "cut.tflite");
  ASSERT_TRUE(cut.error);
  EXPECT_EQ(cut.error->code(), ErrorCode::kInternal);
  EXPECT_THAT(cut.metrics, IsEmpty());
  const TfliteProof missing = Prove(TimesOf(1), dir / "missing.tflite");
  EXPECT_EQ(missing.error->code(), ErrorCode::kInternal);
  const TfliteProof other = Prove(TimesOf(1), "tests/fuzz/corpus/tflite/prelu");
  EXPECT_EQ(other.error->code(), ErrorCode::kInternal);
  EXPECT_THAT(other.error->message(), HasSubstr("cannot be used"));
  const TfliteProof outputs =
      Prove(ModelFromText("g (float[4,9] t0) => (float[4,9] y) { y = Relu(t0) }"),
            "tests/fuzz/corpus/tflite/topk_v2");
  EXPECT_THAT(outputs.error->message(), HasSubstr("has 2 outputs, the model 1"));
}

TEST(TfliteProof, AModelThatCannotBeRunIsNotComparedWhichIsSaid) {
  const Model model = ModelFromText("g (float[2,3] x) => (float[2,3] y) { [odd] y = Twirl(x) }");
  const TfliteProof proof = Prove(model);
  EXPECT_FALSE(proof.error);
  EXPECT_FALSE(proof.metrics.contains("tflite_sqnr_db"));
  EXPECT_TRUE(proof.metrics.contains("size_tflite_bytes"));
  EXPECT_THAT(proof.warnings, ElementsAre(HasSubstr("was not compared")));
}

TEST(TfliteProof, DataThatDoNotFitAreNoFaultOfTheFile) {
  const Dataset data = Dataset::Of("odd", {{"t0", Tensor::Make<float>({2, 2}, {1, 2, 3, 4})}});
  EXPECT_THAT([&] { Prove(TimesOf(1), data); },
              ThrowsError(ErrorCode::kInvalidArgument, testing::_));
}

TEST(TfliteProof, StopsWhereItIsCancelled) {
  const Dataset data = Samples(2, 0, 1);
  EvaluateContext context;
  context.dataset = &data;
  context.cancelled = [] { return true; };
  EXPECT_THAT([&] { ProveTflite(TimesOf(1), kFile, context); },
              ThrowsError(ErrorCode::kCancelled, ""));
}

class WriteTfliteTest : public testing::Test {
 protected:
  TfliteProof Write(const std::string& text) const {
    const Model model = ModelFromText(text);
    const Dataset data = Dataset::Random(CallerInputs(model.graph), 4, 1);
    EvaluateContext context;
    context.dataset = &data;
    return WriteTflite(model, path_, context);
  }

  TempDir dir_;
  const std::filesystem::path path_ = dir_ / "out.tflite";
};

TEST_F(WriteTfliteTest, WritesWhatTheModelComputes) {
  const TfliteProof proof = Write(
      "g (float[1,4] x) => (float[1,2] y) <float[4,2] w = {1,2,3,4,5,6,7,8}> { y = MatMul(x, w) }");
  EXPECT_FALSE(proof.error) << proof.error->what();
  EXPECT_TRUE(IsTfliteFile(path_));
  EXPECT_GT(proof.metrics.at("tflite_sqnr_db"), 100);
  EXPECT_THAT(proof.warnings, IsEmpty());
}

TEST_F(WriteTfliteTest, TellsOfProductsInInt8WhoseResultsAreFloats) {
  const auto text = [](const std::string& end) {
    return R"(<ir_version: 8, opset_import: ["" : 17]> g (float[1,2] x) => (float[1,2] y)
      <int8[2,2] w = {1,2,3,4}, float s = {0.1}, int8 z = {0}, float[2] b = {1,2}> {
        xq = QuantizeLinear(x, s, z) xd = DequantizeLinear(xq, s, z)
        wd = DequantizeLinear(w, s, z) p = MatMul(xd, wd) q = Add(p, b) )" +
           end + R"( fd = DequantizeLinear(fq, s, z) y = MatMul(fd, wd) })";
  };
  const TfliteProof one = Write(text("fq = QuantizeLinear(q, s, z)"));
  EXPECT_FALSE(one.error) << one.error->what();
  EXPECT_THAT(one.warnings, IsEmpty());
  const TfliteProof two = Write(text("f = Exp(q) fq = QuantizeLinear(f, s, z)"));
  EXPECT_FALSE(two.error) << two.error->what();
  EXPECT_THAT(two.warnings, ElementsAre(HasSubstr("computes 2 INT8 products in float")));
}

TEST_F(WriteTfliteTest, NamesTheOperatorsThatHaveNoCounterpart) {
  const TfliteProof proof =
      Write("g (float[1,4] x) => (float[1,4] y) { h = Relu(x) y = Twirl(h) }");
  ASSERT_TRUE(proof.error);
  EXPECT_EQ(proof.error->code(), ErrorCode::kUnsupported);
  EXPECT_THAT(proof.error->what(), HasSubstr("Twirl"));
  EXPECT_FALSE(std::filesystem::exists(path_));
}

}  // namespace
}  // namespace pared
