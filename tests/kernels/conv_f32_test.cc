#include "kernels/conv_f32.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
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

// A convolution of one image in two dimensions.
struct Case {
  int64_t channels, outputs, groups, height, width, kernel, stride = 1, dilation = 1, pad = 0;

  int64_t Out(int64_t in) const {
    return (in + 2 * pad - (kernel - 1) * dilation - 1) / stride + 1;
  }
  int64_t inputs() const { return channels / groups; }  // of a group
  ConvF32Options Options(ActivationF32 activation) const {
    return {.channels = channels,
            .outputs = outputs,
            .groups = groups,
            .kernel = {1, kernel, kernel},
            .stride = {1, stride, stride},
            .dilation = {1, dilation, dilation},
            .activation = activation};
  }
};

struct Data {
  std::vector<float> x, weights, bias, addend;
  explicit Data(const Case& c)
      : x(RandomFloats(c.channels * c.height * c.width, 1)),
        weights(RandomFloats(c.outputs * c.inputs() * c.kernel * c.kernel, 2)),
        bias(RandomFloats(c.outputs, 3)),
        addend(RandomFloats(c.outputs * c.Out(c.height) * c.Out(c.width), 4)) {}
};

// Output `i` of the convolution, in double, the way the definition reads.
double Expected(const Case& c, const Data& data, int64_t i) {
  const int64_t width = c.Out(c.width), height = c.Out(c.height);
  const int64_t m = i / width / height, group = m / (c.outputs / c.groups);
  double sum = static_cast<double>(data.bias[static_cast<size_t>(m)]);
  for (int64_t t = 0; t < c.inputs() * c.kernel * c.kernel; ++t) {
    const int64_t row =
        i / width % height * c.stride + t / c.kernel % c.kernel * c.dilation - c.pad;
    const int64_t column = i % width * c.stride + t % c.kernel * c.dilation - c.pad;
    if (row < 0 || row >= c.height || column < 0 || column >= c.width) continue;
    const int64_t channel = group * c.inputs() + t / c.kernel / c.kernel;
    const auto at = static_cast<size_t>((channel * c.height + row) * c.width + column);
    const auto weight = static_cast<size_t>(m * c.inputs() * c.kernel * c.kernel + t);
    sum += static_cast<double>(data.weights[weight]) * static_cast<double>(data.x[at]);
  }
  return sum + static_cast<double>(data.addend[static_cast<size_t>(i)]);
}

// `values`, which outlive it.
std::shared_ptr<const float> Lent(const std::vector<float>& values) {
  return {std::shared_ptr<const void>(), values.data()};
}

class ConvF32Test : public ::testing::TestWithParam<Isa> {
 protected:
  // Cut for `threads` workers, which take turns. Nothing is added where `addend` is null.
  std::vector<float> Run(const Case& c, const Data& data, ActivationF32 activation, int64_t threads,
                         const float* addend) const {
    const ConvF32 conv(c.Options(activation), Lent(data.weights), data.bias,
                       F32KernelsFor(GetParam()));
    const ConvF32Plan plan = conv.Plan({1, c.height, c.width}, {1, c.Out(c.height), c.Out(c.width)},
                                       {0, c.pad, c.pad}, threads);
    std::vector<float> buffer(static_cast<size_t>(plan.buffer_floats));
    std::vector<float> y(data.addend.size(), 99.0F);
    if (plan.buffer_floats > 0) conv.Pad(plan, data.x.data(), 0, c.channels, buffer.data());
    const float* x = plan.buffer_floats > 0 ? buffer.data() : data.x.data();
    for (int64_t share = 0; share < threads; ++share) {
      std::vector<float> scratch(static_cast<size_t>(plan.scratch_floats), NAN);
      conv.RunUnits(plan, x, y.data(), addend, plan.units * share / threads,
                    plan.units * (share + 1) / threads, scratch.data());
    }
    return y;
  }

  void Check(const std::vector<Case>& cases) const {
    for (const Case& c : cases) {
      const Data data(c);
      SCOPED_TRACE(std::to_string(c.channels) + " to " + std::to_string(c.outputs) + " groups " +
                   std::to_string(c.groups) + " of " + std::to_string(c.height) + "x" +
                   std::to_string(c.width) + " kernel " + std::to_string(c.kernel) + " stride " +
                   std::to_string(c.stride) + " dilation " + std::to_string(c.dilation));
      const ActivationF32 clamp{ActivationKind::kClamp, -1, 0.5F};
      const float* addend = data.addend.data();
      const std::vector<float> plain = Run(c, data, {}, 1, addend);
      const std::vector<float> clamped = Run(c, data, clamp, 1, addend);
      const std::vector<float> alone = Run(c, data, clamp, 1, nullptr);
      for (size_t i = 0; i < plain.size(); ++i) {
        const double expected = Expected(c, data, static_cast<int64_t>(i));
        const double tolerance = 1e-6 * static_cast<double>(8 + c.inputs() * c.kernel);
        ASSERT_NEAR(plain[i], expected, tolerance) << i;
        ASSERT_NEAR(clamped[i], std::clamp(expected, -1.0, 0.5), tolerance) << i;
        const double sum = expected - static_cast<double>(data.addend[i]);
        ASSERT_NEAR(alone[i], std::clamp(sum, -1.0, 0.5), tolerance) << i;
      }
      EXPECT_EQ(plain, Run(c, data, {}, 3, addend)) << "three threads";
    }
  }
};

