// Faults that users report of pruning (tests/faults.md), each as a model in which it would show.

#include <gmock/gmock.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <tuple>

#include "evaluator/executor.h"
#include "evaluator/metrics.h"
#include "model/onnx.h"
#include "tests/passes/made_model.h"
#include "tests/passes/run_step.h"
#include "tests/testing/random_tensor.h"

namespace pared {
namespace {

using ::testing::HasSubstr;

Tensor NormalWeights(Shape shape, uint64_t seed = 21) {
  return Random(seed).Normal(std::move(shape), 0.5);
}

double SqnrDbOf8(const Model& reference, const Model& model) {
  return SqnrDbOn(Dataset::Random(CallerInputs(reference.graph), 8, 3), reference, model);
}

// Three input channels of one element each: a run of 3, of which 2:4 keeps as many as of 4.
TEST(PruneFaults, PatternsThatDoNotDivideTheChannelsKeepToTheirGroups) {
  Model in =
      ParseText(R"(g (float[1,6,2,2] x) => (float[1,4,2,2] y) { y = Conv <group = 2> (x, w) })");
  in = WithInitializer(in, "w",
                       Tensor::Make<float>({4, 3, 1, 1}, {3, -1, 2, 1, 5, 4, -6, 2, 3, 9, 8, -7}));
  const PassResult out = RunStep("magnitude_prune", {{"pattern", "2:4"}}, in);
  const std::vector<float> w = Elements(out.model, "w");
  for (size_t row = 0; row < 4; ++row) {
    const auto begin = w.begin() + static_cast<std::ptrdiff_t>(3 * row);
    EXPECT_LE(std::count_if(begin, begin + 3, [](float v) { return v != 0; }), 2) << row;
    // The largest of each row is never the one to go.
    EXPECT_NE(*std::max_element(begin, begin + 3,
                                [](float a, float b) { return std::abs(a) < std::abs(b); }),
              0);
  }
}

// A weight as rows of one output channel each, in groups, whatever the operator stores: the place
// of element `at` of `row`.
struct RowsOf {
  const char* text;
  Shape shape;
  size_t groups, rows, k;
  size_t (*place)(size_t row, size_t at);
};

const RowsOf kLayouts[] = {
    {"g (float[1,5,4,4] x) => (float[1,7,2,2] y) { y = Conv(x, w) }",
     {7, 5, 3, 3},
     1,
     7,
     45,
     [](size_t row, size_t at) { return row * 45 + at; }},
    {"g (float[1,6,2,2] x) => (float[1,10,2,2] y) { y = Conv <group = 2> (x, w) }",
     {10, 3, 1, 1},
     2,
     5,
     3,
     [](size_t row, size_t at) { return row * 3 + at; }},
    {"g (float[2,7] x) => (float[2,9] y) { y = Gemm <transB = 1> (x, w) }",
     {9, 7},
     1,
     9,
     7,
     [](size_t row, size_t at) { return row * 7 + at; }},
    {"g (float[2,7] x) => (float[2,9] y) { y = MatMul(x, w) }",
     {7, 9},
     1,
     9,
     7,
     [](size_t row, size_t at) { return at * 9 + row; }},
    {"g (float[7,3] x) => (float[9,3] y) { y = MatMul(w, x) }",
     {9, 7},
     1,
     9,
     7,
     [](size_t row, size_t at) { return row * 7 + at; }},
    {"g (float[1,1,2,2] x) => (float[1,1,2,2] y) { y = Conv(x, w) }",
     {1, 1, 1, 1},
     1,
     1,
     1,
     [](size_t, size_t) { return size_t{0}; }},
};

// Zeros stand in whole blocks, cut off where the channels end, never across groups; the share is
// the one asked for, but for the last block; and something is left of every layer.
TEST(PruneFaults, BlocksOfEveryPatternAndLayerAreWhole) {
  const std::vector<std::tuple<std::string, size_t, size_t>> patterns = {
      {"unstructured", 1, 1}, {"2x1", 2, 1}, {"4x1", 4, 1},  {"8x1", 8, 1},
      {"1x4", 1, 4},          {"4x4", 4, 4}, {"16x4", 16, 4}};
  for (const RowsOf& layout : kLayouts) {
    const Model in = WithInitializer(ParseText(layout.text), "w", NormalWeights(layout.shape));
    const Dataset data = Dataset::Random(in.graph.inputs, 8, 3);
    for (const auto& [pattern, high, wide] : patterns) {
      for (const char* pass : {"magnitude_prune", "second_order_prune"}) {
        SCOPED_TRACE(std::string(layout.text) + pattern + pass);
        const PassResult out = RunStep(pass, {{"sparsity", 0.5}, {"pattern", pattern}}, in, &data);
        const std::vector<float> w = Elements(out.model, "w");
        size_t blocks = 0, zeros = 0;
        for (size_t group = 0; group < layout.groups; ++group) {
          for (size_t row = 0; row < layout.rows; row += high) {
            for (size_t at = 0; at < layout.k; at += wide, ++blocks) {
              size_t zero = 0, all = 0;
              for (size_t r = row; r < std::min(row + high, layout.rows); ++r) {
                for (size_t a = at; a < std::min(at + wide, layout.k); ++a, ++all) {
                  zero += w[layout.place(group * layout.rows + r, a)] == 0 ? 1 : 0;
                }
              }
              EXPECT_TRUE(zero == 0 || zero == all) << "group " << group << " row " << row;
              zeros += zero == all ? 1 : 0;
            }
          }
        }
        EXPECT_NEAR(static_cast<double>(zeros), static_cast<double>(blocks) / 2, 0.51);
        EXPECT_LT(zeros, blocks);
      }
    }
  }
}

// N of M along the inputs of one output channel; a shorter run at the end keeps its share, rounded
// up.
TEST(PruneFaults, RunsOfEveryLayerKeepTheirShare) {
  const std::vector<std::tuple<std::string, size_t, size_t>> patterns = {
      {"1:2", 1, 2}, {"2:4", 2, 4}, {"1:4", 1, 4}, {"4:8", 4, 8}, {"2:8", 2, 8}, {"8:16", 8, 16}};
  for (const RowsOf& layout : kLayouts) {
    if (layout.shape.size() == 4 && layout.shape[2] > 1) continue;  // taps stand between the inputs
    const Model in = WithInitializer(ParseText(layout.text), "w", NormalWeights(layout.shape));
    const Dataset data = Dataset::Random(in.graph.inputs, 8, 3);
    for (const auto& [pattern, kept, of] : patterns) {
      for (const char* pass : {"magnitude_prune", "second_order_prune"}) {
        SCOPED_TRACE(std::string(layout.text) + pattern + pass);
        const std::vector<float> w =
            Elements(RunStep(pass, {{"pattern", pattern}}, in, &data).model, "w");
        for (size_t row = 0; row < layout.groups * layout.rows; ++row) {
          for (size_t at = 0; at < layout.k; at += of) {
            const size_t length = std::min(of, layout.k - at);
            size_t left = 0;
            for (size_t a = at; a < at + length; ++a) left += w[layout.place(row, a)] != 0 ? 1 : 0;
            EXPECT_EQ(left, (kept * length + of - 1) / of) << "row " << row << " from " << at;
          }
        }
      }
    }
  }
}

// Two samples for eight inputs, one of which is always zero: no inverse to speak of.
TEST(PruneFaults, ASingularHessianIsDampedAndKeepsNumbersFinite) {
  Model in = ParseText(R"(g (float[1,8] x) => (float[1,4] y)
    <float[8] live = {1,1,0,1,1,1,1,1}> { m = Mul(x, live) y = MatMul(m, w) })");
  in = WithInitializer(in, "w", NormalWeights({8, 4}));
  const Dataset data = Dataset::Random(in.graph.inputs, 2, 3);
  for (const char* pass : {"second_order_prune", "magnitude_prune"}) {
    for (const double damping : {0.0, 1e-8}) {
      const PassResult out = RunStep(pass, {{"sparsity", 0.5}, {"damping", damping}}, in, &data);
      const std::vector<float> w = Elements(out.model, out.model.graph.nodes.back().inputs[1]);
      EXPECT_EQ(std::ranges::count(w, 0.0f), 16) << pass << damping;
      for (const float value : w) EXPECT_LT(std::abs(value), 100) << pass << damping;
      EXPECT_EQ(out.report.at("changed").size(), 1u);
    }
  }
}

TEST(PruneFaults, OneSampleWithNothingInItIsStillNoError) {
  Model in = ParseText(R"(g (float[1,8] x) => (float[1,4] y)
    <float zero = {0}> { m = Mul(x, zero) y = MatMul(m, w) })");
  in = WithInitializer(in, "w", NormalWeights({8, 4}));
  const Dataset data = Dataset::Random(in.graph.inputs, 1, 3);
  const PassResult out = RunStep("second_order_prune", {{"sparsity", 0.5}}, in, &data);
  const std::vector<float> w = Elements(out.model, "w");
  EXPECT_EQ(std::ranges::count(w, 0.0f), 16);
  for (const float value : w) EXPECT_TRUE(std::isfinite(value));
}

// Scales by channel of a transposed convolution in groups; folded or not, the result is the same.
TEST(PruneFaults, BatchNormBehindATransposedConvolutionInGroups) {
  Model in = ParseText(R"(g (float[1,4,3,3] x) => (float[1,6,4,4] y)
    <float[6] s = {1,2,-3,4,5,6}, float[6] v = {1,2,3,4,5,6}>
    { c = ConvTranspose <group = 2> (x, w, b) y = BatchNormalization(c, s, b, b, v) })");
  in = WithInitializer(in, "w", NormalWeights({4, 3, 2, 2}));
  in = WithInitializer(in, "b", NormalWeights({6}));
  const PassResult out = RunStep("fold_batch_norm", {}, in);
  EXPECT_GT(SqnrDbOf8(in, out.model), 100);
}

TEST(PruneFaults, TwoConvolutionsOfOneWeightHaveTheirOwnNormalization) {
  Model in = ParseText(R"(g (float[1,2,3,3] x) => (float[1,2,3,3] y)
    <float[2] s = {1,2}, float[2] t = {-3,5}, float[2] v = {1,4}>
    { c = Conv(x, w) d = Conv(c, w) n = BatchNormalization(c, s, t, t, v) m = BatchNormalization(d, t, s, s, v)
      e = Conv(x, w) o = BatchNormalization(e, t, s, t, v) p = Add(n, m) y = Add(p, o) })");
  in = WithInitializer(in, "w", NormalWeights({2, 2, 1, 1}));
  EXPECT_GT(SqnrDbOf8(in, RunStep("fold_batch_norm", {}, in).model), 100);
}

// The normalization stands in front: what it scales is another's input.
TEST(PruneFaults, BatchNormBehindARelu) {
  Model in = ParseText(R"(g (float[1,2,3,3] x) => (float[1,2,3,3] y)
    <float[2] s = {1,2}, float[2] t = {-3,5}, float[2] v = {1,4}>
    { c = Conv(x, w) r = Relu(c) [n] y = BatchNormalization(r, s, t, t, v) })");
  in = WithInitializer(in, "w", NormalWeights({2, 2, 1, 1}));
  const PassResult out = RunStep("fold_batch_norm", {}, in);
  EXPECT_GT(SqnrDbOf8(in, out.model), 100);
  EXPECT_NE(SkippedReason(out.report, "BatchNormalization n"), "");
}

// Both layouts of indices; passes leave such a weight as it is, or say what they did with it.
TEST(PruneFaults, SparseInitializersOutliveEveryPass) {
  for (const bool by_axis : {false, true}) {
    Model in =
        ParseText(R"(g (float[2,4] x) => (float[2,4] y) { h = MatMul(x, s) y = MatMul(h, w) })");
    in = WithInitializer(in, "w", NormalWeights({4, 4}));
    const Tensor indices = by_axis ? Tensor::Make<int64_t>({3, 2}, {0, 1, 2, 0, 3, 3})
                                   : Tensor::Make<int64_t>({3}, {1, 8, 15});
    in.graph.sparse_initializers.set("s",
                                     {Tensor::Make<float>({3}, {2, -1, 0.5f}), indices, {4, 4}});
    Verify(in);
    const Dataset data = Dataset::Random(in.graph.inputs, 8, 3);
    for (const PassInfo* pass : Passes()) {
      SCOPED_TRACE(std::string(pass->name));
      Json options = Json::object();
      if (pass->name.ends_with("prune")) options["sparsity"] = 0.1;
      const PassResult out = RunStep(std::string(pass->name), options, in, &data);
      const auto bytes = std::make_shared<const std::string>(SerializeOnnx(out.model));
      const Model reread = ParseOnnx(std::as_bytes(std::span(*bytes)), bytes);
      EXPECT_GT(SqnrDbOf8(in, reread), pass->name.ends_with("prune") ? 5 : 30);
    }
  }
}

TEST(PruneFaults, AQuantizedWeightIsRefusedByName) {
  Model in = ParseText(R"(g (float[2,4] x) => (float[2,4] y) <float k = {0.1}, int8 zero = {0}>
    { d = DequantizeLinear(q, k, zero) [product] y = MatMul(x, d) })");
  in = WithInitializer(in, "q", Random(3).Uniform<int8_t>({4, 4}, -127, 127));
  const Dataset data = Dataset::Random(in.graph.inputs, 4, 3);
  for (const char* pass : {"magnitude_prune", "second_order_prune", "channel_prune"}) {
    const PassResult out = RunStep(pass, {}, in, &data);
    EXPECT_THAT(SkippedReason(out.report, "MatMul product"), HasSubstr("quantized already"))
        << pass;
    EXPECT_EQ(SerializeOnnx(out.model), SerializeOnnx(in)) << pass;
  }
}

TEST(PruneFaults, LayersWithinABranchAreNotFittedAndSaySo) {
  const Model model = Made(R"(g (bool c, float[1,32] x) => (float[1,16] y) {
      y = If (c) <then_branch = t () => (float[1,16] p) { [within] p = MatMul(x, w) },
                  else_branch = e () => (float[1,16] r) { r = MatMul(x, u) }> })",
                           {{"w", {32, 16}}, {"u", {32, 16}}});
  const Dataset data = Dataset::Random(model.graph.inputs, 8, 3);
  for (const char* pass : {"magnitude_prune", "second_order_prune"}) {
    const Json report = RunStep(pass, {{"sparsity", 0.5}}, model, &data).report;
    EXPECT_EQ(report.at("reconstructed"), false);
    ASSERT_EQ(report.at("changed").size(), 2U);
    EXPECT_THAT(report.at("changed").at(0).at("not_reconstructed").get<std::string>(),
                HasSubstr("within a branch"));
    EXPECT_THAT(report.at("warnings").dump(), HasSubstr("no layer was fitted"));
  }
}

