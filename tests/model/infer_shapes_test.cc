// Over whole models tests/parity/shapes.py compares with the onnx package's inference; here stand
// the corners, with dimensions written out from the operators' definitions.

#include "model/infer_shapes.h"

#include <gtest/gtest.h>

#include "tests/testing/matchers.h"
#include "tests/testing/models.h"

namespace pared {
namespace {

using ::testing::HasSubstr;

// "float[N,3]" of value y in the model.
std::string TypeOfY(const std::string& text) {
  const auto types = InferShapes(ParseText(text));
  const auto it = types.find("y");
  if (it == types.end()) return "absent";
  std::string result = DTypeName(it->second.dtype);
  if (!it->second.shape.has_value()) return result + "[*]";
  result += "[";
  for (const Dim& dim : *it->second.shape) {
    if (result.back() != '[') result += ",";
    result += dim.value >= 0 ? std::to_string(dim.value) : dim.param.empty() ? "?" : dim.param;
  }
  return result + "]";
}

std::string Of(const std::string& inputs, const std::string& node, const std::string& values = "") {
  return TypeOfY("g (" + inputs + ") => (y) " + (values.empty() ? "" : "<" + values + ">") + " { " +
                 node + " }");
}

TEST(InferShapes, BroadcastsSymbolsAndNumbers) {
  EXPECT_EQ(Of("float[N,1,3] a, float[4,1] b", "y = Add(a, b)"), "float[N,4,3]");
  EXPECT_EQ(Of("float[N] a, float[N] b", "y = Mul(a, b)"), "float[N]");
  EXPECT_EQ(Of("float[N] a, float[M] b", "y = Mul(a, b)"), "float[?]");
  EXPECT_EQ(Of("float[N] a, float[5] b", "y = Mul(a, b)"), "float[5]");
  EXPECT_EQ(Of("float[0] a, float[1] b", "y = Mul(a, b)"), "float[0]");
  EXPECT_EQ(Of("float[2] a, float[2] b", "y = Equal(a, b)"), "bool[2]");
  EXPECT_EQ(Of("float[] a, float[2] b", "y = Add(a, b)"), "float[*]");
}

TEST(InferShapes, AMaskOfDropoutIsBoolFromOpset10On) {
  const auto mask = [](const std::string& opset) {
    return TypeOfY("<ir_version: 8, opset_import: [\"\" : " + opset +
                   "]> g (float[2,3] x) => (z) { z, y = Dropout(x) }");
  };
  EXPECT_EQ(mask("7"), "float[2,3]");
  EXPECT_EQ(mask("10"), "bool[2,3]");
}

TEST(InferShapes, RefusesShapesThatDoNotBroadcast) {
  EXPECT_THAT([] { Of("float[2] a, float[3] b", "[n] y = Add(a, b)"); },
              ThrowsError(ErrorCode::kInvalidArgument, "Add n", HasSubstr("broadcast")));
}

TEST(InferShapes, FollowsConvolutionsAndPools) {
  EXPECT_EQ(Of("float[N,4,9,W] x, float[8,2,3,3] w",
               "y = Conv <group = 2, strides = [2, 2], pads = [1, 1, 1, 1]> (x, w)"),
            "float[N,8,5,?]");
  EXPECT_EQ(Of("float[1,4,9] x, float[8,4,3] w",
               "y = Conv <auto_pad = \"SAME_UPPER\", strides = [2]> (x, w)"),
            "float[1,8,5]");
  EXPECT_EQ(Of("float[1,4,9] x, float[8,4,3] w", "y = Conv <dilations = [2]> (x, w)"),
            "float[1,8,5]");
  EXPECT_EQ(Of("float[1,4,5,5] x, float[4,3,3,3] w",
               "y = ConvTranspose <group = 2, strides = [2, 2], output_padding = [1, 1], pads = "
               "[1, 1, 1, 1]> (x, w)"),
            "float[1,6,10,10]");
  EXPECT_EQ(Of("float[1,2,6] x", "y = MaxPool <kernel_shape = [3], strides = [2]> (x)"),
            "float[1,2,2]");
  EXPECT_EQ(
      Of("float[1,2,6] x", "y = MaxPool <kernel_shape = [3], strides = [2], ceil_mode = 1> (x)"),
      "float[1,2,3]");
  // A last window that would begin in the right padding is left out.
  EXPECT_EQ(
      Of("float[1,2,4] x",
         "y = AveragePool <kernel_shape = [1], strides = [3], pads = [0, 3], ceil_mode = 1> (x)"),
      "float[1,2,3]");
  EXPECT_THAT([] { Of("float[1,4,9] x, float[8,3,3] w", "y = Conv(x, w)"); },
              ThrowsError(ErrorCode::kInvalidArgument, "Conv producing y", HasSubstr("channels")));
  EXPECT_THAT([] { Of("float[1,4,2] x, float[8,4,3] w", "y = Conv(x, w)"); },
              ThrowsError(ErrorCode::kInvalidArgument, "Conv producing y", HasSubstr("window")));
}

TEST(InferShapes, FollowsMatrixProducts) {
  EXPECT_EQ(Of("float[B,1,2,3] a, float[5,3,4] b", "y = MatMul(a, b)"), "float[B,5,2,4]");
  EXPECT_EQ(Of("float[3] a, float[3] b", "y = MatMul(a, b)"), "float[]");
  EXPECT_EQ(Of("float[3] a, float[7,3,4] b", "y = MatMul(a, b)"), "float[7,4]");
  EXPECT_EQ(Of("float[3,N] a, float[4,3] b", "y = Gemm <transA = 1, transB = 1> (a, b)"),
            "float[N,4]");
  EXPECT_THAT([] { Of("float[2,3] a, float[4,5] b", "y = MatMul(a, b)"); },
              ThrowsError(ErrorCode::kInvalidArgument, "MatMul producing y", HasSubstr("3 and 4")));
}

TEST(InferShapes, FollowsWhatSamplesAnImage) {
  EXPECT_EQ(Of("float[N,3,8,9] x, float[N,4,5,2] g", "y = GridSample(x, g)"), "float[N,3,4,5]");
  EXPECT_EQ(Of("float[N,3,8,9] x, float g", "y = GridSample(x, g)"), "float[*]");
  EXPECT_EQ(Of("float[2,2,3] t", "y = AffineGrid(t, s)", "int64[4] s = {2,3,4,5}"),
            "float[2,4,5,2]");
  EXPECT_EQ(Of("float[1,3,8,9] x, float[R,4] r, int64[R] b",
               "y = RoiAlign <output_height = 7> (x, r, b)"),
            "float[R,3,7,1]");
  EXPECT_EQ(Of("float[1,18,20] x", "y = Col2Im(x, i, b)", "int64[2] i = {5,6}, int64[2] b = {2,3}"),
            "float[1,3,5,6]");
  EXPECT_EQ(Of("float[N,9,4] x", "y = CenterCropPad <axes = [1]> (x, s)", "int64[1] s = {5}"),
            "float[N,5,4]");
  EXPECT_EQ(Of("float[1,4,9,9] x, float[8,4,3,3] w, float[1,18,7,7] o", "y = DeformConv(x, w, o)"),
            "float[1,8,7,7]");
}

TEST(InferShapes, FollowsMaxUnpool) {
  EXPECT_EQ(Of("float[1,2,3,W] x, int64[1,2,3,W] i",
               "y = MaxUnpool <kernel_shape = [2,2], strides = [2,2], pads = [1,0,0,0]> (x, i)"),
            "float[1,2,5,?]");
  EXPECT_EQ(Of("float[1,2,3] x, int64[1,2,3] i", "y = MaxUnpool <kernel_shape = [2]> (x, i, s)",
               "int64[3] s = {1,2,7}"),
            "float[1,2,7]");
  EXPECT_EQ(Of("float[1,2,3] x, int64[1,2,3] i, int64[3] s",
               "y = MaxUnpool <kernel_shape = [2]> (x, i, s)"),
            "float[*]");
}

TEST(InferShapes, FollowsAttentionAndProductsOfOnnxruntime) {
  EXPECT_EQ(Of("float[B,4,5,8] q, float[B,2,7,8] k, float[B,2,7,6] v", "y = Attention(q, k, v)"),
            "float[B,4,5,6]");
  EXPECT_EQ(Of("float[B,5,32] q, float[B,7,16] k, float[B,7,12] v",
               "y = Attention <q_num_heads = 4, kv_num_heads = 2> (q, k, v)"),
            "float[B,5,24]");
  EXPECT_EQ(Of("float[B,5,32] x, float[32,96] w, float[96] b",
               "y = com.microsoft.Attention <num_heads = 4> (x, w, b)"),
            "float[B,5,32]");
  EXPECT_EQ(Of("float16[B,5,32] x, uint8[48,2,8] w, float16[96] s",
               "y = com.microsoft.MatMulNBits <K = 32, N = 48> (x, w, s)"),
            "float16[B,5,48]");
  EXPECT_EQ(
      Of("float[B,5,3] a, float[B,5,4] b", "y = com.microsoft.FusedMatMul <transA = 1> (a, b)"),
      "float[B,3,4]");
  EXPECT_EQ(Of("uint8[5,3] a, int8[3,4] b, float16 s, float16 t",
               "y = com.microsoft.MatMulIntegerToFloat (a, b, s, t)"),
            "float16[5,4]");
}

TEST(InferShapes, KnowsTheTypesOfSignalsAndLists) {
  EXPECT_EQ(Of("float[1,16] x, int64 s", "y = STFT(x, s)"), "float[?,?,?,2]");
  EXPECT_EQ(Of("float[3,4] x", "y = Unique(x)"), "float[?]");
  EXPECT_EQ(Of("float[3,4] x", "y = Unique <axis = 1> (x)"), "float[3,?]");
  EXPECT_EQ(Of("float[3,4] x", "u, y = Unique(x)"), "int64[?]");
  EXPECT_EQ(Of("float[3,4] x, int64 a", "y = CumProd(x, a)"), "float[3,4]");
  EXPECT_EQ(Of("float[1,2,8,4] c, float[1,2,1,4] u", "y = TensorScatter(c, u)"), "float[1,2,8,4]");
}

TEST(InferShapes, FollowsShapesThatTheModelComputes) {
  EXPECT_EQ(Of("float[N,2,3,4] x", R"(
      s = Shape(x) n = Gather <axis = 0> (s, zero) u = Unsqueeze(n, axis)
      t = Concat <axis = 0> (u, minus) y = Reshape(x, t))",
               "int64 zero = {0}, int64[1] axis = {0}, int64[1] minus = {-1}"),
            "float[N,24]");
  EXPECT_EQ(
      Of("float[N,6] x", R"(
      s = Shape(x) e = Slice(s, one, two) h = Div(e, three)
      t = Concat <axis = 0> (minus, h) y = Reshape(x, t))",
         "int64[1] one = {1}, int64[1] two = {2}, int64[1] three = {3}, int64[1] minus = {-1}"),
      "float[?,2]");
  EXPECT_EQ(Of("float[N,3] x", "s = Shape <start = 1> (x) y = ConstantOfShape(s)"), "float[3]");
}

