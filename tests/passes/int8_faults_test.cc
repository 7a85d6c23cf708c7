// Faults that users report of quantizers (tests/faults.md), each as a model in which it would show.

#include <gmock/gmock.h>
#include <tbb/task_arena.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <limits>

#include "evaluator/executor.h"
#include "evaluator/metrics.h"
#include "evaluator/npy.h"
#include "kernels/cpu.h"
#include "passes/calibrate.h"
#include "tests/passes/run_step.h"
#include "tests/testing/random_tensor.h"
#include "tests/testing/temp_dir.h"

namespace pared {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::Gt;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

using Weights = std::vector<std::pair<std::string, Tensor>>;

Model WithWeights(std::string_view text, const Weights& weights) {
  Model model = ParseText(text);
  for (const auto& [name, tensor] : weights) {
    model = WithInitializer(std::move(model), name, tensor);
  }
  SortNodes(model.graph);
  Verify(model);
  return model;
}

Tensor Normal(Shape shape, double deviation = 0.5, uint64_t seed = 21) {
  return Random(seed).Normal(std::move(shape), deviation);
}

PassResult QuantizeBy32(const Model& model, Json options = Json::object()) {
  const Dataset data = Dataset::Random(CallerInputs(model.graph), 32, 3);
  return RunStep("quantize_int8", std::move(options), model, &data);
}

// On the samples that calibration saw.
double SqnrDbOf32(const Model& reference, const Model& model) {
  return SqnrDbOn(Dataset::Random(CallerInputs(reference.graph), 32, 3), reference, model);
}

const Node& NodeAt(const Model& model, const std::string& output) {
  const auto found = std::ranges::find_if(
      model.graph.nodes, [&](const Node& node) { return node.outputs.at(0) == output; });
  PARED_CHECK(found != model.graph.nodes.end());
  return *found;
}

// The scale by which the value that a node reads at `input` was quantized; 0: it is float.
float ScaleRead(const Model& model, const std::string& output, size_t input) {
  const std::string& read = NodeAt(model, output).inputs.at(input);
  for (const Node& node : model.graph.nodes) {
    if (node.outputs[0] != read || node.op_type != "DequantizeLinear") continue;
    return Elements(model, node.inputs[1]).at(0);
  }
  return 0;
}

int64_t CountOf(const Model& model, const std::string& op_type) {
  return std::ranges::count(OpTypes(model.graph), op_type);
}

TEST(Int8Faults, EachPadKeepsTheRangeOfItsOwnValue) {
  const Model in = WithWeights(
      R"(g (float[1,2,5,5] x) => (float[1,2,5,5] y, float[1,2,5,5] z)
    <int64[8] p = {0,0,1,1,0,0,1,1}, float k = {500}>
    { c = Conv(x, u) a = Pad(c, p) y = Conv(a, v)
      s = Mul(c, k) b = Pad(s, p) z = Conv(b, w) })",
      {{"u", Normal({2, 2, 1, 1})}, {"v", Normal({2, 2, 3, 3})}, {"w", Normal({2, 2, 3, 3}, 0.1)}});
  const Model out = QuantizeBy32(in, {{"smooth", "off"}}).model;
  EXPECT_NEAR(ScaleRead(out, "z", 0) / ScaleRead(out, "y", 0), 500, 25);
  for (const Node& node : out.graph.nodes) {
    EXPECT_TRUE(node.op_type != "Pad" || node.inputs.size() == 2) << node.outputs[0];
  }
  EXPECT_GT(SqnrDbOf32(in, out), 30);
}

TEST(Int8Faults, AnExclusionFollowsItsNodeThroughFoldingAndRaising) {
  const Model in = WithWeights(R"(<ir_version: 4, opset_import: ["" : 11]>
    g (float[1,2,4,4] x) => (float[1,8] y) <float[2] one = {1,2}, float[2] zero = {0,0.5}>
    { [keep] c = Conv(x, u) n = BatchNormalization(c, one, zero, zero, one) [other] d = Conv(n, v)
      p = GlobalAveragePool(d) s = Squeeze <axes = [2,3]> (p)
      [G] y = Gemm <alpha = 2.0, transB = 1> (s, w, b) })",
                               {{"u", Normal({2, 2, 1, 1})},
                                {"v", Normal({2, 2, 1, 1})},
                                {"w", Normal({8, 2})},
                                {"b", Normal({8})}});
  const PassResult out = QuantizeBy32(in, {{"exclude", {"G", "keep"}}});
  const Node& gemm = NodeAt(out.model, "y");
  EXPECT_EQ(gemm.op_type, "Gemm");
  EXPECT_EQ(ScaleRead(out.model, "y", 0), 0);
  EXPECT_TRUE(out.model.graph.initializers.contains(gemm.inputs[1])) << gemm.inputs[1];
  EXPECT_EQ(SkippedReason(out.report, "Gemm G"), "excluded");
  EXPECT_EQ(SkippedReason(out.report, "Conv keep"), "excluded");
  EXPECT_GT(ScaleRead(out.model, "d", 0), 0);
}

TEST(Int8Faults, AnExclusionThatMatchesNothingIsAnErrorOfEveryPass) {
  const Model in = WithWeights(R"(g (float[1,2,4,4] x) => (float[1,2,4,4] y)
    { ["/encoder/layer.0/conv"] c = Conv(x, u) n = Relu(c) ["/head"] y = Conv(n, u) })",
                               {{"u", Normal({2, 2, 1, 1})}});
  const Dataset data = Dataset::Random(in.graph.inputs, 2, 1);
  for (const PassInfo* pass : Passes()) {
    for (const char* wrong : {"Encoder", "op:Convolution", "re:.*Decoder.*"}) {
      EXPECT_THAT(
          [&] {
            RunStep(std::string(pass->name), {{"exclude", {wrong}}}, in, &data);
          },
          ThrowsError(ErrorCode::kInvalidArgument, "exclude", HasSubstr("nearest: \"")))
          << pass->name << " " << wrong;
    }
  }
}

