#include "kernels/sparse_f32.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <memory>
#include <random>
#include <vector>

#include "kernels/conv_f32.h"
#include "kernels/sparse_matmul_f32.h"

namespace pared {
namespace {

// Bits, but for the payload of NaN.
void ExpectSame(const std::vector<float>& actual, const std::vector<float>& expected) {
  ASSERT_EQ(actual.size(), expected.size());
  for (size_t i = 0; i < actual.size(); ++i) {
    if (std::isnan(expected[i])) {
      ASSERT_TRUE(std::isnan(actual[i])) << i << ": " << actual[i];
    } else {
      ASSERT_EQ(actual[i], expected[i]) << i;
    }
  }
}

std::vector<float> RandomFloats(int64_t count, double density, std::mt19937& random) {
  std::uniform_real_distribution<float> uniform(-1, 1);
  std::bernoulli_distribution kept(density);
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) value = kept(random) ? uniform(random) : 0.0F;
  return values;
}

// C as the dense kernels sum it.
struct DenseProduct {
  int64_t m, n, k;
  const std::vector<float>& a;  // [m][k]
  const std::vector<float>& b;  // [k][n]
  const float* row_bias = nullptr;
  const float* addend = nullptr;
  ActivationF32 activation{};

  std::vector<float> Run(const F32Kernels& kernels) const {
    std::vector<float> left(static_cast<size_t>(PackedLhsFloats(m, k, kernels)));
    std::vector<float> right(static_cast<size_t>(PackedRhsFloats(k, n, kernels)));
    GemmF32 gemm{.m = m, .n = n, .k = k, .b = right.data(), .c_row = n};
    PackLhs({a.data(), m, k, k, 1}, kernels, left.data());
    PackRhs({b.data(), k, n, n, 1}, kernels, 0, CeilDiv(n, kernels.tile_columns), right.data());
    SetPackedLhs(gemm, left.data(), kernels);
    std::vector<float> c(static_cast<size_t>(m * n), 99.0F);
    gemm.c = c.data();
    gemm.row_bias = row_bias;
    gemm.addend = addend;
    gemm.activation = activation;
    RunGemm(gemm, kernels, {0, RowBlocks(gemm, kernels), 0, Panels(gemm, kernels)});
    return c;
  }
};

struct Shape {
  int64_t channels, outputs, groups, height, width, kernel, stride = 1, dilation = 1, pad = 0;

  int64_t Out(int64_t in) const {
    return (in + 2 * pad - (kernel - 1) * dilation - 1) / stride + 1;
  }
  int64_t pixels() const { return Out(height) * Out(width); }
  int64_t k() const { return channels / groups * kernel * kernel; }
};

struct Data {
  std::vector<float> x, weights, bias, addend;
  Data(const Shape& s, double density, uint32_t seed) {
    std::mt19937 random(seed);
    x = RandomFloats(s.channels * s.height * s.width, 1, random);
    weights = RandomFloats(s.outputs * s.k(), density, random);
    bias = RandomFloats(s.outputs, 1, random);
    addend = RandomFloats(s.outputs * s.pixels(), 1, random);
  }
};

// A product with a sparse right operand; rows of A lie `gap` floats apart.
struct MatMul {
  int64_t m, n, k, gap;
  std::vector<float> a, b, bias, addend;

  MatMul(int64_t rows, int64_t columns, int64_t depth, double density, uint32_t seed)
      : m(rows), n(columns), k(depth), gap(seed % 3) {
    std::mt19937 random(seed);
    a = RandomFloats(m * (k + gap) - gap, 1, random);
    b = RandomFloats(k * n, density, random);
    bias = RandomFloats(n, 1, random);
    addend = RandomFloats(m * n, 1, random);
  }

  GemmF32 Gemm(float* c, ActivationF32 activation) const {
    GemmF32 gemm{.m = m, .n = n, .k = k, .c = c, .c_row = n};
    SetLhs(gemm, {a.data(), m, k, k + gap, 1});
    gemm.column_bias = bias.data();
    gemm.addend = addend.data();
    gemm.activation = activation;
    return gemm;
  }

  std::vector<float> Panels(const F32Kernels& kernels) const {
    std::vector<float> panels(static_cast<size_t>(PackedRhsFloats(k, n, kernels)));
    PackRhs({b.data(), k, n, n, 1}, kernels, 0, CeilDiv(n, kernels.tile_columns), panels.data());
    return panels;
  }

  std::vector<float> Dense(ActivationF32 activation, const F32Kernels& kernels) const {
    const std::vector<float> panels = Panels(kernels);
    std::vector<float> c(static_cast<size_t>(m * n), 99.0F);
    GemmF32 gemm = Gemm(c.data(), activation);
    gemm.b = panels.data();
    RunGemm(gemm, kernels, {0, RowBlocks(gemm, kernels), 0, pared::Panels(gemm, kernels)});
    return c;
  }

