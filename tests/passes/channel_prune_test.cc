// Models in which nobody counts the odd channels: taking these out must change nothing but sizes.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "evaluator/executor.h"
#include "passes/widen_halves.h"
#include "tests/passes/run_pass.h"
#include "tests/testing/random_tensor.h"

namespace pared {
namespace {

using ::testing::HasSubstr;

// Along this axis the odd slices are `factor` times as large.
struct Fill {
  std::string name;
  Shape shape;
  int axis = -1;
  float factor = 0;
};

Tensor Filled(const Fill& fill, Random& random) {
  const Tensor values = random.Normal(fill.shape, 1);
  std::vector<float> out(values.data<float>().begin(), values.data<float>().end());
  int64_t inner = 1;
  for (size_t i = fill.shape.size(); fill.axis >= 0 && --i > static_cast<size_t>(fill.axis);) {
    inner *= fill.shape[i];
  }
  for (size_t i = 0; i < out.size() && fill.axis >= 0; ++i) {
    if (static_cast<int64_t>(i) / inner % 2 == 1) out[i] *= fill.factor;
  }
  return Tensor::Make(fill.shape, out);
}

Model WithFills(std::string_view text, const std::vector<Fill>& fills) {
  Random random(11);
  Model model = ParseText(text);
  for (const Fill& fill : fills) {
    model = WithInitializer(std::move(model), fill.name, Filled(fill, random));
  }
  Verify(model);
  return model;
}

float Difference(const Model& a, const Model& b, const Shape& shape) {
  Random random(12);
  const Tensor x = random.Normal(shape, 1);
  const Tensor ya = Executor(a).Run({x})[0], yb = Executor(b).Run({x})[0];
  EXPECT_EQ(ya.shape(), yb.shape());
  float most = 0;
  for (int64_t i = 0; i < ya.count(); ++i) {
    most = std::max(most, std::abs(ya.data<float>()[static_cast<size_t>(i)] -
                                   yb.data<float>()[static_cast<size_t>(i)]));
  }
  return most;
}

const Json kHalf = {{"sparsity", 0.5}, {"multiple_of", 1}, {"reconstruct", "off"}};

const Tensor& Operand(const Model& model, size_t node, size_t input) {
  return model.graph.initializers.at(model.graph.nodes[node].inputs[input]).tensor;
}

// Before IR version 4 every initializer is an input: the whole weights would stay there, unread.
TEST(ChannelPrune, LeavesNoWholeWeightsBehind) {
  const Model in = WithFills(R"(<ir_version: 3, opset_import: ["" : 9]>
      g (float[1,3,5,5] x, float[8,3,1,1] w1, float[4,8,1,1] w2) => (float[1,4,5,5] y)
      { a = Conv(x, w1) r = Relu(a) y = Conv(r, w2) })",
                             {{"w1", {8, 3, 1, 1}, 0, 0}, {"w2", {4, 8, 1, 1}, 1, 0}});
  const PassResult out = RunPass("channel_prune", kHalf, in);
  EXPECT_EQ(Operand(out.model, 0, 1).shape(), (Shape{4, 3, 1, 1}));
  EXPECT_EQ(out.model.graph.inputs.size(), 1u);
  EXPECT_EQ(out.model.graph.initializers.size(), 2u);
  EXPECT_LT(Difference(in, out.model, {1, 3, 5, 5}), 1e-5f);
}

TEST(ChannelPrune, ShrinksBothSidesOfANormalizedConvolution) {
  const Model in = WithFills(R"(g (float[1,3,5,5] x) => (float[1,4,5,5] y) {
      a = Conv(x, w1, b1)  n = BatchNormalization(a, s, o, m, v)  r = Relu(n)
      y = Conv(r, w2) })",
                             {{"w1", {8, 3, 1, 1}, 0, 0.01f},
                              {"b1", {8}},
                              {"s", {8}},
                              {"o", {8}},
                              {"m", {8}},
                              {"v", {8}, 0, 0},
                              {"w2", {4, 8, 1, 1}, 1, 0}});
  Model positive = WithInitializer(in, "v", Tensor::Make<float>({8}, {1, 2, 3, 4, 5, 6, 7, 8}));
  const PassResult out = RunPass("channel_prune", kHalf, positive);
  EXPECT_EQ(Operand(out.model, 0, 1).shape(), (Shape{4, 3, 1, 1}));
  EXPECT_EQ(Operand(out.model, 0, 2).shape(), Shape{4});
  EXPECT_EQ(Elements(out.model, out.model.graph.nodes[1].inputs[4]),
            (std::vector<float>{1, 3, 5, 7}));
  EXPECT_EQ(Operand(out.model, 3, 1).shape(), (Shape{4, 4, 1, 1}));
  EXPECT_LT(Difference(positive, out.model, {1, 3, 5, 5}), 1e-5f);
  EXPECT_EQ(out.report["channels_before"], 12);
  EXPECT_EQ(out.report["channels"], 8);
}