TEST(InferShapes, FollowsReshapes) {
  EXPECT_EQ(Of("float[2,3,4] x", "y = Reshape(x, t)", "int64[3] t = {0, -1, 2}"), "float[2,6,2]");
  EXPECT_EQ(Of("float[N,3,4] x", "y = Reshape(x, t)", "int64[2] t = {0, -1}"), "float[N,12]");
  EXPECT_EQ(Of("float[N,3] x, int64[2] t", "y = Reshape(x, t)"), "float[?,?]");
  EXPECT_EQ(Of("float[0,3] x", "y = Reshape <allowzero = 1> (x, t)", "int64[2] t = {3, 0}"),
            "float[3,0]");
  EXPECT_EQ(Of("float[N,3,4] x", "y = Flatten <axis = -1> (x)"), "float[?,4]");
  EXPECT_EQ(Of("float[1,N,1] x", "y = Squeeze(x, a)", "int64[1] a = {-1}"), "float[1,N]");
  EXPECT_THAT([] { Of("float[2,3] x", "y = Reshape(x, t)", "int64[2] t = {4, 2}"); },
              ThrowsError(ErrorCode::kInvalidArgument, "Reshape producing y"));
  EXPECT_THAT([] { Of("float[2,3] x", "y = Reshape(x, t)", "int64[2] t = {-1, -1}"); },
              ThrowsError(ErrorCode::kInvalidArgument, "Reshape producing y"));
}

