// What real models brought that no made one had: each graph is the least that shows it.

#include <gmock/gmock.h>

#include <cmath>

#include "tests/passes/made_model.h"
#include "tests/passes/promises.h"
#include "tests/passes/run_step.h"
#include "tests/testing/temp_dir.h"

namespace pared {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Lt;

PassResult QuantizeOn(const Model& model, const Dataset& data, Json options = Json::object()) {
  return RunStep("quantize_int8", std::move(options), model, &data);
}

int64_t BytesOfWeights(const Model& model) {
  int64_t bytes = 0;
  for (const auto& [name, initializer] : model.graph.initializers) {
    bytes += PackedBytes(initializer.tensor.dtype(), initializer.tensor.shape());
  }
  return bytes;
}

// A weight of four layers, three of which read it by a name of their own.
Model Shared(const std::string& last = "y = Relu(d)") {
  return Made(R"(g (float[4,32] x) => (float[4,32] y) {
      [one] p = MatMul(x, w) a = Relu(p) w1 = Identity(w)
      [two] q = MatMul(a, w1) b = Relu(q) w2 = Identity(w)
      [three] r = MatMul(b, w2) c = Relu(r) w3 = Identity(w)
      [four] d = MatMul(c, w3) )" +
                  last + " }",
              {{"w", {32, 32}}});
}

TEST(ConstantAliases, ASharedWeightIsStoredOnce) {
  const Model in = Shared();
  const Dataset data = Dataset::Random(in.graph.inputs, 16, 3);
  const int64_t bytes = BytesOfWeights(in);
  EXPECT_LT(BytesOfWeights(QuantizeOn(in, data, {{"keep_float", "off"}}).model), bytes / 2);
  EXPECT_LT(BytesOfWeights(RunStep("quantize_dynamic", {}, in).model), bytes / 2);
}

TEST(ConstantAliases, AnOutputStays) {
  const Model in = Shared("y = Identity(w3)");
  const PassResult out = RunStep("quantize_dynamic", {{"op_types", {"MatMul"}}}, in);
  EXPECT_THAT(Output(out.model, Random(3).Normal({4, 32}, 1)),
              ::testing::ElementsAreArray(Elements(in, "w")));
}

// A state that packs what lies within 1 with what reaches 700: either part has a scale of its own.
TEST(Int8PartsOfInputs, HaveScalesOfTheirOwn) {
  const Model in = Made(R"(g (float[1,32] s) => (float[1,8] y, float[1,8] z)
      <int64[1] none = {0}, int64[1] half = {16}, int64[1] all = {32}, int64[1] axis = {1}> {
        h = Slice(s, none, half, axis) c = Slice(s, half, all, axis)
        y = MatMul(h, w) z = MatMul(c, w) })",
                        {{"w", {16, 8}}});
  Random random(5);
  std::vector<float> values;
  for (int i = 0; i < 16 * 32; ++i) {
    values.push_back(static_cast<float>(random.Real(-1, 1) * (i % 32 < 16 ? 1 : 700)));
  }
  const TempDir dir;
  SaveNpy(Tensor::Make<float>({16, 1, 32}, std::move(values)), dir / "s.npy");
  WriteFile(dir / "dataset.json", R"({"inputs": {"s": "s.npy"}})");
  const Dataset data = Dataset::Open(dir.path());
  EXPECT_GT(SqnrDbOn(data, in, QuantizeOn(in, data, {{"keep_float", "off"}}).model), 30);
}

// Powers of 16-bit sound pass 2^24.
TEST(Int8Ranges, HoldHoweverLargeTheValues) {
  const Model in = Made(
      "g (float[4,32] x) => (float[4,8] y) <float big = {1e13}> { l = Mul(x, big) y = MatMul(l, w) "
      "}",
      {{"w", {32, 8}}});
  const Dataset data = Dataset::Random(in.graph.inputs, 16, 3);
  for (const char* method : {"minmax", "mse", "entropy", "percentile"}) {
    const PassResult out = QuantizeOn(in, data, {{"method", method}, {"keep_float", "off"}});
    EXPECT_GT(SqnrDbOn(data, in, out.model), 25) << method;
  }
}

