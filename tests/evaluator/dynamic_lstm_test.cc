// DynamicQuantizeLSTM of com.microsoft; tests/parity/contributed_ops.py compares it with ONNX
// Runtime.

#include <gmock/gmock.h>

#include <string>

#include "tests/evaluator/run_text.h"
#include "tests/testing/matchers.h"

namespace pared {
namespace {

using testing::HasSubstr;

// One cell of hidden size 1 that sees two inputs, of codes w and scale 0.5, one step.
std::string Text(const std::string& inputs, const std::string& scale) {
  return R"(<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>
    g (float[1,1,2] x)" +
         inputs + R"() => (float[1,1,1,1] y)
    <int8[1,2,4] w = {1,2,3,4, -1,0,1,2}, int8[1,1,4] r = {1,1,1,1}, int8[1] z = {0}, )" +
         scale + R"(, float[1] t = {1}>
    { y = com.microsoft.DynamicQuantizeLSTM<hidden_size = 1>(x, w, r, , , , , , s, z, t, z) })";
}

// From 0 to 255 the scale of x is 1: x is its own codes, and the products those of the float LSTM.
TEST(DynamicLstm, IsTheLstmOfItsDecodedWeights) {
  const std::vector<Tensor> x = {Tensor::Make<float>({1, 1, 2}, {0, 255})};
  const Tensor y = RunText(Text("", "float[1] s = {0.00390625}"), x)[0];
  const Tensor wanted = RunText(R"(g (float[1,1,2] x) => (float[1,1,1,1] y)
    <float[1,4,2] w = {0.00390625,-0.00390625, 0.0078125,0, 0.01171875,0.00390625,
                       0.015625,0.0078125}, float[1,4,1] r = {1,1,1,1}>
    { y = LSTM<hidden_size = 1>(x, w, r) })",
                                x)[0];
  EXPECT_FLOAT_EQ(y.data<float>()[0], wanted.data<float>()[0]);
  EXPECT_GT(y.data<float>()[0], 0.1f);
}

TEST(DynamicLstm, RefusesScalesThatAreNoConstantsOrDoNotFit) {
  const std::vector<Tensor> x = {Tensor::Make<float>({1, 1, 2}, {0, 255}),
                                 Tensor::Make<float>({1}, {1})};
  EXPECT_THAT([&] { RunText(Text(", float[1] s", "float[1] u = {1}"), x); },
              ThrowsError(ErrorCode::kInvalidArgument, HasSubstr("DynamicQuantizeLSTM"),
                          HasSubstr("must be constants")));
  EXPECT_THAT([&] { RunText(Text("", "float[1,3] s = {1,1,1}"), {x[0]}); },
              ThrowsError(ErrorCode::kInvalidArgument, HasSubstr("DynamicQuantizeLSTM"),
                          HasSubstr("one for each of 4 columns")));
}

}  // namespace
}  // namespace pared
