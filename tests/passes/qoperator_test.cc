#include "passes/qoperator.h"

#include <gmock/gmock.h>

#include "evaluator/executor.h"
#include "tests/passes/run_pass.h"

namespace pared {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

struct Converted {
  Model model;
  Json report;
};
Converted Convert(const std::string& text, bool contributed = true) {
  Converted out{ModelFromText(text), {}};
  out.report = ToQOperators(out.model, contributed);
  Verify(out.model);
  return out;
}

std::string KeptReason(const Json& report, const std::string& node) {
  for (const Json& entry : report.at("kept_qdq")) {
    if (entry.at("node") == node) return entry.at("reason");
  }
  return "";
}

// A convolution of two channels of scales 1 and 0.5, then what is between it and Q.
std::string Conv(const std::string& after, const std::string& parameters) {
  return R"(g (float[1,1,1,4] x) => (float[1,2,1,4] y)
    <float one = {1}, uint8 two = {2}, int8[2,1,1,1] w = {3,-4}, float[2] ws = {1,0.5},
     int8[2] wz = {0,0}, int32[2] b = {5,-6}, int32[2] bz = {0,0}, float zero = {0}, )" +
         parameters + R"(> {
      xq = QuantizeLinear(x, one, two) xd = DequantizeLinear(xq, one, two)
      wd = DequantizeLinear<axis = 0>(w, ws, wz) bd = DequantizeLinear<axis = 0>(b, ws, bz)
      [conv] c = Conv(xd, wd, bd) )" +
         after + R"( q = QuantizeLinear(f, ys, yz) y = DequantizeLinear(q, ys, yz) })";
}
const Tensor kX = Tensor::Make<float>({1, 1, 1, 4}, {-2, 0, 7, 20});

TEST(QOperators, AConvolutionTakesInARelu) {
  const Converted out = Convert(Conv("f = Relu(c)", "float ys = {2}, uint8 yz = {0}"));
  EXPECT_THAT(OpTypes(out.model.graph),
              ElementsAre("QuantizeLinear", "QLinearConv", "DequantizeLinear"));
  EXPECT_FALSE(out.model.graph.initializers.contains("bz"));
  // 3 x + 5 and -2 x - 3, in steps of 2 and not below 0; halves go to the even step.
  EXPECT_THAT(Output(out.model, kX), ElementsAre(0, 4, 26, 64, 0, 0, 0, 0));
}

TEST(QOperators, AReluStaysWhereNegativeCodesAreLeft) {
  const std::string text = Conv("f = Relu(c)", "float ys = {2}, uint8 yz = {9}");
  const Converted out = Convert(text);
  EXPECT_THAT(KeptReason(out.report, "Conv conv"), HasSubstr("Relu"));
  EXPECT_EQ(Output(out.model, kX), Output(ModelFromText(text), kX));
}

TEST(QOperators, AClipIsTakenInWhereTheLastCodeIsItsBound) {
  const std::string clip = "f = Clip(c, zero, high)";
  EXPECT_THAT(
      OpTypes(
          Convert(Conv(clip, "float high = {51}, float ys = {0.2}, uint8 yz = {0}")).model.graph),
      ElementsAre("QuantizeLinear", "QLinearConv", "DequantizeLinear"));
  const std::string wider = Conv(clip, "float high = {6}, float ys = {0.2}, uint8 yz = {0}");
  const Converted out = Convert(wider);
  EXPECT_THAT(KeptReason(out.report, "Conv conv"), HasSubstr("Clip"));
  EXPECT_EQ(Output(out.model, kX), Output(ModelFromText(wider), kX));
}

TEST(QOperators, AConvolutionReadAsFloatIsKeptAndNamed) {
  const std::string text = R"(g (float[1,1,1,4] x) => (float[1,1,1,4] y)
    <float one = {1}, uint8 two = {2}, int8[1,1,1,1] w = {3}, int8 wz = {0}> {
      xq = QuantizeLinear(x, one, two) xd = DequantizeLinear(xq, one, two)
      wd = DequantizeLinear(w, one, wz) [conv] y = Conv(xd, wd) })";
  const Converted out = Convert(text);
  EXPECT_THAT(KeptReason(out.report, "Conv conv"), HasSubstr("float"));
  EXPECT_EQ(Output(out.model, kX), Output(ModelFromText(text), kX));
}