TEST(ChannelPrune, TakesTheSameChannelsFromBothSidesOfAResidualAdd) {
  const Model in = WithFills(
      R"(g (float[1,3,4,4] x) => (float[1,2,4,4] y) {
      a = Conv(x, w1)  b = Relu(a)  c = Conv(b, w2)  d = Add(c, b)  y = Conv(d, w3) })",
      {{"w1", {8, 3, 1, 1}, 0, 0.01f}, {"w2", {8, 8, 1, 1}, 1, 0}, {"w3", {2, 8, 1, 1}, 1, 0}});
  const PassResult out = RunPass("channel_prune", kHalf, in);
  EXPECT_EQ(Operand(out.model, 2, 1).shape(), (Shape{4, 4, 1, 1}));
  EXPECT_LT(Difference(in, out.model, {1, 3, 4, 4}), 1e-5f);
}

TEST(ChannelPrune, GivesADepthwiseConvolutionFewerGroups) {
  const Model in = WithFills(R"(g (float[1,3,6,6] x) => (float[1,2,6,6] y) {
      a = Conv(x, w1)  b = Conv <group = 8, pads = [1,1,1,1]> (a, w2, b2)  y = Conv(b, w3) })",
                             {{"w1", {8, 3, 1, 1}, 0, 0.01f},
                              {"w2", {8, 1, 3, 3}},
                              {"b2", {8}},
                              {"w3", {2, 8, 1, 1}, 1, 0}});
  const PassResult out = RunPass("channel_prune", kHalf, in);
  EXPECT_EQ(out.model.graph.nodes[1].Int("group", 0), 4);
  EXPECT_EQ(Operand(out.model, 1, 1).shape(), (Shape{4, 1, 3, 3}));
  EXPECT_LT(Difference(in, out.model, {1, 3, 6, 6}), 1e-5f);
}

TEST(ChannelPrune, TakesAsManyFromEachGroupOfAGroupedConvolution) {
  const Model in = WithFills(
      R"(g (float[1,3,4,4] x) => (float[1,2,4,4] y) {
      a = Conv(x, w1)  b = Conv <group = 2> (a, w2)  y = Conv(b, w3) })",
      {{"w1", {8, 3, 1, 1}, 0, 0.01f}, {"w2", {8, 4, 1, 1}, 1, 0}, {"w3", {2, 8, 1, 1}, 1, 0}});
  const PassResult out = RunPass("channel_prune", kHalf, in);
  EXPECT_EQ(out.model.graph.nodes[1].Int("group", 0), 2);
  EXPECT_EQ(Operand(out.model, 1, 1).shape(), (Shape{4, 2, 1, 1}));
  EXPECT_LT(Difference(in, out.model, {1, 3, 4, 4}), 1e-5f);
}

TEST(ChannelPrune, FollowsThroughConcatSplitAndSlice) {
  const Model in = WithFills(R"(g (float[1,3,4,4] x) => (float[1,2,4,4] y)
      <int64[2] sizes = {6, 6}, int64[1] from = {0}, int64[1] to = {4}, int64[1] axis = {1}> {
      a = Conv(x, w1)  b = Conv(x, w2)  c = Concat <axis = 1> (a, b)
      d, e = Split <axis = 1> (c, sizes)  f = Slice(e, from, to, axis)
      g1 = Conv(d, w3)  h = Conv(f, w4)  y = Add(g1, h) })",
                             {{"w1", {8, 3, 1, 1}, 0, 0.01f},
                              {"w2", {4, 3, 1, 1}, 0, 0.01f},
                              {"w3", {2, 6, 1, 1}, 1, 0},
                              {"w4", {2, 4, 1, 1}, 1, 0}});
  const PassResult out = RunPass("channel_prune", kHalf, in);
  EXPECT_EQ(Operand(out.model, 0, 1).shape(), (Shape{4, 3, 1, 1}));
  EXPECT_EQ(Operand(out.model, 1, 1).shape(), (Shape{2, 3, 1, 1}));
  EXPECT_EQ(out.report["channels"], 4 + 2 + 2 + 2);
  EXPECT_LT(Difference(in, out.model, {1, 3, 4, 4}), 1e-5f);
}

