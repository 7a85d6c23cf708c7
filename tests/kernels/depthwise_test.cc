// Depthwise kernels of uint8 codes against the reference, bit for bit.

#include "kernels/depthwise.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>

#include "kernels/aligned.h"

namespace pared {
namespace {

// Widths around 16 and 64 pixels, kernels around 4 columns, strides and dilations that put 16
// pixels into one window of 64 bytes, into two, and into none.
std::vector<ConvGeometry> Geometries() {
  std::vector<ConvGeometry> all;
  for (const int64_t width : {1, 7, 14, 16, 28, 63, 64, 65, 130}) {
    for (const int64_t kernel : {1, 3, 4, 5, 7}) {
      for (const int64_t stride : {1, 2, 3}) {
        for (const int64_t dilation : {1, 2}) {
          const int64_t pad = dilation * (kernel - 1) / 2 + (kernel % 2 == 0 ? 1 : 0);
          all.push_back({.channels = 3,
                         .height = 9,
                         .width = width,
                         .kernel_height = kernel,
                         .kernel_width = kernel,
                         .stride_y = stride,
                         .stride_x = stride,
                         .dilation_y = dilation,
                         .dilation_x = dilation,
                         .pad_top = pad,
                         .pad_left = pad,
                         .pad_bottom = pad,
                         .pad_right = pad});
        }
      }
    }
  }
  return all;
}

std::vector<uint8_t> CodesOf(const PackedDepthwise& depthwise, int64_t m) {
  const ConvGeometry& g = depthwise.im2col().geometry();
  std::mt19937 random(6);
  std::vector<uint8_t> image;
  for (int64_t i = 0; i < g.channels * g.height * g.width; ++i) {
    image.push_back(static_cast<uint8_t>(random() % 256));
  }
  AlignedBuffer<uint8_t> padded(depthwise.im2col().image_bytes());
  depthwise.im2col().PadRowMajor(image.data(), 77, 0, g.channels, padded.data());
  AlignedBuffer<uint8_t> y(static_cast<size_t>(g.out_tiles() * m * 64));
  AlignedBuffer<std::byte> scratch(depthwise.scratch_bytes());
  for (int64_t tile = 0; tile < g.out_tiles(); ++tile) {
    depthwise.Run(padded.data(), {tile, 0, m}, y.data(), scratch.data());
  }
  std::vector<uint8_t> codes;  // of the pixels in use
  for (int64_t c = 0; c < m; ++c) {
    for (int64_t pixel = 0; pixel < g.out_pixels(); ++pixel) {
      codes.push_back(y[static_cast<size_t>((pixel / 64 * m + c) * 64 + pixel % 64)]);
    }
  }
  return codes;
}

TEST(Depthwise, CodesEqualTheReference) {
  for (const ConvGeometry& g : Geometries()) {
    const int64_t multiplier = 1 + g.width % 2, m = g.channels * multiplier;
    std::mt19937 random(5);
    std::vector<int8_t> w;
    for (int64_t i = 0; i < m * g.kernel_height * g.kernel_width; ++i) {
      w.push_back(static_cast<int8_t>(random() % 256));
    }
    GemmEpilogue epilogue{.bias = {}, .scale = {}, .zero_point = 100, .low = 30, .high = 240};
    for (int64_t c = 0; c < m; ++c) {
      epilogue.bias.push_back(static_cast<int32_t>(c) * 100 - 50);
      epilogue.scale.push_back(c == 0 ? 1e6f : 0.003f * static_cast<float>(c));
    }
    const DepthwiseWeights weights{
        .geometry = g, .multiplier = multiplier, .values = w, .epilogue = epilogue};
    const std::vector<uint8_t> expected = CodesOf(*PackDepthwise(weights, Isa::kReference), m);
    for (const Isa isa : AvailableIsas()) {
      const auto depthwise = PackDepthwise(weights, isa);
      EXPECT_EQ(CodesOf(*depthwise, m), expected)
          << depthwise->kernel_name() << " width " << g.width << " kernel " << g.kernel_width
          << " stride " << g.stride_x << " dilation " << g.dilation_x;
    }
  }
}

}  // namespace
}  // namespace pared
