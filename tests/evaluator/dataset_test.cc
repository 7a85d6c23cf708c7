#include "evaluator/dataset.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>

#include "evaluator/half_floats.h"
#include "evaluator/metrics.h"
#include "evaluator/npy.h"
#include "tests/testing/matchers.h"
#include "tests/testing/models.h"
#include "tests/testing/temp_dir.h"

namespace pared {
namespace {

using std::string_literals::operator""s;
using testing::AllOf;
using testing::ElementsAre;
using testing::EndsWith;
using testing::HasSubstr;

// A version 1 file as NumPy writes it, but for the padding.
std::string Npy(const std::string& header, const std::string& elements) {
  return "\x93NUMPY\x01\x00"s + static_cast<char>(header.size()) + '\0' + header + elements;
}

std::string Header(const std::string& descr, const std::string& shape) {
  return "{'descr': '" + descr + "', 'fortran_order': False, 'shape': " + shape + ", }\n";
}

class DatasetTest : public testing::Test {
 protected:
  // Two samples of shape [1, 3] in bytes, labels 7 and 9.
  void WriteDigits(const std::string& manifest) {
    WriteFile(dir_.path() / "x.npy", Npy(Header("|u1", "(2, 1, 3)"), "\x01\x02\x03\x04\x05\xff"s));
    WriteFile(dir_.path() / "y.npy", Npy(Header("<i2", "(2,)"), "\x07\x00\x09\x00"s));
    WriteFile(dir_.path() / "dataset.json", manifest);
  }
  std::string Manifest(const std::string& pointer) const {
    return (dir_.path() / "dataset.json").string() + "#" + pointer;
  }

