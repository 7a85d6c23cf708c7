#include <gmock/gmock.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "evaluator/executor.h"
#include "tests/passes/run_step.h"
#include "tests/testing/random_tensor.h"

namespace pared {
namespace {

using ::testing::Contains;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::StartsWith;

// Without smoothing and fitting, so that the expected codes are those of the weights as they are.
PassResult QuantizeNearest(const Model& model, Json options = Json::object()) {
  if (!options.contains("smooth")) options["smooth"] = "off";
  if (!options.contains("rounding")) options["rounding"] = "nearest";
  const Dataset data = Dataset::Random(Executor(model).inputs(), 16, 3);
  return RunStep("quantize_int8", std::move(options), model, &data);
}

double UnfusedSqnrDb(const Model& reference, const Model& model) {
  const Executor a(reference, {.fuse = false}), b(model, {.fuse = false});
  const Dataset data = Dataset::Random(a.inputs(), 8, 4);
  double energy = 0, noise = 0;
  for (int64_t sample = 0; sample < 8; ++sample) {
    const Tensor x = a.Run(data.Sample(sample, a.inputs()))[0];
    const Tensor y = b.Run(data.Sample(sample, b.inputs()))[0];
    for (size_t i = 0; i < x.data<float>().size(); ++i) {
      const double want = x.data<float>()[i], got = y.data<float>()[i];
      energy += want * want;
      noise += (want - got) * (want - got);
    }
  }
  return 10 * std::log10(energy / std::max(noise, 1e-30));
}

const Node* NodeOf(const Model& model, const std::string& op_type) {
  for (const Node& node : model.graph.nodes) {
    if (node.op_type == op_type) return &node;
  }
  return nullptr;
}

TEST(QuantizeInt8, KeepsPrunedWeightsExactlyZero) {
  const Model in = ModelFromText(R"(g (float[1,4] x) => (float[1,2] y)
    <float[4,2] w = {0,0,3,0,0,0,0,-2}> { y = MatMul(x, w) })");
  const PassResult out = QuantizeNearest(in);
  EXPECT_THAT(Elements(out.model, "w_quantized"), ElementsAre(0, 0, 127, 0, 0, 0, 0, -127));
  EXPECT_THAT(Elements(out.model, "w_scale"), ElementsAre(3.0f / 127, 2.0f / 127));
  EXPECT_THAT(Elements(out.model, "w_zero_point"), Each(0));
}

// One input channel is a thousand times the other, and its weight as much less.
TEST(QuantizeInt8, SmoothingIsKeptWhereTheOutputGains) {
  const Model in = ModelFromText(R"(g (float[4,2] x) => (float[4,2] y)
    <float[2] gamma = {1000,1}, float[2,2] w = {0.001,0.002,1,-2}>
    { n = Mul(x, gamma) y = MatMul(n, w) })");
  const PassResult plain = QuantizeNearest(in), smooth = QuantizeNearest(in, {{"smooth", "auto"}});
  EXPECT_THAT(plain.report.at("smoothed"), testing::IsEmpty());
  EXPECT_THAT(smooth.report.at("smoothed"), ElementsAre("n"));
  EXPECT_LT(plain.report.at("calibration_sqnr_db").get<double>(), 20);
  EXPECT_GT(smooth.report.at("calibration_sqnr_db").get<double>(), 30);
  EXPECT_GT(UnfusedSqnrDb(in, smooth.model), UnfusedSqnrDb(in, plain.model) + 10);
}

// Of the only reader of the product's result, behind a Relu that the product takes in.
std::string ReaderOfProduct(const Model& model, const std::string& product) {
  const GraphIndex index(model.graph);
  for (const Node& node : model.graph.nodes) {
    if (node.name != product) continue;
    const std::vector<const Node*>* readers = &index.consumers(node.outputs[0]);
    if (readers->size() == 1 && (*readers)[0]->op_type == "Relu") {
      readers = &index.consumers((*readers)[0]->outputs[0]);
    }
    return readers->size() == 1 ? (*readers)[0]->op_type : "";
  }
  return "no such product";
}

TEST(QuantizeInt8, ForTfliteTheResultsOfAllProductsGetCodes) {
  const Model in = ModelFromText(R"(g (float[1,2,3,3] x) => (float[1,2] y, float[1,2] z)
    <float[2,2,3,3] k = {1,2,3,4,5,6,7,8,9, -1,2,-3,4,-5,6,-7,8,-9,
                         9,8,7,6,5,4,3,2,1, 1,1,2,2,-3,-3,4,4,-5},
     float[2,2] w = {1,0.5,-1,0.25}, float[2,2] v = {1,-0.5,1,2}>
    { [conv] a = Conv(x, k) b = Relu(a) f = Flatten(b) s = Softplus(f)
      [first] y = MatMul(s, w) t = Softplus(y) [second] z = MatMul(t, v) })");
  const PassResult out = QuantizeNearest(in, {{"target", "tflite"}});
  const PassResult usual = QuantizeNearest(in);
  for (const char* product : {"conv", "first", "second"}) {
    EXPECT_EQ(ReaderOfProduct(out.model, product), "QuantizeLinear") << product;
  }
  EXPECT_NE(ReaderOfProduct(usual.model, "second"), "QuantizeLinear");
  const GraphIndex index(out.model.graph), usual_index(usual.model.graph);
  for (const char* output : {"y", "z"}) {
    EXPECT_EQ(index.producer(output)->op_type, "DequantizeLinear") << output;
    EXPECT_EQ(usual_index.producer(output)->op_type, "MatMul") << output;
  }
  const Executor before(in), after(out.model);
  const Dataset data = Dataset::Random(before.inputs(), 8, 5);
  for (int64_t sample = 0; sample < 8; ++sample) {
    const std::vector<Tensor> x = data.Sample(sample, before.inputs());
    const std::vector<Tensor> wanted = before.Run(x), got = after.Run(x);
    for (size_t i = 0; i < 2; ++i) {
      for (size_t j = 0; j < 2; ++j) {
        const float want = wanted[i].data<float>()[j];
        EXPECT_NEAR(got[i].data<float>()[j], want, 0.05f * std::fabs(want) + 0.2f) << i << j;
      }
    }
  }
  EXPECT_THAT(
      [&] {
        QuantizeNearest(in, {{"target", "tflite"}, {"format", "qoperator"}});
      },
      ThrowsError(ErrorCode::kInvalidArgument, HasSubstr("format"), HasSubstr("qdq")));
}

// The first product is the bad one; the second, of one channel, is left INT8.
TEST(QuantizeInt8, TheWorstNodesReturnToFloatUntilTheBoundHolds) {
  const Model in = ModelFromText(R"(g (float[4,2] x) => (float[4,2] y)
    <float[2] gamma = {1000,1}, float[2,2] w = {0.001,0.002,1,-2}, float[2,2] v = {1,0.5,-1,0.25}>
    { n = Mul(x, gamma) c = MatMul(n, w) s = Softplus(c) y = MatMul(s, v) })");
  const PassResult out = QuantizeNearest(in, {{"min_sqnr_db", 30}});
  EXPECT_THAT(out.report.at("returned_to_float"), ElementsAre("MatMul producing c"));
  EXPECT_THAT(SkippedReason(out.report, "MatMul producing c"), HasSubstr("returned to float"));
  EXPECT_GT(out.report.at("calibration_sqnr_db").get<double>(), 30);
  EXPECT_GT(UnfusedSqnrDb(in, out.model), 28);
  EXPECT_THROW(QuantizeNearest(in, {{"min_sqnr_db", 150}}), Error);
}

// Row i of the table has values up to i: a scale a row keeps the small rows, too.
Model WithTable(int64_t columns) {
  Model in = ModelFromText(R"(g (int64[3] ids) => (float[3,4] y, float[3,8] looked)
    <float[1,1] table = {0}, int64[1] zero = {0}, int64[1] eight = {8}, int64[1] axis = {1},
     float[8,4] w = {1,-1,0.5,2, 1,0,0,1, 0.5,1,1,1, -1,0.25,1,0,
                                             0,1,-1,2, 1,1,0,0.5, 2,0,1,1, -1,1,0.5,0.25}>
    { [look] e = Gather(table, ids) looked = Slice(e, zero, eight, axis) y = MatMul(looked, w) })");
  std::vector<float> values;
  for (int64_t i = 0; i < 256 * columns; ++i) {
    values.push_back(static_cast<float>(i / columns) * std::sin(static_cast<float>(i)));
  }
  in.graph.initializers.set("table", {Tensor::Make({256, columns}, std::move(values)), ""});
  return in;
}

TEST(QuantizeInt8, TablesAreStoredInInt8WithAScaleARow) {
  const Model in = WithTable(64), small = WithTable(63);
  const PassResult out = QuantizeNearest(in);
  EXPECT_THAT(out.report.at("tables"), ElementsAre("table"));
  EXPECT_EQ(out.model.graph.initializers.find("table"), nullptr);
  const std::vector<Tensor> ids = {Tensor::Make<int64_t>({3}, {1, 17, 255})};
  const Tensor expected = Executor(in).Run(ids)[1], looked = Executor(out.model).Run(ids)[1];
  for (size_t i = 0; i < 24; ++i) {
    const float step = static_cast<float>(ids[0].data<int64_t>()[i / 8]) / 127;
    EXPECT_NEAR(looked.data<float>()[i], expected.data<float>()[i], 0.501f * step);
  }
  EXPECT_FALSE(QuantizeNearest(in, {{"tables", false}}).report.contains("tables"));
  EXPECT_THAT(QuantizeNearest(in, {{"exclude", {"look"}}}).report.at("tables"), IsEmpty());
  EXPECT_THAT(QuantizeNearest(small).report.at("tables"), IsEmpty());
}

TEST(QuantizeInt8, TablesAreWeightsOfTheShare) {
  const Model in = WithTable(64);  // 16384 elements, and 32 of the product
  EXPECT_EQ(QuantizeNearest(in).report.at("int8_weight_share"), 1.0);
  const PassResult out = QuantizeNearest(in, {{"exclude", {"look"}}});
  EXPECT_EQ(out.report.at("int8_weight_count"), 32);
  EXPECT_EQ(out.report.at("int8_weight_share"), 32.0 / (16384 + 32));
  EXPECT_THAT(SkippedReason(out.report, "Gather look"), HasSubstr("excluded"));
}

// The table's columns are looked up; what makes f may read it too.
Model WithColumns(const std::string& f) {
  const Model in =
      ModelFromText(R"(g (int64[3] ids) => (float[4,3] y, float[M,N] f) <float[1] table = {0},
    float[4,16] w = {1,-1,0.5,2, 1,0,0,1, 0.5,1,1,1, -1,0.25,1,0, 0,1,-1,2, 1,1,0,0.5, 2,0,1,1,
                     -1,1,0.5,0.25, 1,0,2,1, 0,0.5,1,1, 2,1,0,1, 1,-1,0,0.5, 0,1,1,0, 1,1,2,0,
                     0.5,0,1,-1, 1,2,0,1}>
    { [look] e = Gather <axis = 1> (table, ids) y = MatMul(w, e) )" +
                    f + "}");
  std::vector<float> values;
  for (int64_t i = 0; i < 16 * 1024; ++i) values.push_back(std::sin(static_cast<float>(i)));
  return WithInitializer(in, "table", Tensor::Make({16, 1024}, std::move(values)));
}

TEST(QuantizeInt8, TablesOfWhichColumnsAreLookedUpAreStoredWithAScaleAColumn) {
  const Model in = WithColumns("f = Neg(y)");
  const PassResult out = QuantizeNearest(in);
  EXPECT_THAT(out.report.at("tables"), ElementsAre("table"));
  EXPECT_THAT(out.model.graph.initializers.at("table_scale").tensor.shape(), ElementsAre(1, 1024));
  const Dataset data = Dataset::Random(in.graph.inputs, 8, 3);
  EXPECT_GT(SqnrDbOn(data, in, out.model), 30);
}

TEST(QuantizeInt8, ATableThatStaysFloatIsNamedWithTheReason) {
  const PassResult out = QuantizeNearest(WithColumns("f = Gather <axis = 0> (table, ids)"));
  EXPECT_THAT(out.report.at("tables"), IsEmpty());
  EXPECT_THAT(SkippedReason(out.report, "Gather look"), HasSubstr("more than one axis"));
  EXPECT_EQ(out.report.at("int8_weight_share"), 64.0 / (16384 + 64));
}

// Of eight products the first of a thousandfold channel is the bad one: one in five may return by
// itself.
TEST(QuantizeInt8, APoorModelKeepsItsWorstNodeInFloat) {
  const Model in = ModelFromText(R"(g (float[4,2] x) => (float[4,2] y, float[4,2] f)
    <float[2] gamma = {1000,1}, float[2,2] w = {0.001,0.002,1,-2}, float[2,2] v = {1,0.5,-1,0.25}>
    { n = Mul(x, gamma) c = MatMul(n, w) s = Softplus(c) y = MatMul(s, v)
      a = MatMul(x, v) b = MatMul(a, v) d = MatMul(b, v) e = MatMul(d, v) g = MatMul(e, v)
      f = MatMul(g, v) })");
  const PassResult out = QuantizeNearest(in), off = QuantizeNearest(in, {{"keep_float", "off"}});
  EXPECT_THAT(out.report.at("returned_to_float"), ElementsAre("MatMul producing c"));
  EXPECT_FALSE(off.report.contains("returned_to_float"));
  EXPECT_LT(off.report.at("calibration_sqnr_db").get<double>(), 20);
  EXPECT_GT(out.report.at("calibration_sqnr_db").get<double>(), 20);
}

// What SiLU makes of -30 and of -8 is nearly the same.
TEST(QuantizeInt8, TheRangeBeforeAnActivationEndsWhereItsResultNoLongerChanges) {
  const Model in = ModelFromText(R"(g (float[1,1,8,8] x) => (float[1,1,8,8] y)
    <float[2,1,1,1] v = {1,30}, float[2] b = {0,-30}, float[1,2,1,1] w = {1,1}>
    { c = Conv(x, v, b) t = Sigmoid(c) s = Mul(c, t) y = Conv(s, w) })");
  const PassResult out = QuantizeNearest(in), plain = QuantizeNearest(in, {{"method", "minmax"}});
  EXPECT_LT(plain.report.at("ranges").at("c").at("min").get<double>(), -30);
  EXPECT_GT(out.report.at("ranges").at("c").at("min").get<double>(), -15);
  EXPECT_GT(out.report.at("calibration_sqnr_db").get<double>(),
            plain.report.at("calibration_sqnr_db").get<double>() + 2);
}

// One channel is large, in one row of a hundred: minmax spends the codes on it.
TEST(QuantizeInt8, OnlyTheChannelThatStandsOutIsSmoothed) {
  const Model in = ModelFromText(R"(g (float[64,4] x) => (float[64,2] y)
    <float[4] gamma = {1,1,1,40}, float[4,2] w = {1,-0.5,0.5,1,-1,0.75,0.02,0.01}>
    { n = Mul(x, gamma) y = MatMul(n, w) })");
  const PassResult plain = QuantizeNearest(in), smooth = QuantizeNearest(in, {{"smooth", "auto"}});
  EXPECT_THAT(smooth.report.at("smoothed"), ElementsAre("n"));
  EXPECT_GT(UnfusedSqnrDb(in, smooth.model), UnfusedSqnrDb(in, plain.model) + 6);
}

// 16 rows, whose channels are all alike: the largest value of each is chance, and other rows pass
// it.
TEST(QuantizeInt8, SmoothingByChanceMaximaIsDropped) {
  Random random(3);
  const Model in =
      WithInitializer(ParseText("g (float[1,128] x) => (float[1,32] y) { y = MatMul(x, w) }"), "w",
                      random.Normal({128, 32}, 0.1f));
  const PassResult plain = QuantizeNearest(in), smooth = QuantizeNearest(in, {{"smooth", "auto"}});
  EXPECT_THAT(smooth.report.at("smoothed"), IsEmpty());
  EXPECT_EQ(UnfusedSqnrDb(in, smooth.model), UnfusedSqnrDb(in, plain.model));
}

TEST(QuantizeInt8, SecondOrderRoundingBeatsTheNearestCodes) {
  // Inputs that go together: each column of x is nearly the sum of two others.
  const Model in = ModelFromText(R"(g (float[32,3] x) => (float[32,2] y)
    <float[3,6] mix = {1,0,1,1,0.1,0.9, 0,1,1,0.9,1,1, 0.1,0.1,0.2,1,0.9,0.1},
     float[6,2] w = {0.31,-0.12, 0.47,0.33, -0.21,0.18, 0.05,0.94, 1,-0.63, 0.77,-1}>
    { [mixed] n = MatMul(x, mix) y = MatMul(n, w) })");
  const Json options = {
      {"exclude", Json::array({"mixed"})}, {"rounding", "auto"}, {"granularity", "per_tensor"}};
  const PassResult out = QuantizeNearest(in, options);
  EXPECT_TRUE(out.report.at("rounding").at("second_order").get<bool>());
  EXPECT_GT(out.report.at("calibration_sqnr_db").get<double>(),
            out.report.at("rounding").at("nearest_sqnr_db").get<double>());
}

// The first input is twice the second: code 64 would make up for what the first weight loses.
TEST(QuantizeInt8, SecondOrderRoundingKeepsToTheReducedRange) {
  const Model in = ModelFromText(R"(g (float[32,1] x) => (float[32,1] y)
    <float[1,2] mix = {2,1}, float[2,1] w = {0.4,63}>
    { [mixed] n = MatMul(x, mix) y = MatMul(n, w) })");
  const PassResult out = QuantizeNearest(
      in, {{"exclude", Json::array({"mixed"})}, {"rounding", "auto"}, {"reduce_range", true}});
  EXPECT_THAT(Elements(out.model, "w_quantized"), ElementsAre(0, 63));
}

TEST(QuantizeInt8, AnExcludedGemmKeepsItsAlpha) {
  const Model in = ModelFromText(R"(g (float[1,2] x) => (float[1,2] y)
    <float[2,2] w = {1,2,3,4}, float[2,2] v = {1,0,0,1}>
    { [kept] h = Gemm <alpha = 0.5> (x, w) y = MatMul(h, v) })");
  const PassResult out = QuantizeNearest(in, {{"exclude", {"kept"}}});
  EXPECT_FLOAT_EQ(NodeOf(out.model, "Gemm")->Float("alpha", 1), 0.5f);
  EXPECT_THAT(Elements(out.model, "w"), ElementsAre(1, 2, 3, 4));
}

TEST(QuantizeInt8, QuantizesBetweenConvolutionsAndNotBehindTheLast) {
  const Model in = ModelFromText(R"(g (float[1,1,3,3] x) => (float[1,1,3,3] y)
    <float[1,1,1,1] v = {0.5}, float[1] b = {0.25}, float[1,1,1,1] w = {2}>
    { c = Conv(x, v, b) r = Relu(c) d = Conv(r, w) y = Sigmoid(d) })");
  const PassResult out = QuantizeNearest(in);
  EXPECT_THAT(OpTypes(out.model.graph),
              ElementsAre("QuantizeLinear", "DequantizeLinear", "DequantizeLinear",
                          "DequantizeLinear", "Conv", "Relu", "QuantizeLinear", "DequantizeLinear",
                          "DequantizeLinear", "DequantizeLinear", "Conv", "Sigmoid"));
  EXPECT_GT(UnfusedSqnrDb(in, out.model), 35);
}

// What combines boxes and scores is no INT8 node: scores would vanish beside coordinates.
TEST(QuantizeInt8, LeavesTheDecodingOfADetectorInFloat) {
  const Model in = ModelFromText(R"(g (float[1,1,4,4] x) => (float[1,2,4,4] y)
    <float[1,1,1,1] v = {150}, float[1,1,1,1] w = {1}>
    { boxes = Conv(x, v) logits = Conv(x, w) scores = Sigmoid(logits)
      y = Concat <axis = 1> (boxes, scores) })");
  const PassResult out = QuantizeNearest(in);
  EXPECT_THAT(NodeOf(out.model, "Concat")->inputs, ElementsAre("boxes", "scores"));
  EXPECT_THAT(NodeOf(out.model, "Sigmoid")->inputs, ElementsAre("logits"));
}

TEST(QuantizeInt8, ReadsAFixedRangeOffTheFunction) {
  const Model in = ModelFromText(R"(g (float[1,1,4,4] x) => (float[1,1,4,4] y)
    <float[1,1,1,1] v = {0.01}, float[1,1,1,1] w = {1}>
    { c = Conv(x, v) s = Sigmoid(c) y = Conv(s, w) })");
  const PassResult out = QuantizeNearest(in);
  EXPECT_FLOAT_EQ(Elements(out.model, "s_scale")[0], 1.0f / 255);
}

// What is stored in codes already has one owner of its range: no second pair is put behind it.
TEST(QuantizeInt8, ReadsWhatIsStoredInCodesAsItIs) {
  for (const char* const zero : {"uint8 z = {3}", "int8 z = {-125}"}) {
    const Model in = ModelFromText(std::string(R"(g (float[1,1,4,4] x) => (float[1,1,2,2] y)
      <float s = {0.0123456}, )") + zero +
                                   R"(, float[1,1,1,1] v = {0.5}, float[1] b = {0.25},
       float[1,1,1,1] w = {-2}>
      { q = QuantizeLinear(x, s, z) a = DequantizeLinear(q, s, z) c = Conv(a, v, b)
        p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (a) d = Conv(p, w)
        r = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (c) y = Add(r, d) })");
    const PassResult out = QuantizeNearest(in);
    EXPECT_EQ(std::ranges::count(OpTypes(out.model.graph), "QuantizeLinear"), 2)
        << zero;  // that of x, and of p
    EXPECT_EQ(NodeOf(out.model, "Conv")->inputs[0], "a");
    EXPECT_EQ(Elements(out.model, "p_scale"), Elements(out.model, "s"));
    EXPECT_FLOAT_EQ(Elements(out.model, "b_scale")[0], 0.0123456f * 0.5f / 127);
    EXPECT_GT(UnfusedSqnrDb(in, out.model), 40);
  }
}

TEST(QuantizeInt8, ResidualSumsAndPoolsJoin) {
  const Model in = ModelFromText(R"(g (float[1,2,4,4] x) => (float[1,2,1,1] y)
    <float[2,2,1,1] u = {1,0.5,-0.5,1}, float[2,2,1,1] v = {0.3,0.2,-0.7,1},
     float[2,2,1,1] w = {1,0.5,0.25,-1}>
    { a = Conv(x, u) b = Conv(a, v) s = Add(a, b) r = Relu(s)
      p = MaxPool <kernel_shape = [4, 4]> (r) y = Conv(p, w) })");
  const PassResult out = QuantizeNearest(in);
  EXPECT_THAT(NodeOf(out.model, "Add")->inputs, ElementsAre("a_dequantized", "b_dequantized"));
  EXPECT_THAT(NodeOf(out.model, "Relu")->inputs, ElementsAre("s"));
  EXPECT_EQ(Elements(out.model, "r_scale"), Elements(out.model, "p_scale"));
  EXPECT_GT(UnfusedSqnrDb(in, out.model), 30);
}

// The normalization after a residual sum stays float, and so does the sum.
TEST(QuantizeInt8, TransformersQuantizeTheInputsOfProductsOnly) {
  const Model in = ModelFromText(R"(g (float[1,2,4] x) => (float[1,2,4] y)
    <float[4,4] u = {1,0,2,0,1,-1,0,1,2,1,0,1,0,1,1,2}, float[4] s = {1,1,60,1}, float[4] b = {0,0,0,0},
     float[4,4] w = {1,0,2,0,1,-1,0,1,2,1,0,1,0,1,1,2}>
    { m = MatMul(x, u) r = Add(x, m) n = LayerNormalization(r, s, b) y = MatMul(n, w) })");
  const PassResult out = QuantizeNearest(in);
  EXPECT_THAT(NodeOf(out.model, "Add")->inputs, ElementsAre("x", "m"));
  EXPECT_THAT(NodeOf(out.model, "LayerNormalization")->inputs[0], "r");
}

TEST(QuantizeInt8, AChannelOfZerosGetsAScaleAndKeepsItsBias) {
  const Model in = ModelFromText(R"(g (float[1,1,2,2] x) => (float[1,2,2,2] y)
    <float[2,1,1,1] w = {1,0}, float[2] b = {0,3}> { y = Conv(x, w, b) })");
  const PassResult out = QuantizeNearest(in);
  EXPECT_THAT(Elements(out.model, "w_scale"), Each(::testing::Gt(0)));
  const Tensor x = Tensor::Make<float>({1, 1, 2, 2}, {0, 0, 0, 0});
  EXPECT_NEAR(Executor(out.model).Run({x})[0].data<float>()[4], 3, 1e-5);
}

TEST(QuantizeInt8, ABiasLargeAgainstItsWeightsFitsInt32) {
  const Model in = ModelFromText(R"(g (float[1,1,2,2] x) => (float[1,2,2,2] y)
    <float[2,1,1,1] w = {1e-9,-2e-9}, float[2] b = {5,-4.5}> { y = Conv(x, w, b) })");
  const Tensor x = Tensor::Make<float>({1, 1, 2, 2}, {0, 1, -1, 0.5});
  const Tensor y = Executor(QuantizeNearest(in).model).Run({x})[0];
  EXPECT_NEAR(y.data<float>()[0], 5, 1e-5);
  EXPECT_NEAR(y.data<float>()[4], -4.5, 1e-5);
}

// One bias, two readers of different input scale: each gets its own codes.
TEST(QuantizeInt8, ASharedBiasIsStoredForEachReader) {
  const Model in = ModelFromText(R"(g (float[1,2] x) => (float[1,2] y)
    <float[2,2] v = {1,2,3,4}, float[2] b = {0.5,-0.5}, float[2,2] w = {5,6,7,8}>
    { [p] h = Gemm(x, v, b) [q] y = Gemm(h, w, b) })");
  const PassResult out = QuantizeNearest(in, {{"bias_correction", false}});
  EXPECT_NE(Elements(out.model, "b_quantized"), Elements(out.model, "b_quantized_1"));
  EXPECT_GT(UnfusedSqnrDb(in, out.model), 25);
}

// The convolution sums over axis 1, the product over the last one, and the means differ by axis.
TEST(QuantizeInt8, ABiasIsCorrectedByItsOwnChannelsWhereAnotherAxisIsReadToo) {
  const auto codes_of = [](const std::string& readers) {
    const Model in = ModelFromText(
        R"(g (float[1,2,2,2] x) => (float[1,2,2,2] c, float[1,2,2,2] m)
      <float[1,2,1,2] t = {9,-3,2,5}, float[2,2,1,1] w = {1,0.123,0.377,-1}, float[2] b = {0.5,-0.5},
       float[2,2] v = {1,0.123,0.377,-1}> { a = Add(x, t) )" +
        readers + " }");
    return Elements(QuantizeNearest(in).model, "b_quantized");
  };
  const auto alone = codes_of("c = Conv(a, w, b) m = Identity(a)");
  EXPECT_EQ(codes_of("c = Conv(a, w, b) m = MatMul(a, v)"), alone);
  EXPECT_EQ(codes_of("m = MatMul(a, v) c = Conv(a, w, b)"), alone);
}

// One output channel is a thousand times the others: found on the right axis, nothing is lost.
TEST(QuantizeInt8, FindsTheChannelsOfEveryGemm) {
  for (const bool is_left : {false, true}) {
    for (int64_t flags = 0; flags < 4; ++flags) {
      const int64_t trans_a = flags & 1, trans_b = flags >> 1;
      const bool rows_down = is_left ? trans_a == 0 : trans_b == 1;
      const std::vector<float> weight = rows_down ? std::vector<float>{1, -2, 3, 1000, 2000, -1000}
                                                  : std::vector<float>{1, 1000, -2, 2000, 3, -1000};
      const std::string shape = rows_down ? "2,3" : "3,2";
      const bool x_transposed = is_left ? trans_b == 1 : trans_a == 1;
      const std::string x_shape = (is_left != x_transposed) ? "3,4" : "4,3";
      Model in = ModelFromText(
          "g (float[" + x_shape + "] x) => (float[a,b] y) <float[" + shape +
          "] w = {0,0,0,0,0,0}> { y = Gemm <transA = " + std::to_string(trans_a) +
          ", transB = " + std::to_string(trans_b) + "> (" + (is_left ? "w, x" : "x, w") + ") }");
      const Shape dims = rows_down ? Shape{2, 3} : Shape{3, 2};
      in = WithInitializer(in, "w", Tensor::Make<float>(dims, weight));
      const PassResult out = QuantizeNearest(in);
      EXPECT_THAT(Elements(out.model, "w_scale"), ElementsAre(3.0f / 127, 2000.0f / 127))
          << "left " << is_left << " transA " << trans_a << " transB " << trans_b;
      EXPECT_GT(UnfusedSqnrDb(in, out.model), 35);
    }
  }
}

TEST(QuantizeInt8, ATransposedConvolutionInGroupsHasItsChannelsOnAxisOne) {
  const Model in = ModelFromText(R"(g (float[1,4,3,3] x) => (float[1,4,3,3] y)
    <float[4,2,1,1] w = {1,100,-1,50,0.5,25,1,-100}, float[4] b = {1,2,3,4}>
    { y = ConvTranspose <group = 2> (x, w, b) })");
  const PassResult out = QuantizeNearest(in);
  EXPECT_THAT(Elements(out.model, "w_scale"), ElementsAre(1.0f / 127, 100.0f / 127));
  EXPECT_GT(UnfusedSqnrDb(in, out.model), 35);
}

TEST(QuantizeInt8, RaisesAnOldOpsetByConvertingItsNodes) {
  const Model in = ModelFromText(R"(<ir_version: 3, opset_import: ["" : 8]>
    g (float[1,1,2,2] x, float[2,1,1,1] w) => (float[1,2] y) <float[2,1,1,1] w = {1,100}>
    { c = Conv(x, w) r = Clip <min = 0.0, max = 6.0> (c) p = GlobalAveragePool(r)
      s = Squeeze <axes = [2, 3]> (p) y = Softmax(s) })");
  const PassResult out = QuantizeNearest(in);
  EXPECT_EQ(out.model.Opset(""), 13);
  EXPECT_GE(out.model.ir_version, 7);
  EXPECT_EQ(out.model.graph.inputs.size(), 1u);
  EXPECT_EQ(NodeOf(out.model, "Clip")->inputs.size(), 3u);
  EXPECT_EQ(NodeOf(out.model, "Squeeze")->inputs.size(), 2u);
  EXPECT_THAT(out.report["raised"].get<std::vector<std::string>>(),
              Contains(StartsWith("opset 8 to 13")));
  EXPECT_GT(UnfusedSqnrDb(in, out.model), 30);
}

TEST(QuantizeInt8, ExcludedNodesKeepTheirFloatWeight) {
  const Model in = ModelFromText(R"(g (float[1,2] x) => (float[1,2] y)
    <float[2,2] w = {1,2,3,4}> { [p] h = MatMul(x, w) [q] y = MatMul(h, w) })");
  const PassResult out = QuantizeNearest(in, {{"exclude", {"q"}}});
  EXPECT_EQ(SkippedReason(out.report, "MatMul q"), "excluded");
  EXPECT_EQ(out.model.graph.nodes.back().inputs[1], "w");
  EXPECT_THAT(Elements(out.model, "w"), ElementsAre(1, 2, 3, 4));
  EXPECT_THAT(
      [&] {
        QuantizeNearest(in, {{"exclude", {"r"}}});
      },
      ThrowsError(ErrorCode::kInvalidArgument, "exclude"));
}

TEST(QuantizeInt8, NamesOfTheModelAreNotTakenTwice) {
  const Model in = ModelFromText(R"(g (float[1,1,2,2] x) => (float[1,1,2,2] y)
    <float[1,1,1,1] w = {2}, float[1] b = {1}>
    { w_quantized = Conv(x, w, b) b_scale = Relu(w_quantized) y = Conv(b_scale, w, b) })");
  EXPECT_GT(UnfusedSqnrDb(in, QuantizeNearest(in).model), 30);
}

TEST(QuantizeInt8, AModelWithoutAnythingToQuantizeIsAnError) {
  const Model in = ModelFromText("g (float[1,2] x) => (float[1,2] y) { y = Relu(x) }");
  EXPECT_THAT([&] { QuantizeNearest(in); }, ThrowsError(ErrorCode::kUnsupported, ""));
}

TEST(QuantizeInt8, RefusesWeightsAndActivationsThatAreNotFinite) {
  Model in = ModelFromText(R"(g (float[1,2] x) => (float[1,2] y) <float[2,2] w = {1,2,3,4}>
    { l = Log(x) y = MatMul(l, w) })");
  EXPECT_THAT([&] { QuantizeNearest(in); },
              ThrowsError(ErrorCode::kInvalidArgument, "value l", HasSubstr("NaN")));
  Model bad = ModelFromText(
      "g (float[1,2] x) => (float[1,1] y) <float[2,1] w = {1,2}> { y = MatMul(x, w) }");
  bad = WithInitializer(bad, "w",
                        Tensor::Make<float>({2, 1}, {1, std::numeric_limits<float>::infinity()}));
  EXPECT_THAT([&] { QuantizeNearest(bad); }, ThrowsError(ErrorCode::kInvalidArgument, "tensor w"));
}

TEST(QuantizeInt8, FoldsBatchNormalizationAndAddedBiases) {
  const Model in = ModelFromText(R"(g (float[1,1,2,2] x) => (float[1,2,2,2] y)
    <float[2,1,1,1] w = {1,-2}, float[2] s = {2,3}, float[2] t = {0.5,-0.5}, float[2] m = {0.1,0.2},
     float[2] v = {1,4}, float[2,1,1] b = {1,2}>
    { c = Conv(x, w) n = BatchNormalization(c, s, t, m, v) y = Add(n, b) })");
  const PassResult out = QuantizeNearest(in);
  EXPECT_THAT(OpTypes(out.model.graph), Not(Contains("BatchNormalization")));
  EXPECT_THAT(OpTypes(out.model.graph), Not(Contains("Add")));
  EXPECT_GT(UnfusedSqnrDb(in, out.model), 35);
}

}  // namespace
}  // namespace pared
