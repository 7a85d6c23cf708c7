// Datasets of archives, tokens, unequal lengths, numbers, and models that remember.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "evaluator/dataset.h"
#include "evaluator/evaluate.h"
#include "evaluator/half_floats.h"
#include "evaluator/npy.h"
#include "evaluator/run_samples.h"
#include "tests/testing/matchers.h"
#include "tests/testing/models.h"
#include "tests/testing/temp_dir.h"

namespace pared {
namespace {

namespace fs = std::filesystem;
using testing::DoubleEq;
using testing::ElementsAre;
using testing::HasSubstr;

class DatasetFormsTest : public testing::Test {
 protected:
  Dataset Open(const std::string& manifest) const {
    WriteFile(dir_.path() / "dataset.json", manifest);
    return Dataset::Open(dir_.path());
  }
  void TakeNpz(const char* as = "data.npz") const {
    fs::copy_file("tests/evaluator/deflated.npz", dir_.path() / as);
  }
  // With these arrays as files.
  void Write(const std::string& name, const Tensor& array) const {
    SaveNpy(array, dir_.path() / (name + ".npy"));
  }
  std::string At(const std::string& place) const { return (dir_.path() / place).string(); }

  TempDir dir_;
};

TEST_F(DatasetFormsTest, TakesArraysOutOfAnArchive) {
  TakeNpz();
  const Dataset dataset =
      Open(R"({"inputs": {"x": "data.npz", "tokens": "data.npz:ids"}, "labels": "data.npz"})");
  ASSERT_EQ(dataset.sample_count(), 2);
  EXPECT_EQ(dataset.label(0), 1);
  EXPECT_THAT(dataset.Sample(1, InputsOf("int64[N,3] tokens, float[N,3] x")),
              ElementsAre(SameTensor(Tensor::Make<int64_t>({1, 3}, {1, 2, 300})),
                          SameTensor(Tensor::Make<float>({1, 3}, {0.75f, 1, 1.25f}))));
  EXPECT_THAT([&] { Open(R"({"inputs": {"x": "data.npz:y"}})"); },
              ThrowsError(ErrorCode::kInvalidArgument, At("data.npz:y")));
  EXPECT_THAT([&] { Open(R"({"inputs": {"x": "../data.npz:x"}})"); },
              ThrowsError(ErrorCode::kInvalidArgument, At("dataset.json#/inputs/x")));
}

TEST_F(DatasetFormsTest, TakesAWholeArchiveWithItsLabels) {
  fs::copy_file("tests/evaluator/stored.npz", dir_.path() / "data.npz");
  const Dataset dataset = Open(R"({"inputs": "data.npz"})");
  EXPECT_TRUE(dataset.has_labels());
  EXPECT_EQ(dataset.Sample(0, InputsOf("int64[N,3] ids, float[N,3] x")).size(), 2u);
  TakeNpz("more.npz");  // with an array of 4,000
  EXPECT_THAT([&] { Open(R"({"inputs": "more.npz"})"); },
              ThrowsError(ErrorCode::kInvalidArgument, At("dataset.json#/inputs/zeros"),
                          HasSubstr("axis 0: there are 4000 samples, and 2")));
}

// Archives are made by NumPy elsewhere; here its parts suffice: stored members.
class TokensTest : public DatasetFormsTest {};

TEST_F(TokensTest, FillsInTheMaskAndTheTypes) {
  TakeNpz();
  EXPECT_THAT([&] { Open(R"({"tokens": {"file": "data.npz"}})"); },
              ThrowsError(ErrorCode::kInvalidArgument, At("data.npz:input_ids"),
                          HasSubstr("there is no such array")));
  fs::copy_file("tests/evaluator/tokens.npz", dir_.path() / "ids.npz");
  const Dataset dataset = Open(R"({"tokens": {"file": "ids.npz"}})");
  EXPECT_EQ(dataset.label(1), 3);
  const auto inputs = InputsOf(
      "int64[N,L] input_ids, int64[N,L] attention_mask, "
      "int64[N,L] token_type_ids");
  EXPECT_THAT(dataset.Sample(0, inputs),
              ElementsAre(SameTensor(Tensor::Make<int64_t>({1, 2}, {101, 102})),
                          SameTensor(Tensor::Make<int64_t>({1, 2}, {1, 1})),
                          SameTensor(Tensor::Make<int64_t>({1, 2}, {0, 0}))));
  EXPECT_THAT(dataset.Sample(1, inputs)[0].shape(), ElementsAre(1, 4));
  const Dataset whole = Open(R"({"tokens": {"file": "ids.npz", "trim": false}})");
  EXPECT_THAT(whole.Sample(0, inputs)[0],
              SameTensor(Tensor::Make<int64_t>({1, 4}, {101, 102, 0, 0})));
  EXPECT_NE(whole.Digest(), dataset.Digest());
}

TEST_F(TokensTest, NamesArrayAndAxisThatDoNotFit) {
  for (const auto& [file, array, says] :
       std::vector<std::tuple<std::string, std::string, std::string>>{
           {"tokens_axis.npz", "attention_mask", "axis 1: has 3, input_ids has 4"},
           {"tokens_float.npz", "input_ids", "must be integers of the shape [samples, length]"},
           {"tokens_other.npz", "lengths", "is none of input_ids"},
           {"tokens_mask.npz", "attention_mask, sample 1", "keeps no token"}}) {
    fs::copy_file("tests/evaluator/" + file, dir_.path() / file);
    const std::string manifest = R"({"tokens": {"file": ")" + file + "\"}}";
    EXPECT_THAT([&] { Open(manifest); },
                ThrowsError(ErrorCode::kInvalidArgument, At(file + ":" + array), HasSubstr(says)));
  }
}

TEST_F(DatasetFormsTest, CutsSamplesToTheirLengths) {
  Write("x", Tensor::Make<float>({2, 2, 3}, {1, 2, 0, 3, 4, 0, 5, 6, 7, 8, 9, 10}));
  Write("lengths", Tensor::Make<int32_t>({2}, {2, 3}));
  const Dataset dataset = Open(R"({"inputs": {"x": "x.npy"}, "lengths": "lengths.npy"})");
  const auto inputs = InputsOf("float[N,2,L] x");
  EXPECT_THAT(dataset.Sample(0, inputs)[0],
              SameTensor(Tensor::Make<float>({1, 2, 2}, {1, 2, 3, 4})));
  EXPECT_THAT(dataset.Sample(1, inputs)[0].shape(), ElementsAre(1, 2, 3));
  Write("lengths", Tensor::Make<int32_t>({2}, {2, 4}));
  EXPECT_THAT([&] { Open(R"({"inputs": {"x": "x.npy"}, "lengths": "lengths.npy"})"); },
              ThrowsError(ErrorCode::kInvalidArgument, At("dataset.json#/inputs/x"),
                          HasSubstr("[2, 2, 3] has no 4, the length of sample 1")));
  Write("lengths", Tensor::Make<int32_t>({2}, {2, 0}));
  EXPECT_THAT([&] { Open(R"({"inputs": {"x": "x.npy"}, "lengths": "lengths.npy"})"); },
              ThrowsError(ErrorCode::kInvalidArgument, At("lengths.npy"), HasSubstr("at least 1")));
}

TEST_F(DatasetFormsTest, GivesANumberInTheInputsShape) {
  Write("x", Tensor::Make<float>({1, 1}, {5}));
  const Dataset dataset = Open(R"({"inputs": {"*": "x.npy", "rate": 16000}})");
  EXPECT_THAT(dataset.Sample(0, InputsOf("float[N,1] x, int64 rate")),
              ElementsAre(SameTensor(Tensor::Make<float>({1, 1}, {5})),
                          SameTensor(Tensor::Scalar<int64_t>(16000))));
  EXPECT_THAT(dataset.Sample(0, InputsOf("float[N,1] x, float16 rate"))[1],
              SameTensor(Tensor::Scalar<Float16>(ToFloat16(16000))));
  EXPECT_THAT(
      [&] { dataset.Sample(0, InputsOf("float[N,1] x, int8 rate")); },
      ThrowsError(ErrorCode::kInvalidArgument, "input rate", HasSubstr("no value of int8")));
  EXPECT_THAT(
      [&] { dataset.Sample(0, InputsOf("float[N,1] x, bool rate")); },
      ThrowsError(ErrorCode::kInvalidArgument, "input rate", HasSubstr("no value of bool")));
}

// y = x + s, which is the state of the sample after.
const char* const kSum =
    "g (float[N,1] x, float[N,1] s) => (float[N,1] y, float[N,1] t) "
    "{ y = Add(x, s)\n t = Identity(y) }";

class StateTest : public DatasetFormsTest {
 protected:
  Dataset OpenSum() const {
    Write("x", Tensor::Make<float>({4, 1}, {1, 2, 3, 4}));
    Write("y", Tensor::Make<float>({4, 1}, {1, 3, 6, 10}));
    return Open(R"({"inputs": {"*": "x.npy"}, "state": {"s": "t"}, "targets": "y.npy",
                    "peak": 10})");
  }
};

