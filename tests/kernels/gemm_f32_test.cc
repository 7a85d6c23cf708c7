#include "kernels/gemm_f32.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

namespace pared {
namespace {

std::vector<float> RandomFloats(int64_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<float> uniform(-1, 1);
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) value = uniform(random);
  return values;
}

class F32 : public ::testing::TestWithParam<Isa> {
 protected:
  const F32Kernels& kernels() const { return F32KernelsFor(GetParam()); }
};

struct Extents {
  int64_t m, n, k;
};

// Sums in double, the way the definition reads.
std::vector<double> Multiply(const Extents& e, const std::vector<float>& a,
                             const std::vector<float>& b) {
  std::vector<double> c(static_cast<size_t>(e.m * e.n));
  for (int64_t i = 0; i < e.m * e.n; ++i) {
    for (int64_t k = 0; k < e.k; ++k) {
      c[static_cast<size_t>(i)] += static_cast<double>(a[static_cast<size_t>(i / e.n * e.k + k)]) *
                                   static_cast<double>(b[static_cast<size_t>(k * e.n + i % e.n)]);
    }
  }
  return c;
}

TEST_P(F32, GemmAgreesWithDoublesAcrossTileEdges) {
  for (const Extents e :
       {Extents{1, 1, 1}, Extents{5, 15, 3}, Extents{6, 16, 8}, Extents{7, 17, 511},
        Extents{13, 63, 512}, Extents{12, 64, 513}, Extents{25, 65, 1100}, Extents{3, 300, 40}}) {
    SCOPED_TRACE(std::to_string(e.m) + " " + std::to_string(e.n) + " " + std::to_string(e.k));
    const std::vector<float> a = RandomFloats(e.m * e.k, 1);
    const std::vector<float> b = RandomFloats(e.k * e.n, 2);
    const std::vector<float> bias = RandomFloats(e.n, 3);
    std::vector<float> panels(static_cast<size_t>(PackedRhsFloats(e.k, e.n, kernels())));
    GemmF32 gemm;
    gemm.m = e.m;
    gemm.n = e.n;
    gemm.k = e.k;
    SetLhs(gemm, {a.data(), e.m, e.k, e.k, 1});
    const int64_t panel_count = Panels(gemm, kernels());
    PackRhs({b.data(), e.k, e.n, e.n, 1}, kernels(), 0, panel_count, panels.data());
    std::vector<float> c(static_cast<size_t>(e.m * e.n), 99.0F);
    gemm.b = panels.data();
    gemm.c = c.data();
    gemm.c_row = e.n;
    gemm.column_bias = bias.data();
    gemm.activation = {ActivationKind::kClamp, 0, std::numeric_limits<float>::infinity()};
    RunGemm(gemm, kernels(), {0, RowBlocks(gemm, kernels()), 0, panel_count});
    const std::vector<double> expected = Multiply(e, a, b);
    for (size_t i = 0; i < c.size(); ++i) {
      const double sum = expected[i] + static_cast<double>(bias[i % static_cast<size_t>(e.n)]);
      ASSERT_NEAR(c[i], std::max(sum, 0.0), 1e-5 * std::sqrt(static_cast<double>(e.k))) << i;
    }
  }
}

TEST_P(F32, ActivationsAgreeWithTheStandardLibrary) {
  const std::vector<float> x = {-90, -20, -3, -0.4F, -1e-4F, 0, 1e-4F, 0.2F, 0.6F,
                                2,   15,  80, 5,     -5,     1, -1,    7};
  const auto check = [&](ActivationF32 activation, double (*exact)(double), double tolerance) {
    std::vector<float> y = x;
    kernels().activate(activation, y.data(), static_cast<int64_t>(y.size()));
    for (size_t i = 0; i < x.size(); ++i) {
      const double expected = exact(static_cast<double>(x[i]));
      EXPECT_NEAR(y[i], expected, tolerance * std::max(1.0, std::abs(expected))) << x[i];
    }
  };
  check(
      {ActivationKind::kSigmoid}, [](double v) { return 1 / (1 + std::exp(-v)); }, 1e-6);
  check(
      {ActivationKind::kTanh}, [](double v) { return std::tanh(v); }, 1e-6);
  check(
      {ActivationKind::kErf}, [](double v) { return std::erf(v); }, 1e-6);
  check(
      {ActivationKind::kSilu, 1}, [](double v) { return v / (1 + std::exp(-v)); }, 1e-6);
  check(
      {ActivationKind::kGelu},
      [](double v) { return v * 0.5 * (1 + std::erf(v / std::sqrt(2.0))); }, 2e-6);
}

TEST_P(F32, SoftmaxAgreesWithDoublesAtEveryLength) {
  for (int64_t count = 1; count <= 70; ++count) {
    std::vector<float> x = RandomFloats(count, static_cast<unsigned>(count)), y(x.size());
    x[static_cast<size_t>(count * 7 % 11 % count)] = 30;  // the largest, anywhere
    double total = 0;
    for (const float v : x) total += std::exp(static_cast<double>(v) - 30);
    kernels().softmax(x.data(), y.data(), count);
    for (size_t i = 0; i < x.size(); ++i) {
      EXPECT_NEAR(y[i], std::exp(static_cast<double>(x[i]) - 30) / total, 1e-6) << count;
    }
    x.back() = std::numeric_limits<float>::quiet_NaN();
    kernels().softmax(x.data(), y.data(), count);
    for (const float v : y) EXPECT_TRUE(std::isnan(v)) << count;
  }
}

TEST_P(F32, ActivationsPassNanOn) {
  for (const ActivationKind kind : {ActivationKind::kClamp, ActivationKind::kSigmoid,
                                    ActivationKind::kTanh, ActivationKind::kGelu}) {
    std::vector<float> x(3, std::numeric_limits<float>::quiet_NaN());
    kernels().activate({kind, 0, 6}, x.data(), 3);
    for (const float value : x) EXPECT_TRUE(std::isnan(value)) << static_cast<int>(kind);
  }
}

INSTANTIATE_TEST_SUITE_P(Isas, F32, ::testing::ValuesIn(AvailableIsas()),
                         [](const auto& test) { return std::string(IsaName(test.param)); });

}  // namespace
}  // namespace pared
