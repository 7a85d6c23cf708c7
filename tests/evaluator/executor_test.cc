#include "evaluator/executor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "tests/evaluator/run_text.h"
#include "tests/testing/floats.h"
#include "tests/testing/matchers.h"
#include "tests/testing/models.h"

namespace pared {
namespace {

using ::testing::ElementsAre;
using ::testing::FloatNear;
using ::testing::HasSubstr;

TEST(Executor, RunsNodesInOrder) {
  const std::vector<Tensor> y = RunText(R"(g (float[2] x) => (float[2] y, float[2] h) {
      h = Add(x, x)
      y = Mul(h, x)
    })",
                                        {Floats({2}, {3, -1})});
  EXPECT_THAT(ValuesOf(y[0]), ElementsAre(18, 2));
  EXPECT_THAT(ValuesOf(y[1]), ElementsAre(6, -2));
}

TEST(Executor, GivesNullForInputsLeftOut) {
  // Clip with an upper bound alone.
  const std::vector<Tensor> y =
      RunText("g (float[3] x) => (float[3] y) <float high = {1}> { y = Clip(x, , high) }",
              {Floats({3}, {-5, 0.5, 7})});
  EXPECT_THAT(ValuesOf(y[0]), ElementsAre(-5, 0.5, 1));
}

TEST(Executor, LeavesOutOutputsThatNobodyNames) {
  const std::vector<Tensor> y = RunText(R"(g (float[1,3] x) => (int64[1,1] places)
    <int64[1] k = {1}> { , places = TopK(x, k) })",
                                        {Floats({1, 3}, {1, 9, 3})});
  EXPECT_EQ(y[0].data<int64_t>()[0], 1);
}

TEST(Executor, TakesInputsThatAreInitializersFromTheModel) {
  const Executor executor(ModelFromText(
      "g (float[1] x, float[1] w) => (float[1] y) <float[1] w = {4}> { y = Mul(x, w) }"));
  ASSERT_EQ(executor.inputs().size(), 1U);
  EXPECT_EQ(executor.inputs()[0].name, "x");
  EXPECT_THAT(ValuesOf(executor.Run({Floats({1}, {5})})[0]), ElementsAre(20));
}

constexpr const char* kBranches =
    R"(g (bool c, float[2] x) => (float[2] y) <float[2] w = {10, 20}> {
    h = Add(x, x)
    y = If (c) <then_branch = t () => (float[2] a) { a = Add(h, w) },
                else_branch = e () => (float[2] b) {
                  b = If (c) <then_branch = p () => (float[2] d) { d = Identity(x) },
                              else_branch = q () => (float[2] f) { f = Sub(h, w) }> }>
  })";

TEST(Executor, SubgraphsSeeOuterNames) {
  const Executor executor(ModelFromText(kBranches));
  const Tensor x = Floats({2}, {1, 2});
  EXPECT_THAT(ValuesOf(executor.Run({Tensor::Scalar(true), x})[0]), ElementsAre(12, 24));
  EXPECT_THAT(ValuesOf(executor.Run({Tensor::Scalar(false), x})[0]), ElementsAre(-8, -16));
}

TEST(Executor, LoopsCarryValuesAndCaptureNames) {
  // s = s + x, as often as n says; the running sums are stacked.
  const std::vector<Tensor> y =
      RunText(R"(g (int64 n, float[1] x) => (float[1] s, float[N,1] all) <float[1] zero = {0}> {
      s, all = Loop(n, , zero) <body = b (int64 i, bool c, float[1] before)
                                 => (bool again, float[1] after, float[1] copy) {
        again = Identity(c)
        after = Add(before, x)
        copy = Identity(after)
      }>
    })",
              {Tensor::Scalar<int64_t>(3), Floats({1}, {2})});
  EXPECT_THAT(ValuesOf(y[0]), ElementsAre(6));
  EXPECT_THAT(ValuesOf(y[1]), ElementsAre(2, 4, 6));
  EXPECT_EQ(y[1].shape(), (Shape{3, 1}));
}

