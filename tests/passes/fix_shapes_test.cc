#include <gmock/gmock.h>

#include "model/infer_shapes.h"
#include "tests/passes/run_pass.h"

namespace pared {
namespace {

using ::testing::HasSubstr;

constexpr const char* kOpen = R"(<ir_version: 8, opset_import: ["" : 17]>
  net (float[batch, 2, height, width] x, float[batch, n] z) => (float[batch, 2, height, width] y, float[batch, m] v)
    <float[1] one = {1}> {
    y = Relu(x)
    [add] v = Add(z, one)
  })";

std::vector<int64_t> Lengths(const ValueInfo& value) {
  std::vector<int64_t> lengths;
  for (const Dim& dim : *value.shape) lengths.push_back(dim.value);
  return lengths;
}

TEST(FixShapes, OptionsSayShapesAndSymbols) {
  const PassResult out =
      RunPass("fix_shapes", {{"shapes", {{"x", {3, 2, 5, 6}}}}, {"dims", {{"n", 4}}}},
              ModelFromText(kOpen));
  const Graph& graph = out.model.graph;
  EXPECT_EQ(Lengths(graph.inputs[0]), (Shape{3, 2, 5, 6}));
  EXPECT_EQ(Lengths(graph.inputs[1]), (Shape{3, 4}));  // batch is one symbol
  EXPECT_EQ(Lengths(graph.outputs[0]), (Shape{3, 2, 5, 6}));
  EXPECT_EQ(Lengths(graph.outputs[1]), (Shape{3, 4}));  // inferred
  EXPECT_EQ(out.report.at("inputs").size(), 2);
  EXPECT_EQ(out.report.at("inputs")[0].at("before"), "[batch, 2, height, width]");
  EXPECT_EQ(out.report.at("inputs")[0].at("after"), "[3, 2, 5, 6]");
}

TEST(FixShapes, CalibrationDataSaysTheRest) {
  const Dataset data =
      Dataset::Of("data", {{"x", Tensor::Make<float>({1, 2, 4, 4}, std::vector<float>(32))},
                           {"z", Tensor::Make<float>({1, 7}, std::vector<float>(7))}});
  const PassResult out =
      RunPass("fix_shapes", {{"dims", {{"width", 9}}}}, ModelFromText(kOpen), &data);
  EXPECT_EQ(Lengths(out.model.graph.inputs[0]), (Shape{1, 2, 4, 9}));
  EXPECT_EQ(Lengths(out.model.graph.inputs[1]), (Shape{1, 7}));
}

TEST(FixShapes, WhatNobodySaysStaysOpenAndIsReported) {
  const PassResult out = RunPass("fix_shapes", {{"dims", {{"batch", 1}}}}, ModelFromText(kOpen));
  EXPECT_EQ(Lengths(out.model.graph.inputs[0]), (Shape{1, 2, -1, -1}));
  EXPECT_EQ(out.model.graph.inputs[0].shape->at(2).param, "height");
  EXPECT_THAT(out.report.at("inputs")[0].at("reason"), HasSubstr("neither"));
}

TEST(FixShapes, AnExcludedNodeKeepsItsInputOpen) {
  const PassResult out =
      RunPass("fix_shapes", {{"dims", {{"batch", 1}, {"n", 4}}}, {"exclude", {"add"}}},
              ModelFromText(kOpen));
  EXPECT_EQ(Lengths(out.model.graph.inputs[1]), (Shape{-1, -1}));
  EXPECT_EQ(Lengths(out.model.graph.inputs[0])[0], 1);
}

TEST(FixShapes, WhatDoesNotFitIsAnError) {
  const auto fix = [](const Json& options) {
    return [options] { RunPass("fix_shapes", options, ModelFromText(kOpen)); };
  };
  EXPECT_THAT(fix({{"shapes", {{"x", {3, 3, 5, 6}}}}}),
              ThrowsError(ErrorCode::kInvalidArgument, "shapes/x", "axis 1 of x is 2, not 3"));
  EXPECT_THAT(fix({{"shapes", {{"x", {3, 2}}}}}),
              ThrowsError(ErrorCode::kInvalidArgument, "shapes/x", HasSubstr("not [3, 2]")));
  EXPECT_THAT(fix({{"shapes", {{"image", {3, 2}}}}}),
              ThrowsError(ErrorCode::kInvalidArgument, "shapes/image", HasSubstr("x, z")));
  EXPECT_THAT(fix({{"dims", {{"N", 2}}}}), ThrowsError(ErrorCode::kInvalidArgument, "dims/N",
                                                       HasSubstr("batch, height, n, width")));
  EXPECT_THAT(
      fix({{"dims", {{"batch", 0}}}}),
      ThrowsError(ErrorCode::kInvalidArgument, HasSubstr("dims/batch"), HasSubstr("1 or more")));
  EXPECT_THAT(fix({{"shapes", {{"x", {2, 2, 5, 6}}, {"z", {3, 4}}}}}),
              ThrowsError(ErrorCode::kInvalidArgument, "shapes/z", "axis 0 of z is 2, not 3"));
}

TEST(FixShapes, ASymbolThatIsTwoLengthsOfOneInputSaysNothing) {
  const PassResult out =
      RunPass("fix_shapes", {{"shapes", {{"x", {1, 48, 192}}}}}, ModelFromText(R"(
    net (float[n, n, n] x) => (float[n, n, n] y) {
      y = Relu(x)
    })"));
  EXPECT_EQ(Lengths(out.model.graph.inputs[0]), (Shape{1, 48, 192}));
}

TEST(FixShapes, FoldConstantsThenFindsTheShapes) {
  const Model in = ModelFromText(R"(<ir_version: 8, opset_import: ["" : 17]>
    net (float[batch, 6] x) => (float[batch, a, b] y) <int64[2] more = {2, 3}, int64[1] zero = {0}, int64[1] one = {1}> {
      s = Shape(x)
      n = Slice(s, zero, one)
      t = Concat<axis = 0>(n, more)
      y = Reshape(x, t)
    })");
  const Model fixed = RunPass("fix_shapes", {{"dims", {{"batch", 4}}}}, in).model;
  EXPECT_EQ(Lengths(fixed.graph.outputs[0]), (Shape{4, 2, 3}));
  const Model folded = RunPass("fold_constants", Json::object(), fixed).model;
  ASSERT_EQ(folded.graph.nodes.size(), 1);
  EXPECT_EQ(folded.graph.nodes[0].op_type, "Reshape");
}

}  // namespace
}  // namespace pared
