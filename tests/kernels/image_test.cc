// im2col, depthwise convolution and pools against direct loops over the unpadded image, for each
// instruction set.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "kernels/aligned.h"
#include "kernels/depthwise.h"
#include "kernels/elementwise.h"
#include "kernels/im2col.h"
#include "kernels/planar_gather.h"

namespace pared {
namespace {

constexpr uint8_t kZeroPoint = 77;

std::vector<ConvGeometry> Geometries() {
  return {
      {.channels = 3,
       .height = 14,
       .width = 14,
       .kernel_height = 3,
       .kernel_width = 3,
       .pad_top = 1,
       .pad_left = 1,
       .pad_bottom = 1,
       .pad_right = 1},
      {.channels = 2,
       .height = 7,
       .width = 7,
       .kernel_height = 3,
       .kernel_width = 3,
       .pad_top = 1,
       .pad_left = 1,
       .pad_bottom = 1,
       .pad_right = 1},
      {.channels = 2,
       .height = 57,
       .width = 56,
       .kernel_height = 3,
       .kernel_width = 3,
       .stride_y = 2,
       .stride_x = 2,
       .pad_top = 0,
       .pad_left = 0,
       .pad_bottom = 1,
       .pad_right = 1},
      {.channels = 1,
       .height = 30,
       .width = 70,
       .kernel_height = 7,
       .kernel_width = 5,
       .stride_y = 2,
       .stride_x = 3,
       .pad_top = 3,
       .pad_left = 2,
       .pad_bottom = 3,
       .pad_right = 1},
      {.channels = 2,
       .height = 11,
       .width = 19,
       .kernel_height = 2,
       .kernel_width = 3,
       .dilation_y = 3,
       .dilation_x = 2,
       .pad_top = 2,
       .pad_left = 2},
      {.channels = 5, .height = 1, .width = 1},
      {.channels = 2, .height = 9, .width = 8, .stride_y = 2, .stride_x = 2},
  };
}

// A row-major image, and the value that kernel position (ky, kx) of output pixel `pixel` reads.
struct Image {
  explicit Image(const ConvGeometry& geometry) : g(geometry) {
    std::mt19937 random(3);
    for (int64_t i = 0; i < g.channels * g.height * g.width; ++i) {
      values.push_back(static_cast<uint8_t>(random() % 256));
    }
  }

  uint8_t At(int64_t c, int64_t pixel, int64_t ky, int64_t kx, uint8_t padding) const {
    const int64_t y = pixel / g.out_width() * g.stride_y + ky * g.dilation_y - g.pad_top;
    const int64_t x = pixel % g.out_width() * g.stride_x + kx * g.dilation_x - g.pad_left;
    if (y < 0 || y >= g.height || x < 0 || x >= g.width) return padding;
    return values[static_cast<size_t>((c * g.height + y) * g.width + x)];
  }

  // In the planar layout, behind one foreign channel.
  AlignedBuffer<uint8_t> Planar() const {
    const ImageSize size{g.channels + 1, g.height * g.width};
    std::vector<uint8_t> all(static_cast<size_t>(g.height * g.width), 200);
    all.insert(all.end(), values.begin(), values.end());
    AlignedBuffer<uint8_t> planar(static_cast<size_t>(size.planar_bytes()));
    ToPlanar(all.data(), size, {0, size.tiles()}, planar.data());
    return planar;
  }

  AlignedBuffer<uint8_t> Pad(const Im2col& im2col, uint8_t padding) const {
    const AlignedBuffer<uint8_t> planar = Planar();
    AlignedBuffer<uint8_t> image(im2col.image_bytes());
    im2col.PadPlanar({.x = planar.data(), .first_channel = 1, .total_channels = g.channels + 1},
                     padding, 0, g.channels, image.data());
    return image;
  }