// Running sums of two sequences at once, each from its own start.
constexpr const char* kBatchedScan = R"(<ir_version: 4, opset_import: ["" : 8]>
    g (int64[B] lengths, float[B,1] start, float[B,3,1] x) => (float[B,1] s, float[B,3,1] all) {
      s, all = Scan <num_scan_inputs = 1, directions = [1],
                     body = b (float[1] before, float[1] next) => (float[1] after, float[1] copy) {
        after = Add(before, next)
        copy = Identity(after)
      }>()";

TEST(Executor, TheScanOfOpset8RunsEachSequenceOfABatch) {
  const std::vector<Tensor> y =
      RunText(std::string(kBatchedScan) + ", start, x) }",
              {Tensor::Make<int64_t>({2}, {3, 3}), Floats({2, 1}, {0, 100}),
               Floats({2, 3, 1}, {1, 2, 3, 10, 20, 30})});
  EXPECT_THAT(ValuesOf(y[0]), ElementsAre(6, 160));
  EXPECT_THAT(ValuesOf(y[1]), ElementsAre(3, 5, 6, 130, 150, 160));  // from the end
  EXPECT_EQ(y[1].shape(), (Shape{2, 3, 1}));
}

TEST(Executor, TheScanOfOpset8RefusesLengthsAndBatchesThatDiffer) {
  const Tensor lengths = Tensor::Make<int64_t>({2}, {3, 2});
  const Tensor x = Floats({2, 3, 1}, {1, 2, 3, 10, 20, 30});
  EXPECT_THAT(
      [&] {
        RunText(std::string(kBatchedScan) + "lengths, start, x) }",
                {lengths, Floats({2, 1}, {0, 1}), x});
      },
      ThrowsError(ErrorCode::kUnsupported, "Scan producing s", HasSubstr("sequence_lens")));
  EXPECT_THAT(
      [&] {
        RunText(std::string(kBatchedScan) + ", start, x) }", {lengths, Floats({1, 1}, {0}), x});
      },
      ThrowsError(ErrorCode::kInvalidArgument, "Scan producing s", HasSubstr("a batch in common")));
}

constexpr const char* kCalls = R"(
    <ir_version: 8, opset_import: ["" : 17, "local" : 1]>
    g (float[2] x) => (float[2] y) {
      h = local.Scale <k = 3.0> (x)
      y = local.Scale(h)
    }
    <domain: "local", opset_import: ["" : 17]>
    Scale <k: float = 0.5> (v) => (w) {
      s = Constant <value_float : float = @k> ()
      w = Mul(v, s)
    })";

TEST(Executor, CallsFunctionsWithTheirAttributes) {
  EXPECT_THAT(ValuesOf(RunText(kCalls, {Floats({2}, {2, 4})})[0]), ElementsAre(3, 6));
}

std::map<std::string, Tensor> Observed(std::string_view text, const std::vector<Tensor>& inputs) {
  const Executor executor(ModelFromText(text), {.fuse = false});
  std::map<std::string, Tensor> seen;
  const Observer observer = [&](const std::string& name, const Tensor& tensor) {
    seen[name] = tensor;
  };
  executor.Run(inputs, &observer);
  return seen;
}

std::vector<std::string> NamesOf(const std::map<std::string, Tensor>& seen) {
  std::vector<std::string> names;
  for (const auto& [name, tensor] : seen) names.push_back(name);
  return names;
}

TEST(Executor, ObserverSeesInputsFoldedConstantsAndResults) {
  const auto seen = Observed(R"(g (float[1] x) => (float[1] y) <float[1] w = {2}> {
      square = Mul(w, w)
      h = Add(x, square)
      unused = Neg(h)
      y = Relu(h)
    })",
                             {Floats({1}, {-7})});
  EXPECT_THAT(NamesOf(seen), ElementsAre("h", "square", "unused", "x", "y"));
  EXPECT_THAT(ValuesOf(seen.at("square")), ElementsAre(4));
  EXPECT_THAT(ValuesOf(seen.at("unused")), ElementsAre(3));
}

TEST(Executor, ObserverSeesResultsOfCalls) {
  const auto seen = Observed(kCalls, {Floats({2}, {2, 4})});
  EXPECT_THAT(NamesOf(seen), ElementsAre("h", "x", "y"));
  EXPECT_THAT(ValuesOf(seen.at("h")), ElementsAre(6, 12));
}

TEST(Executor, RefusesInputsThatDoNotFitByName) {
  const Executor executor(ModelFromText("g (float[N,2] x) => (float[N,2] y) { y = Relu(x) }"));
  EXPECT_THAT(
      [&] {
        executor.Run({Floats({2, 3}, {1, 2, 3, 4, 5, 6})});
      },
      ThrowsError(ErrorCode::kInvalidArgument, "x", HasSubstr("[-1, 2]")));
  EXPECT_THAT(
      [&] {
        executor.Run({Floats({2}, {1, 2})});
      },
      ThrowsError(ErrorCode::kInvalidArgument, "x"));
  EXPECT_THAT(
      [&] {
        executor.Run({Tensor::Make<int64_t>({1, 2}, {1, 2})});
      },
      ThrowsError(ErrorCode::kInvalidArgument, "x", HasSubstr("int64")));
  EXPECT_THAT([&] { executor.Run({}); }, ThrowsError(ErrorCode::kInvalidArgument, ""));
  EXPECT_EQ(executor.Run({Floats({0, 2}, {})})[0].shape(), (Shape{0, 2}));
}