// w2 has two columns for each channel of a.
TEST(ChannelPrune, FollowsThroughFlattenToGemm) {
  Model in = WithFills(R"(g (float[1,3,2,1] x) => (float[1,5] y) {
      a = Conv(x, w1)  f = Flatten(a)  y = Gemm <transB = 1> (f, w2, b2) })",
                       {{"w1", {4, 3, 1, 1}, 0, 0.01f}, {"w2", {5, 8}}, {"b2", {5}}});
  std::vector<float> w2;
  for (int i = 0; i < 40; ++i) w2.push_back(i % 8 / 2 % 2 == 0 ? static_cast<float>(i) : 0.0f);
  in = WithInitializer(in, "w2", Tensor::Make<float>({5, 8}, w2));
  const PassResult out = RunPass("channel_prune", kHalf, in);
  EXPECT_EQ(Operand(out.model, 2, 1).shape(), (Shape{5, 4}));
  EXPECT_LT(Difference(in, out.model, {1, 3, 2, 1}), 1e-4f);
}

// As torch's view(x.size(0), -1) is exported.
TEST(ChannelPrune, FollowsAReshapeToLengthsThatAreComputed) {
  const Model in = WithFills(R"(g (float[N,3,4,4] x) => (float[N,5] y)
    <int64[1] rest = {-1}, int64 batch = {0}, int64[1] axes = {0}> {
      a = Conv(x, w1)  s = Shape(a)  n = Gather(s, batch)  u = Unsqueeze(n, axes)
      l = Concat <axis = 0> (u, rest)  f = Reshape(a, l)  y = Gemm <transB = 1> (f, w2, b2) })",
                             {{"w1", {8, 3, 1, 1}}, {"w2", {5, 8 * 16}}, {"b2", {5}}});
  const PassResult out = RunPass("channel_prune", kHalf, in);
  EXPECT_EQ(Operand(out.model, 0, 1).shape(), (Shape{4, 3, 1, 1}));
  EXPECT_EQ(Operand(out.model, 6, 1).shape(), (Shape{5, 4 * 16}));
  EXPECT_EQ(Executor(out.model).Run({Random(1).Normal({2, 3, 4, 4}, 1)})[0].shape(), (Shape{2, 5}));
}

// As transformers exports the Conv1D of GPT-2: rows are joined before each product and parted
// behind it, by lengths of the value itself and by numbers.
constexpr std::string_view kRowsJoined = R"(g (float[N,S,4] x) => (float[N,S,4] y)
  <int64[1] rest = {-1}, int64 zero = {0}, int64 one = {1}, int64 last = {-1}, int64[1] axes = {0},
   int64[1] wide = {8}, int64[1] minus = {-1}, int64[1] most = {9223372036854775807},
   int64[1] narrow = {4}> {
    s = Shape(x)  n = Gather(s, zero)  m = Gather(s, one)  nu = Unsqueeze(n, axes)
    mu = Unsqueeze(m, axes)  c = Gather(s, last)  cu = Unsqueeze(c, axes)
    xl = Concat <axis = 0> (rest, cu)  xr = Reshape(x, xl)
    h = Gemm(xr, w1, b1)  hl = Concat <axis = 0> (nu, mu, wide)  hr = Reshape(h, hl)
    g = Tanh(hr)  gs = Shape(g)  gt = Slice(gs, minus, most, axes)  gc = Squeeze(gt, axes)
    gu = Unsqueeze(gc, axes)
    gl = Concat <axis = 0> (rest, gu)  gr = Reshape(g, gl)
    p = Gemm(gr, w2, b2)  pl = Concat <axis = 0> (nu, mu, narrow)  y = Reshape(p, pl) })";

TEST(ChannelPrune, FollowsRowsThatAreJoinedBeforeAProduct) {
  const Model in = WithFills(
      kRowsJoined, {{"w1", {4, 8}, 1, 0}, {"b1", {8}}, {"w2", {8, 4}, 0, 0}, {"b2", {4}}});
  const PassResult out = RunPass("channel_prune", kHalf, in);
  EXPECT_EQ(Operand(out.model, 9, 1).shape(), (Shape{4, 4}));
  EXPECT_EQ(Operand(out.model, 19, 1).shape(), (Shape{4, 4}));
  EXPECT_LT(Difference(in, out.model, {2, 3, 4}), 1e-5);
}