// A filter bank that nodes make of constants stands between a power and its logarithm.
TEST(Int8LogPower, TheFilterBankMayBeComputed) {
  const Model in = Made(R"(g (float[1,16] x) => (float[1,4] y)
      <int64[1] size = {64}, int64[2] to = {16,4}, float eps = {1e-6},
       int64[8] at = {0,5,10,15,16,21,26,63},
       float[8] bank = {0.5,0.5,0.5,0.5,0.5,0.5,0.5,0.5}> {
        z = ConstantOfShape(size) f = ScatterElements(z, at, bank) filters = Reshape(f, to)
        [front] m = MatMul(x, w) p = Mul(m, m) [filter] e = MatMul(p, filters)
        s = Add(e, eps) l = Log(s) [last] y = MatMul(l, v) })",
                        {{"w", {16, 16}}, {"v", {4, 4}}});
  const Dataset data = Dataset::Random(in.graph.inputs, 16, 3);
  const PassResult out = QuantizeOn(in, data, {{"keep_float", "off"}});
  EXPECT_THAT(SkippedReason(out.report, "MatMul front"), HasSubstr("logarithm"));
}

// Of three products the filter bank before the logarithm is what eight bits do not bear.
TEST(Int8KeepFloat, ASmallModelMayKeepOneNodeToo) {
  Model in = Made(R"(g (float[4,64] x) => (float[4,8] y) <float eps = {1e-5}> {
        [re] a = MatMul(x, c) [im] b = MatMul(x, s) a2 = Mul(a, a) b2 = Mul(b, b) p = Add(a2, b2)
        [bank] m = MatMul(p, f) e = Add(m, eps) y = Log(e) })",
                  {{"c", {64, 33}}, {"s", {64, 33}}, {"f", {33, 8}}});
  std::vector<float> bank;
  for (const float weight : Elements(in, "f")) bank.push_back(std::fabs(weight));
  in = WithInitializer(std::move(in), "f", Tensor::Make<float>({33, 8}, std::move(bank)));
  const Dataset data = Dataset::Random(in.graph.inputs, 16, 3);
  const auto db = [&](Json options) {
    return SqnrDbOn(data, in, QuantizeOn(in, data, options).model);
  };
  EXPECT_GE(db({{"min_sqnr_db", 25}}), 25);
  try {
    QuantizeOn(in, data, {{"min_sqnr_db", 150}});
    FAIL() << "150 dB cannot be reached";
  } catch (const Error& error) {
    EXPECT_THAT(error.message(), HasSubstr("with at most 2 of its 3 nodes in float"));
  }
}

TEST(StoredTables, OneOfAMaskStaysFloat) {
  Model in = Made(
      "g (int64[3] i, float[3,32] x) => (float[3,32] y) { [mask] b = Gather(t, i) "
      "[product] p = MatMul(x, w) y = Add(p, b) }",
      {{"w", {32, 32}}, {"t", {64, 32}}});
  std::vector<float> mask(64 * 32, 0.5F);
  mask[3] = -std::numeric_limits<float>::infinity();
  in = WithInitializer(std::move(in), "t", Tensor::Make<float>({64, 32}, mask));
  for (const char* pass : {"quantize_weights", "quantize_dynamic"}) {
    const PassResult out = RunStep(pass, {}, in);
    EXPECT_THAT(SkippedReason(out.report, "Gather mask"), HasSubstr("infinities")) << pass;
    EXPECT_EQ(Elements(out.model, "t"), mask) << pass;
    EXPECT_LT(BytesOfWeights(out.model), BytesOfWeights(in)) << pass;
  }
  mask[3] = std::nanf("");
  in = WithInitializer(std::move(in), "t", Tensor::Make<float>({64, 32}, mask));
  EXPECT_THAT([&] { RunStep("quantize_weights", {}, in); },
              ThrowsError(ErrorCode::kInvalidArgument, "tensor t", HasSubstr("1 of its 2048")));
}