  TempDir dir_;
};

TEST_F(DatasetTest, ReadsAnArrayOfEachVersion) {
  const std::string header = Header("<f4", "(2,)");
  const std::string elements = "\x00\x00\x80\x3f\x00\x00\x00\xc0"s;  // 1, -2
  const char size = static_cast<char>(header.size());
  WriteFile(dir_.path() / "1.npy", Npy(header, elements));
  WriteFile(dir_.path() / "2.npy", "\x93NUMPY\x02\x00"s + size + "\0\0\0"s + header + elements);
  WriteFile(dir_.path() / "3.npy", "\x93NUMPY\x03\x00"s + size + "\0\0\0"s + header + elements);

  const Tensor expected = Tensor::Make<float>({2}, {1, -2});
  EXPECT_THAT(LoadNpy(dir_.path() / "1.npy"), SameTensor(expected));
  EXPECT_THAT(LoadNpy(dir_.path() / "2.npy"), SameTensor(expected));
  EXPECT_THAT(LoadNpy(dir_.path() / "3.npy"), SameTensor(expected));
}

TEST_F(DatasetTest, ReadsAScalarArray) {
  WriteFile(dir_.path() / "s.npy", Npy(Header("<i8", "()"), "\x05\0\0\0\0\0\0\0"s));
  EXPECT_THAT(LoadNpy(dir_.path() / "s.npy"), SameTensor(Tensor::Scalar<int64_t>(5)));
}

TEST_F(DatasetTest, WritesWhatNumpyReads) {
  SaveNpy(Tensor::Make<float>({1, 2}, {1, -2}), dir_.path() / "a.npy");
  const std::string bytes = ReadFile(dir_.path() / "a.npy");
  ASSERT_EQ(bytes.size(), 128u + 8u);  // NumPy aligns the elements to 64 bytes
  EXPECT_EQ(bytes.substr(0, 10), "\x93NUMPY\x01\x00\x76\x00"s);
  EXPECT_THAT(
      bytes.substr(10, 118),
      AllOf(testing::StartsWith("{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2, ), }"),
            EndsWith(" \n")));
  EXPECT_EQ(bytes.substr(128), "\x00\x00\x80\x3f\x00\x00\x00\xc0"s);
}

struct BadNpy {
  const char* name;
  std::string bytes;
  std::string says;
};

class BadNpyTest : public testing::TestWithParam<BadNpy> {};

TEST_P(BadNpyTest, IsRefusedAtTheFile) {
  TempDir dir;
  const std::filesystem::path path = dir.path() / "bad.npy";
  WriteFile(path, GetParam().bytes);
  EXPECT_THAT([&] { LoadNpy(path); },
              ThrowsError(ErrorCode::kInvalidArgument, path.string(), HasSubstr(GetParam().says)));
}

INSTANTIATE_TEST_SUITE_P(
    All, BadNpyTest,
    testing::Values(
        BadNpy{"short", "\x93NUMPY\x01"s, "not a .npy file"},
        BadNpy{"magic", "PK\x03\x04 a zip of arrays"s, "not a .npy file"},
        BadNpy{"version", "\x93NUMPY\x04\x00\x00\x00\x00\x00"s, "version 4"},
        BadNpy{"truncated", "\x93NUMPY\x01\x00\xff\x00{'descr'"s, "truncated"},
        BadNpy{"huge_header", "\x93NUMPY\x02\x00\xff\xff\xff\xff{'descr'"s,
               "truncated or too long"},
        BadNpy{"big_endian", Npy(Header(">f4", "(1,)"), "\0\0\0\0"s), "'>f4'"},
        BadNpy{"objects", Npy(Header("|O", "(1,)"), "x"), "'|O'"},
        BadNpy{"structured",
               Npy("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,), }\n",
                   "\0\0\0\0"s),
               "no simple type"},
        BadNpy{"fortran",
               Npy("{'descr': '<f4', 'fortran_order': True, 'shape': (1,), }\n", "\0\0\0\0"s),
               "C order"},
        BadNpy{"too_few", Npy(Header("<f4", "(3,)"), "\0\0\0\0"s), "needs 12 bytes"},
        BadNpy{"too_many", Npy(Header("|u1", "(3,)"), "1234"), "the file has 4"},
        BadNpy{"negative", Npy(Header("|u1", "(-3,)"), "123"), "not integers"},
        BadNpy{"no_shape", Npy("{'descr': '<f4', 'fortran_order': False}\n", "1234"), "'shape'"}),
    [](const auto& tested) { return tested.param.name; });

TEST_F(DatasetTest, RefusesAShapeWhoseProductOverflows) {
  WriteFile(dir_.path() / "a.npy", Npy(Header("<f4", "(4611686018427387904, 4)"), ""));
  EXPECT_THAT([&] { LoadNpy(dir_.path() / "a.npy"); },
              testing::Throws<Error>(testing::Property(&Error::code, ErrorCode::kInvalidArgument)));
}

TEST_F(DatasetTest, GivesOneSampleWithItsBatchAxisAndLabel) {
  WriteDigits(R"({"inputs": {"*": "x.npy"}, "labels": "y.npy"})");
  const Dataset dataset = Dataset::Open(dir_.path());
  EXPECT_EQ(dataset.sample_count(), 2);
  ASSERT_TRUE(dataset.has_labels());
  EXPECT_EQ(dataset.label(1), 9);
  const std::vector<Tensor> sample = dataset.Sample(1, InputsOf("float[N,1,3] image"));
  ASSERT_EQ(sample.size(), 1u);
  EXPECT_THAT(sample[0], SameTensor(Tensor::Make<float>({1, 1, 3}, {4, 5, 255})));
}

TEST_F(DatasetTest, AddsNoAxisWhereTheRanksAgree) {
  WriteDigits(R"({"inputs": {"image": "x.npy"}})");
  const Dataset dataset = Dataset::Open(dir_.path());
  EXPECT_FALSE(dataset.has_labels());
  EXPECT_THAT(dataset.Sample(0, InputsOf("int32[1,3] image")),
              ElementsAre(SameTensor(Tensor::Make<int32_t>({1, 3}, {1, 2, 3}))));
}

TEST_F(DatasetTest, GivesInputsInHalfTheNearestNumbers) {
  SaveNpy(Tensor::Make<float>({1, 3}, {1.0f, 0.1f, -70000.0f}), dir_ / "f.npy");
  SaveNpy(Tensor::Make<Float16>({1, 2}, {ToFloat16(0.1f), ToFloat16(2.0f)}), dir_ / "h.npy");
  WriteFile(dir_ / "dataset.json", R"({"inputs": {"f": "f.npy", "h": "h.npy"}})");
  const Dataset dataset = Dataset::Open(dir_.path());
  // Of 11 bits and of 8; the last is beyond float16.
  const std::vector<Tensor> half = dataset.Sample(0, InputsOf("float16[1,3] f"));
  EXPECT_THAT(ToFloats(half[0]),
              ElementsAre(1.0f, 0.0999755859375f, -std::numeric_limits<float>::infinity()));
  const std::vector<Tensor> brain = dataset.Sample(0, InputsOf("bfloat16[1,3] f"));
  EXPECT_THAT(ToFloats(brain[0]), ElementsAre(1.0f, 0.10009765625f, -70144.0f));
  EXPECT_THAT(dataset.Sample(0, InputsOf("float[1,2] h")),
              ElementsAre(SameTensor(Tensor::Make<float>({1, 2}, {0.0999755859375f, 2.0f}))));
}

TEST_F(DatasetTest, FillsAFixedBatchWithTheSample) {
  WriteDigits(R"({"inputs": {"image": "x.npy"}})");
  const Dataset dataset = Dataset::Open(dir_.path());
  EXPECT_THAT(dataset.Sample(1, InputsOf("float[2,1,3] image")),
              ElementsAre(SameTensor(Tensor::Make<float>({2, 1, 3}, {4, 5, 255, 4, 5, 255}))));
  EXPECT_THAT([&] { dataset.Sample(0, InputsOf("float[1000000000,1,3] image")); },
              ThrowsError(ErrorCode::kInvalidArgument, "input image",
                          HasSubstr("batches of 1000000000, more than a GiB")));
}

TEST_F(DatasetTest, NamesTheInputThatDoesNotFit) {
  WriteDigits(R"({"inputs": {"image": "x.npy"}})");
  const Dataset dataset = Dataset::Open(dir_.path());
  EXPECT_THAT([&] { dataset.Sample(0, InputsOf("float[N,1,4] image")); },
              ThrowsError(ErrorCode::kInvalidArgument, "input image",
                          "axis 2: the dataset has 3, the model wants 4"));
  EXPECT_THAT([&] { dataset.Sample(0, InputsOf("float[N,1,2,3] image")); },
              ThrowsError(ErrorCode::kInvalidArgument, "input image", HasSubstr("rank 4")));
  EXPECT_THAT([&] { dataset.Sample(0, InputsOf("float[N,1,3] picture")); },
              ThrowsError(ErrorCode::kInvalidArgument, "input picture"));
  EXPECT_THAT([&] { dataset.Sample(0, InputsOf("int8[N,1,3] image")); },
              ThrowsError(ErrorCode::kInvalidArgument, "input image", HasSubstr("uint8")));
}

TEST_F(DatasetTest, StarIsNoNameWhereTheModelHasTwoInputs) {
  WriteDigits(R"({"inputs": {"*": "x.npy"}})");
  const Dataset dataset = Dataset::Open(dir_.path());
  EXPECT_THAT([&] { dataset.Sample(0, InputsOf("float[N,1,3] a, float[N,1,3] b")); },
              ThrowsError(ErrorCode::kInvalidArgument, "input a"));
}

TEST_F(DatasetTest, RefusesAManifestThatReachesOut) {
  WriteDigits(R"({"inputs": {"*": "../x.npy"}})");
  EXPECT_THAT([&] { Dataset::Open(dir_.path()); },
              ThrowsError(ErrorCode::kInvalidArgument, Manifest("/inputs/*")));
  WriteDigits(R"({"inputs": {"*": "x.npy"}, "labels": "/etc/passwd"})");
  EXPECT_THAT([&] { Dataset::Open(dir_.path()); },
              ThrowsError(ErrorCode::kInvalidArgument, Manifest("/labels")));
}

TEST_F(DatasetTest, RefusesAManifestThatIsIncomplete) {
  EXPECT_THAT([&] { Dataset::Open(dir_.path()); },
              ThrowsError(ErrorCode::kNotFound, (dir_.path() / "dataset.json").string()));
  WriteDigits(R"({"labels": "y.npy"})");
  EXPECT_THAT([&] { Dataset::Open(dir_.path()); },
              ThrowsError(ErrorCode::kInvalidArgument, Manifest("/inputs")));
  WriteDigits(R"({"inputs": {}, })");
  EXPECT_THAT([&] { Dataset::Open(dir_.path()); },
              ThrowsError(ErrorCode::kInvalidArgument,
                          (dir_.path() / "dataset.json").string() + ": byte 16"));
  WriteDigits(R"({"inputs": {}})");
  EXPECT_THAT([&] { Dataset::Open(dir_.path()); },
              ThrowsError(ErrorCode::kInvalidArgument, Manifest("/inputs")));
  WriteDigits(R"({"inputs": {"*": "none.npy"}})");
  EXPECT_THAT([&] { Dataset::Open(dir_.path()); },
              ThrowsError(ErrorCode::kNotFound, (dir_.path() / "none.npy").string()));
}

TEST_F(DatasetTest, RefusesArraysOfDifferentLengths) {
  WriteDigits(R"({"inputs": {"*": "x.npy"}, "labels": "y.npy"})");
  WriteFile(dir_.path() / "y.npy", Npy(Header("|u1", "(3,)"), "123"));
  EXPECT_THAT(
      [&] { Dataset::Open(dir_.path()); },
      ThrowsError(ErrorCode::kInvalidArgument, (dir_.path() / "y.npy").string(), HasSubstr("[2]")));
  WriteFile(dir_.path() / "y.npy", Npy(Header("<f4", "(2,)"), "12345678"));
  EXPECT_THAT([&] { Dataset::Open(dir_.path()); },
              ThrowsError(ErrorCode::kInvalidArgument, (dir_.path() / "y.npy").string(),
                          HasSubstr("must be integers")));
}

TEST_F(DatasetTest, DigestTellsOneByteAndOneLabel) {
  WriteDigits(R"({"inputs": {"*": "x.npy"}, "labels": "y.npy"})");
  const std::string first = Dataset::Open(dir_.path()).Digest();
  EXPECT_EQ(first.size(), 64u);
  EXPECT_EQ(first, Dataset::Open(dir_.path()).Digest());
  WriteFile(dir_.path() / "x.npy", Npy(Header("|u1", "(2, 1, 3)"), "\x01\x02\x03\x04\x05\xfe"s));
  const std::string second = Dataset::Open(dir_.path()).Digest();
  EXPECT_NE(first, second);
  WriteFile(dir_.path() / "y.npy", Npy(Header("<i2", "(2,)"), "\x07\x00\x08\x00"s));
  EXPECT_NE(second, Dataset::Open(dir_.path()).Digest());
}

TEST(RandomDataset, FillsUnknownAxesAndRepeatsBySeed) {
  const std::vector<ValueInfo> inputs =
      InputsOf("float[batch,3,height,width] image, int64[batch,sequence] ids");
  const Dataset dataset = Dataset::Random(inputs, 2, 5);
  const std::vector<Tensor> sample = dataset.Sample(1, inputs);
  ASSERT_EQ(sample.size(), 2u);
  EXPECT_THAT(sample[0].shape(), ElementsAre(1, 3, 224, 224));
  EXPECT_THAT(sample[1].shape(), ElementsAre(1, 1));
  EXPECT_THAT(sample[1].data<int64_t>()[0], testing::AnyOf(0, 1));
  EXPECT_EQ(dataset.Digest(), Dataset::Random(inputs, 2, 5).Digest());
  EXPECT_NE(dataset.Digest(), Dataset::Random(inputs, 2, 6).Digest());
}

TEST(RandomDataset, IsStandardNormal) {
  const std::vector<ValueInfo> inputs = InputsOf("float[1,10000] x");
  const std::vector<Tensor> sample = Dataset::Random(inputs, 1, 1).Sample(0, inputs);
  double sum = 0;
  double squares = 0;
  for (const float x : sample[0].data<float>()) {
    sum += static_cast<double>(x);
    squares += static_cast<double>(x) * static_cast<double>(x);
  }
  EXPECT_NEAR(sum / 1e4, 0, 0.05);  // five standard errors
  EXPECT_NEAR(squares / 1e4, 1, 0.07);
}

// Models that take half precision are measured too.
TEST(RandomDataset, OfOtherFloatsHasTheSameNumbers) {
  const std::vector<ValueInfo> single = InputsOf("float[1,8] x"), half = InputsOf("float16[1,8] x"),
                               twice = InputsOf("double[1,8] x");
  const Tensor x = Dataset::Random(single, 1, 7).Sample(0, single)[0];
  const Tensor h = Dataset::Random(half, 1, 7).Sample(0, half)[0];
  const Tensor d = Dataset::Random(twice, 1, 7).Sample(0, twice)[0];
  ASSERT_EQ(h.dtype(), DType::kFloat16);
  ASSERT_EQ(d.dtype(), DType::kFloat64);
  for (size_t i = 0; i < 8; ++i) {
    const float value = x.data<float>()[i];
    EXPECT_NEAR(ToFloat(h.data<Float16>()[i]), value, std::abs(value) / 2048);
    EXPECT_EQ(d.data<double>()[i], static_cast<double>(value));
  }
}

}  // namespace
}  // namespace pared
