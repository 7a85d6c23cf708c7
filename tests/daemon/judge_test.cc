#include "daemon/judge.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "evaluator/npy.h"
#include "tests/testing/temp_dir.h"

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

TEST(FindSlowdown, AsksForMoreThanTheSpread) {
  const Metrics baseline = {{"latency_ms_p50", 1.0}, {"latency_ms_p90", 1.25}};
  EXPECT_EQ(FindSlowdown({{"latency_ms_p50", 1.25}}, baseline), std::nullopt);
  EXPECT_THAT(FindSlowdown({{"latency_ms_p50", 1.5}}, baseline),
              Optional(AllOf(HasSubstr("slower than the baseline"), HasSubstr("1.5"))));
  EXPECT_EQ(FindSlowdown({}, baseline), std::nullopt);
  EXPECT_EQ(FindSlowdown({{"latency_ms_p50", 1.5}}, {}), std::nullopt);
}

// A dataset of one sample [value, -value / 2] for "x".
class RangeTest : public testing::Test {
 protected:
  Dataset Of(float value) const {
    const std::filesystem::path folder = dir_ / std::to_string(value);
    std::filesystem::create_directories(folder);
    SaveNpy(Tensor::Make<float>({1, 2}, {value, -value / 2}), folder / "x.npy");
    WriteFile(folder / "dataset.json", R"({"inputs": {"x": "x.npy"}})");
    return Dataset::Open(folder);
  }

  std::vector<ValueInfo> Inputs(DType dtype) const {
    ValueInfo x;
    x.name = "x";
    x.dtype = dtype;
    x.shape = {{Dim{1, {}, {}}, Dim{2, {}, {}}}};
    return {x};
  }

  TempDir dir_;
};

TEST_F(RangeTest, WarnsBeyondAFactorOfFourEitherWay) {
  const auto inputs = Inputs(DType::kFloat32);
  EXPECT_THAT(FindRangeMismatch(Of(4), Of(1), inputs), IsEmpty());
  EXPECT_THAT(FindRangeMismatch(Of(255), Of(1), inputs),
              ElementsAre(AllOf(HasSubstr("input x reaches 255"), HasSubstr("1 in evaluation"))));
  EXPECT_THAT(FindRangeMismatch(Of(1), Of(-4.5), inputs), testing::SizeIs(1));
  EXPECT_THAT(FindRangeMismatch(Of(1), Of(0), inputs), testing::SizeIs(1));
}

}  // namespace
}  // namespace pared