// A length that something else reads would change with the channels.
TEST(ChannelPrune, LeavesChannelsWhoseNumberIsRead) {
  std::string text(kRowsJoined);
  text.replace(text.find("(float[N,S,4] y)"), 16, "(float[N,S,4] y, int64[1] gu)");
  const Model in =
      WithFills(text, {{"w1", {4, 8}, 1, 0}, {"b1", {8}}, {"w2", {8, 4}, 0, 0}, {"b2", {4}}});
  const PassResult out = RunPass("channel_prune", kHalf, in);
  EXPECT_THAT(out.report.at("skipped").dump(), HasSubstr("read by Shape"));
  EXPECT_EQ(Difference(in, out.model, {2, 3, 4}), 0);
}

TEST(ChannelPrune, FollowsASqueezeAndExciteGate) {
  const Model in = WithFills(
      R"(g (float[1,3,4,4] x) => (float[1,2,4,4] y) {
      a = Conv(x, w1)  p = GlobalAveragePool(a)  q = Conv(p, w2)  s = Sigmoid(q)
      m = Mul(a, s)  y = Conv(m, w3) })",
      {{"w1", {8, 3, 1, 1}, 0, 0.01f}, {"w2", {8, 8, 1, 1}, 1, 0}, {"w3", {2, 8, 1, 1}, 1, 0}});
  const PassResult out = RunPass("channel_prune", kHalf, in);
  EXPECT_EQ(Operand(out.model, 2, 1).shape(), (Shape{4, 4, 1, 1}));
  EXPECT_LT(Difference(in, out.model, {1, 3, 4, 4}), 1e-5f);
}

TEST(ChannelPrune, KeepsAMultipleOfWhatIsAsked) {
  const Model in = WithFills(R"(g (float[1,3,4,4] x) => (float[1,2,4,4] y) {
      a = Conv(x, w1)  y = Conv(a, w2) })",
                             {{"w1", {40, 3, 1, 1}}, {"w2", {2, 40, 1, 1}}});
  const PassResult out =
      RunPass("channel_prune", {{"sparsity", 0.7}, {"reconstruct", "off"}, {"multiple_of", 8}}, in);
  EXPECT_EQ(Operand(out.model, 0, 1).shape(), (Shape{16, 3, 1, 1}));  // 12 rounded up
}

TEST(ChannelPrune, LosesTheSameSlicesOfASharedWeightAndStoresThemOnce) {
  const Model in = WithFills(R"(g (float[1,8,4,4] x) => (float[1,2,4,4] y) {
      a = Conv(x, w)  b = Conv(x, w)  c = Relu(b)  d = Conv(a, w2)  e = Conv(c, w2)
      y = Add(d, e) })",
                             {{"w", {8, 8, 1, 1}, 0, 0.01f}, {"w2", {2, 8, 1, 1}, 1, 0}});
  const PassResult out = RunPass("channel_prune", kHalf, in);
  EXPECT_EQ(out.model.graph.initializers.size(), 2u);
  EXPECT_EQ(Operand(out.model, 1, 1).shape(), (Shape{4, 8, 1, 1}));
  EXPECT_LT(Difference(in, out.model, {1, 8, 4, 4}), 1e-5f);
}

TEST(ChannelPrune, NamesWhyChannelsStay) {
  const Model in = WithFills(
      R"(g (float[1,3,4,4] x) => (float[1,4,4,4] y, float[1,4,8,8] z) {
      [one] a = Conv(x, w1)  [shuffle] z0 = DepthToSpace <blocksize = 2> (a)
      [two] z = Conv(z0, w2)  [three] b = Conv(x, w3)  [four] y = Conv(b, w4) })",
      {{"w1", {16, 3, 1, 1}}, {"w2", {4, 4, 1, 1}}, {"w3", {8, 3, 1, 1}}, {"w4", {4, 8, 1, 1}}});
  Json options = kHalf;
  options["exclude"] = Json::array({"three"});
  const PassResult out = RunPass("channel_prune", options, in);
  EXPECT_EQ(SkippedReason(out.report, "Conv one"), "read by DepthToSpace shuffle");
  EXPECT_THAT(SkippedReason(out.report, "Conv two"), HasSubstr("an output of the model"));
  EXPECT_EQ(SkippedReason(out.report, "Conv three"), "excluded: Conv three");
  EXPECT_EQ(Difference(in, out.model, {1, 3, 4, 4}), 0.0f);
}