  std::vector<float> Sparse(ActivationF32 activation, const F32Kernels& kernels,
                            int64_t threads) const {
    const std::vector<float> panels = Panels(kernels);
    const SparseLhsF32 packed = PackSparseLhs({b.data(), n, k, 1, n}, NonZeros(b.data(), k * n));
    std::vector<float> c(static_cast<size_t>(m * n), 99.0F);
    const SparseMatMulF32 product{.m = m,
                                  .n = n,
                                  .k = k,
                                  .a = a.data(),
                                  .a_row = k + gap,
                                  .b = &packed,
                                  .dense_panels = panels.data(),
                                  .c = c.data(),
                                  .bias = bias.data(),
                                  .addend = addend.data(),
                                  .activation = activation};
    const SparseMatMulPlan plan = PlanSparseMatMul(product, kernels, threads);
    std::vector<float> scratch(static_cast<size_t>(plan.scratch_floats), NAN);
    for (int64_t unit = 0; unit < plan.units; ++unit) {
      RunSparseMatMul(product, plan, kernels, unit, scratch.data());
    }
    return c;
  }
};

// Inputs of one group by (channel, tap) and pixel; what lies outside the image is zero.
std::vector<float> Columns(const Shape& s, const std::vector<float>& x, int64_t group) {
  std::vector<float> columns;
  for (int64_t t = 0; t < s.k(); ++t) {
    const int64_t channel = group * (s.channels / s.groups) + t / s.kernel / s.kernel;
    for (int64_t p = 0; p < s.pixels(); ++p) {
      const int64_t row =
          p / s.Out(s.width) * s.stride + t / s.kernel % s.kernel * s.dilation - s.pad;
      const int64_t column = p % s.Out(s.width) * s.stride + t % s.kernel * s.dilation - s.pad;
      const bool inside = row >= 0 && row < s.height && column >= 0 && column < s.width;
      columns.push_back(
          inside ? x[static_cast<size_t>((channel * s.height + row) * s.width + column)] : 0.0F);
    }
  }
  return columns;
}

class SparseF32Test : public ::testing::TestWithParam<Isa> {
 protected:
  const F32Kernels& kernels() const { return F32KernelsFor(GetParam()); }

  std::vector<float> Dense(const Shape& s, const Data& data, ActivationF32 activation) const {
    std::vector<float> y;
    const int64_t rows = s.outputs / s.groups;
    for (int64_t g = 0; g < s.groups; ++g) {
      const std::vector<float> weights(data.weights.begin() + g * rows * s.k(),
                                       data.weights.begin() + (g + 1) * rows * s.k());
      const std::vector<float> columns = Columns(s, data.x, g);
      const DenseProduct product{.m = rows,
                                 .n = s.pixels(),
                                 .k = s.k(),
                                 .a = weights,
                                 .b = columns,
                                 .row_bias = data.bias.data() + g * rows,
                                 .addend = data.addend.data() + g * rows * s.pixels(),
                                 .activation = activation};
      const std::vector<float> part = product.Run(kernels());
      y.insert(y.end(), part.begin(), part.end());
    }
    return y;
  }

  // By the convolution, which must take the sparse kernel; cut for `threads` workers.
  std::vector<float> Sparse(const Shape& s, const Data& data, ActivationF32 activation,
                            int64_t threads) const {
    const ConvF32 conv({.channels = s.channels,
                        .outputs = s.outputs,
                        .groups = s.groups,
                        .kernel = {1, s.kernel, s.kernel},
                        .stride = {1, s.stride, s.stride},
                        .dilation = {1, s.dilation, s.dilation},
                        .activation = activation},
                       {std::shared_ptr<const void>(), data.weights.data()}, data.bias, kernels());
    const ConvF32Plan plan = conv.Plan({1, s.height, s.width}, {1, s.Out(s.height), s.Out(s.width)},
                                       {0, s.pad, s.pad}, threads);
    EXPECT_TRUE(plan.is_sparse);
    std::vector<float> buffer(static_cast<size_t>(plan.buffer_floats));
    if (!buffer.empty()) conv.Pad(plan, data.x.data(), 0, s.channels, buffer.data());
    const float* x = buffer.empty() ? data.x.data() : buffer.data();
    std::vector<float> y(data.addend.size(), 99.0F);
    for (int64_t share = 0; share < threads; ++share) {
      std::vector<float> scratch(static_cast<size_t>(plan.scratch_floats), NAN);
      conv.RunUnits(plan, x, y.data(), data.addend.data(), plan.units * share / threads,
                    plan.units * (share + 1) / threads, scratch.data());
    }
    return y;
  }