// x is its own code; columns of scales 1 and 0.5.
constexpr const char* kProduct = R"(g (float[1,2] x) => (float[1,2] y)
    <float one = {1}, uint8 none = {0}, int8[2,2] w = {3,-4, 1,6}, float[2] ws = {1,0.5},
     int8[2] wz = {0,0}, float[2] b = {0.25,0.5}> {
      xq = QuantizeLinear(x, one, none) xd = DequantizeLinear(xq, one, none)
      wd = DequantizeLinear<axis = 1>(w, ws, wz)
      [product] p = MatMul(xd, wd) y = Add(p, b) })";

TEST(QOperators, AProductReadAsFloatIsOneOfIntegers) {
  const Tensor x = Tensor::Make<float>({1, 2}, {10, 3});
  const Converted out = Convert(kProduct), plain = Convert(kProduct, false);
  EXPECT_THAT(OpTypes(out.model.graph),
              ElementsAre("QuantizeLinear", "MatMulIntegerToFloat", "Add"));
  EXPECT_EQ(out.model.Opset("com.microsoft"), 1);
  EXPECT_THAT(OpTypes(plain.model.graph),
              ElementsAre("QuantizeLinear", "MatMulInteger", "Cast", "Mul", "Add"));
  EXPECT_EQ(plain.model.Opset("com.microsoft"), 0);
  for (const Model& model : {out.model, plain.model}) {
    EXPECT_THAT(Output(model, x), ElementsAre(33.25f, -10.5f));
  }
}

// y = Concat(x + x, MaxPool(x)); all scales one, but that of the sum.
constexpr const char* kJoins = R"(g (float[1,1,1,4] x) => (float[1,2,1,4] y)
    <float one = {1}, float two = {2}, uint8 none = {0}> {
      xq = QuantizeLinear(x, one, none) xd = DequantizeLinear(xq, one, none)
      [sum] a = Add(xd, xd) aq = QuantizeLinear(a, two, none) ad = DequantizeLinear(aq, two, none)
      [pool] m = MaxPool<kernel_shape = [1,2], pads = [0,0,0,1]>(xd)
      mq = QuantizeLinear(m, one, none) md = DequantizeLinear(mq, one, none)
      [join] c = Concat<axis = 1>(ad, md)
      cq = QuantizeLinear(c, one, none) y = DequantizeLinear(cq, one, none) })";

TEST(QOperators, JoinsAreContributedOperatorsAndMovementsReadCodes) {
  const Tensor x = Tensor::Make<float>({1, 1, 1, 4}, {4, 0, 7, 20});
  const Converted out = Convert(kJoins), plain = Convert(kJoins, false);
  EXPECT_THAT(OpTypes(out.model.graph), ElementsAre("QuantizeLinear", "QLinearAdd", "MaxPool",
                                                    "QLinearConcat", "DequantizeLinear"));
  EXPECT_THAT(KeptReason(plain.report, "Concat join"), HasSubstr("no quantized form in ONNX"));
  for (const Model& model : {out.model, plain.model}) {
    EXPECT_THAT(Output(model, x), ElementsAre(8, 0, 14, 40, 4, 7, 20, 20));
  }
}

TEST(QOperators, ASplitIsOneOfCodesWhereAllItsScalesAreTheSame) {
  const auto text = [](const std::string& second) {
    return R"(g (float[1,4] x) => (float[1,2] y)
    <float one = {1}, float two = {2}, uint8 none = {0}> {
      xq = QuantizeLinear(x, one, none) xd = DequantizeLinear(xq, one, none)
      [split] a, b = Split<axis = 1, num_outputs = 2>(xd)
      aq = QuantizeLinear(a, one, none) ad = DequantizeLinear(aq, one, none)
      bq = QuantizeLinear(b, )" +
           second + ", none) bd = DequantizeLinear(bq, " + second + R"(, none)
      y = Sub(ad, bd) })";
  };
  const Tensor x = Tensor::Make<float>({1, 4}, {4, 0, 7, 20});
  const Converted out = Convert(text("one"));
  EXPECT_THAT(OpTypes(out.model.graph), ElementsAre("QuantizeLinear", "Split", "DequantizeLinear",
                                                    "DequantizeLinear", "Sub"));
  EXPECT_THAT(Output(out.model, x), ElementsAre(-3, -20));
  const Converted kept = Convert(text("two"));
  EXPECT_THAT(KeptReason(kept.report, "Split split"), HasSubstr("not all its scales"));
  EXPECT_THAT(Output(kept.model, x), ElementsAre(-4, -20));
}

