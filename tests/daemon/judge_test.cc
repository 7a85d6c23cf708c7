#include "daemon/judge.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "evaluator/npy.h"
#include "tests/testing/models.h"
#include "tests/testing/temp_dir.h"
#include "tests/testing/wav.h"

namespace pared {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Optional;

constexpr bool kLabels = true;
constexpr bool kNoLabels = false;

TEST(FindCollapse, HoldsAtTheFloorsAndNotBelow) {
  const EvaluateSpec spec;  // 3 dB, 0.5
  EXPECT_EQ(FindCollapse({{"sqnr_db", 3}, {"agreement", 0.5}}, spec, kLabels), std::nullopt);
  EXPECT_THAT(FindCollapse({{"sqnr_db", 2.9}, {"agreement", 1}}, spec, kLabels),
              Optional(AllOf(HasSubstr("sqnr_db is 2.9"), HasSubstr("floor of 3"))));
  EXPECT_THAT(FindCollapse({{"sqnr_db", 30}, {"agreement", 0.49}}, spec, kLabels),
              Optional(HasSubstr("agreement is 0.49")));
}

TEST(FindCollapse, AsksForAgreementOnlyWhereThereAreClasses) {
  EXPECT_EQ(FindCollapse({{"sqnr_db", 30}, {"agreement", 0}}, {}, kNoLabels), std::nullopt);
}

TEST(FindCollapse, TakesTheFloorsOfTheJob) {
  EvaluateSpec spec;
  spec.min_sqnr_db = 20;
  spec.min_agreement = 0;
  EXPECT_NE(FindCollapse({{"sqnr_db", 19.9}, {"agreement", 0}}, spec, kLabels), std::nullopt);
  EXPECT_EQ(FindCollapse({{"sqnr_db", 20}, {"agreement", 0}}, spec, kLabels), std::nullopt);
}

TEST(FindCollapse, OutputsThatAreNoNumbersAreACollapse) {
  EXPECT_THAT(
      FindCollapse({{"sqnr_db", 50}, {"agreement", 1}, {"nonfinite_samples", 1}}, {}, kLabels),
      Optional(HasSubstr("not finite in 1 samples")));
  EXPECT_NE(FindCollapse({{"sqnr_db", NAN}, {"agreement", 1}}, {}, kLabels), std::nullopt);
}

TEST(FindNonFinite, TellsOfTheInputModelItself) {
  EXPECT_EQ(FindNonFinite({{"sqnr_db", 200}}), std::nullopt);
  EXPECT_THAT(FindNonFinite({{"sqnr_db", 200}, {"nonfinite_samples", 3}}),
              Optional(HasSubstr("infinite in 3 samples")));
}

TEST(FindSlowdown, AsksForMoreThanTheSpread) {
  const Metrics baseline = {{"latency_ms_p50", 1.0}, {"latency_ms_p90", 1.25}};
  EXPECT_EQ(FindSlowdown({{"latency_ms_p50", 1.25}}, baseline), std::nullopt);
  EXPECT_THAT(FindSlowdown({{"latency_ms_p50", 1.5}}, baseline),
              Optional(AllOf(HasSubstr("slower than the baseline"), HasSubstr("1.5"))));
  EXPECT_EQ(FindSlowdown({}, baseline), std::nullopt);
  EXPECT_EQ(FindSlowdown({{"latency_ms_p50", 1.5}}, {}), std::nullopt);
}

class RangeTest : public testing::Test {
 protected:
  // A dataset of one sample [value, -value / 2] for "x".
  Dataset Of(float value) const {
    const std::filesystem::path folder = dir_ / std::to_string(value);
    std::filesystem::create_directories(folder);
    SaveNpy(Tensor::Make<float>({1, 2}, {value, -value / 2}), folder / "x.npy");
    return Open(folder, R"({"inputs": {"x": "x.npy"}})");
  }
  static Dataset Open(const std::filesystem::path& folder, const std::string& manifest) {
    WriteFile(folder / "dataset.json", manifest);
    return Dataset::Open(folder);
  }
  static std::vector<ValueInfo> Inputs(const std::string& signature) {
    return ModelFromText("g (" + signature +
                         ") => (float y) { y = Constant <value_float = 1.0> () }")
        .graph.inputs;
  }

