#include "storage/artifacts.h"

#include <gmock/gmock.h>

#include <fstream>
#include <sstream>

#include "config/sha256.h"
#include "tests/testing/matchers.h"
#include "tests/testing/temp_dir.h"

namespace pared {
namespace {

namespace fs = std::filesystem;
using ::testing::EndsWith;
using ::testing::HasSubstr;

// FIPS 180-2, appendix B.1.
constexpr const char* kAbc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

int CountEntries(const fs::path& folder) {
  int count = 0;
  for ([[maybe_unused]] const auto& entry : fs::recursive_directory_iterator(folder)) ++count;
  return count;
}

class ArtifactsTest : public ::testing::Test {
 protected:
  TempDir folder_;
  Artifacts artifacts_{folder_ / "artifacts"};
};

TEST_F(ArtifactsTest, AreNamedByTheirBytes) {
  WriteFile(folder_ / "x.onnx", "abc");
  const Artifact artifact = artifacts_.Put(folder_ / "x.onnx");
  EXPECT_EQ(artifact.sha256, kAbc);
  EXPECT_EQ(artifact.bytes, 3);
  EXPECT_EQ(ReadFile(artifacts_.Open(kAbc).model), "abc");
  EXPECT_EQ(artifacts_.Open(kAbc).data, std::nullopt);
}

TEST_F(ArtifactsTest, OutliveTheFileTheyCameFrom) {
  WriteFile(folder_ / "x.onnx", "abc");
  artifacts_.Put(folder_ / "x.onnx");
  fs::remove(folder_ / "x.onnx");
  EXPECT_EQ(ReadFile(artifacts_.Open(kAbc).model), "abc");
}

TEST_F(ArtifactsTest, AreKeptOnce) {
  WriteFile(folder_ / "x.onnx", "abc");
  WriteFile(folder_ / "y.onnx", "abc");
  artifacts_.Put(folder_ / "x.onnx");
  const int count = CountEntries(folder_ / "artifacts");
  EXPECT_EQ(artifacts_.Put(folder_ / "y.onnx").sha256, kAbc);
  EXPECT_EQ(CountEntries(folder_ / "artifacts"), count);
}

TEST_F(ArtifactsTest, BringTheTensorsBesideTheModelAlong) {
  WriteFile(folder_ / "p80.onnx", "ab");
  WriteFile(folder_ / "p80.onnx.data", "c");
  const Artifact artifact = artifacts_.Put(folder_ / "p80.onnx");
  EXPECT_EQ(artifact.sha256, kAbc);
  EXPECT_EQ(artifact.bytes, 3);
  EXPECT_EQ(ReadFile(artifacts_.Open(kAbc).model), "ab");
  ASSERT_TRUE(artifacts_.Open(kAbc).data.has_value());
  EXPECT_THAT(artifacts_.Open(kAbc).data->string(), EndsWith("/p80.onnx.data"));
  EXPECT_EQ(ReadFile(*artifacts_.Open(kAbc).data), "c");
}

TEST_F(ArtifactsTest, RefuseSymbolicLinks) {
  WriteFile(folder_ / "secret", "abc");
  fs::create_symlink(folder_ / "secret", folder_ / "x.onnx");
  EXPECT_THAT([&] { artifacts_.Put(folder_ / "x.onnx"); },
              ThrowsError(ErrorCode::kInvalidArgument, EndsWith("x.onnx")));
  WriteFile(folder_ / "y.onnx", "abc");
  fs::create_symlink(folder_ / "secret", folder_ / "y.onnx.data");
  EXPECT_THAT([&] { artifacts_.Put(folder_ / "y.onnx"); },
              ThrowsError(ErrorCode::kInvalidArgument, EndsWith("y.onnx.data")));
  EXPECT_THAT([&] { artifacts_.Put(folder_ / "missing"); },
              ThrowsError(ErrorCode::kInvalidArgument, EndsWith("missing")));
}

TEST_F(ArtifactsTest, KnowOnlyDigests) {
  for (const std::string& name : {std::string("../secret"), std::string(64, '.'), std::string(),
                                  std::string(64, '0'), std::string(63, 'a') + "/"}) {
    EXPECT_THAT([&] { artifacts_.Open(name).model; }, ThrowsError(ErrorCode::kNotFound, name));
  }
}

TEST_F(ArtifactsTest, ClearWhatACrashLeftHalfWritten) {
  WriteFile(artifacts_.IncomingDir() / "half", "x");
  const Artifacts again(folder_ / "artifacts");
  EXPECT_TRUE(fs::is_empty(again.IncomingDir()));
}

TEST_F(ArtifactsTest, LeaveNothingBehindThatWasRefused) {
  WriteFile(folder_ / "x.onnx", "abc");
  artifacts_.Put(folder_ / "x.onnx");
  EXPECT_TRUE(fs::is_empty(artifacts_.IncomingDir()));
}

TEST_F(ArtifactsTest, ExpandThePackedForm) {
  const std::string text(100'000, '\0');
  WriteFile(folder_ / "x.onnx", text);
  WriteFile(folder_ / "x.onnx.data", "abc");
  const Artifact plain = Artifacts(folder_ / "other").Put(folder_ / "x.onnx");
  const Artifact packed = artifacts_.Put(folder_ / "x.onnx", ArtifactForm::kPacked);
  EXPECT_EQ(packed.sha256, plain.sha256);
  EXPECT_EQ(packed.bytes, plain.bytes);
  EXPECT_GT(packed.packed_bytes, 0);
  EXPECT_LT(packed.packed_bytes, 300);
  EXPECT_EQ(fs::file_size(*artifacts_.PackedPath(packed.sha256)), packed.packed_bytes);
  {
    const OpenArtifact open = artifacts_.Open(packed.sha256);
    EXPECT_EQ(ReadFile(open.model), text);
    EXPECT_EQ(ReadFile(*open.data), "abc");
    EXPECT_EQ(open.data->filename(), "x.onnx.data");
  }
  EXPECT_TRUE(fs::is_empty(artifacts_.IncomingDir()));
}

TEST_F(ArtifactsTest, KeepTheTensorFlowLiteFileUnderItsOwnDigest) {
  for (const ArtifactForm form : {ArtifactForm::kTflite, ArtifactForm::kPacked}) {
    Artifacts artifacts(folder_ / (form == ArtifactForm::kTflite ? "a" : "b"));
    WriteFile(folder_ / "x.onnx", "abc");
    WriteFile(folder_ / "x.tflite", "TFL");
    const Artifact artifact = artifacts.Put(folder_ / "x.onnx", form, folder_ / "x.tflite");
    EXPECT_EQ(artifact.sha256, kAbc);
    EXPECT_EQ(artifact.bytes, 3);
    EXPECT_EQ(artifact.tflite_sha256, Sha256Of("TFL"));
    EXPECT_EQ(ReadFile(*artifacts.TflitePath(kAbc, artifact.tflite_sha256)), "TFL");
    EXPECT_EQ(ReadFile(artifacts.Open(kAbc).model), "abc");
    EXPECT_EQ(artifacts.Open(kAbc).data, std::nullopt);
  }
}

TEST_F(ArtifactsTest, ATensorFlowLiteFileJoinsAModelThatIsThereAndOthersOfIt) {
  WriteFile(folder_ / "x.onnx", "abc");
  EXPECT_EQ(artifacts_.Put(folder_ / "x.onnx").tflite_sha256, "");
  EXPECT_EQ(artifacts_.TflitePath(kAbc, Sha256Of("one")), std::nullopt);
  for (const std::string& bytes : {std::string("one"), std::string("two!"), std::string("one")}) {
    WriteFile(folder_ / "x.tflite", bytes);
    artifacts_.Put(folder_ / "x.onnx", ArtifactForm::kTflite, folder_ / "x.tflite");
    fs::remove(folder_ / "x.tflite");
  }
  EXPECT_EQ(ReadFile(*artifacts_.TflitePath(kAbc, Sha256Of("one"))), "one");
  EXPECT_EQ(ReadFile(*artifacts_.TflitePath(kAbc, Sha256Of("two!"))), "two!");
  EXPECT_EQ(artifacts_.Bytes(kAbc), 3);
  const SweptArtifacts swept = artifacts_.Sweep({}, std::chrono::seconds(0), false);
  EXPECT_EQ(swept.count, 1);
  EXPECT_EQ(swept.bytes, 3 + 3 + 4);
  EXPECT_FALSE(artifacts_.Has(kAbc));
}

TEST_F(ArtifactsTest, TakeNoTensorFlowLiteFileThroughALinkOrByAnotherName) {
  WriteFile(folder_ / "x.onnx", "abc");
  WriteFile(folder_ / "secret", "TFL");
  fs::create_symlink(folder_ / "secret", folder_ / "x.tflite");
  EXPECT_THAT(
      [&] { artifacts_.Put(folder_ / "x.onnx", ArtifactForm::kTflite, folder_ / "x.tflite"); },
      ThrowsError(ErrorCode::kInvalidArgument, EndsWith("x.tflite")));
  EXPECT_FALSE(artifacts_.Has(kAbc));
  EXPECT_TRUE(fs::is_empty(artifacts_.IncomingDir()));
  artifacts_.Put(folder_ / "x.onnx");
  EXPECT_EQ(artifacts_.TflitePath(kAbc, "../../../secret"), std::nullopt);
  EXPECT_THAT([&] { artifacts_.TflitePath(std::string(64, '0'), Sha256Of("TFL")); },
              ThrowsError(ErrorCode::kNotFound, std::string(64, '0')));
}

TEST_F(ArtifactsTest, AreKeptInBothFormsWhereBothWereAskedFor) {
  for (const ArtifactForm first : {ArtifactForm::kOnnx, ArtifactForm::kPacked}) {
    Artifacts artifacts(folder_ / (first == ArtifactForm::kOnnx ? "a" : "b"));
    WriteFile(folder_ / "y.onnx", "abc");
    artifacts.Put(folder_ / "y.onnx", first);
    artifacts.Put(folder_ / "y.onnx",
                  first == ArtifactForm::kOnnx ? ArtifactForm::kPacked : ArtifactForm::kOnnx);
    EXPECT_NE(artifacts.PackedPath(kAbc), std::nullopt);
    EXPECT_EQ(artifacts.Open(kAbc).keeper, nullptr);  // not unpacked
    EXPECT_EQ(ReadFile(artifacts.Open(kAbc).model), "abc");
  }
}

}  // namespace
}  // namespace pared
