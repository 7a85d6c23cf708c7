#include "passes/calibration_rows.h"

#include <gmock/gmock.h>

#include "tests/passes/made_model.h"
#include "tests/passes/promises.h"
#include "tests/passes/run_step.h"
#include "tests/testing/random_tensor.h"

namespace pared {
namespace {

constexpr int64_t kRows = 24;

// The same rows as samples of `batch` each.
Dataset Batched(const Model& model, int64_t batch) {
  std::map<std::string, Tensor> arrays;
  Random random(7);
  for (const ValueInfo& input : model.graph.inputs) {
    Shape shape = {kRows / batch, batch};
    for (size_t i = 1; i < input.shape->size(); ++i) shape.push_back((*input.shape)[i].value);
    arrays.emplace(input.name, random.Normal(shape, 1));
  }
  return Dataset::Of("batched", arrays);
}

Model OpenBatchNetwork() {
  return Made(R"(g (float[N,3,10,10] x) => (float[N,10] y)
    { c = Conv <pads = [1,1,1,1]> (x, w0, b0) r = Relu(c) d = Conv <strides = [2,2]> (r, w1)
      s = Sigmoid(d) m = Mul(d, s) p = GlobalAveragePool(m) f = Flatten(p)
      y = Gemm <transB = 1> (f, w2, b2) })",
              {{"w0", {12, 3, 3, 3}},
               {"b0", {12}},
               {"w1", {16, 12, 3, 3}},
               {"w2", {10, 16}},
               {"b2", {10}}});
}

Model OpenTokens() {
  return Made(R"(g (float[N,6,16] x, float[N,6,16] z) => (float[N,6,8] y)
    { a = Add(x, z) q = MatMul(a, wq) k = MatMul(a, wk) t = Transpose <perm = [0,2,1]> (k)
      n = MatMul(q, t) s = Softmax(n) v = MatMul(a, wv) o = MatMul(s, v) y = MatMul(o, wo) })",
              {{"wq", {16, 16}}, {"wk", {16, 16}}, {"wv", {16, 16}}, {"wo", {16, 8}}});
}

// Bytes of the result for batches of `batch`.
std::string MadeOf(const std::string& pass, const Json& options, const Model& model,
                   int64_t batch) {
  const Dataset data = Batched(model, batch);
  return SerializeOnnx(RunStep(pass, options, model, &data).model);
}

TEST(CalibrationRows, HowSamplesAreBatchedChangesNothing) {
  for (const Model& model : {OpenBatchNetwork(), OpenTokens()}) {
    for (const char* method : {"minmax", "percentile", "entropy", "mse", "output", "auto"}) {
      const Json options = {{"method", method}};
      const std::string one = MadeOf("quantize_int8", options, model, 1);
      for (const int64_t batch : {2, 3, 4, 24}) {
        EXPECT_EQ(MadeOf("quantize_int8", options, model, batch), one) << method << " " << batch;
      }
    }
  }
}

TEST(CalibrationRows, NorDoesItInOtherPasses) {
  const Model model = OpenTokens();
  for (const char* pass :
       {"magnitude_prune", "second_order_prune", "quantize_dynamic", "cast_fp16"}) {
    EXPECT_EQ(MadeOf(pass, Json::object(), model, 4), MadeOf(pass, Json::object(), model, 1))
        << pass;
  }
  const Json blocks = {{"bits", "4"}, {"block_size", 16}};
  EXPECT_EQ(MadeOf("quantize_weights", blocks, model, 4),
            MadeOf("quantize_weights", blocks, model, 1));
}

TEST(CalibrationRows, TheNumberOfSamplesCountsBatches) {
  const Model model = OpenBatchNetwork();
  const Dataset data = Batched(model, 4);
  PassContext context;
  context.calibration = &data;
  const auto rows = RowsOfCalibration(model, context);
  ASSERT_TRUE(rows.has_value());
  EXPECT_EQ(rows->batch, 4);
  EXPECT_EQ(rows->data.sample_count(), kRows);
  const PassResult out = RunStep("quantize_int8", {}, model, &data);
  EXPECT_EQ(out.report.at("calibration_batch"), 4);
}

// Rows that are steps of a sequence, that share a scale, a mean or a place, or that are counted.
TEST(CalibrationRows, WhatIsNoBatchStaysTogether) {
  for (const char* text :
       {"g (float[T,16] x) => (float[T,16] y) { m = ReduceMean <axes = [0]> (x) s = Sub(x, m) "
        "y = MatMul(s, w) }",
        "g (float[T,16] x) => (float[16,T] y) { h = MatMul(x, w) y = Transpose(h) }",
        "g (float[T,16] x) => (float[T,16] y) { h = MatMul(x, w) "
        "y = CumSum(h, a) a = Constant <value_int = 0> () }",
        "g (float[T,16] x) => (float[T,16] y, int64[2] n) { y = MatMul(x, w) n = Shape(x) }",
        "g (float[4,16] x) => (float[4,16] y) { y = MatMul(x, w) }",
        "g (float[T,16] x) => (float[T,16] y) { r = RandomNormalLike(x) h = Add(x, r) "
        "y = MatMul(h, w) }"}) {
    Model model = Made(text, {{"w", {16, 16}}});
    const Dataset data = Batched(model, 4);
    PassContext context;
    context.calibration = &data;
    EXPECT_FALSE(RowsOfCalibration(model, context).has_value()) << text;
  }
}

TEST(CalibrationRows, SamplesOfOneRowStay) {
  const Model model = OpenTokens();
  PassContext context;
  const Dataset one = Batched(model, 1);
  context.calibration = &one;
  EXPECT_FALSE(RowsOfCalibration(model, context).has_value());
  context.calibration = nullptr;
  EXPECT_FALSE(RowsOfCalibration(model, context).has_value());
}

// A caller asks the context for the layer that a pass is at.
TEST(CalibrationRows, ProgressIsSeenInTheContextOfTheCaller) {
  const Model in = OpenBatchNetwork();
  const Dataset data = Batched(in, 4);
  bool was_seen = false;
  PassContext context;
  context.calibration = &data;
  context.calibration_samples = 6;
  context.progress = [&](double) { was_seen |= context.report.contains("calibration_batch"); };
  const PassInfo* pass = FindPass("second_order_prune");
  BindPass(*pass, {{"pass", "second_order_prune"}}, "").run(in, context);
  EXPECT_TRUE(was_seen);
  EXPECT_EQ(context.report.at("calibration_batch"), 4);
  EXPECT_EQ(context.calibration, &data);
  EXPECT_EQ(context.calibration_samples, 6);
}

}  // namespace
}  // namespace pared
