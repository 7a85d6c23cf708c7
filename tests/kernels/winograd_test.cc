// Winograd convolutions against gathered operands and the reference product, bit for bit.

#include "kernels/winograd.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <utility>
#include <vector>

#include "kernels/packing.h"
#include "kernels/reference.h"

namespace pared {
namespace {

bool HasKernel() { return Includes(AvailableIsas().back(), Isa::kAvx2); }

// What codes and weights hold.
enum class Fill { kRandom, kExtreme, kLargest };

struct Case {
  ConvGeometry geometry;
  int64_t m = 1;
  uint8_t padding = 0;
  GemmOutput output = GemmOutput::kUInt8;
  Fill fill = Fill::kRandom;
  int64_t block_tiles = 16, parts = 1;
};

struct Data {
  std::vector<uint8_t> image;
  std::vector<int8_t> w;
  GemmEpilogue epilogue;

  GemmWeights Weights(const Case& c) const {
    return {.m = c.m, .k = c.geometry.k(), .values = w, .epilogue = epilogue};
  }
};

Data MakeData(const Case& c, std::mt19937& random) {
  Data data;
  const ConvGeometry& g = c.geometry;
  for (int64_t i = 0; i < g.channels * g.height * g.width; ++i) {
    const auto code = static_cast<uint8_t>(random() % 256);
    data.image.push_back(c.fill == Fill::kRandom    ? code
                         : c.fill == Fill::kLargest ? uint8_t{255}
                                                    : static_cast<uint8_t>(code < 128 ? 0 : 255));
  }
  for (int64_t i = 0; i < c.m * g.k(); ++i) {
    const auto w = static_cast<int8_t>(static_cast<int>(random() % 255) - 127);
    data.w.push_back(c.fill == Fill::kRandom ? w
                     : c.fill == Fill::kLargest
                         ? static_cast<int8_t>(i / g.k() % 2 == 0 ? 127 : -127)
                         : static_cast<int8_t>(w < 0 ? -127 : 127));
  }
  data.epilogue = {
      .bias = {}, .scale = {}, .output = c.output, .zero_point = 100, .low = 30, .high = 240};
  for (int64_t row = 0; row < c.m; ++row) {
    data.epilogue.bias.push_back(static_cast<int32_t>(random() % 200000) - 100000);
    data.epilogue.scale.push_back(row == 1 ? 1e6F : 1e-6F * static_cast<float>(random() % 2000));
  }
  return data;
}

using Output = AlignedBuffer<std::byte>;

Output Expected(const Case& c, const Data& data) {
  const Im2col im2col(c.geometry, Isa::kReference);
  AlignedBuffer<uint8_t> padded(im2col.image_bytes()), tile(im2col.tile_bytes());
  im2col.PadRowMajor(data.image.data(), c.padding, 0, c.geometry.channels, padded.data());
  const auto gemm = PackReferenceGemm(data.Weights(c));
  const int64_t tile_bytes = c.m * 64 * OutputBytes(c.output);
  Output y(static_cast<size_t>(c.geometry.out_tiles() * tile_bytes));
  for (int64_t t = 0; t < c.geometry.out_tiles(); ++t) {
    im2col.GatherTile(padded.data(), t, tile.data());
    gemm->Run(tile.data(), 1, y.data() + t * tile_bytes, nullptr);
  }
  return y;
}

Output Actual(const Case& c, const Data& data) {
  const PackedWinograd winograd(data.Weights(c));
  const WinogradPlan plan(c.geometry, c.block_tiles, Isa::kAvx2);
  AlignedBuffer<uint8_t> padded(plan.im2col().image_bytes());
  plan.im2col().PadRowMajor(data.image.data(), c.padding, 0, c.geometry.channels, padded.data());
  AlignedBuffer<std::byte> operand(winograd.operand_bytes(plan.columns_max()));
  AlignedBuffer<std::byte> scratch(winograd.scratch_bytes(plan.columns_max()));
  Output y(static_cast<size_t>(c.geometry.out_tiles() * c.m * 64 * OutputBytes(c.output)));
  const auto parts = [&](int64_t count, const auto& run) {
    for (int64_t i = c.parts - 1; i >= 0; --i) run(count * i / c.parts, count * (i + 1) / c.parts);
  };
  for (int64_t block = std::ssize(plan.blocks()) - 1; block >= 0; --block) {
    parts(winograd.pairs(), [&](int64_t begin, int64_t end) {
      winograd.Transform(padded.data(), {&plan, block, begin, end}, operand.data());
    });
    parts(winograd.groups(), [&](int64_t begin, int64_t end) {
      winograd.Run(operand.data(), {&plan, block, begin, end}, {y.data()}, scratch.data());
    });
  }
  return y;
}

// Of the pixels in use; every other byte of y must be as it was.
void ExpectEqual(const Case& c, const Output& actual, const Output& expected) {
  const int64_t element = OutputBytes(c.output);
  int64_t wrong = 0;
  for (int64_t i = 0; i < static_cast<int64_t>(actual.size()); ++i) {
    const int64_t pixel = i / (64 * element) / c.m * 64 + i / element % 64;
    const std::byte want = pixel < c.geometry.out_pixels() ? expected.data()[i] : std::byte{0};
    wrong += actual.data()[i] != want ? 1 : 0;
  }
  const ConvGeometry& g = c.geometry;
  EXPECT_EQ(wrong, 0) << g.height << "x" << g.width << " pads " << g.pad_top << g.pad_left
                      << g.pad_bottom << g.pad_right << " channels " << g.channels << " m " << c.m
                      << " padding " << static_cast<int>(c.padding) << " block " << c.block_tiles;
}

void Check(const Case& c, std::mt19937& random) {
  const Data data = MakeData(c, random);
  ASSERT_TRUE(PackedWinograd::Accepts(data.Weights(c), Isa::kAvx2));
  ExpectEqual(c, Actual(c, data), Expected(c, data));
}

ConvGeometry Image(int64_t channels, int64_t height, int64_t width) {
  return {.channels = channels,
          .height = height,
          .width = width,
          .kernel_height = 3,
          .kernel_width = 3,
          .pad_top = 1,
          .pad_left = 1,
          .pad_bottom = 1,
          .pad_right = 1};
}

template <class T>
T Pick(std::mt19937& random, const std::vector<T>& values) {
  return values[random() % values.size()];
}

TEST(Winograd, RandomShapesEqualTheReference) {
  if (!HasKernel()) GTEST_SKIP() << "needs AVX2";
  std::mt19937 random(3);
  for (int i = 0; i < 300; ++i) {
    const auto below = [&](int64_t n) { return static_cast<int64_t>(random()) % n; };
    Case c{
        .geometry = Image(1 + below(130), 1 + below(i % 8 == 0 ? 70 : 20),
                          1 + below(i % 9 == 0 ? 140 : 34)),
        .m = 1 + below(130),
        .padding = Pick<uint8_t>(random, {0, 128, 255}),
        .output = Pick<GemmOutput>(random, {GemmOutput::kUInt8, GemmOutput::kUInt8,
                                            GemmOutput::kFloat32, GemmOutput::kInt32}),
        .fill = Pick<Fill>(random, {Fill::kRandom, Fill::kRandom, Fill::kExtreme, Fill::kLargest}),
        .block_tiles = Pick<int64_t>(random, {8, 16, 24, 48, 96}),
        .parts = 1 + below(3)};
    ConvGeometry& g = c.geometry;
    if (c.fill == Fill::kLargest) g.channels = std::min<int64_t>(g.channels, 115);
    if (i % 3 == 0) {
      g.pad_top = below(3), g.pad_left = below(3), g.pad_bottom = below(3), g.pad_right = below(3);
      g.height = std::max(g.height, 3 - g.pad_top - g.pad_bottom);
      g.width = std::max(g.width, 3 - g.pad_left - g.pad_right);
    }
    Check(c, random);
  }
}

TEST(Winograd, SmallImagesOfEverySizeEqualTheReference) {
  if (!HasKernel()) GTEST_SKIP() << "needs AVX2";
  std::mt19937 random(4);
  for (int64_t height = 1; height <= 9; ++height) {
    for (int64_t width = 1; width <= 9; ++width) {
      Check({.geometry = Image(3, height, width), .m = 5, .padding = 7}, random);
    }
  }
}

TEST(Winograd, CommonImagesEqualTheReference) {
  if (!HasKernel()) GTEST_SKIP() << "needs AVX2";
  std::mt19937 random(5);
  for (const int64_t size : {7, 13, 14, 20, 28, 40, 56, 65, 80, 160}) {
    Check({.geometry = Image(6, size, size), .m = 17, .block_tiles = 48, .parts = 2}, random);
  }
}

TEST(Winograd, SumsAtTheLimitAreExact) {
  if (!HasKernel()) GTEST_SKIP() << "needs AVX2";
  std::mt19937 random(6);
  // 9 * 115 weights of 127 reach 131,445 of 131,586.
  Check(
      {.geometry = Image(115, 5, 9), .m = 2, .output = GemmOutput::kInt32, .fill = Fill::kLargest},
      random);
}

GemmWeights Constant(const std::vector<int8_t>& values) {
  return {.m = 1, .k = static_cast<int64_t>(values.size()), .values = values, .epilogue = {}};
}

TEST(Winograd, RefusesSumsThatMayPassTwoToThe25) {
  // 255 * 131,585 = 2^25 - 257, 255 * 131,586 = 2^25 - 2 and 255 * 131,587 lies over it.
  std::vector<int8_t> w(1044, int8_t{126});
  for (size_t i = 0; i < 42; ++i) w[i] = 127;  // 131,544 + 42
  EXPECT_TRUE(PackedWinograd::Accepts(Constant(w), Isa::kAvx2));
  w[42] = 127;
  EXPECT_FALSE(PackedWinograd::Accepts(Constant(w), Isa::kAvx2));
  for (int8_t& v : w) v = static_cast<int8_t>(-v);
  EXPECT_FALSE(PackedWinograd::Accepts(Constant(w), Isa::kAvx2));
  for (size_t i = 0; i < 600; ++i) w[i] = 127;  // both signs: neither sum is large
  EXPECT_TRUE(PackedWinograd::Accepts(Constant(w), Isa::kAvx2));
}

TEST(Winograd, IsForAvx2Alone) {
  const std::vector<int8_t> w(9, int8_t{1});
  for (const Isa isa :
       {Isa::kReference, Isa::kNeonDot, Isa::kNeonI8mm, Isa::kAvxVnni, Isa::kAvx512Vnni}) {
    EXPECT_FALSE(PackedWinograd::Accepts(Constant(w), isa));
  }
}

}  // namespace
}  // namespace pared