TEST_F(StateTest, GoesFromSampleToSample) {
  const Dataset dataset = OpenSum();
  const Model model = ModelFromText(kSum);
  EvaluateContext context;
  context.dataset = &dataset;
  const Reference reference = RunReference(model, context);
  std::vector<float> sums;
  for (const auto& outputs : reference.outputs) sums.push_back(outputs[0].data<float>()[0]);
  EXPECT_THAT(sums, ElementsAre(1, 3, 6, 10));
  EXPECT_THAT(EvaluateAccuracy(model, reference, context).at("psnr_db"), DoubleEq(200));
}

TEST_F(StateTest, IsRecordedForSamplesByThemselves) {
  Dataset dataset = OpenSum();
  const Model model = ModelFromText(kSum);
  const std::string digest = dataset.Digest();
  EXPECT_THAT(dataset.Sample(3, model.graph.inputs)[1],
              SameTensor(Tensor::Make<float>({1, 1}, {0})));
  RecordStates(model, dataset, [] { return false; });
  EXPECT_THAT(dataset.Sample(3, model.graph.inputs)[1],
              SameTensor(Tensor::Make<float>({1, 1}, {6})));
  EXPECT_EQ(dataset.Digest(), digest);
}

TEST_F(StateTest, NamesTheInputOrOutputThatTheModelLacks) {
  Write("x", Tensor::Make<float>({1, 1}, {1}));
  for (const char* state : {R"({"s": "u"})", R"({"r": "t"})"}) {
    Dataset dataset = Open(R"({"inputs": {"x": "x.npy"}, "state": )" + std::string(state) + "}");
    EXPECT_THAT([&] { RecordStates(ModelFromText(kSum), dataset, [] { return false; }); },
                ThrowsError(ErrorCode::kInvalidArgument, HasSubstr("/state/"),
                            HasSubstr("the model has no")));
  }
}

