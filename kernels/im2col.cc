#include "kernels/im2col.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"

namespace pared {
namespace {

void CopyPlanarRow(const uint8_t* channel, int64_t tile_stride, int64_t pixel, int64_t width,
                   uint8_t* out) noexcept {
  while (width > 0) {
    const int64_t column = pixel % 64, count = std::min(64 - column, width);
    std::memcpy(out, channel + pixel / 64 * tile_stride + column, static_cast<size_t>(count));
    pixel += count;
    out += count;
    width -= count;
  }
}

}  // namespace

bool ConvGeometry::is_pointwise() const {
  return kernel_height == 1 && kernel_width == 1 && stride_y == 1 && stride_x == 1 &&
         pad_top == 0 && pad_left == 0 && pad_bottom == 0 && pad_right == 0;
}

Im2col::Im2col(const ConvGeometry& geometry, Isa isa)
    : geometry_(geometry),
      permutes_(isa >= Isa::kAvx512Vnni && HasAvx512Vbmi()),
      masks_(isa >= Isa::kAvx512Vnni) {
  PARED_CHECK(geometry.out_height() >= 1);
  PARED_CHECK(geometry.out_width() >= 1);
  for (int64_t y = 0; y < geometry.kernel_height; ++y) {
    for (int64_t x = 0; x < geometry.kernel_width; ++x) {
      taps_.push_back(y * geometry.dilation_y * padded_width() + x * geometry.dilation_x);
    }
  }
  for (int64_t tile = 0; tile < geometry.out_tiles(); ++tile) tiles_.push_back(PlanTile(tile));
}

int64_t Im2col::padded_height() const {
  return geometry_.height + geometry_.pad_top + geometry_.pad_bottom;
}

int64_t Im2col::padded_width() const {
  return geometry_.width + geometry_.pad_left + geometry_.pad_right;
}

size_t Im2col::image_bytes() const {
  // The slack is one window.
  return static_cast<size_t>(geometry_.channels * padded_height() * padded_width()) + 128;
}

Im2col::TilePlan Im2col::PlanTile(int64_t tile) const {
  TilePlan plan{};
  for (int64_t i = 0; i < 64; ++i) {
    const int64_t pixel = std::min(tile * 64 + i, geometry_.out_pixels() - 1);
    const int64_t y = pixel / geometry_.out_width(), x = pixel % geometry_.out_width();
    const int64_t offset = y * geometry_.stride_y * padded_width() + x * geometry_.stride_x;
    plan.offsets[static_cast<size_t>(i)] = offset;
    if (plan.windows.empty() || offset - plan.windows.back().start >= 128) {
      plan.windows.push_back({.start = offset, .columns = 0, .pick = {}});
    }
    GatherWindow& window = plan.windows.back();
    window.columns |= uint64_t{1} << i;
    window.pick[static_cast<size_t>(i)] = static_cast<uint8_t>(offset - window.start);
  }
  return plan;
}

void Im2col::PadPlanar(const PlanarSource& source, uint8_t zero_point, int64_t begin, int64_t end,
                       uint8_t* image) const noexcept {
  const int64_t plane = padded_height() * padded_width();
  auto* copy = CopyPlanarRow;
  if constexpr (kOnX86) {
    if (masks_) copy = CopyPlanarRowAvx512;
  }
  for (int64_t c = begin; c < end; ++c) {
    uint8_t* out = image + c * plane;
    if (plane != geometry_.height * geometry_.width) {
      std::memset(out, zero_point, static_cast<size_t>(plane));
    }
    out += geometry_.pad_top * padded_width() + geometry_.pad_left;
    const uint8_t* channel = source.x + (source.first_channel + c) * 64;
    for (int64_t y = 0; y < geometry_.height; ++y, out += padded_width()) {
      copy(channel, source.total_channels * 64, y * geometry_.width, geometry_.width, out);
    }
  }
}

void Im2col::PadRowMajor(const uint8_t* x, uint8_t zero_point, int64_t begin, int64_t end,
                         uint8_t* image) const noexcept {
  const int64_t plane = padded_height() * padded_width();
  const size_t width = static_cast<size_t>(geometry_.width);
  for (int64_t c = begin; c < end; ++c) {
    uint8_t* out = image + c * plane;
    std::memset(out, zero_point, static_cast<size_t>(plane));
    out += geometry_.pad_top * padded_width() + geometry_.pad_left;
    const uint8_t* rows = x + c * geometry_.height * geometry_.width;
    for (int64_t y = 0; y < geometry_.height; ++y, out += padded_width()) {
      std::memcpy(out, rows + y * geometry_.width, width);
    }
  }
}

void Im2col::GatherTile(const uint8_t* image, int64_t tile, uint8_t* out) const noexcept {
  GatherChannels(image, tile, 0, geometry_.channels, out);
}

void Im2col::GatherChannels(const uint8_t* image, int64_t tile, int64_t begin, int64_t end,
                            uint8_t* out) const noexcept {
  const TilePlan& plan = tiles_[static_cast<size_t>(tile)];
  const int64_t plane = padded_height() * padded_width();
  for (int64_t c = begin; c < end; ++c) {
    for (const int64_t tap : taps_) {
      const uint8_t* in = image + c * plane + tap;
      if (permutes_) {
        if constexpr (kOnX86) GatherRowAvx512(in, plan.windows, out);
      } else {
        for (size_t i = 0; i < 64; ++i) out[i] = in[plan.offsets[i]];
      }
      out += 64;
    }
  }
}

}  // namespace pared