// Of so many inputs the second moments alone would take 144 MB, and their factors minutes.
TEST(PruneFaults, AWideLayerIsFittedInPartsAndSaysSo) {
  const Model model =
      Made("g (float[1,6000] x) => (float[1,2] y) { [wide] y = MatMul(x, w) }", {{"w", {6000, 2}}});
  const Dataset data = Dataset::Random(model.graph.inputs, 4, 3);
  for (const char* pass : {"magnitude_prune", "second_order_prune"}) {
    const PassResult out =
        RunStep(pass, {{"sparsity", 0.5}, {"damping", 0.01}, {"pattern", "1x4"}}, model, &data);
    EXPECT_EQ(std::ranges::count(Elements(out.model, "w"), 0.0f), 6000) << pass;
    const Json& layer = out.report.at("changed").at(0);
    EXPECT_EQ(layer.at("input_parts"), 6) << pass;
    EXPECT_GT(layer.at("output_sqnr_db"), layer.at("output_sqnr_db_pruned").get<double>() + 10);
  }
  const Json rounded =
      RunStep("quantize_weights", {{"bits", "4"}, {"block_size", 48}}, model, &data).report;
  // Parts of 1008, whole blocks.
  EXPECT_EQ(rounded.at("rounded").at(0).at("input_parts"), 6);
  EXPECT_GT(SqnrDbOf8(model, RunStep("quantize_int8", {}, model, &data).model), 30);
}