// Asked for four bits, a convolution of few channels gets eight, and says so.
TEST(FourBits, WhatIsStoredInEightIsReported) {
  const Model in = Made(R"(g (float[1,3,8,8] x) => (float[1,64,8,8] y) {
        [few] h = Conv <pads = [1,1,1,1]> (x, w) [many] y = Conv (h, v) })",
                        {{"w", {32, 3, 3, 3}}, {"v", {64, 32, 1, 1}}});
  const Json report = RunStep("quantize_weights", {{"bits", "4"}}, in).report;
  ASSERT_EQ(report.at("stored_in_8_bits").size(), 1U);
  EXPECT_EQ(report.at("stored_in_8_bits")[0].at("weight"), "w");
  EXPECT_FALSE(RunStep("quantize_weights", {}, in).report.contains("stored_in_8_bits"));
}

// Float16 makes the bound zero, and of zero the logarithm is no number.
TEST(CastFp16Guards, WhatNeedsABoundReadsItInFloat) {
  const Model in = ModelFromText(R"(g (float[4] x) => (float[4] y, float[4] z)
      <float low = {1e-10}> { c = Clip(x, low) [log] y = Log(c) a = Add(x, low) [root] r = Sqrt(a)
        [share] z = Reciprocal(a) })");
  const PassResult out = RunStep("cast_fp16", {}, in);
  const std::vector<float> y = Output(out.model, Tensor::Make<float>({4}, {0, 1e-9F, 0.5F, 2}));
  EXPECT_NEAR(y[0], std::log(1e-10F), 0.1);
  EXPECT_THAT(SkippedReason(out.report, "Log log"), HasSubstr("kept from zero"));
  EXPECT_THAT(SkippedReason(out.report, "Reciprocal share"), HasSubstr("kept from zero"));
}

// Angles made of positions are float32; what a cosine makes of them float16 holds.
TEST(CastFp16Integers, EndAtABoundedFunction) {
  const Model in = Made(R"(g (int64[8] i, float[8,8] x) => (float[8,8] y) {
        f = Cast <to = 1> (i) [angle] a = Mul(f, w) [turn] c = Cos(a) [scale] s = Mul(x, c)
        y = MatMul(s, v) })",
                        {{"w", {8}}, {"v", {8, 8}}});
  const PassResult out = RunStep("cast_fp16", {}, in);
  EXPECT_THAT(Labels(out.report.at("changed")), Contains("Mul scale"));
  EXPECT_THAT(SkippedReason(out.report, "Cos turn"), HasSubstr("made of integers"));
}

// As networks for text are exported that drop an axis and still state it.
TEST(StatedShapes, AnOutputOfAnotherRankIsTakenAsItIsMade) {
  const Model in =
      Made("g (float[N,1,16] x) => (float[1,N] y) { y = MatMul(x, w) }", {{"w", {16, 32}}});
  for (const char* pass :
       {"cast_fp16", "quantize_dynamic", "quantize_weights", "magnitude_prune"}) {
    const PassResult out = RunStep(pass, {}, in);
    EXPECT_EQ(Output(out.model, Random(3).Normal({2, 1, 16}, 1)).size(), 64U) << pass;
  }
}

// A language model's head reads the table of its embedding, through Transpose as torch exports it.
Model Tied() {
  return Made(R"(g (int64[1,T] i) => (float[1,T,96] y) {
      [embed] e = Gather(table, i) [inner] h = MatMul(e, w) r = Relu(h)
      turned = Transpose <perm = [1, 0]> (table) [head] y = MatMul(r, turned) })",
              {{"table", {96, 32}}, {"w", {32, 32}}});
}

