#include "passes/block_codes.h"

#include <gmock/gmock.h>

#include <cmath>
#include <random>

#include "evaluator/executor.h"
#include "tests/passes/run_pass.h"

namespace pared {
namespace {

double SquaredError(const std::vector<float>& a, const std::vector<float>& b) {
  double error = 0;
  for (size_t i = 0; i < a.size(); ++i) error += std::pow(static_cast<double>(a[i] - b[i]), 2);
  return error;
}

std::vector<float> NormalValues(size_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float& value : values) value = normal(random);
  return values;
}

TEST(BlockCodes, AGridThatFitsIsFound) {
  std::vector<float> values;
  for (int i = 0; i < 16; ++i) values.push_back(0.5f * static_cast<float>(i - 3));
  const BlockScale scale = ChooseBlockScale(values, {}, {4, 16, false});
  EXPECT_FLOAT_EQ(scale.scale, 0.5f);
  EXPECT_EQ(scale.zero_point, 3);
}

// The largest has one code more on its side: -8 is 4, 7 is -3.5.
TEST(BlockCodes, ASymmetricScaleMayBeNegative) {
  const BlockScale scale = ChooseBlockScale(std::vector<float>{4, -3.5f, 1, 0}, {}, {4, 16, true});
  EXPECT_FLOAT_EQ(scale.scale, -0.5f);
  EXPECT_EQ(scale.zero_point, 8);
}

TEST(BlockCodes, ZerosStayZerosAndABlockOfZerosIsFinite) {
  std::vector<float> weight = NormalValues(64, 1);
  for (size_t i = 0; i < 64; i += 3) weight[i] = 0;
  for (size_t i = 32; i < 64; ++i) weight[i] = 0;
  for (const bool is_symmetric : {false, true}) {
    const BlockMatrix made = RoundToNearest({weight, 64, 1}, {4, 32, is_symmetric});
    const std::vector<float> back = made.Decoded();
    for (size_t i = 0; i < 64; ++i) {
      EXPECT_TRUE(weight[i] != 0 || back[i] == 0) << i;
    }
    EXPECT_GT(made.scales[1].scale, 0);
  }
}

// The widest range: what a quantizer does that does not search.
TEST(BlockCodes, ClippingHasLessErrorThanTheWholeRange) {
  const std::vector<float> weight = NormalValues(128 * 32, 2);
  std::vector<float> whole;
  for (size_t begin = 0; begin < weight.size(); begin += 32) {
    const auto [low, high] = std::minmax_element(&weight[begin], &weight[begin] + 32);
    const float scale = (*high - *low) / 15, zero = std::nearbyint(-*low / scale);
    for (size_t i = begin; i < begin + 32; ++i) {
      const float code = std::clamp(std::nearbyint(weight[i] / scale) + zero, 0.0f, 15.0f);
      whole.push_back((code - zero) * scale);
    }
  }
  const BlockMatrix made = RoundToNearest({weight, 32, 1}, {4, 32, false});
  EXPECT_LT(SquaredError(weight, made.Decoded()), 0.92 * SquaredError(weight, whole));
}

TEST(BlockCodes, RowsAlongAnotherAxisHaveTheSameCodes) {
  const std::vector<float> weight = NormalValues(40 * 3, 3);  // [40][3], along the first axis
  std::vector<float> turned(weight.size());
  for (size_t k = 0; k < 40; ++k) {
    for (size_t row = 0; row < 3; ++row) turned[row * 40 + k] = weight[k * 3 + row];
  }
  EXPECT_EQ(RoundToNearest({weight, 40, 3}, {4, 16, false}).codes,
            RoundToNearest({turned, 40, 1}, {4, 16, false}).codes);
}

// Inputs that go together: an error in one can be made up for by its neighbour.
TEST(BlockCodes, TheSecondOrderHasLessErrorInTheOutput) {
  constexpr int64_t kColumns = 64, kRows = 16, kCount = 400;
  const std::vector<float> noise = NormalValues(kColumns * kCount, 4),
                           common = NormalValues(kCount, 5);
  LayerStatistics s;
  s.k = kColumns;
  s.rows = kRows;
  s.h.assign(kColumns * kColumns, 0);
  for (size_t n = 0; n < kCount; ++n) {
    for (size_t i = 0; i < kColumns; ++i) {
      for (size_t j = 0; j < kColumns; ++j) {
        s.h[i * kColumns + j] += (common[n] + 0.5f * noise[n * kColumns + i]) *
                                 (common[n] + 0.5f * noise[n * kColumns + j]);
      }
    }
  }
  std::vector<float> weight = NormalValues(kColumns * kRows, 6);
  for (size_t i = 0; i < weight.size(); i += 5) weight[i] = 0;
  const auto output_error = [&](const BlockMatrix& made) {
    const std::vector<float> back = made.Decoded();
    double error = 0;
    for (size_t row = 0; row < kRows; ++row) {
      for (size_t i = 0; i < kColumns; ++i) {
        for (size_t j = 0; j < kColumns; ++j) {
          const auto off = [&](size_t k) {
            return static_cast<double>(weight[row * kColumns + k] - back[row * kColumns + k]);
          };
          error += off(i) * static_cast<double>(s.h[i * kColumns + j]) * off(j);
        }
      }
    }
    return error;
  };
  const BlockForm form{4, 32, false};
  const std::optional<BlockMatrix> made = RoundSecondOrder({&s, &weight, 0.01}, form);
  ASSERT_TRUE(made);
  EXPECT_LT(output_error(*made), 0.5 * output_error(RoundToNearest({weight, kColumns, 1}, form)));
  const std::vector<float> back = made->Decoded();
  for (size_t i = 0; i < weight.size(); i += 5) EXPECT_EQ(back[i], 0.0f);
}

std::string ModelOfProduct(const char* product) {
  std::string text =
      "<ir_version: 8, opset_import: [\"\" : 13]> g (float[3,32] x) => (float[3,4] y) <float[4] b "
      "= {1,2,3,4}, ";
  const std::vector<float> weight = NormalValues(128, 7);
  text += std::string(product).find("transB") == std::string::npos ? "float[32,4]" : "float[4,32]";
  text += " w = {";
  for (size_t i = 0; i < 128; ++i) text += (i == 0 ? "" : ",") + std::to_string(weight[i]);
  return text + "}> { [product] y = " + product + " }";
}

TEST(QuantizeWeights, MatMulNBitsComputesWhatTheDequantizedWeightDoes) {
  const Tensor x = Tensor::Make<float>({3, 32}, NormalValues(96, 8));
  for (const char* product : {"MatMul(x, w)", "Gemm<transB = 1>(x, w, b)"}) {
    const Model model = ModelFromText(ModelOfProduct(product));
    for (const char* scheme : {"symmetric", "asymmetric"}) {
      Json options = {{"bits", "4"}, {"block_size", 16}, {"scheme", scheme}};
      const Model plain = RunPass("quantize_weights", options, model).model;
      options["format"] = "matmulnbits";
      const Model made = RunPass("quantize_weights", options, model).model;
      EXPECT_EQ(made.graph.nodes[0].op_type, "MatMulNBits");
      EXPECT_EQ(made.Opset("com.microsoft"), 1);
      EXPECT_EQ(plain.Opset(""), 21);
      EXPECT_EQ(made.Opset(""), 13);  // nothing in it needs a later one
      const Tensor y = Executor(plain).Run({x})[0], same = Executor(made).Run({x})[0];
      for (size_t i = 0; i < 12; ++i) {
        EXPECT_NEAR(y.data<float>()[i], same.data<float>()[i], 1e-5f) << product << scheme;
      }
    }
  }
}

TEST(QuantizeWeights, ThirtyThreeIsNoBlockOfMatMulNBits) {
  const Model model = ModelFromText(ModelOfProduct("MatMul(x, w)"));
  EXPECT_THAT(
      [&] {
        RunPass("quantize_weights", {{"format", "matmulnbits"}, {"block_size", 33}}, model);
      },
      ThrowsError(ErrorCode::kInvalidArgument, "/block_size"));
}

}  // namespace
}  // namespace pared