// The weight says which distance each class stands for.
TEST(PruneFaults, WhatDecodesADistributionIsPrunedByAnOverrideOnly) {
  Model model = ParseText(R"(g (float[1,3,4,4] x) => (float[1,4,16] y)
    <int64[4] split = {0,4,16,-1}, int64[3] flat = {0,4,-1}, int64[3] rows = {0,64,-1}> {
      [box] b = Conv(x, u) r = Reshape(b, rows) s = Reshape(r, split)
      t = Transpose <perm = [0, 2, 1, 3]> (s) p = Softmax <axis = 1> (t) [dfl] d = Conv(p, w)
      y = Reshape(d, flat) })");
  model = WithInitializer(model, "u", NormalWeights({64, 3, 1, 1}));
  std::vector<float> distances(16);
  std::iota(distances.begin(), distances.end(), 0.0f);
  model = WithInitializer(model, "w", Tensor::Make<float>({1, 16, 1, 1}, distances));
  const Dataset data = Dataset::Random(model.graph.inputs, 8, 3);
  for (const char* pass : {"magnitude_prune", "second_order_prune"}) {
    const PassResult out = RunStep(pass, {{"sparsity", 0.5}}, model, &data);
    EXPECT_EQ(Elements(out.model, "w"), distances) << pass;
    EXPECT_THAT(SkippedReason(out.report, "Conv dfl"), HasSubstr("decodes a distribution"));
    const PassResult named =
        RunStep(pass, {{"overrides", {{{"match", "dfl"}, {"sparsity", 0.5}}}}}, model, &data);
    EXPECT_EQ(std::ranges::count(Elements(named.model, "w"), 0.0f), 8) << pass;
  }
}