TEST(TiedTable, PruningLeavesItAsItIs) {
  const Model in = Tied();
  const PassResult out = RunStep("magnitude_prune", {{"sparsity", 0.5}}, in);
  EXPECT_EQ(Elements(out.model, "table"), Elements(in, "table"));
  EXPECT_THAT(SkippedReason(out.report, "MatMul head"), HasSubstr("Gather looks up"));
  EXPECT_EQ(Labels(out.report["changed"]), std::vector<std::string>{"MatMul inner"});
}

TEST(TiedTable, IsStoredInINT8ForBothOfItsReaders) {
  const Model in = Tied();
  const PassResult dynamic = RunStep("quantize_dynamic", {}, in);
  EXPECT_EQ(dynamic.report["untied"][0]["weight"], "table");
  EXPECT_THAT(NodesOf(dynamic.model, {"MatMulInteger"}), ::testing::SizeIs(2));
  EXPECT_LT(BytesOfWeights(dynamic.model), BytesOfWeights(in) * 6 / 10);
  EXPECT_GT(WorstSqnrDb(in, dynamic.model, 4), 25);
}

TEST(TiedTable, TheHeadIsAProductOfFewBits) {
  const Model in = Tied();
  const PassResult out = RunStep(
      "quantize_weights", {{"bits", "4"}, {"format", "matmulnbits"}, {"block_size", 32}}, in);
  EXPECT_THAT(NodesOf(out.model, {"MatMulNBits"}), ::testing::SizeIs(2));
  EXPECT_THAT(NodesOf(out.model, {"DequantizeLinear"}), ::testing::IsEmpty());
  EXPECT_GT(WorstSqnrDb(in, out.model, 4), 10);
}

// torch's weight_norm, as its newer exporter leaves it in the graph.
TEST(FixedWeights, AreStoredAsWhatTheyComeTo) {
  const Model in = Made(R"(g (float[1,16,20] x) => (float[1,16,20] y) <int64[2] axes = {1,2}> {
      [length] n = ReduceL2(v, axes) [unit] u = Div(v, n) [scaled] w = Mul(g, u)
      [conv] y = Conv <pads = [1,1]> (x, w) })",
                        {{"v", {16, 16, 3}}, {"g", {16, 1, 1}}});
  for (const char* pass : {"quantize_weights", "quantize_dynamic", "cast_fp16"}) {
    const Json options =
        std::string(pass) == "quantize_dynamic" ? Json{{"op_types", {"Conv"}}} : Json::object();
    const PassResult out = RunStep(pass, options, in);
    EXPECT_LT(BytesOfWeights(out.model), BytesOfWeights(in) * 6 / 10) << pass;
    EXPECT_THAT(Labels(out.report["computed_weights"]), Contains("Mul scaled")) << pass;
    EXPECT_GT(WorstSqnrDb(in, out.model), 25) << pass;
  }
}

// As PaddlePaddle exports a bias.
TEST(FixedWeights, ABiasThatIsReshapedBelongsToItsConvolution) {
  const Model in =
      Made(R"(g (float[1,16,8,8] x) => (float[1,16,8,8] y) <int64[4] shape = {1,-1,1,1}> {
      [first] c = Conv (x, w) [shown] r = Reshape(b, shape) a = Add(c, r) d = Relu(a)
      [second] y = Conv (d, v) })",
           {{"w", {16, 16, 1, 1}}, {"b", {16}}, {"v", {16, 16, 1, 1}}});
  const Dataset data = Dataset::Random(in.graph.inputs, 8, 3);
  const PassResult out = RunStep("quantize_int8", {}, in, &data);
  EXPECT_THAT(NodesOf(out.model, {"Add"}), ::testing::IsEmpty());
  EXPECT_GT(SqnrDbOn(data, in, out.model), 30);
  const PassResult cut = RunStep(
      "channel_prune", {{"sparsity", 0.5}, {"importance", "l2"}, {"reconstruct", "off"}}, in);
  EXPECT_LT(BytesOfWeights(cut.model), BytesOfWeights(in) * 7 / 10);
}

}  // namespace
}  // namespace pared
