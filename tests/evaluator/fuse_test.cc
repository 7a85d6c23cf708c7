// What is fused into what. That the results stay the same is int8_ops_test.cc's.

#include "evaluator/fuse.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "base/error.h"
#include "evaluator/executor.h"
#include "tests/testing/models.h"

namespace pared {
namespace {

using testing::Contains;
using testing::Each;
using testing::ElementsAre;
using testing::Not;
using testing::StartsWith;
using testing::UnorderedElementsAre;

// Scales, zero points and weights that the models below share.
constexpr char kInt8Constants[] = R"(
  <float s = {0.5}, uint8 z = {10}, float s2 = {0.25}, uint8 z2 = {0}, int8 zs = {-3},
   int8[2,1,1,1] w = {2,-1}, float ws = {0.5}, int8 wz = {0}, uint8[2,1,1,1] wu = {130,127},
   uint8 wuz = {128}, int8 wbad = {1}, int32[2] b = {4,-8}, float bs = {0.25}>)";

// "op" of ai.onnx, "pared.op" of fused ones.
std::vector<std::string> Fused(const std::string& signature, const std::string& body) {
  const Model model = ModelFromText("g " + signature + kInt8Constants + "{" + body + "}");
  std::vector<std::string> result;
  const Model fused = FuseForExecution(model, {});
  for (const Node& node : fused.graph.nodes) {
    result.push_back(node.domain.empty() ? node.op_type : node.domain + "." + node.op_type);
  }
  return result;
}

constexpr char kImages[] = "(float[1,1,4,4] x) => (float[1,2,4,4] y)";
constexpr char kOneImage[] = "(float[1,1,4,4] x) => (float[1,1,4,4] y)";
constexpr char kQuantizeX[] = " q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) ";
constexpr char kWeights[] = " v = DequantizeLinear(w, ws, wz) c = DequantizeLinear(b, bs) ";
constexpr char kQuantizeF[] = " r = QuantizeLinear(f, s2, z2) y = DequantizeLinear(r, s2, z2) ";

TEST(Fuse, ConvolutionBetweenQuantizedValuesIsOneOperator) {
  EXPECT_THAT(Fused(kImages, std::string(kQuantizeX) + kWeights + "f = Conv(d, v, c)" + kQuantizeF),
              ElementsAre("pared.QuantizeLinear", "pared.Conv", "pared.DequantizeLinear"));
}

TEST(Fuse, ShapesThatContradictAreNoReasonNotToRun) {
  const std::string text = std::string("g (float[1,1,4,4] x) => (float[1,9,4,4] y)") +
                           kInt8Constants + "{" + kQuantizeX + kWeights + "f = Conv(d, v, c)" +
                           kQuantizeF + "}";
  const Model model = ModelFromText(text);  // y has two channels
  const std::vector<float> x(16, 1.5F);
  ExecutorOptions plain;
  plain.fuse = false;
  const Tensor input = Tensor::Make<float>({1, 1, 4, 4}, x);
  const Tensor fused = Executor(model).Run({input})[0];
  EXPECT_EQ(fused.shape(), (Shape{1, 2, 4, 4}));
  const Tensor unfused = Executor(model, plain).Run({input})[0];
  EXPECT_TRUE(std::ranges::equal(fused.data<float>(), unfused.data<float>()));
}

// The bias of this form has the scale 0.5 * 0.5 by definition.
constexpr char kQuantizedOperator[] =
    " q = QuantizeLinear(x, s, z) r = QLinearConv(q, s, z, w, ws, wz, s2, z2, b) "
    "y = DequantizeLinear(r, s2, z2) ";

TEST(Fuse, QuantizedOperatorsRunAsTheirQuantizedValuesDo) {
  EXPECT_THAT(Fused(kImages, kQuantizedOperator),
              ElementsAre("pared.QuantizeLinear", "pared.Conv", "pared.DequantizeLinear"));
  EXPECT_THAT(Fused("(float[1,1,4,4] x, int8[2,1,1,1] v) => (float[1,2,4,4] y)",
                    "q = QuantizeLinear(x, s, z) r = QLinearConv(q, s, z, v, ws, wz, s2, z2) "
                    "y = DequantizeLinear(r, s2, z2)"),
              Contains("QLinearConv"));  // its weights are no constants
}

TEST(Fuse, AQuantizedOperatorGivesTheCodesOfItsDefinition) {
  const Model model =
      ModelFromText(std::string("g ") + kImages + kInt8Constants + "{" + kQuantizedOperator + "}");
  std::vector<float> x;
  for (int i = 0; i < 16; ++i) x.push_back(static_cast<float>(i * 37 % 23) / 2 - 5);
  const Tensor input = Tensor::Make<float>({1, 1, 4, 4}, x);
  const Tensor fused = Executor(model).Run({input})[0];
  // x is a multiple of its scale: codes are exact. y = x w 0.5 + b 0.25, held in 0 to 63.75.
  for (size_t i = 0; i < 16; ++i) {
    EXPECT_EQ(fused.data<float>()[i], std::clamp(x[i] * 2 * 0.5f + 1, 0.0f, 63.75f));
    EXPECT_EQ(fused.data<float>()[16 + i], std::clamp(x[i] * -1 * 0.5f - 2, 0.0f, 63.75f));
  }
}

constexpr char kContributed[] =
    R"(<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]> g )";

// Operators of ONNX Runtime's quantizer over the codes q of x.
std::vector<std::string> FusedContributed(const std::string& body) {
  const Model model =
      ModelFromText(std::string(kContributed) + "(float[1,2,4,4] x) => (uint8[1,n,h,w] y)" +
                    kInt8Constants + "{ q = QuantizeLinear(x, s, z)" + body + "y = Identity(r) }");
  std::vector<std::string> types;
  for (const Node& node : FuseForExecution(model, {}).graph.nodes) {
    types.push_back(node.domain.empty() ? node.op_type : node.domain + "." + node.op_type);
  }
  return types;
}

TEST(Fuse, ContributedQuantizedOperatorsRunOnCodes) {
  const auto is = [](const char* op) {
    return ElementsAre("pared.QuantizeLinear", op, "pared.ToOnnx", "Identity");
  };
  EXPECT_THAT(
      FusedContributed("r = com.microsoft.QLinearAveragePool <kernel_shape = [3, 3], pads = "
                       "[1, 1, 1, 1]> (q, s, z, s2, z2)"),
      is("pared.AveragePool"));
  EXPECT_THAT(FusedContributed("r = com.microsoft.QLinearGlobalAveragePool(q, s, z, s2, z2)"),
              is("pared.GlobalAveragePool"));
  EXPECT_THAT(
      FusedContributed("r = com.microsoft.QLinearConcat <axis = 1> (s2, z2, q, s, z, q, s, z)"),
      is("pared.Concat"));
  EXPECT_THAT(FusedContributed("r = com.microsoft.QLinearAdd(q, s, z, q, s, z, s2, z2)"),
              is("pared.LookUp"));
  EXPECT_THAT(FusedContributed("r = com.microsoft.QLinearSigmoid(q, s, z, s2, z2)"),
              is("pared.LookUp"));
}

// Without DequantizeLinear and QuantizeLinear around them, as ONNX Runtime's quantizer leaves them.
TEST(Fuse, PoolsPartsAndEnlargedImagesOfCodesStayPlanar) {
  const std::string body =
      "q = QuantizeLinear(x, s, z) m = MaxPool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (q) "
      "a, c = Split <axis = 1, num_outputs = 2> (m) "
      "e = Resize <mode = \"nearest\"> (c, , f) "
      "r = com.microsoft.QLinearAdd(e, s, z, e, s, z, s2, z2) y = DequantizeLinear(r, s2, z2)";
  const std::string text =
      "(float[1,4,3,4] x) => (float[1,2,6,8] y) <float s = {0.5}, uint8 z = {10}, float s2 = "
      "{1.0}, "
      "uint8 z2 = {3}, float[4] f = {1.0, 1.0, 2.0, 2.0}> {" +
      body + "}";
  const Model model =
      ParseText("<ir_version: 8, opset_import: [\"\" : 18, \"com.microsoft\" : 1]> g " + text);
  std::vector<std::string> types;
  for (const Node& node : FuseForExecution(model, {}).graph.nodes) types.push_back(node.op_type);
  EXPECT_THAT(types, ElementsAre("QuantizeLinear", "MaxPool", "SplitPart", "Resize", "LookUp",
                                 "DequantizeLinear"));
  std::vector<float> x;
  for (int i = 0; i < 48; ++i) x.push_back(static_cast<float>(i * 37 % 23) / 2 - 5);
  const Tensor y = Executor(model).Run({Tensor::Make<float>({1, 4, 3, 4}, x)})[0];
  for (size_t i = 0; i < 96; ++i) {  // twice the maximum, codes of 1 hold it
    const size_t channel = 2 + i / 48, row = i / 8 % 6 / 2, column = i % 8 / 2;
    float most = -100;
    for (size_t r = row == 0 ? 0 : row - 1; r <= std::min<size_t>(row + 1, 2); ++r) {
      for (size_t c = column == 0 ? 0 : column - 1; c <= std::min<size_t>(column + 1, 3); ++c) {
        most = std::max(most, x[channel * 12 + r * 4 + c]);
      }
    }
    EXPECT_EQ(y.data<float>()[i], std::clamp(2 * most, -3.0f, 252.0f)) << i;
  }
}

TEST(Fuse, AContributedProductIsAMatrixProduct) {
  constexpr char kMatrix[] = R"(
    <float s = {0.5}, uint8 z = {10}, float s2 = {0.25}, uint8 z2 = {0}, int8[2,3] w = {1,2,3,-4,5,6},
     float[2] ws = {0.5, 0.25}, int8[2] wz = {0, 0}, int32[2] b = {4, -8}> { q = QuantizeLinear(x, s, z) )";
  const auto run = [&](const std::string& body, bool fuse) {
    const Model model = ModelFromText(std::string(kContributed) +
                                      "(float[20,3] x) => (float[20,2] y)" + kMatrix + body + "}");
    ExecutorOptions options;
    options.fuse = fuse;
    std::vector<float> x;
    for (int i = 0; i < 60; ++i) x.push_back(static_cast<float>(i * 37 % 23) / 2 - 5);
    const Tensor y = Executor(model, options).Run({Tensor::Make<float>({20, 3}, x)})[0];
    return std::vector<float>(y.data<float>().begin(), y.data<float>().end());
  };
  for (const std::string& body :
       {std::string("r = com.microsoft.QGemm <transB = 1> (q, s, z, w, ws, wz, b, s2, z2) "
                    "y = DequantizeLinear(r, s2, z2)"),
        std::string("y = com.microsoft.QGemm <transB = 1> (q, s, z, w, ws, wz, b)")}) {
    const Model model = ModelFromText(std::string(kContributed) +
                                      "(float[20,3] x) => (float[20,2] y)" + kMatrix + body + "}");
    std::vector<std::string> types;
    for (const Node& node : FuseForExecution(model, {}).graph.nodes) {
      types.push_back(node.domain + "." + node.op_type);
    }
    EXPECT_THAT(types, Contains("pared.MatMul"));
    EXPECT_EQ(run(body, true), run(body, false));
  }
  // Row 0: the products with the rows of w, in their scales, and the bias in its units.
  const std::vector<float> y =
      run("y = com.microsoft.QGemm <transB = 1> (q, s, z, w, ws, wz, b)", true);
  const std::vector<float> x = {-5, 37 % 23 / 2.0f - 5, 74 % 23 / 2.0f - 5};
  EXPECT_EQ(y[0], (x[0] * 1 + x[1] * 2 + x[2] * 3) * 0.5f + 4 * 0.25f);
  EXPECT_EQ(y[1], (x[0] * -4 + x[1] * 5 + x[2] * 6) * 0.25f - 8 * 0.125f);
}

TEST(Fuse, CodesMayBeClippedAsIntegers) {
  const Model model = ModelFromText(
      "g (float[6] x) => (float[6] y) <float s = {0.5}, uint8 z = {10}, float s2 = {0.25}, "
      "uint8 z2 = {0}, uint8 low = {8}, uint8 high = {20}>"
      "{ q = QuantizeLinear(x, s, z) c = Clip(q, low, high) d = DequantizeLinear(c, s, z) "
      "  r = QuantizeLinear(d, s2, z2) y = DequantizeLinear(r, s2, z2) }");
  const Tensor x = Tensor::Make<float>({6}, {-9, -1, 0, 0.5f, 5, 9});
  EXPECT_THAT(Executor(model).Run({x})[0].data<float>(), ElementsAre(0, 0, 0, 0.5f, 5, 5));
}

TEST(Fuse, ReluAndClipGoIntoTheConvolution) {
  EXPECT_THAT(Fused(kImages, std::string(kQuantizeX) + kWeights +
                                 "e = Conv(d, v, c) h = Relu(e) f = Clip(h, s2, s)" + kQuantizeF),
              ElementsAre("pared.QuantizeLinear", "pared.Conv", "pared.DequantizeLinear"));
}

TEST(Fuse, ConvolutionWhoseResultIsReadAsFloatGivesFloat) {
  EXPECT_THAT(Fused(kImages, std::string(kQuantizeX) + kWeights + "e = Conv(d, v, c) y = Sin(e)"),
              ElementsAre("pared.QuantizeLinear", "pared.Conv", "Sin"));
}

TEST(Fuse, UnsignedWeightsAroundTheMiddleAreSymmetric) {
  EXPECT_THAT(Fused(kImages, std::string(kQuantizeX) +
                                 "v = DequantizeLinear(wu, ws, wuz) f = Conv(d, v)" + kQuantizeF),
              Contains("pared.Conv"));
}

TEST(Fuse, WeightsWithAZeroPointStayUnfused) {
  EXPECT_THAT(Fused(kImages, std::string(kQuantizeX) +
                                 "v = DequantizeLinear(w, ws, wbad) f = Conv(d, v)" + kQuantizeF),
              Not(Contains("pared.Conv")));
}

TEST(Fuse, AValueReadByOthersTooIsNotTakenAway) {
  const std::vector<std::string> ops =
      Fused("(float[1,1,4,4] x) => (float[1,2,4,4] y, float[1,2,4,4] f)",
            std::string(kQuantizeX) + kWeights + "f = Conv(d, v, c)" + kQuantizeF);
  EXPECT_THAT(ops, UnorderedElementsAre("pared.QuantizeLinear", "pared.Conv", "QuantizeLinear",
                                        "DequantizeLinear"));
}

TEST(Fuse, QuantizedGraphInputsAndOutputsKeepTheirForm) {
  EXPECT_THAT(Fused("(int8[1,1,4,4] q) => (int8[1,2,4,4] y)",
                    std::string("d = DequantizeLinear(q, s, zs)") + kWeights +
                        "f = Conv(d, v, c) y = QuantizeLinear(f, s2, zs)"),
              ElementsAre("pared.FromOnnx", "pared.Conv", "pared.ToOnnx"));
}

TEST(Fuse, EqualParametersFold) {
  EXPECT_THAT(Fused(kOneImage, std::string(kQuantizeX) +
                                   "p = QuantizeLinear(d, s, z) y = DequantizeLinear(p, s, z)"),
              ElementsAre("pared.QuantizeLinear", "pared.DequantizeLinear"));
}

TEST(Fuse, ChangeOfParametersIsATable) {
  EXPECT_THAT(Fused(kOneImage, std::string(kQuantizeX) + "r = QuantizeLinear(d, s2, z2)"
                                                         "y = DequantizeLinear(r, s2, z2)"),
              ElementsAre("pared.QuantizeLinear", "pared.LookUp", "pared.DequantizeLinear"));
}

TEST(Fuse, SiluWithItsInnerQuantizationIsOneTable) {
  EXPECT_THAT(Fused(kOneImage, std::string(kQuantizeX) +
                                   "e = Sigmoid(d) p = QuantizeLinear(e, s2, z2)"
                                   "g = DequantizeLinear(p, s2, z2) f = Mul(d, g)" +
                                   kQuantizeF),
              ElementsAre("pared.QuantizeLinear", "pared.LookUp", "pared.DequantizeLinear"));
}

TEST(Fuse, TableGoesIntoTheConvolutionBeforeIt) {
  EXPECT_THAT(Fused(kImages, std::string(kQuantizeX) + kWeights +
                                 "e = Conv(d, v, c) p = QuantizeLinear(e, s, z)"
                                 "g = DequantizeLinear(p, s, z) f = Sigmoid(g)" +
                                 kQuantizeF),
              ElementsAre("pared.QuantizeLinear", "pared.Conv", "pared.DequantizeLinear"));
}

TEST(Fuse, AConvolutionReadBesideItsTableKeepsItsOwnResult) {
  const std::vector<std::string> ops =
      Fused(kImages, std::string(kQuantizeX) + kWeights +
                         "e = Conv(d, v, c) p = QuantizeLinear(e, s, z)"
                         "g = DequantizeLinear(p, s, z) h = Sigmoid(g)"
                         "t = QuantizeLinear(h, s2, z2) u = DequantizeLinear(t, s2, z2)"
                         "m = Conv <group = 2> (g, v) n = QuantizeLinear(m, s, z)"
                         "o = DequantizeLinear(n, s, z) f = Add(o, u)" +
                         kQuantizeF);
  EXPECT_EQ(std::count(ops.begin(), ops.end(), "pared.LookUp"), 1);
}

TEST(Fuse, ResidualSumGoesIntoTheConvolutionBeforeIt) {
  EXPECT_THAT(Fused("(float[1,2,4,4] x) => (float[1,2,4,4] y)",
                    std::string(kQuantizeX) + "v = DequantizeLinear(w, ws, wz)" +
                        "e = Conv <group = 2> (d, v) p = QuantizeLinear(e, s, z)"
                        "g = DequantizeLinear(p, s, z) a = Add(g, d) f = Relu(a)" +
                        kQuantizeF),
              ElementsAre("pared.QuantizeLinear", "pared.Conv", "pared.DequantizeLinear"));
}

TEST(Fuse, ReshapeAndTransposeMoveCodes) {
  EXPECT_THAT(
      Fused("(float[1,2,3] x, int64[2] shape) => (float[a,b] y)",
            std::string(kQuantizeX) + "t = Transpose(d) p = QuantizeLinear(t, s, z)"
                                      "g = DequantizeLinear(p, s, z) f = Reshape(g, shape)"
                                      "r = QuantizeLinear(f, s, z) y = DequantizeLinear(r, s, z)"),
      Not(Contains("DequantizeLinear")));
}

TEST(Fuse, FloatModelIsLeftAsItIs) {
  EXPECT_THAT(Fused(kOneImage, "f = Sigmoid(x) y = Relu(f)"), ElementsAre("Sigmoid", "Relu"));
}

TEST(Fuse, OperatorsWithoutAnInt8FormReadFloats) {
  EXPECT_THAT(Fused(kImages, std::string(kQuantizeX) + kWeights +
                                 "e = Conv(d, v, c) p = QuantizeLinear(e, s, z)"
                                 "g = DequantizeLinear(p, s, z)"
                                 "a = Constant <value = int64 {1}> () f = CumSum(g, a)" +
                                 kQuantizeF),
              UnorderedElementsAre("pared.QuantizeLinear", "pared.Conv", "pared.DequantizeLinear",
                                   "Constant", "CumSum", "QuantizeLinear", "DequantizeLinear"));
}

TEST(Fuse, PerChannelActivationsStayUnfused) {
  EXPECT_THAT(Fused("(float[1,2,4,4] x) => (float[1,2,4,4] y)",
                    "ss = Constant <value = float[2] {0.5,0.25}> ()"
                    "zz = Constant <value = uint8[2] {1,2}> ()"
                    "q = QuantizeLinear <axis = 1> (x, ss, zz)"
                    "d = DequantizeLinear <axis = 1> (q, ss, zz)"
                    "f = Relu(d)" +
                        std::string(kQuantizeF)),
              Each(Not(StartsWith("pared."))));
}

}  // namespace
}  // namespace pared
