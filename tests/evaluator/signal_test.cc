// Lengths that the backend cases leave out; expected values by the definition, summed here.

#include "evaluator/signal.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <complex>
#include <numbers>
#include <random>

#include "evaluator/executor.h"
#include "tests/testing/matchers.h"
#include "tests/testing/models.h"

namespace pared {
namespace {

using ::testing::HasSubstr;

std::vector<double> RandomSignal(int64_t count) {
  std::mt19937 random(static_cast<unsigned>(count));
  std::uniform_real_distribution<double> uniform(-1, 1);
  std::vector<double> values(static_cast<size_t>(count));
  for (double& value : values) value = uniform(random);
  return values;
}

// sum over t of x[t] exp(-2 pi i t k / n)
std::complex<double> Bin(const std::vector<double>& x, int64_t k, int64_t n) {
  std::complex<double> sum;
  for (int64_t t = 0; t < std::min(n, static_cast<int64_t>(x.size())); ++t) {
    const double turn =
        -2 * std::numbers::pi * static_cast<double>(t * k % n) / static_cast<double>(n);
    sum += x[static_cast<size_t>(t)] * std::complex<double>(std::cos(turn), std::sin(turn));
  }
  return sum;
}

Tensor RunDft(const std::string& attributes, const Tensor& x, int64_t n) {
  return Executor(ModelFromText(
                      R"(<ir_version: 10, opset_import: ["" : 20]>
      g (double[B,N,C] x, int64 n) => (double[B,M,D] y) { y = DFT <)" +
                      attributes + ">(x, n) }"))
      .Run({x, Tensor::Scalar<int64_t>(n)})[0];
}

TEST(Dft, AgreesWithTheDefinitionForEveryKindOfLength) {
  // A power of two, primes, a square, products; shorter and longer than the signal.
  for (const int64_t n : {1, 2, 3, 7, 8, 9, 25, 30, 97, 400}) {
    for (const int64_t length : {n, n + 3, n / 2 + 1}) {
      const std::vector<double> x = RandomSignal(length);
      const Tensor y = RunDft("onesided = 0", Tensor::Make<double>({1, length, 1}, x), n);
      ASSERT_EQ(y.shape(), (Shape{1, n, 2}));
      for (int64_t k = 0; k < n; ++k) {
        const std::complex<double> wanted = Bin(x, k, n);
        const size_t at = 2 * static_cast<size_t>(k);
        ASSERT_NEAR(y.data<double>()[at], wanted.real(), 1e-10) << n << " bin " << k;
        ASSERT_NEAR(y.data<double>()[at + 1], wanted.imag(), 1e-10) << n << " bin " << k;
      }
    }
  }
}

TEST(Dft, TheInverseOfHalfASpectrumIsTheSignal) {
  for (const int64_t n : {2, 6, 9, 16, 45}) {
    const std::vector<double> x = RandomSignal(n);
    const Tensor half = RunDft("onesided = 1", Tensor::Make<double>({1, n, 1}, x), n);
    EXPECT_EQ(half.shape(), (Shape{1, n / 2 + 1, 2}));
    const Tensor back = RunDft("onesided = 1, inverse = 1", half, n);
    ASSERT_EQ(back.shape(), (Shape{1, n, 1}));
    for (size_t t = 0; t < x.size(); ++t) ASSERT_NEAR(back.data<double>()[t], x[t], 1e-12) << n;
  }
}

TEST(Dft, RefusesLengthsAndShapesThatAreNone) {
  const auto run = [](Shape shape, int64_t n) {
    return [=] { RunDft("", Tensor::Make<double>(shape, RandomSignal(ElementCount(shape))), n); };
  };
  for (const int64_t n : {int64_t{0}, int64_t{-4}, INT64_MAX}) {
    EXPECT_THAT(run({1, 4, 1}, n), ThrowsError(ErrorCode::kInvalidArgument, "DFT producing y",
                                               HasSubstr("dft_length")));
  }
  EXPECT_THAT(run({1, 4, 3}, 4),
              ThrowsError(ErrorCode::kInvalidArgument, "DFT producing y", HasSubstr("[1, 4, 3]")));
}

TEST(Stft, FramesAreTransformedUnderTheWindow) {
  const std::vector<double> x = RandomSignal(20);
  const std::vector<double> window = {0.5, 1, 2, 1, 0.25};
  const Tensor y = Executor(ModelFromText(R"(<ir_version: 10, opset_import: ["" : 17]>
      g (double[1,20,1] x, int64 step, double[5] w) => (double[1,F,K,2] y) {
        y = STFT(x, step, w) })"))
                       .Run({Tensor::Make<double>({1, 20, 1}, x), Tensor::Scalar<int64_t>(4),
                             Tensor::Make<double>({5}, window)})[0];
  ASSERT_EQ(y.shape(), (Shape{1, 4, 3, 2}));
  for (int64_t frame = 0; frame < 4; ++frame) {
    std::vector<double> part;
    for (size_t t = 0; t < 5; ++t)
      part.push_back(x[static_cast<size_t>(frame) * 4 + t] * window[t]);
    for (int64_t k = 0; k < 3; ++k) {
      const size_t at = static_cast<size_t>((frame * 3 + k) * 2);
      EXPECT_NEAR(y.data<double>()[at], Bin(part, k, 5).real(), 1e-12);
      EXPECT_NEAR(y.data<double>()[at + 1], Bin(part, k, 5).imag(), 1e-12);
    }
  }
}

TEST(Stft, RefusesFramesLongerThanTheSignal) {
  const Executor executor(ModelFromText(R"(<ir_version: 10, opset_import: ["" : 17]>
      g (double[1,4,1] x, int64 step, int64 frame) => (double[1,F,K,2] y) {
        y = STFT(x, step, , frame) })"));
  for (const auto& [step, frame] : {std::pair{1, 5}, {0, 4}, {1, 0}, {-1, 2}}) {
    EXPECT_THAT(
        [&] {
          executor.Run({Tensor::Make<double>({1, 4, 1}, {1, 2, 3, 4}),
                        Tensor::Scalar<int64_t>(step), Tensor::Scalar<int64_t>(frame)});
        },
        ThrowsError(ErrorCode::kInvalidArgument, "STFT producing y", HasSubstr("frames of")));
  }
}

TEST(MelWeightMatrix, RefusesEdgesAboveHalfTheRate) {
  const Executor executor(ModelFromText(R"(<ir_version: 10, opset_import: ["" : 17]>
      g (float high) => (float[9,4] y) <int64 bins = {4}, int64 length = {16}, int64 rate = {8000},
                                        float low = {0}> {
        y = MelWeightMatrix(bins, length, rate, low, high) })"));
  EXPECT_EQ(executor.Run({Tensor::Scalar<float>(4000)})[0].shape(), (Shape{9, 4}));
  for (const float high : {9000.0F, -800.0F}) {
    EXPECT_THAT([&] { executor.Run({Tensor::Scalar<float>(high)}); },
                ThrowsError(ErrorCode::kInvalidArgument, "MelWeightMatrix producing y",
                            HasSubstr("half of the sample rate")));
  }
}

}  // namespace
}  // namespace pared