TEST(InferShapes, FollowsSlicesInBothDirections) {
  const std::string values =
      "int64[1] s = {-1}, int64[1] e = {-9223372036854775807}, int64[1] a = {0}, "
      "int64[1] st = {-2}";
  EXPECT_EQ(Of("float[5,2] x", "y = Slice(x, s, e, a, st)", values), "float[3,2]");
  EXPECT_EQ(Of("float[5] x", "y = Slice(x, s, e)", "int64[1] s = {3}, int64[1] e = {100}"),
            "float[2]");
  EXPECT_EQ(Of("float[5] x", "y = Slice(x, s, e)", "int64[1] s = {4}, int64[1] e = {2}"),
            "float[0]");
  EXPECT_EQ(Of("float[0] x", "y = Slice(x, s, e, a, st)", values), "float[0]");
  EXPECT_THAT([] { Of("float[5] x", "y = Slice(x, i, i, i, i)", "int64[1] i = {0}"); },
              ThrowsError(ErrorCode::kInvalidArgument, "Slice producing y", HasSubstr("step")));
}

TEST(InferShapes, FollowsSplitsAndReductions) {
  EXPECT_EQ(Of("float[7] x", "a, y = Split <num_outputs = 2> (x)"), "float[3]");
  EXPECT_EQ(Of("float[2,3,4] x", "y = ReduceSum <keepdims = 0> (x, a)", "int64[1] a = {-2}"),
            "float[2,4]");
  EXPECT_EQ(Of("float[2,3] x", "y = ReduceMean <axes = [1]> (x)"), "float[2,1]");
  EXPECT_EQ(Of("float[2,3] x", "y = ReduceSum <noop_with_empty_axes = 1> (x)"), "float[2,3]");
  EXPECT_EQ(Of("float[2,3] x", "y = ArgMax <axis = 1, keepdims = 0> (x)"), "int64[2]");
  EXPECT_EQ(Of("float[1,2,4,4] x", "y = Resize(x, , s)", "float[4] s = {1, 1, 2, 1.3}"),
            "float[1,2,8,5]");
}