  TempDir dir_;
};

TEST_F(RangeTest, WarnsBeyondAFactorOfFourEitherWay) {
  const auto inputs = Inputs("float[1,2] x");
  EXPECT_THAT(FindRangeMismatch(Of(4), Of(1), inputs), IsEmpty());
  EXPECT_THAT(FindRangeMismatch(Of(255), Of(1), inputs),
              ElementsAre(AllOf(HasSubstr("input x reaches 255"), HasSubstr("1 in evaluation"))));
  EXPECT_THAT(FindRangeMismatch(Of(1), Of(-4.5), inputs), testing::SizeIs(1));
  EXPECT_THAT(FindRangeMismatch(Of(1), Of(0), inputs), testing::SizeIs(1));
}

TEST_F(RangeTest, SaysThatTheDatasetHasFewerSamplesThanAreAskedFor) {
  const Dataset one = Of(1);
  EXPECT_EQ(FindShortage("calibration.samples", 1, one), std::nullopt);
  EXPECT_EQ(FindShortage("calibration.samples", 0, one), std::nullopt);
  EXPECT_THAT(FindShortage("calibration.samples", 500, one).value(),
              AllOf(HasSubstr("calibration.samples asks for 500"), HasSubstr(" has 1")));
}

TEST_F(RangeTest, ReadsArchivesTokensAndSoundAlike) {
  std::filesystem::copy_file("tests/evaluator/stored.npz", dir_ / "data.npz");
  SaveNpy(Tensor::Make<float>({1, 3}, {0.25f, 0.3f, 0.3125f}), dir_ / "x.npy");
  const Dataset archive = Open(dir_.path(), R"({"inputs": {"x": "data.npz:x"}})");  // up to 1.25
  const Dataset quarter = Open(dir_.path(), R"({"inputs": {"x": "x.npy"}})");
  EXPECT_THAT(FindRangeMismatch(archive, quarter, Inputs("float[N,3] x")), IsEmpty());
  SaveNpy(Tensor::Make<float>({1, 3}, {0.25f, 0.3f, 0.3f}), dir_ / "x.npy");
  EXPECT_THAT(FindRangeMismatch(archive, Open(dir_.path(), R"({"inputs": {"x": "x.npy"}})"),
                                Inputs("float[N,3] x")),
              ElementsAre(HasSubstr("input x reaches 1.25 in calibration and 0.3 in evaluation")));

  std::filesystem::copy_file("tests/evaluator/tokens.npz", dir_ / "ids.npz");  // up to 102
  SaveNpy(Tensor::Make<int64_t>({1, 2}, {101, 30000}), dir_ / "ids.npy");
  const Dataset tokens = Open(dir_.path(), R"({"tokens": {"file": "ids.npz"}})");
  const Dataset other = Open(dir_.path(), R"({"inputs": {"input_ids": "ids.npy"}})");
  EXPECT_THAT(FindRangeMismatch(tokens, other, Inputs("int64[N,L] input_ids")),
              ElementsAre(HasSubstr("input input_ids reaches 102 in calibration and 3e+04")));

  WriteFile(dir_ / "a.wav", Wav({}, Pcm16({16384, -8192, 0, 0})));
  const auto sound = [&](int gain) {
    return Open(dir_.path(),
                R"({"audio": {"rate": 8000, "frame": 4, "gain": )" + std::to_string(gain) + "}}");
  };
  EXPECT_THAT(FindRangeMismatch(sound(1), sound(4), Inputs("float[1,4] s")), IsEmpty());
  EXPECT_THAT(FindRangeMismatch(sound(1), sound(5), Inputs("float[1,4] s")),
              ElementsAre(HasSubstr("input s reaches 0.5 in calibration and 2.5 in evaluation")));
}

}  // namespace
}  // namespace pared