TEST(Int8Faults, NodesInsideADecomposedNormalizationCanBeExcluded) {
  const Model in =
      WithWeights(R"(g (float[1,3,8] x) => (float[1,3,4] y) <float two = {2}, float e = {1e-5}>
    { h = MatMul(x, u) [mean] m = ReduceMean <axes = [-1]> (h) [center] c = Sub(h, m) [square] q = Pow(c, two)
      [variance] v = ReduceMean <axes = [-1]> (q) t = Add(v, e) s = Sqrt(t) [scale] n = Div(c, s)
      y = MatMul(n, w) })",
                  {{"u", Normal({8, 8})}, {"w", Normal({8, 4})}});
  const PassResult out =
      QuantizeBy32(in, {{"exclude", {"mean", "center", "square", "variance", "scale"}}});
  EXPECT_GT(ScaleRead(out.model, "y", 0), 0);
  EXPECT_GT(SqnrDbOf32(in, out.model), 25);
  // One pair at each boundary: x and n, and no value twice.
  EXPECT_EQ(CountOf(out.model, "QuantizeLinear"), 2);
}

// One weight, read through Identity by two products whose inputs want different smoothing.
TEST(Int8Faults, SmoothingOfASharedWeightServesAllItsReadersOrNone) {
  std::vector<float> spread(8, 1);
  spread[3] = 200;
  const Model in =
      WithWeights(R"(g (float[4,8] x) => (float[4,8] y, float[4,8] z)
    { n = Mul(x, gamma) i = Identity(w) y = MatMul(n, i) j = Identity(w) z = MatMul(x, j) })",
                  {{"gamma", Tensor::Make<float>({8}, spread)}, {"w", Normal({8, 8})}});
  EXPECT_GT(SqnrDbOf32(in, QuantizeBy32(in).model), 25);
  const Model direct =
      WithWeights(R"(g (float[4,8] x) => (float[4,8] y, float[4,8] z)
    { n = Mul(x, gamma) y = MatMul(n, w) z = MatMul(x, w) })",
                  {{"gamma", Tensor::Make<float>({8}, spread)}, {"w", Normal({8, 8})}});
  EXPECT_GT(SqnrDbOf32(direct, QuantizeBy32(direct).model), 25);
  // The factor that smoothing would fold into is a scalar that others read too.
  const Model scalar = WithWeights(R"(g (float[4,8] x) => (float[4,8] y, float[4,8] z)
    <float k = {0.5}> { n = Mul(x, k) y = MatMul(n, w) z = Mul(y, k) })",
                                   {{"w", Normal({8, 8})}});
  EXPECT_GT(SqnrDbOf32(scalar, QuantizeBy32(scalar).model), 25);
}

TEST(Int8Faults, TwoEdgesToOneNodeReadOnePair) {
  const Model in = WithWeights(R"(g (float[1,2,4,4] x) => (float[1,2,4,4] y)
    { a = Conv(x, w) s = Add(a, a) y = Conv(s, v) })",
                               {{"w", Normal({2, 2, 1, 1})}, {"v", Normal({2, 2, 1, 1})}});
  const Model out = QuantizeBy32(in).model;
  EXPECT_EQ(NodeAt(out, "s").inputs[0], NodeAt(out, "s").inputs[1]);
  EXPECT_GT(SqnrDbOf32(in, out), 25);
}

// A default that a caller may override stays one unless the job says otherwise.
TEST(Int8Faults, ADefaultThatACallerMayOverrideIsNotFolded) {
  const Model in = WithWeights(R"(<ir_version: 8, opset_import: ["" : 17]>
    g (float[1,4] x, float[4,4] w) => (float[1,4] y) { h = MatMul(x, w) y = MatMul(h, v) })",
                               {{"w", Normal({4, 4})}, {"v", Normal({4, 4})}});
  const PassResult kept = QuantizeBy32(in);
  EXPECT_EQ(kept.model.graph.inputs.size(), 2u);
  EXPECT_EQ(NodeAt(kept.model, "h").inputs[1], "w");
  EXPECT_THAT(SkippedReason(kept.report, "MatMul producing h"), Not(IsEmpty()));
  const PassResult frozen = QuantizeBy32(in, {{"freeze_inputs", true}});
  EXPECT_EQ(frozen.model.graph.inputs.size(), 1u);
  EXPECT_FALSE(frozen.model.graph.initializers.contains("w"));
}

TEST(Int8Faults, StatisticsDoNotDependOnShapesOrBatches) {
  const Tensor all = Normal({5000}, 2);
  const std::span<const float> values = all.data<float>();
  Sketch whole, parts;
  whole.Add(values, true);
  for (size_t begin = 0, size = 1; begin < values.size(); begin += size, size = size * 3 % 701) {
    parts.Add(values.subspan(begin, std::min(size, values.size() - begin)), true);
  }
  for (const RangeMethod method :
       {RangeMethod::kMinMax, RangeMethod::kPercentile, RangeMethod::kEntropy, RangeMethod::kMse}) {
    EXPECT_EQ(RangeOf(whole, method, 99).min, RangeOf(parts, method, 99).min);
    EXPECT_EQ(RangeOf(whole, method, 99).max, RangeOf(parts, method, 99).max);
  }
}

class Int8Samples : public ::testing::Test {
 protected:
  Dataset Data(const Tensor& x) {
    SaveNpy(x, folder_ / "x.npy");
    WriteFile(folder_ / "dataset.json", R"({"inputs": {"x": "x.npy"}})");
    return Dataset::Open(folder_.path());
  }
  TempDir folder_;
};

