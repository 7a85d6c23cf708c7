#include "evaluator/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "tests/testing/matchers.h"
#include "tests/testing/models.h"

namespace pared {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::Field;
using testing::IsEmpty;

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

auto Weight(const std::string& value, int64_t count, int64_t zeros, bool is_int8) {
  return AllOf(Field("value", &WeightInfo::value, value), Field("count", &WeightInfo::count, count),
               Field("zeros", &WeightInfo::zeros, zeros),
               Field("is_int8", &WeightInfo::is_int8, is_int8));
}

FidelitySums SumsOf(const std::vector<float>& reference, const std::vector<float>& output) {
  FidelitySums sums;
  sums.Add(reference, output);
  return sums;
}

TEST(MeasureWeights, CountsBothZerosOfAFloatWeight) {
  const Model model = ModelFromText(
      "g (float[N,4] x) => (float[N,2] y) <float[4,2] w = {0,0,3,-0.0,1,1,0,-2}> "
      "{ y = MatMul(x, w) }");
  EXPECT_THAT(MeasureWeights(model), ElementsAre(Weight("w", 8, 4, false)));
}

TEST(MeasureWeights, LooksThroughReshapeAndCountsASharedWeightOnce) {
  const Model model = ModelFromText(
      "g (float[N,2] x) => (float[N,2] z) <float[4] w = {0,1,2,3}, int64[2] s = {2,2}> "
      "{ v = Reshape(w, s) y = MatMul(x, v) z = MatMul(y, v) }");
  EXPECT_THAT(MeasureWeights(model), ElementsAre(Weight("w", 4, 1, false)));
}

TEST(MeasureWeights, ZerosOfAQuantizedWeightAreItsZeroPoint) {
  const Model model = ModelFromText(
      "g (float[N,2] x) => (float[N,2] y) "
      "<uint8[2,2] q = {128,0,7,128}, float s = {0.5}, uint8 z = {128}> "
      "{ w = DequantizeLinear(q, s, z) y = MatMul(x, w) }");
  EXPECT_THAT(MeasureWeights(model), ElementsAre(Weight("q", 4, 2, true)));
}

TEST(MeasureWeights, ZeroPointsMayDifferByChannel) {
  const Model model = ModelFromText(
      "g (float[N,2] x) => (float[N,2] y) "
      "<int8[2,2] q = {1,2,1,5}, float[2] s = {0.5,1.0}, int8[2] z = {1,2}> "
      "{ w = DequantizeLinear <axis = 1> (q, s, z) y = MatMul(x, w) }");
  EXPECT_THAT(MeasureWeights(model), ElementsAre(Weight("q", 4, 3, true)));
}

TEST(MeasureWeights, CodesThatAreLookedUpAreWeightsAndTheirScalesAreNone) {
  const Model model = ParseText(R"(g (int64[1] ids) => (float[1,2] y)
    <int8[3,2] codes = {1,2,0,4,5,6}, float[3,1] scales = {1,2,3}, float[2,2] w = {1,2,3,4}>
    { c = Gather(codes, ids) s = Gather(scales, ids) f = Cast <to = 1> (c) e = Mul(f, s)
      y = MatMul(e, w) })");
  EXPECT_THAT(MeasureWeights(model),
              ElementsAre(Weight("codes", 6, 1, true), Weight("w", 4, 0, false)));
}

TEST(MeasureWeights, CountsFourBitsByTheZeroPointOfTheirBlock) {
  // Blocks of two rows: the first pair has zero points 0 and 2, the second 1 and -3.
  const Model model = ModelFromText(
      "g (float[N,4] x) => (float[N,2] y) "
      "<int4[4,2] q = {0,2,1,2,1,-3,0,0}, float[2,2] s = {1.0,1.0,1.0,1.0}, "
      "int4[2,2] z = {0,2,1,-3}> "
      "{ w = DequantizeLinear <axis = 0, block_size = 2> (q, s, z) y = MatMul(x, w) }");
  EXPECT_THAT(MeasureWeights(model), ElementsAre(Weight("q", 8, 5, false)));
}

TEST(MeasureWeights, CountsEightBitsByTheZeroPointOfTheirBlock) {
  const Model model = ModelFromText(
      "g (float[N,2] x) => (float[N,2] y) "
      "<uint8[2,2] q = {7,9,9,9}, float[2,1] s = {1.0,1.0}, uint8[2,1] z = {7,9}> "
      "{ w = DequantizeLinear <axis = 1, block_size = 2> (q, s, z) y = MatMul(x, w) }");
  EXPECT_THAT(MeasureWeights(model), ElementsAre(Weight("q", 4, 3, true)));
}

TEST(MeasureWeights, KnowsTheQuantizedOperatorsOfOnnxRuntime) {
  const Model model = ModelFromText(
      "<ir_version: 8, opset_import: [\"\" : 17, \"com.microsoft\" : 1]> "
      "g (uint8[N,2] x) => (float[N,2] y, float[N,2] v) "
      "<float s = {0.5}, uint8 z = {0}, int8[2,2] a = {0,1,2,0}, int8 az = {0}, "
      "int8[2,2] b = {5,1,2,6}, int8[2] bz = {5,6}> { "
      "y = com.microsoft.MatMulIntegerToFloat(x, a, s, s, z, az) "
      "v = com.microsoft.QGemm <transB = 1> (x, s, z, b, s, bz) }");
  EXPECT_THAT(MeasureWeights(model), ElementsAre(Weight("a", 4, 2, true), Weight("b", 4, 2, true)));
}

TEST(MeasureWeights, CountsCodesThatArePackedInBytes) {
  // One row of 16 codes: 0x88 are two zeros, 0x08 is 8 (a zero) and 0.
  const Model model = ModelFromText(
      "<ir_version: 8, opset_import: [\"\" : 17, \"com.microsoft\" : 1]> "
      "g (float[N,16] x) => (float[N,1] y) "
      "<uint8[1,1,8] q = {136,8,136,1,1,1,1,1}, float[1] s = {0.5}> { "
      "y = com.microsoft.MatMulNBits <K = 16, N = 1, bits = 4, block_size = 16> (x, q, s) }");
  EXPECT_THAT(MeasureWeights(model), ElementsAre(Weight("q", 16, 5, false)));
}

TEST(MeasureWeights, LeavesOutBiasesAndShapes) {
  const Model model = ModelFromText(
      "g (float[N,2] x) => (float[N,2] y) <float[2] b = {0,1}, int64[2] s = {-1,2}> "
      "{ a = Add(x, b) y = Reshape(a, s) }");
  EXPECT_THAT(MeasureWeights(model), IsEmpty());
}

TEST(MeasureWeights, SeesWhatASubgraphCaptures) {
  const Model model = ModelFromText(
      "g (bool c, float[2,2] x) => (float[2,2] y) <float[2,2] w = {0,1,0,1}> { "
      "y = If (c) <then_branch = t () => (float[2,2] a) { a = MatMul(x, w) }, "
      "else_branch = e () => (float[2,2] b) { b = Identity(x) }> }");
  EXPECT_THAT(MeasureWeights(model), ElementsAre(Weight("w", 4, 2, false)));
}

TEST(ArgMax, IsTheFirstOfEqualsAndNeverNaN) {
  EXPECT_EQ(ArgMax(std::vector<float>{1, 3, 3}), 1);
  EXPECT_EQ(ArgMax(std::vector<float>{kNaN, -5, kNaN}), 1);
  EXPECT_EQ(ArgMax(std::vector<float>{kNaN}), -1);
  EXPECT_EQ(ArgMax(std::vector<float>{}), -1);
  EXPECT_EQ(ArgMax(std::vector<float>{0, kInfinity}), 1);
}

TEST(FidelitySums, GivesSqnrAndCosine) {
  // Signal 3^2 + 4^2 = 25, noise 0.5^2 = 0.25: 10 log10(100) = 20 dB.
  EXPECT_NEAR(SumsOf({3, 4}, {3, 4.5}).SqnrDb(), 20, 1e-9);
  EXPECT_NEAR(SumsOf({3, 4}, {-4, 3}).Cosine(), 0, 1e-12);
  EXPECT_NEAR(SumsOf({3, 4}, {6, 8}).Cosine(), 1, 1e-12);
}

TEST(FidelitySums, IsBoundedWhereTheRatioIsNot) {
  EXPECT_EQ(SumsOf({3, 4}, {3, 4}).SqnrDb(), 200);
  EXPECT_EQ(SumsOf({0, 0}, {0, 0}).SqnrDb(), 200);
  EXPECT_EQ(SumsOf({0, 0}, {0, 0}).Cosine(), 1);
  EXPECT_EQ(SumsOf({0, 0}, {1, 0}).SqnrDb(), -200);
  EXPECT_EQ(SumsOf({0, 0}, {1, 0}).Cosine(), 0);
}

TEST(FidelitySums, ANaNIsAnErrorAsLargeAsTheSignal) {
  const FidelitySums sums = SumsOf({3, 4}, {kNaN, 4});
  EXPECT_TRUE(sums.has_nonfinite);
  EXPECT_NEAR(sums.SqnrDb(), 10 * std::log10(25.0 / 9.0), 1e-9);
}

TEST(FidelitySums, LeavesOutWhatIsNotFiniteInTheReference) {
  const FidelitySums sums = SumsOf({3, kInfinity, kNaN}, {3, kInfinity, 1});
  EXPECT_FALSE(sums.has_nonfinite);
  EXPECT_EQ(sums.SqnrDb(), 200);
}

TEST(FidelitySums, AnOutputOfAnotherLengthIsAllZeros) {
  EXPECT_NEAR(SumsOf({3, 4}, {3, 4, 5}).SqnrDb(), 0, 1e-9);
}

TEST(Percentile, InterpolatesBetweenNeighbours) {
  const std::vector<double> values = {1, 2, 4, 8};
  EXPECT_DOUBLE_EQ(Percentile(values, 0), 1);
  EXPECT_DOUBLE_EQ(Percentile(values, 0.5), 3);
  EXPECT_DOUBLE_EQ(Percentile(values, 1), 8);
  EXPECT_DOUBLE_EQ(Percentile(values, 0.9), 6.8);  // numpy.percentile(values, 90)
  EXPECT_DOUBLE_EQ(Percentile(std::vector<double>{5}, 0.99), 5);
}

}  // namespace
}  // namespace pared
