// A raised model computes what it did before; what it was raised to runs elsewhere too (Keep).

#include "passes/opset_raise.h"

#include <gmock/gmock.h>

#include "evaluator/executor.h"
#include "tests/passes/run_step.h"
#include "tests/testing/random_tensor.h"

namespace pared {
namespace {

using ::testing::HasSubstr;

struct Raise {
  const char* name;
  std::vector<int64_t> from;  // opsets in which the text means the same
  const char* text;           // of a graph
  int64_t elsewhere = 0;      // from this opset on onnxruntime has the operators for the types
};

void PrintTo(const Raise& raise, std::ostream* os) { *os << raise.name; }

class OpsetRaise : public testing::TestWithParam<Raise> {};

TEST_P(OpsetRaise, EveryTargetComputesTheSame) {
  for (const int64_t from : GetParam().from) {
    Model in = ModelFromText("<ir_version: 4, opset_import: [\"\" : " + std::to_string(from) +
                             "]> " + GetParam().text);
    if (from >= GetParam().elsewhere) Keep(in);
    for (const int64_t to : {11, 12, 13, 15, 16, 17, 18, 19, 20, 21}) {
      if (to <= from) continue;
      SCOPED_TRACE("from " + std::to_string(from) + " to " + std::to_string(to));
      Model out = in;
      EXPECT_FALSE(RaiseOpset(out, to).empty());
      EXPECT_EQ(out.Opset(""), to);
      Verify(out);
      if (to >= GetParam().elsewhere) Keep(out);
      EXPECT_GT(SqnrDbOn(Dataset::Random(in.graph.inputs, 2, 3), in, out), 120);
    }
  }
}

const Raise kRaises[] = {
    {"Upsample", {7, 8}, R"(g (float[1,2,3,2] x) => (float[1,2,6,6] y)
        { y = Upsample <mode = "nearest", scales = [1.0, 1.0, 2.0, 3.0]> (x) })"},
    {"UpsampleOfAnInput", {9}, R"(g (float[1,2,3,2] x) => (float[1,2,6,6] y)
        <float[4] s = {1,1,2,3}> { y = Upsample <mode = "linear"> (x, s) })"},
    {"Resize", {10}, R"(g (float[1,2,4,4] x) => (float[1,2,6,2] y)
        <float[4] s = {1,1,1.5,0.5}> { y = Resize <mode = "nearest"> (x, s) })"},
    {"Slices", {7, 9}, R"(g (float[4,5] x) => (float[3,2] y, float[2,5] z)
        { y = Slice <axes = [1,0], starts = [-2,1], ends = [9,4]> (x)
          z = Slice <starts = [1], ends = [3]> (x) })"},
    {"Clips", {7, 10}, R"(g (float[4,5] x) => (float[4,5] a, float[4,5] b, float[4,5] c)
        { a = Clip <min = -0.5> (x) b = Clip <max = 0.25> (x) c = Clip (x) })"},
    {"ClipsOfOtherTypes",
     {7, 10},
     R"(g (float[4,5] x) => (float[6,5] y, float[4,5] z)
        { h = Cast <to = 10> (x) c = Clip <min = -0.5, max = 1.5> (h)
          p = Pad <pads = [1,0,1,0], value = 2.5> (c) y = Cast <to = 1> (p)
          d = Cast <to = 11> (x) e = Clip <max = 0.5> (d) z = Cast <to = 1> (e) })",
     12},
    {"Pads", {7, 10}, R"(g (float[1,2,3,3] x) => (float[1,2,5,4] y, float[1,2,5,5] z)
        { y = Pad <pads = [0,0,1,0,0,0,1,1], value = 3.0> (x)
          z = Pad <mode = "reflect", pads = [0,0,1,1,0,0,1,1]> (x) })"},
    {"Dropouts",
     {7, 10},
     R"(g (float[2,3] x) => (float[2,3] y) { y, m = Dropout <ratio = 0.7> (x) })"},
    {"TopKs", {7, 9}, R"(g (float[2,6] x) => (float[2,3] y, int64[2,3] i)
        { y, i = TopK <k = 3, axis = 1> (x) })"},
    {"Softmaxes",
     {7, 11, 12},
     R"(g (float[2,3,4] x) => (float[2,3,4] a, float[2,3,4] b, float[2,3,4] c)
        { a = Softmax (x) b = LogSoftmax <axis = 2> (x) c = Softmax <axis = 0> (x) })"},
    {"Reductions",
     {7, 11, 12},
     R"(g (float[2,3,4] x) => (float[2,1,4] a, float[2] b, float[1,3,1] c)
        { a = ReduceMean <axes = [1]> (x) b = ReduceSum <axes = [1,2], keepdims = 0> (x)
          c = ReduceMax <axes = [0,-1]> (x) })"},
    {"Splits", {7, 12}, R"(g (float[2,6] x) => (float[2,3] a, float[2,2] b, float[2,3] c)
        { a, d = Split <axis = 1> (x) b, c, e = Split <axis = 1, split = [2,3,1]> (x) })"},
    {"Squeezes", {7, 12}, R"(g (float[2,1,3] x) => (float[1,2,3,1] y)
        { s = Squeeze <axes = [1]> (x) y = Unsqueeze <axes = [0,3]> (s) })"},
    {"BatchNormalizations", {7, 8, 9, 13}, R"(g (float[2,2,3] x) => (float[2,2,3] y)
        <float[2] s = {1,2}, float[2] b = {0.5,-1}, float[2] v = {1,4}>
        { y = BatchNormalization <epsilon = 0.01> (x, s, b, b, v) })"},
    {"RoiAligns", {10, 11, 15}, R"(g (float[1,2,9,9] x) => (float[2,2,3,3] y)
        <float[2,4] r = {0,0,7,7,1,2,9,8}, int64[2] i = {0,0}>
        { y = RoiAlign <output_height = 3, output_width = 3, spatial_scale = 0.7> (x, r, i) })"},
    {"Subgraphs", {11, 12}, R"(g (float[2,3] x) => (float[2] y) <float zero = {0}>
        { s = ReduceSum <keepdims = 0> (x) c = Greater(s, zero)
          y = If (c) <then_branch = t () => (float[2] a) { a = ReduceSum <axes = [1], keepdims = 0> (x) },
                      else_branch = e () => (float[2] b) { b = ReduceMax <axes = [1], keepdims = 0> (x) }> })"},
    {"GridSamples",
     {16, 17},
     R"(g (float[1,2,5,5] x, float[1,3,3,2] at) => (float[1,2,3,3] y, float[1,2,3,3] z)
        { y = GridSample (x, at) z = GridSample <mode = "bicubic"> (x, at) })"},
};

INSTANTIATE_TEST_SUITE_P(Operators, OpsetRaise, testing::ValuesIn(kRaises),
                         [](const auto& named) { return std::string(named.param.name); });

// What a later opset cannot say is refused by the node's name.
TEST(RaiseOpset, RefusesByNameWhatHasNoLaterForm) {
  const std::vector<std::pair<std::string, std::string>> refused = {
      {"7", "[odd] y = BatchNormalization <spatial = 0> (x, s, s, s, s)"},
      {"9", "[odd] y, m, v, a, b = BatchNormalization (x, s, s, s, s)"},
      {"8", "[odd] y = MeanVarianceNormalization <across_channels = 1> (x)"},
      {"18", "[odd] y = GroupNormalization <num_groups = 1> (x, s, s)"}};
  for (const auto& [opset, node] : refused) {
    Model model = ParseText(
        "<ir_version: 8, opset_import: [\"\" : " + opset +
        "]> g (float[1,2,3,3] x) => (float[1,2,3,3] y) <float[2] s = {1,2}> { " + node + " }");
    EXPECT_THAT([&] { RaiseOpset(model, 21); },
                ThrowsError(ErrorCode::kUnsupported, HasSubstr("odd"), HasSubstr("raised")))
        << node;
  }
}

// onnxruntime runs these below opset 10 and refuses a model that has them later.
TEST(RaiseOpset, RefusesByNameTheOperatorsThatOpset10TookAway) {
  for (const char* op :
       {"ATen", "Affine", "ConstantFill", "Crop", "DynamicSlice", "GRUUnit", "GivenTensorFill",
        "ImageScaler", "ParametricSoftplus", "Scale", "ScaledTanh"}) {
    Model model = ParseText(std::string("<ir_version: 4, opset_import: [\"\" : 9]> ") +
                            "g (float[2] x) => (float[2] y) { [odd] y = " + op + "(x) }");
    EXPECT_THAT([&] { RaiseOpset(model, 13); },
                ThrowsError(ErrorCode::kUnsupported, HasSubstr("odd"), HasSubstr(op)));
  }
}

TEST(RaiseOpset, KeepsTheOperatorsThatOpset10TookAwayWhereItGoesLessFar) {
  Model model = ParseText(R"(<ir_version: 4, opset_import: ["" : 7]>
      g (float[2] x) => (float[2] y) { y = ScaledTanh(x) })");
  EXPECT_FALSE(RaiseOpset(model, 9).empty());
}

}  // namespace
}  // namespace pared