TEST(ChannelPrune, LeavesChannelsThatASubgraphReads) {
  const Model in = WithFills(R"(g (float[1,3,4,4] x, bool c) => (float[1,2,4,4] y) {
      [one] a = Conv(x, w1)
      r = If (c) <then_branch = t () => (float[1,8,4,4] p) { p = Relu(a) },
                  else_branch = e () => (float[1,8,4,4] q) { q = Neg(a) }>
      [gate] y = Conv(r, w2) })",
                             {{"w1", {8, 3, 1, 1}}, {"w2", {2, 8, 1, 1}}});
  const PassResult out = RunPass("channel_prune", kHalf, in);
  EXPECT_THAT(SkippedReason(out.report, "Conv one"), HasSubstr("read within If"));
}

// Channels 4 to 7 are copies of 0 to 3 and count a tenth: what reads them can do without.
TEST(ChannelPrune, MakesUpForRemovedChannelsOnCalibrationData) {
  Random random(13);
  Model in = WithFills(R"(g (float[1,3,6,6] x) => (float[1,5,6,6] y) {
      a = Conv(x, w1)  r = Relu(a)  y = Conv(r, w2, b2) })",
                       {{"w1", {8, 3, 1, 1}}, {"w2", {5, 8, 1, 1}}, {"b2", {5}}});
  const Tensor half = random.Normal({4, 3, 1, 1}, 1), reader = random.Normal({5, 8}, 1);
  std::vector<float> w1(half.data<float>().begin(), half.data<float>().end()), w2;
  w1.insert(w1.end(), half.data<float>().begin(), half.data<float>().end());
  for (size_t i = 0; i < 40; ++i) w2.push_back(reader.data<float>()[i] * (i % 8 < 4 ? 1.0f : 0.1f));
  in = WithInitializer(in, "w1", Tensor::Make<float>({8, 3, 1, 1}, w1));
  in = WithInitializer(in, "w2", Tensor::Make<float>({5, 8, 1, 1}, w2));
  const Dataset data = Dataset::Random(in.graph.inputs, 8, 1);
  const Json options = {{"sparsity", 0.5}, {"multiple_of", 1}, {"damping", 1e-6}};
  const PassResult fitted = RunPass("channel_prune", options, in, &data);
  EXPECT_EQ(fitted.report["importance"], "activation");
  EXPECT_EQ(Operand(fitted.model, 2, 1).shape(), (Shape{5, 4, 1, 1}));
  EXPECT_LT(Difference(in, fitted.model, {1, 3, 6, 6}), 1e-3f);
  const PassResult bare = RunPass("channel_prune", kHalf, in, &data);
  EXPECT_GT(Difference(in, bare.model, {1, 3, 6, 6}), 1e-2f);
}

TEST(ChannelPrune, NeedsCalibrationForActivations) {
  const Model in = WithFills(R"(g (float[1,3,4,4] x) => (float[1,2,4,4] y) {
      a = Conv(x, w1)  y = Conv(a, w2) })",
                             {{"w1", {8, 3, 1, 1}}, {"w2", {2, 8, 1, 1}}});
  EXPECT_THAT(
      [&] {
        RunPass("channel_prune", {{"importance", "activation"}}, in);
      },
      ThrowsError(ErrorCode::kInvalidArgument, "calibration"));
}

// Without data: what its maker leaves at zero, or nobody counts, costs nothing, whatever the norms
// on the other side are.
TEST(ChannelPrune, TakesDeadChannelsFirstWithoutData) {
  const std::vector<std::string> texts = {
      "a = Conv(x, w1) r = Relu(a) y = Conv(r, w2)",
      "a = Conv(x, w1) s = Sigmoid(a) m = Mul(a, s) y = Conv(m, w2)",
      "a = Conv(x, w1) r = Relu(a) d = Conv <group = 8> (r, k) y = Conv(d, w2)",
      "a = Conv(x, w1) p = GlobalAveragePool(a) e = Conv(p, g) s = Sigmoid(e) m = Mul(a, s) "
      "y = Conv(m, w2)",
      "a = Conv(x, w1) c = Conv(x, v1) t = Add(a, c) r = Relu(t) y = Conv(r, w2)"};
  for (const std::string& text : texts) {
    // Either side alone says which channels count.
    for (const bool is_read : {false, true}) {
      const int maker = is_read ? -1 : 0, reader = is_read ? 1 : -1;
      const Model in = WithFills("g (float[1,3,5,5] x) => (float[1,5,5,5] y) { " + text + " }",
                                 {{"w1", {8, 3, 1, 1}, maker, 0},
                                  {"v1", {8, 3, 1, 1}, maker, 0},
                                  {"k", {8, 1, 1, 1}},
                                  {"g", {8, 8, 1, 1}, is_read ? 1 : -1, 0},
                                  {"w2", {5, 8, 1, 1}, reader, 0}});
      for (const char* importance : {"l1", "l2", "auto"}) {
        Json options = kHalf;
        options["importance"] = importance;
        const PassResult out = RunPass("channel_prune", options, in);
        EXPECT_LT(out.report["channels"], out.report["channels_before"]);
        EXPECT_LT(Difference(in, out.model, {1, 3, 5, 5}), 1e-5f) << text << is_read << importance;
      }
    }
  }
}