// Inputs of which half are `k` times as large and half as small, with weights the other way round.
TEST(PruneFaults, SecondOrderChoosesNoWorseThanWandaWhateverTheScalesOfTheInputs) {
  for (const float k : {1.0f, 3.0f, 30.0f}) {
    std::vector<float> scales(32);
    for (size_t i = 0; i < 32; ++i) scales[i] = i < 16 ? k : 1 / k;
    std::vector<float> x = ValuesOf(NormalWeights({64, 16, 32}, 5)),
                       w = ValuesOf(NormalWeights({32, 24}));
    for (size_t i = 0; i < x.size(); ++i) x[i] *= scales[i % 32] * (i % 32 < 16 ? 4.0f : 1.0f);
    for (size_t i = 0; i < w.size(); ++i) w[i] /= scales[i / 24];
    const Model model = WithInitializer(
        ParseText("g (float[1,16,32] x) => (float[1,16,24] y) { y = MatMul(x, w) }"), "w",
        Tensor::Make<float>({32, 24}, w));
    const Dataset data = Dataset::Of("scaled", {{"x", Tensor::Make<float>({64, 16, 32}, x)}});
    const Model wanda = RunStep("magnitude_prune", {{"importance", "wanda"}}, model, &data).model;
    const Model second = RunStep("second_order_prune", Json::object(), model, &data).model;
    EXPECT_GT(SqnrDbOn(data, model, second), SqnrDbOn(data, model, wanda) - 0.5) << k;
  }
}