TEST_P(ConvF32Test, GroupsStridesAndPadsAgreeWithTheDefinition) {
  for (const int64_t groups : {1, 2, 6}) {
    for (const int64_t stride : {1, 2, 3}) Check({{6, 6, groups, 9, 37, 3, stride, 1, 1}});
  }
}

TEST_P(ConvF32Test, DepthwiseAgreesWithTheDefinition) {
  // channels, outputs, groups, height, width, kernel, stride, dilation, pad
  Check({{16, 16, 16, 7, 7, 5, 1, 1, 2},
         {20, 20, 20, 14, 14, 3, 1, 1, 1},
         {33, 33, 33, 14, 14, 5, 2, 1, 2},
         {9, 9, 9, 13, 17, 3, 2, 1, 1},
         {16, 16, 16, 3, 2, 3, 1, 1, 1},
         {16, 16, 16, 1, 1, 5, 1, 1, 2},
         {16, 16, 16, 20, 9, 3, 1, 2, 2},
         {16, 16, 16, 12, 21, 7, 2, 1, 3},
         {16, 16, 16, 11, 11, 3, 3, 1, 0},
         {17, 34, 17, 8, 8, 3, 1, 1, 1},
         {16, 16, 16, 70, 112, 5, 1, 1, 2},
         {16, 16, 16, 5, 1100, 3, 1, 1, 1}});
}

TEST_P(ConvF32Test, FewPixelsAgreeWithTheDefinition) {
  // channels, outputs, groups, height, width, kernel, stride, dilation, pad
  Check({{30, 64, 1, 7, 7, 1},
         {600, 70, 1, 7, 7, 1},
         {40, 128, 1, 7, 7, 3, 1, 1, 1},
         {8, 129, 1, 1, 1, 1},
         {64, 48, 1, 9, 9, 3, 1, 1, 1},
         {20, 40, 2, 5, 5, 3, 2, 1, 1},
         {70, 32, 1, 14, 7, 1},
         {16, 64, 1, 13, 13, 1, 2},
         {16, 12, 1, 33, 35, 1, 2, 1, 1}});
}

TEST_P(ConvF32Test, RowsOfWholeVectorsAgreeWithTheDefinition) {
  // channels, outputs, groups, height, width, kernel, stride, dilation, pad
  Check({{5, 13, 1, 11, 24, 3, 1, 1, 1},
         {5, 36, 1, 9, 40, 3, 1, 1, 1},
         {5, 37, 1, 9, 40, 3, 1, 1, 1},
         {3, 16, 1, 21, 48, 3, 2, 1, 1},
         {70, 8, 2, 9, 16, 5, 1, 1, 2},
         {4, 8, 1, 13, 34, 3, 1, 1, 0}});
}

TEST_P(ConvF32Test, ThreeByThreeAgreesWithTheDefinition) {
  // channels, outputs, groups, height, width, kernel, stride, dilation, pad: tiles that reach over
  // the edge, several blocks of tiles, rows cut by blocks, several blocks of k, parts of outputs
  Check({{16, 16, 1, 20, 20, 3, 1, 1, 1},
         {17, 33, 1, 13, 30, 3, 1, 1, 1},
         {8, 41, 1, 39, 67, 3, 1, 1, 0},
         {33, 8, 1, 18, 21, 3, 1, 1, 2},
         {600, 14, 1, 12, 14, 3, 1, 1, 1},
         {16, 130, 1, 23, 35, 3, 1, 1, 1},
         {16, 17, 1, 5, 1030, 3, 1, 1, 1},
         {16, 16, 1, 150, 4, 3, 1, 1, 1}});
}

TEST_P(ConvF32Test, PointwiseAgreesWithTheDefinition) {
  // channels, outputs, groups, height, width, kernel: several panels, blocks of k, part blocks
  Check({{600, 13, 1, 17, 23, 1},
         {40, 3, 1, 20, 20, 1},
         {40, 26, 2, 16, 20, 1},
         {530, 6, 1, 8, 8, 1},
         {24, 100, 1, 50, 50, 1},
         {130, 20, 1, 40, 33, 1},
         {600, 150, 1, 9, 9, 1}});
}

TEST_P(ConvF32Test, LayoutsOfWeightsMayAlternate) {
  for (const int64_t kernel : {1, 3}) {
    const Case c{
        .channels = 20, .outputs = 64, .groups = 1, .height = 7, .width = 7, .kernel = kernel};
    const Data small(c);
    const ConvF32 conv(c.Options({}), Lent(small.weights), small.bias, F32KernelsFor(GetParam()));
    const auto run = [&](int64_t side) {
      const std::vector<float> x = RandomFloats(20 * side * side, 9);
      const int64_t out = side - kernel + 1;
      const ConvF32Plan plan = conv.Plan({1, side, side}, {1, out, out}, {0, 0, 0}, 1);
      std::vector<float> y(static_cast<size_t>(64 * out * out));
      std::vector<float> scratch(static_cast<size_t>(plan.scratch_floats));
      conv.RunUnits(plan, x.data(), y.data(), nullptr, 0, plan.units, scratch.data());
      return y;
    };
    const std::vector<float> of_7 = run(7), of_8 = run(8), of_16 = run(16);
    for (int i = 0; i < 3; ++i) {
      EXPECT_EQ(run(7), of_7);
      EXPECT_EQ(run(8), of_8);
      EXPECT_EQ(run(16), of_16);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Isas, ConvF32Test, ::testing::ValuesIn(AvailableIsas()),
                         [](const auto& test) { return std::string(IsaName(test.param)); });

}  // namespace
}  // namespace pared