TEST(ChannelPrune, AnUnevenSplitLosesTheDeadChannelsOfEachPart) {
  const Model in = WithFills(R"(g (float[1,3,5,5] x) => (float[1,2,5,5] y)
      <int64[2] sizes = {2, 6}> { c = Conv(x, w) a, b = Split <axis = 1> (c, sizes)
      p = Conv(a, u) q = Conv(b, v) y = Add(p, q) })",
                             {{"w", {8, 3, 1, 1}, 0, 0}, {"u", {2, 2, 1, 1}}, {"v", {2, 6, 1, 1}}});
  for (const char* importance : {"l1", "l2"}) {
    Json options = kHalf;
    options["importance"] = importance;
    const PassResult out = RunPass("channel_prune", options, in);
    EXPECT_LT(Difference(in, out.model, {1, 3, 5, 5}), 1e-5f) << importance;
  }
}

TEST(ChannelPrune, ListsNoLayerAsFittedWithoutDataOrWhereNothingIs) {
  const Model in = WithFills(R"(g (float[1,3,4,4] x) => (float[1,5,4,4] y) {
      a = Conv(x, w1)  r = Relu(a)  y = Conv(r, w2) })",
                             {{"w1", {8, 3, 1, 1}}, {"w2", {5, 8, 1, 1}}});
  const Dataset data = Dataset::Random(in.graph.inputs, 16, 1);
  EXPECT_EQ(RunPass("channel_prune", {{"multiple_of", 1}}, in).report["fitted"], Json::array());
  EXPECT_EQ(RunPass("channel_prune", kHalf, in, &data).report["fitted"], Json::array());
  EXPECT_EQ(RunPass("channel_prune", {{"multiple_of", 1}}, in, &data).report["fitted"].size(), 1U);
}

// Converters of TensorFlow Lite write weights so.
TEST(ChannelPrune, WeightsThatAreStoredInHalfAreCutAndStayThere) {
  Model in = WithFills(R"(g (float[1,3,5,5] x) => (float[1,8,5,5] y)
      { w = Cast<to = 1>(w_half) u = Cast<to = 1>(u_half)
      a = Conv(x, w) r = Relu(a) y = Conv(r, u) })",
                       {{"w_half", {64, 3, 3, 3}, 0, 0}, {"u_half", {8, 64, 1, 1}}});
  for (const char* name : {"w_half", "u_half"}) {
    Tensor& stored = in.graph.initializers.find(name)->tensor;
    stored = InHalf(stored, DType::kFloat16);
  }
  const PassResult out = RunPass("channel_prune", kHalf, in);
  EXPECT_EQ(out.report.at("channels"), 40);  // 32 of 64 and the 8 of the result
  EXPECT_LT(Difference(in, out.model, {1, 3, 5, 5}), 1e-4f);
  int64_t halves = 0;
  for (const auto& [name, initializer] : out.model.graph.initializers) {
    if (initializer.tensor.dtype() == DType::kFloat16) halves += initializer.tensor.count();
  }
  EXPECT_EQ(halves, 32 * 27 + 8 * 32);
}

TEST(ChannelPrune, WarnsWhereNothingIsRemoved) {
  const Model in = WithFills(R"(g (float[1,3,5,5] x) => (float[1,8,5,5] y) { y = Conv(x, w) })",
                             {{"w", {8, 3, 1, 1}}});
  EXPECT_THAT(RunPass("channel_prune", kHalf, in).report.at("warnings").dump(),
              HasSubstr("no channel is removed"));
}

}  // namespace
}  // namespace pared