TEST(Executor, NamesTheNodeWhoseOperandsDoNotFit) {
  const Executor executor(
      ModelFromText("g (float[N] a, float[M] b) => (float[K] y) { [joined] y = Add(a, b) }"));
  EXPECT_THAT(
      [&] {
        executor.Run({Floats({2}, {1, 2}), Floats({3}, {1, 2, 3})});
      },
      ThrowsError(ErrorCode::kInvalidArgument, "Add joined"));
}

TEST(Executor, RefusesUnknownOperatorsWhenPrepared) {
  EXPECT_THAT(
      [] {
        Executor(ModelFromText(R"(<ir_version: 8, opset_import: ["" : 17, "com.acme" : 2]>
          g (float[1] x) => (float[1] y) { [odd] y = com.acme.Odd(x) })"));
      },
      ThrowsError(ErrorCode::kUnsupported, "Odd odd", HasSubstr("com.acme::Odd (opset 2)")));
}

TEST(Executor, FreesActivationsAfterTheirLastUse) {
  // Ten activations of 4 MB in a chain: two of them live at once.
  std::string text = "g (float[1048576] x0) => (float[1048576] x10) {";
  for (int i = 0; i < 10; ++i) {
    text += "x" + std::to_string(i + 1) + " = Neg(x" + std::to_string(i) + ")\n";
  }
  const Executor executor(ModelFromText(text + "}"));
  executor.Run({Floats({1048576}, std::vector<float>(1048576, 1.0F))});
  EXPECT_GE(executor.peak_activation_bytes(), int64_t{4} << 20);
  EXPECT_LE(executor.peak_activation_bytes(), int64_t{9} << 20);
}

TEST(Executor, ResultsOutliveTheExecutor) {
  Tensor y;
  {
    const Executor executor(ModelFromText("g (float[2] x) => (float[2] y) { y = Neg(x) }"));
    y = executor.Run({Floats({2}, {1, 2})})[0];
    executor.Run({Floats({2}, {8, 9})});
  }
  EXPECT_THAT(ValuesOf(y), ElementsAre(-1, -2));
}

TEST(Executor, RunsFromSeveralThreadsAtOnce) {
  const Executor executor(ModelFromText(kBranches), {.threads = 2});
  std::vector<std::vector<float>> results(4);
  std::vector<std::jthread> threads;
  for (size_t t = 0; t < results.size(); ++t) {
    threads.emplace_back([&, t] {
      for (int run = 0; run < 200; ++run) {
        const float x = static_cast<float>(t);
        results[t] = ValuesOf(executor.Run({Tensor::Scalar(true), Floats({2}, {x, x})})[0]);
      }
    });
  }
  threads.clear();
  for (size_t t = 0; t < results.size(); ++t) {
    const float x = static_cast<float>(t);
    EXPECT_THAT(results[t], ElementsAre(2 * x + 10, 2 * x + 20));
  }
}

TEST(Executor, ActivationsKeepInfinitiesAndNaN) {
  const float inf = std::numeric_limits<float>::infinity();
  const Executor executor(ModelFromText(R"(g (float[4] x) => (float[4] e, float[4] s, float[4] t) {
      e = Exp(x)
      s = Sigmoid(x)
      t = Tanh(x)
    })"));
  const std::vector<Tensor> y = executor.Run({Floats({4}, {-inf, inf, 0, std::nanf("")})});
  EXPECT_THAT(ValuesOf(y[0]), ElementsAre(0, inf, 1, ::testing::IsNan()));
  EXPECT_THAT(ValuesOf(y[1]), ElementsAre(FloatNear(0, 1e-37F), 1, 0.5F, ::testing::IsNan()));
  EXPECT_THAT(ValuesOf(y[2]), ElementsAre(-1, 1, 0, ::testing::IsNan()));
}

TEST(Executor, RunsWhatScikitLearnPutsAroundANetwork) {
  const Model model = ModelFromText(R"(<ir_version: 8, opset_import: ["" : 17, "ai.onnx.ml" : 3]>
      g (int64[2,2] x) => (float[2,2] s, int64[1,2] y) <int64[3] classes = {7,8,9}> {
        s = ai.onnx.ml.Scaler <offset = [1.0,2.0], scale = [0.5,10.0]> (x)
        a = ArgMax <axis = 1, keepdims = 0> (s) y = ai.onnx.ml.ArrayFeatureExtractor(classes, a) })");
  const auto results = Executor(model).Run({Tensor::Make<int64_t>({2, 2}, {3, 1, 1, 5})});
  EXPECT_THAT(ValuesOf(results[0]), ElementsAre(1, -10, 0, 30));
  EXPECT_THAT(results[1], SameTensor(Tensor::Make<int64_t>({1, 2}, {7, 8})));
}

TEST(Executor, PowersThatExportersSpellAreThoseOfPow) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const std::vector<float> x = {0,      -0.0F, 1,         -1.5F,      2.25F,
                                1e-20F, 3e12F, kInfinity, -kInfinity, 0.1F};
  for (const float exponent : {2.0F, 3.0F, 0.5F, -0.5F, -1.0F, 1.7F}) {
    const Model model =
        ModelFromText("g (float[10] x, float p) => (float[10] y) { y = Pow(x, p) }");
    const Tensor y = Executor(model).Run({Floats({10}, x), Tensor::Scalar<float>(exponent)})[0];
    for (size_t i = 0; i < x.size(); ++i) {
      const float want = std::pow(x[i], exponent), got = y.data<float>()[i];
      if (std::isnan(want)) {
        EXPECT_TRUE(std::isnan(got)) << x[i] << " to " << exponent;
      } else {
        EXPECT_FLOAT_EQ(got, want) << x[i] << " to " << exponent;
      }
    }
  }
}