TEST(PruneFaults, WhatIsSavedOfTheBudgetIsSaidAndThatItIsLessThanAsked) {
  const Model model = Made(R"(g (float[1,16] x) => (float[1,16] y)
    { a = MatMul(x, u) r = Relu(a) y = MatMul(r, w) })",
                           {{"u", {16, 16}}, {"w", {16, 16}}});
  const Dataset data = Dataset::Random(model.graph.inputs, 16, 3);
  const Json half = {{"scope", "sensitivity"}, {"pattern", "2:4"}};
  const Json met = RunStep("magnitude_prune", half, model, &data).report;
  EXPECT_EQ(met.at("budget").at("saved"), 0.5);
  EXPECT_FALSE(met.contains("warnings"));
  Json more = half;
  more["sparsity"] = 0.9;
  const Json report = RunStep("magnitude_prune", more, model, &data).report;
  EXPECT_EQ(report.at("budget").at("saved"), 0.5);
  EXPECT_THAT(report.at("warnings").dump(),
              HasSubstr("sparsity 0.9 was asked for and 0.5 reached"));
  const Json together =
      RunStep("magnitude_prune",
              {{"scope", "model"}, {"ends", true}, {"keep_min", 0.25}, {"sparsity", 0.9}}, model)
          .report;
  EXPECT_EQ(together.at("sparsity"), 0.75);
  EXPECT_THAT(together.at("warnings").dump(), HasSubstr("0.75 reached"));
}

TEST(PruneFaults, ABiasThatLayersShareIsCopiedOnlyWhereItIsFitted) {
  const Model model = Made(R"(g (float[1,16] x) => (float[1,16] y)
    { a = Gemm(x, u, b) r = Relu(a) y = Gemm(r, w, b) })",
                           {{"u", {16, 16}}, {"w", {16, 16}}, {"b", {16}}});
  const Dataset few = Dataset::Random(model.graph.inputs, 2, 3);
  const Dataset many = Dataset::Random(model.graph.inputs, 64, 3);
  for (const Dataset* data : {&few, &many}) {
    for (const double damping : {0.0, 0.01}) {
      const Model out = RunStep("magnitude_prune", {{"damping", damping}}, model, data).model;
      const GraphIndex index(out.graph);
      for (const auto& [name, initializer] : out.graph.initializers) {
        EXPECT_FALSE(index.consumers(name).empty()) << name;
      }
    }
  }
  const PassResult off = RunStep("magnitude_prune", {{"reconstruct", "off"}}, model, &few);
  EXPECT_EQ(off.model.graph.initializers.size(), 3U);
}

}  // namespace
}  // namespace pared