TEST_F(Int8Samples, OneBatchOfFourIsFourOfOne) {
  const Weights weights = {{"w", Normal({4, 4})}};
  const Model one = WithWeights("g (float[1,4] x) => (float[1,4] y) { y = MatMul(x, w) }", weights);
  const Model four =
      WithWeights("g (float[4,4] x) => (float[4,4] y) { y = MatMul(x, w) }", weights);
  const Tensor x = Normal({16, 4}, 1);
  const std::vector<float> values(x.data<float>().begin(), x.data<float>().end());
  for (const char* method : {"minmax", "percentile", "entropy", "mse"}) {
    const Json options = {{"method", method}, {"smooth", "off"}};
    const Dataset singly = Data(Tensor::Make<float>({16, 1, 4}, values));
    const Model a = RunStep("quantize_int8", options, one, &singly).model;
    const Dataset batched = Data(Tensor::Make<float>({4, 4, 4}, values));
    const Model b = RunStep("quantize_int8", options, four, &batched).model;
    EXPECT_EQ(Elements(a, "x_scale"), Elements(b, "x_scale")) << method;
    EXPECT_EQ(Elements(a, "w_scale"), Elements(b, "w_scale")) << method;
  }
}

// Twelve samples of other lengths are the elements of one that holds them all.
TEST_F(Int8Samples, OfOtherLengthsAreOneStatistic) {
  const Weights weights = {{"w", Normal({4, 3, 1})}, {"b", Normal({4})}, {"v", Normal({2, 4, 1})}};
  const Model in = WithWeights(R"(g (float[1,3,N] x) => (float[1,2,N] y)
    { c = Conv(x, w, b) r = Relu(c) y = Conv(r, v) })",
                               weights);
  constexpr size_t kLongest = 9;
  const std::vector<int64_t> lengths = {5, 7, 9, 3, 8, 9, 1, 2, 4, 6, 9, 5};
  const Tensor drawn = Normal({12, 1, 3, static_cast<int64_t>(kLongest)}, 1);
  std::vector<float> joined;
  for (size_t row = 0; row < 3; ++row) {
    for (size_t sample = 0; sample < lengths.size(); ++sample) {
      const auto part = drawn.data<float>().subspan((sample * 3 + row) * kLongest,
                                                    static_cast<size_t>(lengths[sample]));
      joined.insert(joined.end(), part.begin(), part.end());
    }
  }
  const auto count = static_cast<int64_t>(joined.size() / 3);
  for (const char* method : {"minmax", "percentile", "entropy", "mse"}) {
    const Json options = {{"method", method}, {"smooth", "off"}, {"bias_correction", false}};
    SaveNpy(Tensor::Make<int64_t>({12}, lengths), folder_ / "lengths.npy");
    SaveNpy(drawn, folder_ / "x.npy");
    WriteFile(folder_ / "dataset.json", R"({"inputs": {"x": "x.npy"}, "lengths": "lengths.npy"})");
    const Dataset apart = Dataset::Open(folder_.path());
    const Model a = RunStep("quantize_int8", options, in, &apart).model;
    const Dataset whole = Data(Tensor::Make<float>({1, 1, 3, count}, joined));
    const Model b = RunStep("quantize_int8", options, in, &whole).model;
    EXPECT_EQ(Elements(a, "x_scale"), Elements(b, "x_scale")) << method;
    EXPECT_EQ(Elements(a, "r_scale"), Elements(b, "r_scale")) << method;
  }
}

TEST_F(Int8Samples, AFewThatAreNotFiniteAreLeftOutCountedAndNamed) {
  const Model in = WithWeights("g (float[1,4] x) => (float[1,4] y) { y = MatMul(x, w) }",
                               {{"w", Normal({4, 4})}});
  const Tensor drawn = Normal({1000, 1, 4}, 1);
  std::vector<float> values(drawn.data<float>().begin(), drawn.data<float>().end());
  values[17] = std::numeric_limits<float>::quiet_NaN();
  values[1700] = std::numeric_limits<float>::infinity();
  values[2700] = -std::numeric_limits<float>::infinity();
  const Dataset data = Data(Tensor::Make<float>({1000, 1, 4}, values));
  for (const char* method : {"minmax", "percentile", "entropy", "mse"}) {
    const PassResult out =
        RunStep("quantize_int8", {{"method", method}, {"smooth", "off"}}, in, &data);
    const float scale = Elements(out.model, "x_scale")[0];
    EXPECT_TRUE(scale > 0.005f && scale < 0.05f) << method << " " << scale;
    EXPECT_EQ(out.report.at("not_finite").at("x"), (Json{{"nan", 1}, {"infinite", 2}}));
  }
}

TEST_F(Int8Samples, ValuesOfNothingButNaNAreAnError) {
  const Model in =
      WithWeights("g (float[1,2] x) => (float[1,2] y) { d = Div(x, x) y = MatMul(d, w) }",
                  {{"w", Normal({2, 2})}});
  const Dataset data = Data(Tensor::Make<float>({2, 1, 2}, {0, 0, 0, 0}));
  EXPECT_THAT([&] { RunStep("quantize_int8", {}, in, &data); },
              ThrowsError(ErrorCode::kInvalidArgument, "value d", HasSubstr("4 NaN")));
}

