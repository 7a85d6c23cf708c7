// INT8 convolutions by Winograd's algorithm in whole models: the same bits as the reference.

#include "evaluator/winograd.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "evaluator/executor.h"
#include "tests/testing/models.h"
#include "tests/testing/random_tensor.h"

namespace pared {
namespace {

constexpr char kConstants[] = "float s = {0.05}, uint8 z = {100}, float ws = {0.01}, int8 wz = {0}";

// x, quantized to d, through `body` to f, with 3x3 weights w of `channels` to `channels`.
Model ConvModel(int64_t channels, const std::string& body, const std::string& y, Tensor w) {
  const std::string text = std::string("g (float[N,") + std::to_string(channels) + ",H,W] x) => (" +
                           y + " y) <" + kConstants +
                           "> { q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z)"
                           " v = DequantizeLinear(w, ws, wz) " +
                           body + "}";
  return WithInitializer(ParseText(text), "w", std::move(w));
}

constexpr char kConv[] = "f = Conv <pads = [1, 1, 1, 1]> (d, v)";
constexpr char kToCodes[] = " y = QuantizeLinear(f, s, z)";

std::vector<std::byte> BytesOf(const Tensor& tensor) {
  return {tensor.bytes().begin(), tensor.bytes().end()};
}

bool HasAvx2() {
  const std::vector<Isa> isas = AvailableIsas();
  return std::ranges::find(isas, Isa::kAvx2) != isas.end();
}

Tensor Ones(const Shape& shape) {
  return Tensor::Make<float>(shape,
                             std::vector<float>(static_cast<size_t>(ElementCount(shape)), 1.0F));
}

// The kernels of the convolutions.
std::vector<std::string> KernelsOf(const Model& model, const Tensor& x) {
  std::vector<std::string> kernels;
  for (const LayerStats& layer : Executor(model, {.isa = Isa::kAvx2}).Profile({x}, 1)) {
    if (layer.op_type == "Conv") kernels.push_back(layer.kernel);
  }
  return kernels;
}

// On AVX2 with one to three threads, for images of each shape in turn.
void ExpectReference(const Model& model, const std::vector<Shape>& shapes) {
  Random random(5);
  const Executor reference(model, {.isa = Isa::kReference});
  std::vector<Executor> executors;
  for (const int64_t threads : {1, 2, 3}) {
    executors.emplace_back(model, ExecutorOptions{.isa = Isa::kAvx2, .threads = threads});
  }
  for (const Shape& shape : shapes) {
    const Tensor x = random.Uniform<float>(shape, -6, 9);
    const std::vector<std::byte> expected = BytesOf(reference.Run({x}).at(0));
    for (const Executor& executor : executors) {
      EXPECT_EQ(BytesOf(executor.Run({x}).at(0)), expected) << ShapeText(shape);
    }
  }
}

Tensor WeightsOf(int64_t channels) {
  Random random(6);
  return random.Uniform<int8_t>({channels, channels, 3, 3}, -127, 127);
}

const std::vector<Shape> kShapes = {
    {1, 21, 28, 28}, {3, 21, 13, 30}, {1, 21, 70, 66}, {2, 21, 1, 1}};

TEST(WinogradInt8, CodesEqualTheReference) {
  if (!HasAvx2()) GTEST_SKIP() << "needs AVX2";
  const Model model = ConvModel(21, std::string(kConv) + kToCodes, "uint8[a,b,c,e]", WeightsOf(21));
  EXPECT_EQ(KernelsOf(model, Ones({1, 21, 16, 16})), std::vector<std::string>{"winograd_avx2"});
  ExpectReference(model, kShapes);
}

TEST(WinogradInt8, FloatsEqualTheReference) {
  if (!HasAvx2()) GTEST_SKIP() << "needs AVX2";
  ExpectReference(
      ConvModel(21, std::string(kConv) + " y = Identity(f)", "float[a,b,c,e]", WeightsOf(21)),
      kShapes);
}

TEST(WinogradInt8, TablesAndSumsBehindItEqualTheReference) {
  if (!HasAvx2()) GTEST_SKIP() << "needs AVX2";
  const std::string body =
      "c = Conv <pads = [1, 1, 1, 1]> (d, v) cq = QuantizeLinear(c, s, z) cd = "
      "DequantizeLinear(cq, s, z)"
      "t = Sigmoid(cd) tq = QuantizeLinear(t, ws, z) td = DequantizeLinear(tq, ws, z)"
      "f = Add(td, d)";
  ExpectReference(ConvModel(21, body + kToCodes, "uint8[a,b,c,e]", WeightsOf(21)), kShapes);
}

TEST(WinogradInt8, SumsOutOfItsReachTakeTheDenseKernel) {
  if (!HasAvx2()) GTEST_SKIP() << "needs AVX2";
  std::vector<int8_t> w(117 * 117 * 9, int8_t{127});
  const Model model = ConvModel(117, std::string(kConv) + kToCodes, "uint8[a,b,c,e]",
                                Tensor::Make<int8_t>({117, 117, 3, 3}, std::move(w)));
  EXPECT_EQ(KernelsOf(model, Ones({1, 117, 16, 16})), std::vector<std::string>{"dense_avx2"});
  ExpectReference(model, {{1, 117, 12, 12}});
}

TEST(WinogradInt8, OtherWindowsTakeTheDenseKernel) {
  if (!HasAvx2()) GTEST_SKIP() << "needs AVX2";
  for (const std::string attributes :
       {"strides = [2, 2]", "dilations = [1, 2]", "strides = [1, 2]"}) {
    const Model model = ConvModel(21, "f = Conv <" + attributes + "> (d, v)" + kToCodes,
                                  "uint8[a,b,c,e]", WeightsOf(21));
    EXPECT_EQ(KernelsOf(model, Ones({1, 21, 30, 30})), std::vector<std::string>{"dense_avx2"})
        << attributes;
  }
}

// Which is faster by docs/kernels.md.
TEST(WinogradInt8, IsTakenWhereItIsFasterThanWhatIsGathered) {
  constexpr int64_t k64 = 64 * 9;
  EXPECT_TRUE(WinogradPays({64, k64, 56 * 56}));
  EXPECT_TRUE(WinogradPays({256, 256 * 9, 14 * 14}));
  EXPECT_TRUE(WinogradPays({8, 8 * 9, 80 * 80}));
  EXPECT_TRUE(WinogradPays({64, k64, 10 * 10}));
  EXPECT_FALSE(WinogradPays({512, 512 * 9, 7 * 7}));
  EXPECT_FALSE(WinogradPays({1, 9, 56 * 56}));
  EXPECT_FALSE(WinogradPays({64, k64, 1}));
  // Sparse weights.
  EXPECT_TRUE(WinogradPays({64, k64, 56 * 56, 2.2}));
  EXPECT_FALSE(WinogradPays({64, k64, 56 * 56, 4.2}));
  EXPECT_TRUE(WinogradPays({64, k64, 56 * 56, 0.9}));
}

TEST(WinogradInt8, SparseWeightsTakeTheSparseKernelWhereItIsFaster) {
  if (!HasAvx2()) GTEST_SKIP() << "needs AVX2";
  for (const auto& [zeros, kernel] : {std::pair(70, "winograd_avx2"), {95, "sparse_1x1_avx2"}}) {
    std::vector<int8_t> w(64 * 64 * 9);
    for (size_t i = 0; i < w.size(); ++i) {
      w[i] = static_cast<int64_t>(i * 7919 % 101) < zeros ? int8_t{0} : int8_t{77};
    }
    const Model model = ConvModel(64, std::string(kConv) + kToCodes, "uint8[a,b,c,e]",
                                  Tensor::Make<int8_t>({64, 64, 3, 3}, std::move(w)));
    EXPECT_EQ(KernelsOf(model, Ones({1, 64, 40, 40})), std::vector<std::string>{kernel}) << zeros;
    ExpectReference(model, {{1, 64, 13, 30}});
  }
}

// --- integer products, by the sizes of images that come ---

Model IntegerModel(Tensor w, Tensor w_zero) {
  const Model model = ParseText(
      "g (uint8[N,21,H,W] x) => (int32[a,b,c,e] y) <uint8 xz = {130}>"
      "{ y = ConvInteger <pads = [1, 1, 1, 1]> (x, w, xz, wz) }");
  return WithInitializer(WithInitializer(model, "w", std::move(w)), "wz", std::move(w_zero));
}

// The same bits for images of 144 pixels and more, which take it, and for smaller ones between.
void ExpectIntegerReference(const Model& model) {
  Random random(8);
  const Executor reference(model, {.isa = Isa::kReference});
  for (const int64_t threads : {1, 2, 3}) {
    const Executor executor(model, {.isa = Isa::kAvx2, .threads = threads});
    for (const Shape& shape : {Shape{1, 21, 9, 11}, Shape{2, 21, 13, 30}, Shape{1, 21, 3, 3},
                               Shape{1, 21, 70, 66}, Shape{1, 21, 12, 12}}) {
      const Tensor x = random.Uniform<uint8_t>(shape, 0, 255);
      std::vector<LayerStats> layers;
      const Tensor y = executor.RunTimed({x}, layers).at(0);
      EXPECT_EQ(BytesOf(y), BytesOf(reference.Run({x}).at(0))) << ShapeText(shape);
      const bool is_small = shape[2] * shape[3] < 144;
      EXPECT_EQ(layers.at(0).kernel, is_small ? "dense_avx2" : "winograd_avx2") << ShapeText(shape);
    }
  }
}

TEST(WinogradInteger, SumsOfEveryTypeAndZeroPointEqualTheReference) {
  if (!HasAvx2()) GTEST_SKIP() << "needs AVX2";
  Random random(9);
  const Tensor unsigned_w = random.Uniform<uint8_t>({19, 21, 3, 3}, 0, 255);
  const Tensor signed_w = random.Uniform<int8_t>({19, 21, 3, 3}, -128, 127);
  ExpectIntegerReference(IntegerModel(unsigned_w, Tensor::Scalar<uint8_t>(128)));
  ExpectIntegerReference(IntegerModel(unsigned_w, Tensor::Scalar<uint8_t>(0)));
  ExpectIntegerReference(IntegerModel(signed_w, Tensor::Scalar<int8_t>(0)));
  ExpectIntegerReference(IntegerModel(signed_w, random.Uniform<int8_t>({19}, -128, 127)));
}

}  // namespace
}  // namespace pared
