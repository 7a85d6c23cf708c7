// The pools of elementwise.h.

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "kernels/elementwise.h"

namespace pared {
namespace {

float MeanOf(int64_t sum, float count, QuantParams from) {
  return static_cast<float>(sum) * from.scale / count;
}

uint8_t QuantizeMean(int64_t sum, int64_t count, QuantParams from, QuantParams to) {
  const float mean = MeanOf(sum, static_cast<float>(count), from);
  uint8_t y = 0;
  Quantize({&mean, 1}, to, &y, Isa::kReference);
  return y;
}

// How many kernel positions along one axis, from input coordinate `start` on, are real pixels.
int64_t RealPositions(int64_t start, int64_t kernel, int64_t dilation, int64_t size) {
  int64_t count = 0;
  for (int64_t i = 0; i < kernel; ++i) {
    const int64_t at = start + i * dilation;
    count += at >= 0 && at < size ? 1 : 0;
  }
  return count;
}

#pragma GCC push_options
#pragma GCC optimize("O3")
int64_t SumOfChannel(const uint8_t* x, ImageSize size, int64_t c) {
  int64_t total = 0;
  for (int64_t t = 0; t < size.tiles(); ++t) {
    const uint8_t* row = x + (t * size.channels + c) * 64;
    const int64_t columns = std::min<int64_t>(64, size.pixels - t * 64);
    int32_t sum = 0;
    for (int64_t i = 0; i < columns; ++i) sum += row[i];
    total += sum;
  }
  return total;
}
#pragma GCC pop_options

int64_t WindowCount(const ConvGeometry& g, int64_t pixel, bool include_pad) {
  if (include_pad) return g.kernel_height * g.kernel_width;
  const int64_t y = pixel / g.out_width() * g.stride_y - g.pad_top;
  const int64_t x = pixel % g.out_width() * g.stride_x - g.pad_left;
  return RealPositions(y, g.kernel_height, g.dilation_y, g.height) *
         RealPositions(x, g.kernel_width, g.dilation_x, g.width);
}

}  // namespace

void MaxPoolTile(const Im2col& im2col, const uint8_t* image, PoolRange range, uint8_t* y,
                 std::byte* scratch) noexcept {
  const ConvGeometry& g = im2col.geometry();
  uint8_t* rows = reinterpret_cast<uint8_t*>(scratch);
  for (int64_t c = range.begin; c < range.end; ++c) {
    im2col.GatherChannels(image, range.tile, c, c + 1, rows);
    std::array<uint8_t, 64> most{};  // a local, which cannot alias the rows
    for (int64_t p = 0; p < g.kernel_height * g.kernel_width; ++p) {
      const uint8_t* row = rows + p * 64;
      for (size_t i = 0; i < 64; ++i) most[i] = std::max(most[i], row[i]);
    }
    std::memcpy(y + (range.tile * g.channels + c) * 64, most.data(), 64);
  }
}

void AveragePoolTile(const Im2col& im2col, const AveragePoolParams& params, const uint8_t* image,
                     PoolRange range, uint8_t* y, std::byte* scratch) noexcept {
  const ConvGeometry& g = im2col.geometry();
  const int64_t positions = g.kernel_height * g.kernel_width;
  uint8_t* rows = reinterpret_cast<uint8_t*>(scratch);
  std::array<float, 64> counts;
  counts.fill(1);
  const int64_t pixels = std::min<int64_t>(64, g.out_pixels() - range.tile * 64);
  for (int64_t i = 0; i < pixels; ++i) {
    const int64_t count = WindowCount(g, range.tile * 64 + i, params.count_include_pad);
    counts[static_cast<size_t>(i)] = static_cast<float>(std::max<int64_t>(1, count));
  }
  // The padding holds the zero point: it adds nothing.
  const auto zero = static_cast<int32_t>(-positions * params.x.zero_point);
  for (int64_t c = range.begin; c < range.end; ++c) {
    im2col.GatherChannels(image, range.tile, c, c + 1, rows);
    std::array<int32_t, 64> sums;  // locals, which cannot alias the rows
    sums.fill(zero);
    for (int64_t p = 0; p < positions; ++p) {
      const uint8_t* row = rows + p * 64;
      for (size_t i = 0; i < 64; ++i) sums[i] += row[i];
    }
    std::array<float, 64> means;
    for (size_t i = 0; i < 64; ++i) means[i] = MeanOf(sums[i], counts[i], params.x);
    Quantize(means, params.y, y + (range.tile * g.channels + c) * 64, params.isa);
  }
}

void SumPixels(const uint8_t* x, ImageSize size, int64_t* y) noexcept {
  for (int64_t c = 0; c < size.channels; ++c) y[c] = SumOfChannel(x, size, c);
}

void GlobalAveragePool(const uint8_t* x, ImageSize size, QuantParams from, QuantParams to,
                       uint8_t* y) noexcept {
  for (int64_t c = 0; c < size.channels; ++c) {
    const int64_t sum = SumOfChannel(x, size, c);
    y[c] = QuantizeMean(sum - size.pixels * from.zero_point, size.pixels, from, to);
  }
}

}  // namespace pared