TEST_F(Int8Samples, AskingForMoreThanThereAreTakesThoseThereAre) {
  const Model in = WithWeights("g (float[1,2] x) => (float[1,2] y) { y = MatMul(x, w) }",
                               {{"w", Normal({2, 2})}});
  const Dataset data = Data(Tensor::Make<float>({2, 1, 2}, {0, 1, 2, 3}));
  PassContext context;
  context.calibration = &data;
  context.calibration_samples = 100;
  CalibrationRequest request;
  request.values = {"x"};
  EXPECT_EQ(Calibrate(in, request, context).samples, 2);
  context.calibration = nullptr;
  EXPECT_THAT([&] { Calibrate(in, request, context); },
              ThrowsError(ErrorCode::kInvalidArgument, "calibration", HasSubstr("no samples")));
}

TEST(Int8Faults, EveryMethodRangesEveryValueToTheEndOfTheModel) {
  const Model in =
      WithWeights(R"(g (float[2,4] x) => (float[2,4] y)
    { a = MatMul(x, u) s = Sigmoid(a) b = MatMul(s, v) d = MatMul(b, w) y = Softmax <axis = -1> (d) })",
                  {{"u", Normal({4, 4})}, {"v", Normal({4, 4})}, {"w", Normal({4, 4})}});
  for (const char* method : {"minmax", "percentile", "entropy", "mse"}) {
    const PassResult out = QuantizeBy32(in, {{"method", method}});
    EXPECT_EQ(out.report.at("changed").size(), 3u);
    for (const char* output : {"a", "b", "d"}) EXPECT_GT(ScaleRead(out.model, output, 0), 0);
    EXPECT_GT(SqnrDbOf32(in, out.model), 20) << method;
  }
}

// Values near what float16 can hold, whose range is twice that.
TEST(Int8Faults, StatisticsOfLargeValuesDoNotOverflow) {
  const Model in =
      WithWeights(R"(g (float[2,4] x) => (float[2,4] y) <float k = {2e4}, float tiny = {1e-4}>
    { h = Mul(x, k) m = MatMul(h, w) y = Mul(m, tiny) })",
                  {{"w", Normal({4, 4})}});
  for (const char* method : {"minmax", "percentile", "entropy", "mse"}) {
    const Model out = QuantizeBy32(in, {{"method", method}, {"smooth", "off"}}).model;
    EXPECT_GT(ScaleRead(out, "m", 0) * 255, 4e4f) << method;
    EXPECT_GT(SqnrDbOf32(in, out), 25) << method;
  }
}

int64_t PeakKb(const char* reset) {
  std::ofstream("/proc/self/clear_refs") << reset;  // 5: forget the peak
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("VmHWM:")) return std::stoll(line.substr(6));
  }
  return 0;
}

class Int8Memory : public ::testing::Test {
 protected:
  // Samples of half a kilobyte, whose values take 8 kB a row: what grows is not the dataset.
  static int64_t PeakKbOf(const Json& options, int64_t samples, int64_t rows,
                          const std::string& pass = "quantize_int8") {
    const std::string n = std::to_string(rows);
    const Model in =
        WithWeights("g (float[1,2,1,64] x) => (float[1,4," + n + ",64] y) <int64[4] s = {1,2," + n +
                        ",64}> { e = Expand(x, s) c = Conv <pads = [1,1,1,1]> (e, u) r = Relu(c) "
                        "y = Conv(r, v) }",
                    {{"u", Normal({32, 2, 3, 3})}, {"v", Normal({4, 32, 1, 1})}});
    const Dataset data = Dataset::Random(in.graph.inputs, samples, 3);
    PeakKb("5");
    RunStep(pass, options, in, &data);
    return PeakKb("0");
  }
  void SetUp() override {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    GTEST_SKIP() << "sanitizers keep freed memory";
#endif
  }
};

// On one thread: on a busy machine, chance decides how many of ten samples are at work together.
TEST_F(Int8Memory, OfAThousandSamplesIsThatOfTen) {
  const Json ranges_only = {{"method", "percentile"}, {"smooth", "off"}, {"rounding", "nearest"}};
  tbb::task_arena(1).execute([&] {
    PeakKbOf(ranges_only, 10, 64);  // warms the allocator up
    const int64_t ten = PeakKbOf(ranges_only, 10, 64);
    const int64_t allowance_kb = 2048;  // the dataset, and what the allocator rounds up
    EXPECT_LT(static_cast<double>(PeakKbOf(ranges_only, 1000, 64) - allowance_kb),
              1.1 * static_cast<double>(ten));
  });
}

// What layers read on many samples, of 4 MB each here, is kept for the fits: in files.
TEST_F(Int8Memory, OfFitsOnManySamplesIsThatOfTen) {
  tbb::task_arena(1).execute([&] {
    for (const char* pass : {"quantize_int8", "magnitude_prune"}) {
      PeakKbOf({}, 10, 512, pass);
      const int64_t ten = PeakKbOf({}, 10, 512, pass);
      const int64_t window_kb = 8192;  // of the files' pages
      EXPECT_LT(static_cast<double>(PeakKbOf({}, 200, 512, pass) - window_kb),
                1.1 * static_cast<double>(ten))
          << pass;
    }
  });
}