TEST_F(DatasetFormsTest, MeasuresTheOutputThatItNames) {
  Write("x", Tensor::Make<float>({2, 2, 2}, {1, 0, 2, 9, 5, 6, 4, 2}));
  Write("labels", Tensor::Make<uint8_t>({2}, {1, 0}));
  const Dataset dataset = Open(R"({"inputs": {"x": "x.npy"}, "labels": "labels.npy",
                                   "output": ["none", "z"], "pooling": "mean"})");
  EvaluateContext context;
  context.dataset = &dataset;
  // Means over the rows: 1.5, 4.5 and 4.5, 4.
  const Model model = ModelFromText(
      "g (float[N,2,2] x) => (float[N,2,2] y, float[N,2,2] z) { y = Neg(x)\n z = Identity(x) }");
  const Reference reference = RunReference(model, context);
  const Metrics metrics = EvaluateOutputs(reference, reference, context);
  EXPECT_THAT(metrics.at("top1"), DoubleEq(1));
  const Model other = ModelFromText("g (float[N,2,2] x) => (float[N,2,2] y) { y = Neg(x) }");
  EXPECT_THAT([&] { RunReference(other, context); },
              ThrowsError(ErrorCode::kInvalidArgument, "/output", HasSubstr("\"none\"")));
}

TEST_F(DatasetFormsTest, FindsTheNearestInTheGallery) {
  Write("x", Tensor::Make<float>({4, 2}, {1, 0, 0, 1, 3, 1, 1, 2}));
  Write("labels", Tensor::Make<uint8_t>({4}, {7, 8, 7, 7}));
  const char* manifest = R"({"inputs": {"x": "x.npy"}, "labels": "labels.npy",
                             "task": "retrieval", "gallery": 2})";
  const Dataset dataset = Open(manifest);
  EvaluateContext context;
  context.dataset = &dataset;
  const Model model = ModelFromText("g (float[N,2] x) => (float[N,2] y) { y = Identity(x) }");
  const Reference reference = RunReference(model, context);
  const Metrics metrics = EvaluateOutputs(reference, reference, context);
  EXPECT_THAT(metrics.at("top1"), DoubleEq(0.5));
  EXPECT_LT(metrics.at("top1_low"), 0.5);
  context.samples = 2;
  const Reference gallery = RunReference(model, context);
  EXPECT_THAT([&] { EvaluateOutputs(gallery, gallery, context); },
              ThrowsError(ErrorCode::kInvalidArgument, HasSubstr("dataset"),
                          HasSubstr("more samples than the 2")));
  EXPECT_THAT(
      [&] {
        Open(R"({"inputs": {"x": "x.npy"}, "labels": "labels.npy",
                             "task": "retrieval", "gallery": 4})");
      },
      ThrowsError(ErrorCode::kInvalidArgument, At("dataset.json#/gallery")));
}

}  // namespace
}  // namespace pared