TEST(Executor, ComposesQuantizedOperatorsOfOnnxRuntime) {
  // (10 * 0.5 + (20 - 4) * 0.25) / 0.1 + 3 = 93; 255 * 0.5 + 63 saturates.
  const std::vector<Tensor> y =
      RunText(R"(<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>
    g (uint8[2] a, uint8[2] b) => (uint8[2] y)
    <float sa = {0.5}, float sb = {0.25}, float sy = {0.1}, uint8 zb = {4}, uint8 zy = {3}> {
      y = com.microsoft.QLinearAdd(a, sa, , b, sb, zb, sy, zy)
    })",
              {Tensor::Make<uint8_t>({2}, {10, 255}), Tensor::Make<uint8_t>({2}, {20, 255})});
  EXPECT_THAT(y[0].data<uint8_t>(), ElementsAre(93, 255));
}

// Ends are held within [-1, n - 1] where steps are negative: only what is below -n reads to the
// first element. ONNX Runtime reads it for INT64_MAX too; ONNX's own implementation does not.
TEST(Executor, SliceBackwardsEndsWhereOnnxSaysItDoes) {
  const auto slice = [](int64_t start, int64_t end, int64_t step) {
    return ValuesOf(
        RunText(R"(g (float[5] x, int64[1] s, int64[1] e, int64[1] t) => (float[n] y)
        <int64[1] a = {0}> { y = Slice(x, s, e, a, t) })",
                {Floats({5}, {0, 1, 2, 3, 4}), Tensor::Make<int64_t>({1}, {start}),
                 Tensor::Make<int64_t>({1}, {end}), Tensor::Make<int64_t>({1}, {step})})[0]);
  };
  EXPECT_THAT(slice(4, INT64_MAX, -1), ElementsAre());
  EXPECT_THAT(slice(3, 4, -1), ElementsAre());
  EXPECT_THAT(slice(4, INT64_MIN, -1), ElementsAre(4, 3, 2, 1, 0));
  EXPECT_THAT(slice(INT64_MAX, -6, -2), ElementsAre(4, 2, 0));
  EXPECT_THAT(slice(INT64_MIN, INT64_MAX, 2), ElementsAre(0, 2, 4));
}

// Functions of which each calls the one before it twice: 2^40 nodes in a file of 3 KB.
TEST(Executor, FunctionsThatCallFunctionsWithoutBoundAreRefused) {
  for (const std::string body : {"b = Neg(a)", ""}) {  // calls count too
    std::string text =
        R"(<ir_version: 8, opset_import: ["" : 17, "l" : 1]> g (float[1] x) => (float[1] y) { y = l.F40(x) }
      <domain: "l", opset_import: ["" : 17]> F0 (a) => ()" +
        std::string(body.empty() ? "a" : "b") + ") {" + body + "}";
    for (int i = 1; i <= 40; ++i) {
      const std::string callee = "l.F" + std::to_string(i - 1);
      text += "<domain: \"l\", opset_import: [\"\" : 17, \"l\" : 1]> F" + std::to_string(i) +
              " (a) => (b) { c = " + callee + "(a) b = " + callee + "(c) }";
    }
    const Model bomb = ParseText(text);
    EXPECT_THAT([&] { Executor{bomb}; },
                ThrowsError(ErrorCode::kUnsupported, "", HasSubstr("1000000 nodes")));
  }
}

}  // namespace
}  // namespace pared