// Against the best of a thousand ranges, each measured by rounding every element: where the outlier
// makes a step larger than all others, these round to zero.
TEST(Int8Faults, AnOutlierDoesNotDecideTheRange) {
  const Tensor drawn = Normal({200'000}, 1);
  for (const float outlier : {30.0f, 1e3f, 1e4f, 1e5f}) {
    std::vector<float> values(drawn.data<float>().begin(), drawn.data<float>().end());
    values.push_back(outlier);
    Sketch sketch;
    sketch.Add(values, true);
    EXPECT_EQ(RangeOf(sketch, RangeMethod::kMinMax, 0).max, outlier);
    // numpy.quantile of |x| at 0.9999 is 3.86 for a normal distribution.
    EXPECT_NEAR(RangeOf(sketch, RangeMethod::kPercentile, 99.99).max, 3.89, 0.25);
    EXPECT_LT(RangeOf(sketch, RangeMethod::kEntropy, 0).max, outlier);
    const auto error = [&](double low, double high) {
      double sum = 0;
      const double step = (high - low) / 255, zero = std::round(-low / step);
      for (size_t i = 0; i < values.size(); i += i + 100 < values.size() ? 97 : 1) {
        const double x = values[i];
        const double code = std::clamp(std::round(x / step), -zero, 255 - zero);
        sum += (x - code * step) * (x - code * step) * (i + 100 < values.size() ? 97 : 1);
      }
      return sum;
    };
    const ValueRange found = RangeOf(sketch, RangeMethod::kMse, 0);
    double least = std::numeric_limits<double>::infinity();
    for (double high = 1; high <= static_cast<double>(outlier) * 1.01; high *= 1.01) {
      for (const double low : {-4.5, -3.0, -0.9, -high}) least = std::min(least, error(low, high));
    }
    EXPECT_LT(error(found.min, found.max), 1.1 * least)
        << outlier << " " << found.min << " " << found.max;
  }
}

// Zero is a code of every range; zero point and scale of what is never negative start at zero.
TEST(Int8Faults, ZeroIsExactInEveryRange) {
  Random random(31);
  for (int i = 0; i < 200; ++i) {
    const double at = random.Real(-50, 50), width = std::pow(10, random.Real(-6, 3));
    const Tensor drawn = random.Uniform<float>({100}, at * width, (at + 1) * width);
    Sketch sketch;
    sketch.Add(drawn.data<float>(), true);
    for (const RangeMethod method : {RangeMethod::kMinMax, RangeMethod::kPercentile,
                                     RangeMethod::kEntropy, RangeMethod::kMse}) {
      const ValueRange range = RangeOf(sketch, method, 99);
      EXPECT_LE(range.min, 0);
      EXPECT_GE(range.max, 0);
      EXPECT_GT(range.max - range.min, 0) << at << " " << width;
      EXPECT_TRUE(std::isfinite(range.max) && std::isfinite(range.min));
    }
  }
}

// The Relu cuts what the symmetric range does not.
TEST(Int8Faults, AReluStaysWhereItsRangeDoesNotCut) {
  const Model in = WithWeights(
      R"(g (float[1,2,4,4] x) => (float[1,2,4,4] y)
    { c = Conv(x, u) r = Relu(c) d = Conv(x, v) j = Concat <axis = 1> (r, d) y = Conv(j, w) })",
      {{"u", Normal({2, 2, 1, 1})}, {"v", Normal({2, 2, 1, 1}, 3)}, {"w", Normal({2, 4, 1, 1})}});
  const Model out = QuantizeBy32(in).model;
  EXPECT_EQ(CountOf(out, "Relu"), 1);
  EXPECT_GT(SqnrDbOf32(in, out), 30);
}

TEST(Int8Faults, RangesOfBoundedFunctionsAreThoseOfTheFunction) {
  for (const auto& [function, width] :
       {std::pair{"Sigmoid", 1.0f}, {"HardSigmoid", 1.0f}, {"Tanh", 2.0f}}) {
    const Model in = WithWeights(std::string(R"(g (float[1,2,4,4] x) => (float[1,2,4,4] y)
      { c = Conv(x, u) s = )") + function +
                                     "(c) y = Conv(s, v) }",
                                 {{"u", Normal({2, 2, 1, 1}, 0.01)}, {"v", Normal({2, 2, 1, 1})}});
    const Model out = QuantizeBy32(in, {{"smooth", "off"}}).model;
    EXPECT_NEAR(ScaleRead(out, "y", 0), width / 255, 1e-4) << function;
  }
}

// Sigmoid of 100 is 1, the largest code, and stays so.
TEST(Int8Faults, TheLargestCodeOfASigmoidIsOne) {
  const Model in = WithWeights(R"(g (float[1,2] x) => (float[1,2] y)
    { s = Sigmoid(x) y = MatMul(s, w) })",
                               {{"w", Tensor::Make<float>({2, 2}, {1, 0, 0, 1})}});
  const Model out = QuantizeBy32(in).model;
  const Tensor y = Executor(out).Run({Tensor::Make<float>({1, 2}, {-100, 100})})[0];
  EXPECT_NEAR(y.data<float>()[0], 0, 0.01);
  EXPECT_NEAR(y.data<float>()[1], 1, 0.01);
}

TEST(Int8Faults, AChannelThatPruningEmptiedKeepsItsBias) {
  std::vector<float> w(4 * 2 * 3 * 3, 1.0f);
  for (size_t i = 0; i < w.size(); ++i)
    w[i] = i / 18 == 1 ? 1e-4f : 0.5f + 0.01f * static_cast<float>(i);
  const Model in =
      WithWeights(R"(g (float[1,2,5,5] x) => (float[1,4,3,3] y) { y = Conv(x, w, b) })",
                  {{"w", Tensor::Make<float>({4, 2, 3, 3}, w)},
                   {"b", Tensor::Make<float>({4}, {1, 3, -1, 0})}});
  const PassResult pruned =
      RunStep("magnitude_prune", {{"sparsity", 0.25}, {"reconstruct", "off"}}, in);
  const PassResult out = QuantizeBy32(pruned.model);
  const auto scales =
      Elements(out.model, NodeAt(out.model, NodeAt(out.model, "y").inputs[1]).inputs[1]);
  EXPECT_THAT(scales, Each(Gt(0)));
  const Dataset data = Dataset::Random(in.graph.inputs, 1, 3);
  const Tensor y = Executor(out.model).Run(data.Sample(0, in.graph.inputs))[0];
  for (size_t i = 9; i < 18; ++i) EXPECT_NEAR(y.data<float>()[i], 3, 1e-4);
}

// Scales are computed in float32 whatever the weights are stored in.
TEST(Int8Faults, SmallChannelsKeepTheirScale) {
  std::vector<float> w;
  for (int i = 0; i < 32; ++i)
    w.push_back((i % 8 == 0 ? 1e-6f : 1.0f) * static_cast<float>(i % 7 - 3.5));
  const Model in = WithWeights("g (float[2,4] x) => (float[2,8] y) { y = MatMul(x, w) }",
                               {{"w", Tensor::Make<float>({4, 8}, w)}});
  for (const char* pass : {"quantize_int8", "quantize_weights", "quantize_dynamic"}) {
    const Dataset data = Dataset::Random(in.graph.inputs, 8, 3);
    const Model out = RunStep(pass, {}, in, &data).model;
    const Tensor x = Tensor::Make<float>({2, 4}, {1, 1, 1, 1, 1, 1, 1, 1});
    const float want = Executor(in).Run({x})[0].data<float>()[0];
    EXPECT_NEAR(Executor(out).Run({x})[0].data<float>()[0] / want, 1, 0.05) << pass;
  }
}

// 255 times two weights, as vpmaddubsw adds them: in 16 bits, saturating.
int SaturatedPair(int a, int b) { return std::clamp(255 * (a + b), -32768, 32767); }

// Whether activations of 255 saturate anywhere in the model's INT8 weights.
bool Saturates(const Model& model) {
  bool found = false;
  for (const auto& [name, initializer] : model.graph.initializers) {
    if (initializer.tensor.dtype() != DType::kInt8) continue;
    const std::span<const int8_t> codes = initializer.tensor.data<int8_t>();
    for (size_t i = 1; i < codes.size(); ++i) {
      const int a = codes[i - 1], b = codes[i];
      found = found || SaturatedPair(a, b) != 255 * (a + b);
    }
  }
  return found;
}

TEST(Int8Faults, WhereTheTargetHasNoVnniNoPairOfProductsSaturates) {
  const Model in = WithWeights(R"(g (float[4,8] x) => (float[4,8] y) { y = MatMul(x, w) })",
                               {{"w", Tensor::Make<float>({8, 8}, std::vector<float>(64, 1.0f))}});
  EXPECT_TRUE(Saturates(QuantizeBy32(in).model));
  const PassResult out = QuantizeBy32(in, {{"target_isa", "avx2"}});
  EXPECT_FALSE(Saturates(out.model));
  EXPECT_EQ(out.report.at("weight_code_max"), 63);
  EXPECT_GT(SqnrDbOf32(in, out.model), 30);
  // pared's own products are exact on every machine.
  EXPECT_EQ(
      QuantizeBy32(in, {{"target_isa", "avx2"}, {"target", "pared"}}).report.at("weight_code_max"),
      127);
  EXPECT_TRUE(Saturates(RunStep("quantize_dynamic", {}, in).model));
  EXPECT_FALSE(Saturates(RunStep("quantize_dynamic", {{"target_isa", "avx2"}}, in).model));
}

// Whoever tries the result on this machine would see its products saturate.
TEST(Int8Faults, AMachineWithoutVnniIsToldOf) {
  const bool saturates = kOnX86 && !CpuHas(Isa::kAvxVnni) && !CpuHas(Isa::kAvx512Vnni);
  const Model in = WithWeights("g (float[4,8] x) => (float[4,8] y) { y = MatMul(x, w) }",
                               {{"w", Random(3).Normal({8, 8}, 1)}});
  const Dataset data = Dataset::Random(CallerInputs(in.graph), 8, 3);
  for (const char* pass : {"quantize_int8", "quantize_dynamic"}) {
    const auto is_told = [&](const Json& report) { return !WarningOf(report, "VNNI").empty(); };
    EXPECT_EQ(is_told(RunStep(pass, Json::object(), in, &data).report), saturates) << pass;
    const Json options = {{"target_isa", "avx2"}};
    EXPECT_FALSE(is_told(RunStep(pass, options, in, &data).report)) << pass;
  }
}

// Sixteen channels over four decades, as depthwise convolutions have them.
Model DepthwiseOverFourDecades() {
  std::vector<float> w;
  for (int i = 0; i < 16 * 9; ++i) {
    w.push_back(std::pow(10.0f, static_cast<float>(i / 9) / 15 * 4 - 3) *
                static_cast<float>(i % 9 - 3));
  }
  return WithWeights(
      R"(g (float[1,16,6,6] x) => (float[1,16,4,4] y) { [deep] y = Conv <group = 16> (x, w) })",
      {{"w", Tensor::Make<float>({16, 1, 3, 3}, w)}});
}

// The largest weight is 50, so a scale for all is 0.394, and of the channels whose largest is below
// half of it, 5 * 10^(4 c / 15 - 3) < 0.197, nothing is left: c = 0 to 5.
TEST(Int8Faults, OneScaleForAllChannelsWarnsOfThoseItLoses) {
  const PassResult out = QuantizeBy32(DepthwiseOverFourDecades(), {{"granularity", "per_tensor"},
                                                                   {"keep_float", "off"},
                                                                   {"rounding", "nearest"},
                                                                   {"target", "pared"}});
  const std::string warning = WarningOf(out.report, "with one scale");
  EXPECT_THAT(warning, HasSubstr("Conv deep"));
  EXPECT_THAT(warning, HasSubstr("of 16 channels 6 become zero"));
  const PassResult fine = QuantizeBy32(DepthwiseOverFourDecades(), {{"target", "pared"}});
  EXPECT_EQ(WarningOf(fine.report, "with one scale"), "");
}

// Stacked matrices have a scale a column of all of them.
TEST(Int8Faults, AStackThatLosesAMatrixWarnsOfIt) {
  std::vector<float> w;
  for (int i = 0; i < 2 * 8 * 4; ++i) {
    w.push_back((i < 32 ? 0.001f : 100.0f) * static_cast<float>(i * 7 % 11 - 5));
  }
  const Model in =
      WithWeights("g (float[2,3,8] x) => (float[2,3,4] y) { [stack] y = MatMul(x, w) }",
                  {{"w", Tensor::Make<float>({2, 8, 4}, w)}});
  const PassResult out = QuantizeBy32(in, {{"rounding", "nearest"}, {"keep_float", "off"}});
  EXPECT_THAT(WarningOf(out.report, "MatMul stack"), HasSubstr("of 8 channels 4 become zero"));
}

TEST(Int8Faults, NoDepthwiseChannelIsLost) {
  const Model in = DepthwiseOverFourDecades();
  const Model out = QuantizeBy32(in).model;
  const Dataset data = Dataset::Random(in.graph.inputs, 1, 3);
  const Tensor want = Executor(in).Run(data.Sample(0, in.graph.inputs))[0];
  const Tensor got = Executor(out).Run(data.Sample(0, in.graph.inputs))[0];
  for (size_t channel = 0; channel < 16; ++channel) {
    FidelitySums sums;
    sums.Add(want.data<float>().subspan(channel * 16, 16),
             got.data<float>().subspan(channel * 16, 16));
    EXPECT_GT(sums.SqnrDb(), 30) << "channel " << channel;
  }
}

// Scales by channel are of opset 13; before, a runtime sees one scale, and the small channels
// vanish.
TEST(Int8Faults, ChannelsOfFourMagnitudesBelowOpset13) {
  std::vector<float> w =
      Elements(WithWeights("g () => (float y) { y = Constant <value_float = 1.0> () }",
                           {{"w", Normal({4, 1, 3, 3})}}),
               "w");
  for (size_t i = 0; i < w.size(); ++i) w[i] *= std::pow(10.0f, static_cast<float>(i / 9));
  const Tensor weight = Tensor::Make<float>({4, 1, 3, 3}, w);
  for (const char* opset : {"7", "11", "12"}) {
    const Model in =
        WithWeights(std::string("<ir_version: 6, opset_import: [\"\" : ") + opset + R"(]>
      g (float[1,4,6,6] x) => (float[1,4,4,4] y) { y = Conv <group = 4> (x, w) })",
                    {{"w", weight}});
    const Dataset data = Dataset::Random(in.graph.inputs, 32, 3);
    for (const auto& [pass, options] :
         std::vector<std::pair<std::string, Json>>{{"quantize_int8", Json::object()},
                                                   {"quantize_int8", {{"format", "qoperator"}}},
                                                   {"quantize_dynamic", {{"op_types", {"Conv"}}}},
                                                   {"quantize_weights", Json::object()}}) {
      const PassResult out = RunStep(pass, options, in, &data);
      EXPECT_FALSE(out.report.at("raised").empty() && out.model.Opset("") != in.Opset("")) << pass;
      const Tensor want = Executor(in).Run(data.Sample(0, in.graph.inputs))[0];
      const Tensor got = Executor(out.model).Run(data.Sample(0, in.graph.inputs))[0];
      for (size_t channel = 0; channel < 4; ++channel) {
        FidelitySums sums;
        sums.Add(want.data<float>().subspan(channel * 16, 16),
                 got.data<float>().subspan(channel * 16, 16));
        EXPECT_GT(sums.SqnrDb(), 25) << pass << options << " opset " << opset << ": " << channel;
      }
    }
  }
}