TEST(InferShapes, FollowsTransforms) {
  const std::string length = "int64 n = {16}";
  EXPECT_EQ(Of("float[N,8,1] x", "y = DFT(x)"), "float[N,8,2]");
  EXPECT_EQ(Of("float[N,8,1] x", "y = DFT <onesided = 1> (x)"), "float[N,5,2]");
  EXPECT_EQ(Of("float[N,8,1] x", "y = DFT <onesided = 1> (x, n)", length), "float[N,9,2]");
  EXPECT_EQ(Of("float[4,N,2] x", "y = DFT <axis = 0, inverse = 1> (x, n)", length),
            "float[16,N,2]");
}

TEST(InferShapes, RefusesAxesOutOfRange) {
  for (const char* node :
       {"y = Softmax(x) z = ReduceSum <axes = [2]> (x)", "y = Transpose <perm = [0, 0]> (x)",
        "y = Concat <axis = 2> (x, x)", "y = Gather <axis = -3> (x, x)"}) {
    EXPECT_THROW(Of("float[2,3] x", node), Error) << node;
  }
}

TEST(InferShapes, KeepsWhatHoldsInBothBranches) {
  EXPECT_EQ(Of("bool c, float[N,3] x, float[N,4] z", R"(
      y = If (c) <then_branch = t () => (a) { a = Neg(x) }, else_branch = e () => (a) { a = Abs(z) }>)"),
            "float[N,?]");
}