TEST(QOperators, TheFormatIsRefusedForOpenvino) {
  const Model model = ModelFromText(R"(g (float[1,4] x) => (float[1,1] y)
    <float[4,1] w = {63,-1,0,9}> { y = MatMul(x, w) })");
  EXPECT_THAT(
      [&] {
        RunPass("quantize_int8", {{"format", "qoperator"}, {"target", "openvino"}}, model);
      },
      ThrowsError(ErrorCode::kInvalidArgument, "/format", HasSubstr("openvino")));
}

// Codes that stand for x in halves about 3, moved by a node that keeps its values.
std::string Moved(const std::string& node, const std::string& size) {
  return "g (float[1,2,4] x) => (float[1,2," + size + R"(] y)
    <float half = {0.5}, uint8 three = {3}, int64[6] wider = {0,0,1, 0,0,1}, float zero = {0},
     float five = {5}> {
      xq = QuantizeLinear(x, half, three) xd = DequantizeLinear(xq, half, three) [n] m = )" +
         node + " q = QuantizeLinear(m, half, three) y = DequantizeLinear(q, half, three) }";
}

TEST(QOperators, APadAddsTheCodeOfZero) {
  for (const std::string value : {"", ", zero"}) {
    const std::string text = Moved("Pad(xd, wider" + value + ")", "6");
    const Converted out = Convert(text);
    EXPECT_THAT(OpTypes(out.model.graph), ElementsAre("QuantizeLinear", "Pad", "DequantizeLinear"));
    EXPECT_EQ(out.model.graph.nodes[1].inputs, std::vector<std::string>({"xq", "wider", "three"}));
    Keep(out.model);
    const Tensor x = Tensor::Make<float>({1, 2, 4}, {1, 2, -1, 0.5f, 3, 4, 7, -1.5f});
    EXPECT_EQ(Output(out.model, x), Output(ModelFromText(text), x));
  }
  const Converted out = Convert(Moved("Pad(xd, wider, five)", "6"));
  EXPECT_THAT(KeptReason(out.report, "Pad n"), HasSubstr("another value"));
}

TEST(QOperators, AGlobalMaxPoolStaysSinceItTakesNoCodes) {
  const Converted out = Convert(Moved("GlobalMaxPool(xd)", "1"));
  EXPECT_THAT(KeptReason(out.report, "GlobalMaxPool n"), HasSubstr("takes no codes"));
}

// onnxruntime multiplies signed by unsigned codes in MatMulInteger only.
TEST(QOperators, ASignedLeftOperandIsMultipliedByMatMulInteger) {
  constexpr const char* kText = R"(g (float[2,3] x) => (float[3] y)
    <float one = {1}, uint8 none = {0}, int8[2] w = {3,-4}, int8 wz = {0}, float ws = {0.25}> {
      xq = QuantizeLinear(x, one, none) xd = DequantizeLinear(xq, one, none)
      wd = DequantizeLinear(w, ws, wz) [product] p = MatMul(wd, xd) )";
  const std::string as_float = std::string(kText) + "y = Identity(p) }";
  const Converted out = Convert(as_float);
  EXPECT_THAT(OpTypes(out.model.graph),
              ElementsAre("QuantizeLinear", "MatMulInteger", "Cast", "Mul", "Identity"));
  Keep(out.model);
  const Tensor x = Tensor::Make<float>({2, 3}, {1, 2, 3, 4, 5, 6});
  EXPECT_EQ(Output(out.model, x), Output(ModelFromText(as_float), x));
  const Converted kept = Convert(std::string(kText) +
                                 "q = QuantizeLinear(p, one, none) "
                                 "y = DequantizeLinear(q, one, none) }");
  EXPECT_THAT(KeptReason(kept.report, "MatMul product"), HasSubstr("signed"));
}

TEST(QOperators, WhatIsWithinABranchIsNamed) {
  const Converted out = Convert(R"(g (bool b, float[1,2] x) => (float[1,2] y)
    <float one = {1}, uint8 none = {0}, int8[2,2] w = {3,-4, 1,6}, int8 wz = {0}> {
      y = If(b) <then_branch = t () => (float[1,2] p) {
                   xq = QuantizeLinear(x, one, none) xd = DequantizeLinear(xq, one, none)
                   wd = DequantizeLinear(w, one, wz) [inner] p = MatMul(xd, wd) },
                 else_branch = e () => (float[1,2] q) { q = Identity(x) }> })");
  EXPECT_THAT(KeptReason(out.report, "MatMul inner"), HasSubstr("branch"));
}

}  // namespace
}  // namespace pared