  void Check(const Shape& s, const Data& data) const {
    SCOPED_TRACE(std::to_string(s.channels) + " to " + std::to_string(s.outputs) + " groups " +
                 std::to_string(s.groups) + " of " + std::to_string(s.height) + "x" +
                 std::to_string(s.width) + " kernel " + std::to_string(s.kernel) + " stride " +
                 std::to_string(s.stride));
    for (const ActivationF32 activation :
         {ActivationF32{}, ActivationF32{ActivationKind::kClamp, -0.5F, 0.5F},
          ActivationF32{ActivationKind::kSilu, 1, 0}}) {
      const std::vector<float> expected = Dense(s, data, activation);
      ExpectSame(Sparse(s, data, activation, 1), expected);
      ExpectSame(Sparse(s, data, activation, 3), expected);
    }
  }
};

// channels, outputs, groups, height, width, kernel, stride, dilation, pad: one and several blocks
// of k, of the sums that dense tiles cut, of rows; few pixels, panels that are not whole.
const std::vector<Shape> kShapes = {
    {64, 40, 1, 9, 37, 1},         {600, 33, 1, 7, 7, 1},           {1100, 20, 1, 14, 14, 1},
    {40, 1040, 1, 13, 5, 1},       {70, 64, 1, 12, 30, 3, 2, 1, 1}, {30, 50, 1, 17, 33, 3, 1, 2, 2},
    {60, 48, 3, 20, 20, 1, 2},     {24, 64, 2, 11, 19, 5, 1, 1, 2}, {64, 64, 1, 20, 20, 3, 1, 1, 1},
    {3, 70, 1, 40, 41, 7, 2, 1, 3}};

TEST_P(SparseF32Test, ConvolutionsEqualDenseOnesBitForBit) {
  uint32_t seed = 1;
  for (const Shape& shape : kShapes) {
    for (const double density : {0.1, 0.004, 0.0}) Check(shape, Data(shape, density, seed++));
  }
}

TEST_P(SparseF32Test, HalfOfTheWeightsIsEnough) {
  const Shape shape{256, 192, 1, 28, 28, 1};
  Check(shape, Data(shape, 0.5, 7));
}

TEST_P(SparseF32Test, WhatIsNotFiniteMeetsWeightsOfZero) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  uint32_t seed = 50;
  for (const Shape& shape : kShapes) {
    for (const float value : {kInfinity, -kInfinity, static_cast<float>(NAN)}) {
      Data data(shape, 0.1, ++seed);
      data.x[(seed * 7919) % data.x.size()] = value;
      Check(shape, data);
    }
  }
}

TEST_P(SparseF32Test, SumsThatOverflowAreTheDenseOnes) {
  const Shape shape{64, 40, 1, 9, 37, 1};
  Data data(shape, 0.1, 3);
  for (float& x : data.x) x = x < 0 ? -3e38F : 3e38F;
  Check(shape, data);
}

TEST_P(SparseF32Test, WeightsWithoutZerosStayDense) {
  const Shape s{256, 192, 1, 28, 28, 1};
  const Data data(s, 1, 5);
  const ConvF32 conv({.channels = s.channels, .outputs = s.outputs},
                     {std::shared_ptr<const void>(), data.weights.data()}, data.bias, kernels());
  EXPECT_FALSE(conv.Plan({1, 28, 28}, {1, 28, 28}, {0, 0, 0}, 1).is_sparse);
}

TEST_P(SparseF32Test, MatrixProductsEqualDenseOnesBitForBit) {
  uint32_t seed = 100;
  for (const auto& [m, n, k] : std::vector<std::array<int64_t, 3>>{{1, 40, 30},
                                                                   {16, 64, 128},
                                                                   {67, 70, 129},
                                                                   {128, 33, 600},
                                                                   {130, 600, 61},
                                                                   {50, 1030, 17},
                                                                   {64, 5, 1100}}) {
    SCOPED_TRACE(std::to_string(m) + " " + std::to_string(n) + " " + std::to_string(k));
    for (const ActivationF32 activation :
         {ActivationF32{}, ActivationF32{ActivationKind::kClamp, -0.5F, 0.5F},
          ActivationF32{ActivationKind::kGelu, 0, 0}}) {
      const MatMul product(m, n, k, 0.1, ++seed);
      const std::vector<float> expected = product.Dense(activation, kernels());
      ExpectSame(product.Sparse(activation, kernels(), 1), expected);
      ExpectSame(product.Sparse(activation, kernels(), 5), expected);
    }
  }
}

TEST_P(SparseF32Test, RowsThatAreNotFiniteMeetWeightsOfZero) {
  uint32_t seed = 200;
  for (const int64_t m : {3, 70, 129}) {
    for (const float value : {std::numeric_limits<float>::infinity(), static_cast<float>(NAN)}) {
      MatMul product(m, 150, 300, 0.1, ++seed);
      product.a[(seed * 7919) % product.a.size()] = value;
      ExpectSame(product.Sparse({}, kernels(), 2), product.Dense({}, kernels()));
    }
  }
}

TEST_P(SparseF32Test, FewRowsStayDense) {
  const int64_t nonzeros = 384 * 384 / 10;
  EXPECT_TRUE(PrefersSparse(128, 384, 384, nonzeros, kernels()));
  EXPECT_FALSE(kernels().lanes > 1 && PrefersSparse(1, 384, 384, nonzeros, kernels()));
  EXPECT_FALSE(PrefersSparse(128, 384, 384, 384 * 384, kernels()));
}

INSTANTIATE_TEST_SUITE_P(Isas, SparseF32Test, ::testing::ValuesIn(AvailableIsas()),
                         [](const auto& test) { return std::string(IsaName(test.param)); });

}  // namespace
}  // namespace pared
