#include "model/check_ops.h"

#include <gtest/gtest.h>

#include "tests/testing/matchers.h"
#include "tests/testing/models.h"

namespace pared {
namespace {

using ::testing::HasSubstr;

// A convolution [n] of a weight [4, 2, 3, 3] with these attributes.
Model Conv(const std::string& attributes) {
  Model m =
      ParseText("g (float[1,4,8,8] x) => (float[] y) { [n] y = Conv <" + attributes + "> (x, w) }");
  return WithInitializer(m, "w", Tensor::Make<float>({4, 2, 3, 3}, std::vector<float>(72)));
}

void ExpectRefused(const Model& m, const std::string& where, const std::string& message) {
  EXPECT_THAT([&] { CheckOps(m); },
              ThrowsError(ErrorCode::kInvalidArgument, where, HasSubstr(message)));
}

TEST(CheckOps, AcceptsAnOrdinaryConvolution) {
  CheckOps(Conv("group = 2, strides = [1, 2], pads = [0, 1, 0, 1], kernel_shape = [3, 3]"));
}

TEST(CheckOps, RefusesWhatWouldDivideByZero) {
  ExpectRefused(Conv("strides = [0, 1]"), "Conv n", "strides has 0");
  ExpectRefused(Conv("dilations = [1, 0]"), "Conv n", "dilations has 0");
  ExpectRefused(Conv("group = 0"), "Conv n", "group is 0");
  ExpectRefused(Conv("group = -1"), "Conv n", "group is -1");
  ExpectRefused(Conv("group = 3"), "Conv n", "does not divide the 4");
  ExpectRefused(Conv("kernel_shape = [0, 3]"), "Conv n", "kernel_shape has 0");
  ExpectRefused(
      ParseText("g (float[1,4,2,2] x) => (float[] y) { y = DepthToSpace <blocksize = 0> (x) }"),
      "DepthToSpace producing y", "blocksize is 0");
}

TEST(CheckOps, RefusesWindowsWhoseSizesWouldOverflow) {
  CheckOps(Conv("pads = [2147483647, 0, 0, 2147483647], strides = [2147483647, 1]"));
  ExpectRefused(Conv("pads = [0, 4611686018427387904, 0, 4611686018427387904]"), "Conv n",
                "pads has 4611686018427387904; at most 2147483647");
  ExpectRefused(Conv("strides = [1, 2147483648]"), "Conv n", "strides has 2147483648");
  ExpectRefused(Conv("dilations = [9223372036854775807, 1]"), "Conv n", "dilations has 92");
  ExpectRefused(ParseText("g (float[1,1,4] x) => (float[] y) "
                          "{ y = MaxPool <kernel_shape = [4611686018427387904]> (x) }"),
                "MaxPool producing y", "kernel_shape has 46");
}

TEST(CheckOps, RefusesNegativePadsAndWrongLengths) {
  ExpectRefused(Conv("pads = [0, 0, -1, 0]"), "Conv n", "pads has -1");
  ExpectRefused(Conv("kernel_shape = [3, 3], strides = [1]"), "Conv n", "strides has 1 entries");
  ExpectRefused(Conv("kernel_shape = [3, 3], pads = [1, 1]"), "Conv n", "pads has 2 entries");
  ExpectRefused(Conv("kernel_shape = [3, 2]"), "Conv n", "not that of the weight");
  ExpectRefused(ParseText("g (float[1,1,4] x) => (float[] y) { y = MaxPool(x) }"),
                "MaxPool producing y", "missing");
}

TEST(CheckOps, RefusesAnAxisThatTheConstantDoesNotHave) {
  ExpectRefused(
      ParseText("g () => (float[] y) <float[2,2] w = {1,2,3,4}> { y = Softmax <axis = 3> (w) }"),
      "Softmax producing y", "axis 3");
}

TEST(CheckOps, RefusesElementTypesThatDoNotExist) {
  ExpectRefused(ParseText("g (float x) => (float y) { y = Cast <to = 99> (x) }"),
                "Cast producing y", "99");
}

TEST(CheckOps, CountsInputs) {
  ExpectRefused(ParseText("g (float[2,2] x) => (float[] y) { [n] y = MatMul(x) }"), "MatMul n",
                "inputs is 1; at least 2 needed");
  ExpectRefused(ParseText("g (float[2,2] x) => (float[] y) { [n] y = Relu(x, x, x) }"), "Relu n",
                "inputs is 3; at most 1 allowed");
  CheckOps(ParseText("g (float[2,2] x) => (float[] y) { y = Clip(x, , ) }"));
  CheckOps(ParseText("g (float[2,2] x) => (float[] y) { y = Concat <axis = 0> (x, x, x, x) }"));
}

TEST(CheckOps, CountsInputsByTheOpset) {
  const char* graph = "g (float[2,2] x, float low) => (float[] y) { [n] y = Clip(x, low) }";
  CheckOps(ParseText(std::string("<ir_version: 8, opset_import: [\"\" : 11]> ") + graph));
  ExpectRefused(ParseText(std::string("<ir_version: 8, opset_import: [\"\" : 10]> ") + graph),
                "Clip n", "inputs is 2; at most 1 allowed in opset 10");
}

TEST(CheckOps, LeavesOperatorsThatOnnxDoesNotKnowAlone) {
  CheckOps(ParseText(R"(g (float[2,2] x) => (float[] y) { y = Foo <axis = "x"> (x) })"));
}

TEST(CheckOps, RefusesAttributesOfAnotherType) {
  ExpectRefused(
      ParseText(R"(g (float[2,2] x) => (float[] y) { [n] y = Softmax <axis = "x"> (x) })"),
      "Softmax n", "axis is of type string; it should be int");
  ExpectRefused(ParseText("g (float[2,2] x) => (float[] y) { [n] y = Elu <alpha = 1> (x) }"),
                "Elu n", "alpha is of type int; it should be float");
  CheckOps(ParseText(R"(<ir_version: 8, opset_import: ["" : 10]> g (float[2] x) => (float[] y)
      { y = Pad <pads = [1, 1], value = 2.0> (x) })"));
}

TEST(CheckOps, RefusesWhatIsNoPermutation) {
  for (const char* perm : {"[0, 0]", "[0, 5]", "[-3, 0]"}) {
    ExpectRefused(
        ParseText(std::string("g (float[] x) => (float[] y) { [n] y = Transpose <perm = ") + perm +
                  "> (x) }"),
        "Transpose n", "is no permutation");
  }
}

TEST(CheckOps, RefusesAnUnknownAutoPad) {
  ExpectRefused(Conv(R"(auto_pad = "SAME")"), "Conv n", "auto_pad is SAME; it should be");
  ExpectRefused(Conv("strides = [1, 1, 1]"), "Conv n", "strides has 3 entries");
  CheckOps(Conv(R"(auto_pad = "SAME_UPPER")"));
}

TEST(CheckOps, LooksIntoSubgraphsAndFunctions) {
  ExpectRefused(ParseText(R"(g (bool c, float[1,1,4] x) => (float[] y) {
    y = If (c) <then_branch = t () => (float[] a) { [in] a = MaxPool <kernel_shape = [0]> (x) },
                else_branch = e () => (float[] a) { a = Neg(x) }> })"),
                "MaxPool in", "kernel_shape");
  ExpectRefused(ParseText(R"(<ir_version: 8, opset_import: ["" : 17, "f" : 1]>
    g (float[] x) => (float[] y) { y = f.F(x) }
    <domain: "f", opset_import: ["" : 17]> F (a) => (b) { [fn] b = MaxPool <kernel_shape = [0]> (a) })"),
                "MaxPool fn", "kernel_shape");
}

TEST(CheckOps, LeavesOtherDomainsAlone) {
  CheckOps(ParseText(R"(<ir_version: 8, opset_import: ["" : 17, "com.acme" : 1]>
    g (float x) => (float y) { y = com.acme.Conv <group = 0> (x) })"));
}

}  // namespace
}  // namespace pared