TEST(Int8Faults, TheNarrowPartOfAConcatSurvives) {
  const Model in = WithWeights(
      R"(g (float[1,2,4,4] x) => (float[1,2,4,4] y, float[1,2,4,4] z)
    <float six = {6}, float zero = {0}, float one = {1}>
    { a = Conv(x, u) b = Clip(a, zero, six) c = Conv(x, v) d = Clip(c, zero, one)
      j = Concat <axis = 1> (b, d) y = Conv(j, w) z = Conv(d, u) })",
      {{"u", Normal({2, 2, 1, 1}, 3)}, {"v", Normal({2, 2, 1, 1})}, {"w", Normal({2, 4, 1, 1})}});
  EXPECT_GT(SqnrDbOf32(in, QuantizeBy32(in).model), 30);
}

// No value is dequantized only to be quantized again with the same parameters.
TEST(Int8Faults, ShapeOnlyOperatorsHaveOneOwnerOfTheRange) {
  const Model in =
      WithWeights(R"(g (float[1,4,4,4] x) => (float[1,2,8,2] y) <int64[4] s = {1,8,2,4}>
    { c = Conv(x, u) r = Reshape(c, s) t = Transpose <perm = [0,1,3,2]> (r)
      m = MaxPool <kernel_shape = [1,1]> (t) k = Reshape(m, q) y = Conv(k, w) })",
                  {{"u", Normal({4, 4, 1, 1})},
                   {"q", Tensor::Make<int64_t>({4}, {1, 4, 8, 2})},
                   {"w", Normal({2, 4, 1, 1})}});
  const Model out = QuantizeBy32(in).model;
  std::set<float> scales;
  for (const Node& node : out.graph.nodes) {
    if (node.op_type != "QuantizeLinear" || node.inputs[0] == "x") continue;
    scales.insert(Elements(out, node.inputs[1])[0]);
  }
  EXPECT_EQ(scales.size(), 1u);
  EXPECT_GT(SqnrDbOf32(in, out), 30);
}