// A Loop carries a and collects r; a Scan carries s and reads x row by row. The bodies state
// nothing.
TEST(InferShapes, FollowsTypesThroughBodies) {
  const std::string loop = R"(g (int64 n, bool c, float16[2,3] x, float[3] w) => (z) {
      %s = Loop (n, c, x) <body = b (i, go, a) => (stop, next, r) {
        stop = Identity(go) next = Neg(a) r = Relu(w) }> })";
  const auto loop_of = [&](const std::string& outputs) {
    std::string text = loop;
    return TypeOfY(text.replace(text.find("%s"), 2, outputs));
  };
  EXPECT_EQ(loop_of("y, z"), "float16[*]");
  EXPECT_EQ(loop_of("z, y"), "float[?,3]");
  const std::string scan = R"(g (double[3] s0, int32[N,3] x) => (z) {
      %s = Scan (s0, x) <num_scan_inputs = 1, body = b (s, row) => (next, r) {
        next = Neg(s) r = Cast<to = 1>(row) }> })";
  const auto scan_of = [&](const std::string& outputs) {
    std::string text = scan;
    return TypeOfY(text.replace(text.find("%s"), 2, outputs));
  };
  EXPECT_EQ(scan_of("y, z"), "double[*]");
  EXPECT_EQ(scan_of("z, y"), "float[*]");
}

TEST(InferShapes, TheWeightTellsTheTypeOfAProduct) {
  EXPECT_EQ(Of("x, float16[3,4] w", "y = MatMul(x, w)"), "float16[*]");
  EXPECT_EQ(Of("x, double[3,4] w", "y = Gemm(x, w)"), "double[*]");
  EXPECT_EQ(Of("x, float[3,4,1,1] w", "y = Conv(x, w)"), "float[*]");
}

TEST(InferShapes, FollowsWhatOnnxruntimeFuses) {
  const auto of = [](const std::string& node) {
    return TypeOfY(R"(<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>
      g (float[2,3,8,8] x, float[5,3,3,3] w, float[N,4] a, float[6,4] b) => (y) { y = com.microsoft.)" +
                   node + " }");
  };
  EXPECT_EQ(of(R"(FusedConv <activation = "Relu", pads = [1,1,1,1]> (x, w))"), "float[2,5,8,8]");
  EXPECT_EQ(of(R"(FusedGemm <activation = "Relu", transB = 1> (a, b))"), "float[N,6]");
  EXPECT_EQ(of("BiasGelu(a, b)"), "float[N,4]");
  EXPECT_EQ(of("SkipLayerNormalization(a, a, b)"), "float[N,4]");
}

TEST(InferShapes, OfShapesThatContradictOnlyWhatBothAllowIsKnown) {
  EXPECT_EQ(TypeOfY("g (float[2,N] x) => (float[3,4] y) { y = Neg(x) }"), "float[?,4]");
  EXPECT_EQ(TypeOfY("g (float[2,N] x) => (float[2] y) { y = Neg(x) }"), "float[2,N]");
}

TEST(InferShapes, ReportsAContradictionAtTheValue) {
  EXPECT_THAT([] { InferShapes(ParseText("g (float[2] x) => (int8[2] y) { y = Neg(x) }")); },
              ThrowsError(ErrorCode::kInvalidArgument, "y", HasSubstr("int8")));
}

TEST(InferShapes, LeavesOutWhatUnknownOperatorsMake) {
  EXPECT_EQ(TypeOfY(R"(<ir_version: 8, opset_import: ["" : 17, "com.acme" : 1]>
      g (float[2] x) => (z) { y = com.acme.Odd(x) z = Neg(y) })"),
            "absent");
}

}  // namespace
}  // namespace pared
