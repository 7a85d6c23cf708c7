#include "kernels/im2col.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"

namespace pared {
namespace {

template <class Piece>
void CopyEnds(const uint8_t* from, int64_t count, uint8_t* to) noexcept {
  constexpr int64_t kBytes = sizeof(Piece);
  Piece first, last;
  std::memcpy(&first, from, kBytes);
  std::memcpy(&last, from + count - kBytes, kBytes);
  std::memcpy(to, &first, kBytes);
  std::memcpy(to + count - kBytes, &last, kBytes);
}

// memcpy of at most 64 bytes, without a call.
void CopyFew(const uint8_t* from, int64_t count, uint8_t* to) noexcept {
  if (count >= 16) {
    for (int64_t i = 0; i + 16 < count; i += 16) std::memcpy(to + i, from + i, 16);
    std::memcpy(to + count - 16, from + count - 16, 16);
  } else if (count >= 8) {
    CopyEnds<uint64_t>(from, count, to);
  } else if (count >= 4) {
    CopyEnds<uint32_t>(from, count, to);
  } else {
    for (int64_t i = 0; i < count; ++i) to[i] = from[i];
  }
}

void CopyPlanarRow(const uint8_t* channel, int64_t tile_stride, int64_t pixel, int64_t width,
                   uint8_t* out) noexcept {
  while (width > 0) {
    const int64_t column = pixel % 64, count = std::min(64 - column, width);
    CopyFew(channel + pixel / 64 * tile_stride + column, count, out);
    pixel += count;
    out += count;
    width -= count;
  }
}

using Bytes = uint8_t __attribute__((vector_size(16)));

Bytes LoadBytes(const uint8_t* from) {
  Bytes bytes;
  std::memcpy(&bytes, from, sizeof bytes);
  return bytes;
}

// Every kStride-th byte of x to out, of 16 bytes at a time as many as hold `count`.
template <int kStride>
struct CopyRun {
  static_assert(kStride == 1 || kStride == 2);
  void operator()(const uint8_t* x, int64_t count, uint8_t* out) const noexcept {
    for (int64_t i = 0; i < count; i += 16, x += kStride * 16) {
      Bytes bytes = LoadBytes(x);
      if constexpr (kStride == 2) {
        bytes = __builtin_shufflevector(bytes, LoadBytes(x + 16), 0, 2, 4, 6, 8, 10, 12, 14, 16, 18,
                                        20, 22, 24, 26, 28, 30);
      }
      std::memcpy(out + i, &bytes, sizeof bytes);
    }
  }
};

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
  plan.columns = std::min<int64_t>(64, geometry_.out_pixels() - tile * 64);
  for (int64_t i = 0; i < 64; ++i) {
    const int64_t pixel = tile * 64 + std::min(i, plan.columns - 1);
    const int64_t y = pixel / geometry_.out_width(), x = pixel % geometry_.out_width();
    const int64_t offset = y * geometry_.stride_y * padded_width() + x * geometry_.stride_x;
    if (i < plan.columns) {
      if (i == 0 || x == 0) plan.runs.push_back({i, offset, 0});
      ++plan.runs.back().count;
    }
    if (!permutes_) continue;
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

// A run may write up to 15 bytes more than it has columns, where the next run or row comes to lie.
// What is behind the last row is another thread's.
template <class Copy>
void Im2col::GatherRuns(const uint8_t* image, const TilePlan& plan, const Copy& copy, bool is_last,
                        uint8_t* out) const noexcept {
  uint8_t last[128];
  for (size_t t = 0; t < taps_.size(); ++t, out += 64) {
    const bool is_end = is_last && t + 1 == taps_.size();
    uint8_t* row = is_end ? last : out;
    const uint8_t* from = image + taps_[t];
    for (const Run& run : plan.runs) copy(from + run.offset, run.count, row + run.column);
    if (plan.columns < 64) {
      std::memset(row + plan.columns, row[plan.columns - 1],
                  static_cast<size_t>(64 - plan.columns));
    }
    if (is_end) std::memcpy(out, last, 64);
  }
}

Im2col::Span Im2col::SpanOf(int64_t tile) const {
  const std::vector<Run>& runs = tiles_[static_cast<size_t>(tile)].runs;
  return {runs.front().offset, runs.back().offset + runs.back().count - runs.front().offset};
}

void Im2col::PickColumns(const uint8_t* span, int64_t tile, uint8_t* out) const noexcept {
  const TilePlan& plan = tiles_[static_cast<size_t>(tile)];
  const int64_t first = plan.runs.front().offset;
  for (const Run& run : plan.runs) {
    CopyRun<1>()(span + (run.offset - first), run.count, out + run.column);
  }
}

void Im2col::GatherChannels(const uint8_t* image, int64_t tile, int64_t begin, int64_t end,
                            uint8_t* out) const noexcept {
  const TilePlan& plan = tiles_[static_cast<size_t>(tile)];
  const int64_t plane = padded_height() * padded_width(), stride = geometry_.stride_x;
  image += begin * plane;
  for (int64_t c = begin; c < end; ++c, image += plane) {
    if (permutes_) {
      if constexpr (kOnX86) {
        for (const int64_t tap : taps_) {
          GatherRowAvx512(image + tap, plan.windows, out);
          out += 64;
        }
      }
      continue;
    }
    const bool is_last = c + 1 == end;
    if (stride == 1) {
      GatherRuns(image, plan, CopyRun<1>(), is_last, out);
    } else if (stride == 2) {
      GatherRuns(image, plan, CopyRun<2>(), is_last, out);
    } else {
      GatherRuns(
          image, plan,
          [stride](const uint8_t* from, int64_t count, uint8_t* to) {
            for (int64_t i = 0; i < count; ++i) to[i] = from[i * stride];
          },
          is_last, out);
    }
    out += std::ssize(taps_) * 64;
  }
}

}  // namespace pared