// One gamma of 60 behind a normalization.
TEST(Int8Faults, AnOutlierChannelOfANormalizationIsSmoothed) {
  std::vector<float> gamma(32, 1);
  gamma[5] = 60;
  const Model in = WithWeights(R"(g (float[1,16,32] x) => (float[1,16,32] y)
    { n = LayerNormalization(x, gamma, beta) y = MatMul(n, w) })",
                               {{"gamma", Tensor::Make<float>({32}, gamma)},
                                {"beta", Normal({32}, 0.1)},
                                {"w", Normal({32, 32}, 0.2)}});
  // The outlier's own weights are as small as its values are large, as training leaves them.
  Model trained = in;
  std::vector<float> w = Elements(in, "w");
  for (size_t i = 0; i < 32; ++i) w[5 * 32 + i] *= 0.02f;
  trained = WithInitializer(trained, "w", Tensor::Make<float>({32, 32}, w));
  EXPECT_GT(SqnrDbOf32(trained, QuantizeBy32(trained).model), 25);
  EXPECT_LT(SqnrDbOf32(trained, QuantizeBy32(trained, {{"smooth", "off"}}).model),
            SqnrDbOf32(trained, QuantizeBy32(trained).model));
}

// Rounding moves the mean of a depthwise channel whose inputs are all of one sign.
TEST(Int8Faults, BiasCorrectionRestoresTheMean) {
  Random random(8);
  const Model in =
      WithWeights(R"(g (float[1,8,6,6] x) => (float[1,8,4,4] y)
    <float three = {3}> { a = Add(x, three) y = Conv <group = 8> (a, w, b) })",
                  {{"w", random.Uniform<float>({8, 1, 3, 3}, -1, 0.3)}, {"b", Normal({8})}});
  const auto drift = [&](bool corrected) {
    const Model out =
        QuantizeBy32(in, {{"bias_correction", corrected}, {"granularity", "per_tensor"}}).model;
    const Executor a(in), b(out);
    const Dataset data = Dataset::Random(in.graph.inputs, 32, 3);
    std::vector<double> shift(8);
    for (int64_t sample = 0; sample < 32; ++sample) {
      const Tensor want = a.Run(data.Sample(sample, a.inputs()))[0];
      const Tensor got = b.Run(data.Sample(sample, b.inputs()))[0];
      for (size_t i = 0; i < 128; ++i)
        shift[i / 16] += got.data<float>()[i] - want.data<float>()[i];
    }
    double sum = 0;
    for (const double each : shift) sum += std::abs(each) / (32 * 16);
    return sum / 8;
  };
  EXPECT_LT(drift(true), 0.6 * drift(false));
}