  ConvGeometry g;
  std::vector<uint8_t> values;
};

TEST(Im2col, GathersWhatTheConvolutionReads) {
  for (Isa isa : AvailableIsas()) {
    for (const ConvGeometry& g : Geometries()) {
      const Im2col im2col(g, isa);
      const Image image(g);
      const AlignedBuffer<uint8_t> padded = image.Pad(im2col, kZeroPoint);
      AlignedBuffer<uint8_t> rows(im2col.tile_bytes());
      int64_t wrong = 0;
      for (int64_t pixel = 0; pixel < g.out_pixels(); ++pixel) {
        if (pixel % 64 == 0) im2col.GatherTile(padded.data(), pixel / 64, rows.data());
        size_t k = 0;
        for (int64_t c = 0; c < g.channels; ++c) {
          for (int64_t ky = 0; ky < g.kernel_height; ++ky) {
            for (int64_t kx = 0; kx < g.kernel_width; ++kx, ++k) {
              const uint8_t got = rows[k * 64 + static_cast<size_t>(pixel % 64)];
              wrong += got != image.At(c, pixel, ky, kx, kZeroPoint) ? 1 : 0;
            }
          }
        }
      }
      EXPECT_EQ(wrong, 0) << IsaName(isa) << " " << g.height << "x" << g.width;
    }
  }
}

// What is behind the last row may be another thread's.
TEST(Im2col, WritesNothingBehindTheChannelsAskedFor) {
  for (Isa isa : AvailableIsas()) {
    for (const ConvGeometry& g : Geometries()) {
      const Im2col im2col(g, isa);
      const AlignedBuffer<uint8_t> padded = Image(g).Pad(im2col, kZeroPoint);
      const size_t bytes = static_cast<size_t>(g.kernel_height * g.kernel_width * 64);
      for (int64_t tile = 0; tile < g.out_tiles(); ++tile) {
        std::vector<uint8_t> rows(bytes + 64, 99);
        im2col.GatherChannels(padded.data(), tile, g.channels - 1, g.channels, rows.data());
        EXPECT_EQ(std::count(rows.end() - 64, rows.end(), 99), 64)
            << IsaName(isa) << " " << g.height << "x" << g.width << " tile " << tile;
      }
    }
  }
}

TEST(PlanarGather, GathersWhatTheConvolutionReads) {
  if (!PlanarGather::Supports(AvailableIsas().back())) GTEST_SKIP() << "no AVX-512 VBMI";
  for (const ConvGeometry& g : Geometries()) {
    const PlanarGather gather(g, g.channels + 1);
    const Image image(g);
    const AlignedBuffer<uint8_t> planar = image.Planar();
    const PlanarGather::Channels channels{planar.data() + 64, 0, g.channels, kZeroPoint};
    AlignedBuffer<uint8_t> rows(static_cast<size_t>(g.k() * 64));
    AlignedBuffer<uint8_t> most(static_cast<size_t>(g.channels * 64));
    int64_t wrong = 0;
    for (int64_t pixel = 0; pixel < g.out_pixels(); ++pixel) {
      if (pixel % 64 == 0) gather.Gather(channels, pixel / 64, rows.data());
      if (pixel % 64 == 0) gather.Max(channels, pixel / 64, most.data());
      const auto column = static_cast<size_t>(pixel % 64);
      size_t k = 0;
      for (int64_t c = 0; c < g.channels; ++c) {
        uint8_t largest = 0;
        for (int64_t p = 0; p < g.kernel_height * g.kernel_width; ++p, ++k) {
          const uint8_t expected =
              image.At(c, pixel, p / g.kernel_width, p % g.kernel_width, kZeroPoint);
          wrong += rows[k * 64 + column] != expected ? 1 : 0;
          largest = std::max(largest, expected);
        }
        wrong += most[static_cast<size_t>(c) * 64 + column] != largest ? 1 : 0;
      }
    }
    EXPECT_EQ(wrong, 0) << g.height << "x" << g.width << " kernel " << g.kernel_width;
  }
}

TEST(Im2col, RowMajorAndPlanarImagesPadAlike) {
  for (const ConvGeometry& g : Geometries()) {
    const Im2col im2col(g, AvailableIsas().back());
    const Image image(g);
    const AlignedBuffer<uint8_t> planar = image.Pad(im2col, kZeroPoint);
    AlignedBuffer<uint8_t> row_major(im2col.image_bytes());
    im2col.PadRowMajor(image.values.data(), kZeroPoint, 0, g.channels, row_major.data());
    EXPECT_TRUE(std::equal(planar.data(), planar.data() + planar.size() - 128, row_major.data()));
  }
}

TEST(Depthwise, EqualsADirectConvolution) {
  for (Isa isa : AvailableIsas()) {
    for (ConvGeometry g : Geometries()) {
      const int64_t multiplier = 1 + g.channels % 2;
      const int64_t m = g.channels * multiplier, positions = g.kernel_height * g.kernel_width;
      std::mt19937 random(4);
      std::vector<int8_t> w;
      for (int64_t i = 0; i < m * positions; ++i) w.push_back(static_cast<int8_t>(random() % 256));
      GemmEpilogue epilogue{.bias = {}, .scale = {}, .output = GemmOutput::kInt32};
      for (int64_t c = 0; c < m; ++c) epilogue.bias.push_back(static_cast<int32_t>(c) - 50);
      const auto depthwise = PackDepthwise(
          {.geometry = g, .multiplier = multiplier, .values = w, .epilogue = epilogue}, isa);
      const Image image(g);
      const AlignedBuffer<uint8_t> padded = image.Pad(depthwise->im2col(), kZeroPoint);
      AlignedBuffer<int32_t> y(static_cast<size_t>(g.out_tiles() * m * 64));
      AlignedBuffer<std::byte> scratch(depthwise->scratch_bytes());
      for (int64_t t = 0; t < g.out_tiles(); ++t) {
        depthwise->Run(padded.data(), {t, 0, m}, y.data(), scratch.data());
      }
      int64_t wrong = 0;
      for (int64_t c = 0; c < m; ++c) {
        for (int64_t pixel = 0; pixel < g.out_pixels(); ++pixel) {
          int32_t sum = epilogue.bias[static_cast<size_t>(c)];
          for (int64_t p = 0; p < positions; ++p) {
            sum +=
                w[static_cast<size_t>(c * positions + p)] *
                image.At(c / multiplier, pixel, p / g.kernel_width, p % g.kernel_width, kZeroPoint);
          }
          const int64_t at = (pixel / 64 * m + c) * 64 + pixel % 64;
          wrong += y[static_cast<size_t>(at)] != sum ? 1 : 0;
        }
      }
      EXPECT_EQ(wrong, 0) << depthwise->kernel_name() << " " << g.height << "x" << g.width;
    }
  }
}

TEST(Pool, TakesTheMostAndTheMeanOfEachWindow) {
  const ConvGeometry g = Geometries()[2];
  const Im2col im2col(g, AvailableIsas().back());
  const Image image(g);
  const AlignedBuffer<uint8_t> zeros = image.Pad(im2col, 0);
  const AlignedBuffer<uint8_t> centered = image.Pad(im2col, kZeroPoint);
  const size_t bytes = static_cast<size_t>(g.out_tiles() * g.channels * 64);
  AlignedBuffer<uint8_t> most(bytes), mean(bytes);
  AlignedBuffer<std::byte> scratch(9 * 64 + 64);
  const AveragePoolParams params{.x = {0.5F, kZeroPoint}, .y = {0.5F, kZeroPoint}};
  for (int64_t t = 0; t < g.out_tiles(); ++t) {
    MaxPoolTile(im2col, zeros.data(), {t, 0, g.channels}, most.data(), scratch.data());
    AveragePoolTile(im2col, params, centered.data(), {t, 0, g.channels}, mean.data(),
                    scratch.data());
  }
  for (int64_t c = 0; c < g.channels; ++c) {
    for (int64_t pixel = 0; pixel < g.out_pixels(); ++pixel) {
      int32_t largest = 0, sum = 0, count = 0;
      for (int64_t p = 0; p < 9; ++p) {
        largest = std::max<int32_t>(largest, image.At(c, pixel, p / 3, p % 3, 0));
        sum += image.At(c, pixel, p / 3, p % 3, kZeroPoint);
        // Real where two different paddings do not show.
        const bool is_real =
            image.At(c, pixel, p / 3, p % 3, 0) == image.At(c, pixel, p / 3, p % 3, 1);
        count += is_real ? 1 : 0;
      }
      const size_t at = static_cast<size_t>((pixel / 64 * g.channels + c) * 64 + pixel % 64);
      ASSERT_EQ(most[at], largest);
      const float expected = static_cast<float>(sum - 9 * kZeroPoint) / static_cast<float>(count);
      ASSERT_NEAR(mean[at], expected + kZeroPoint, 0.5001);
    }
  }
}

}  // namespace
}  // namespace pared
