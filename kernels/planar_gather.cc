#include "kernels/planar_gather.h"

#include <algorithm>
#include <map>

namespace pared {

PlanarGather::PlanarGather(const ConvGeometry& geometry, int64_t total_channels)
    : geometry_(geometry) {
  const int64_t taps = geometry.kernel_height * geometry.kernel_width;
  for (int64_t tile = 0; tile < geometry.out_tiles(); ++tile) {
    first_.push_back(windows_.size());
    for (int64_t tap = 0; tap < taps; ++tap) PlanRow(tile, tap, total_channels * 64);
  }
  // Tiles repeat the same few picks: each is kept once, which keeps them in the cache.
  std::map<std::array<uint8_t, 64>, uint32_t> known;
  std::vector<PlanarPick> kept;
  for (PlanarWindow& window : windows_) {
    const auto [at, is_new] =
        known.emplace(picks_[window.pick].from, static_cast<uint32_t>(kept.size()));
    if (is_new) kept.push_back(picks_[window.pick]);
    window.pick = at->second;
  }
  picks_ = std::move(kept);
}

void PlanarGather::PlanRow(int64_t tile, int64_t tap, int64_t line_bytes) {
  const ConvGeometry& g = geometry_;
  const int64_t dy = tap / g.kernel_width * g.dilation_y - g.pad_top;
  const int64_t dx = tap % g.kernel_width * g.dilation_x - g.pad_left;
  const int64_t last_line = (g.height * g.width - 1) / 64;
  const int64_t end = std::min(g.out_pixels(), (tile + 1) * 64);
  int64_t line = -2;
  uint32_t count = 0;
  for (int64_t pixel = tile * 64; pixel < end; ++pixel) {
    const int64_t y = pixel / g.out_width() * g.stride_y + dy;
    const int64_t x = pixel % g.out_width() * g.stride_x + dx;
    if (y < 0 || y >= g.height || x < 0 || x >= g.width) continue;
    const int64_t source = y * g.width + x;
    if (source / 64 > line + 1) {
      line = source / 64;
      windows_.push_back({.low = line * line_bytes,
                          .high = std::min(line + 1, last_line) * line_bytes,
                          .columns = 0,
                          .pick = static_cast<uint32_t>(picks_.size())});
      picks_.push_back({});
      ++count;
    }
    windows_.back().columns |= uint64_t{1} << (pixel % 64);
    picks_.back().from[static_cast<size_t>(pixel % 64)] = static_cast<uint8_t>(source - line * 64);
  }
  counts_.push_back(count);
}

PlanarRows PlanarGather::RowsOf(int64_t tile) const {
  const int64_t taps = geometry_.kernel_height * geometry_.kernel_width;
  return {.windows = windows_.data() + first_[static_cast<size_t>(tile)],
          .picks = picks_.data(),
          .counts = counts_.data() + tile * taps,
          .rows = taps};
}

void PlanarGather::Gather(const Channels& channels, int64_t tile, uint8_t* out) const noexcept {
  const PlanarRows rows = RowsOf(tile);
  for (int64_t c = channels.begin; c < channels.end; ++c, out += rows.rows * 64) {
    if constexpr (kOnX86) {
      GatherPlanarAvx512(channels.x + c * 64, rows, channels.padding, out);
    }
  }
}

void PlanarGather::Max(const Channels& channels, int64_t tile, uint8_t* out) const noexcept {
  const PlanarRows rows = RowsOf(tile);
  for (int64_t c = channels.begin; c < channels.end; ++c, out += 64) {
    if constexpr (kOnX86) MaxPlanarAvx512(channels.x + c * 64, rows, channels.padding, out);
  }
}

}  // namespace pared