TEST(Int8Faults, TheReportRanksNodesBySensitivity) {
  const Model in = WithWeights(R"(g (float[4,2] x) => (float[4,2] y)
    <float[2] gamma = {1000,1}, float[2,2] w = {0.001,0.002,1,-2}, float[2,2] v = {1,0.5,-1,0.25}>
    { n = Mul(x, gamma) [bad] c = MatMul(n, w) s = Softplus(c) [good] y = MatMul(s, v) })",
                               {});
  const Json table =
      QuantizeBy32(in, {{"smooth", "off"}, {"sensitivity", true}}).report.at("sensitivity");
  ASSERT_EQ(table.size(), 2u);
  EXPECT_EQ(table[0].at("node"), "MatMul bad");
  EXPECT_LT(table[0].at("sqnr_db"), table[1].at("sqnr_db"));
  EXPECT_LT(table[0].at("output_sqnr_db"), table[1].at("output_sqnr_db"));
}

// A mask outlives every pass that a chain may hold behind it.
TEST(Int8Faults, PrunedWeightsStayZeroThroughEveryPass) {
  const Model in = WithWeights(R"(g (float[1,4,6,6] x) => (float[1,8] y)
    { c = Conv(x, u) n = BatchNormalization(c, s, m, m, v) r = Relu(n)
      d = Conv <group = 8, pads = [1,1,1,1]> (r, k) p = GlobalAveragePool(d) f = Flatten(p)
      y = MatMul(f, w) })",
                               {{"u", Normal({8, 4, 1, 1})},
                                {"s", Tensor::Make<float>({8}, {1, 2, 3, 4, 5, 6, 7, 8})},
                                {"m", Normal({8})},
                                {"v", Tensor::Make<float>({8}, {1, 2, 3, 4, 5, 6, 7, 8})},
                                {"k", Normal({8, 1, 3, 3})},
                                {"w", Normal({8, 8})}});
  const Dataset data = Dataset::Random(in.graph.inputs, 16, 3);
  const PassResult pruned =
      RunStep("magnitude_prune", {{"sparsity", 0.7}, {"depthwise", true}}, in, &data);
  const auto zeros = [](const Model& model) {
    std::map<int64_t, int64_t> counts;  // by the number of elements, which differ here
    for (const WeightInfo& weight : MeasureWeights(model)) counts[weight.count] += weight.zeros;
    return counts;
  };
  const auto before = zeros(pruned.model);
  EXPECT_EQ(before.at(32), 22);
  for (const auto& [pass, options] :
       std::vector<std::pair<std::string, Json>>{{"fold_batch_norm", Json::object()},
                                                 {"quantize_int8", Json::object()},
                                                 {"quantize_int8", {{"granularity", "per_tensor"}}},
                                                 {"quantize_int8", {{"reduce_range", true}}},
                                                 {"quantize_weights", Json::object()},
                                                 {"quantize_dynamic", Json::object()},
                                                 {"cast_fp16", Json::object()}}) {
    const auto after = zeros(RunStep(pass, options, pruned.model, &data).model);
    for (const auto& [count, zero] : before) {
      EXPECT_GE(after.contains(count) ? after.at(count) : 0, zero) << pass << " " << count;
    }
  }
}

}  // namespace
}  // namespace pared
