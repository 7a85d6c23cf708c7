// Depthwise convolution straight from the padded image, without gathering its operand first.
//
// One step covers up to four kernel columns of one kernel row for 64 output pixels. Four vectors of
// 16 pixels each take, with one byte permutation, the four neighbours that each pixel multiplies:
//
//   image  a b c d e f ...    picked  a b c d | b c d e | c d e f | ...    weights  w0 w1 w2 0 |
//   ...
//
// so that vpdpbusd adds a kernel row. A 3x3 kernel is 12 loads, 12 permutations and 12 vpdpbusd for
// 64 pixels; gathering 9 rows of 64 pixels and interleaving them takes three times as long. Strides
// and the step from one image row to the next are in the permutation's indices. Where 16 pixels do
// not lie within 64 bytes, two windows of 64 are permuted as one.

#include "kernels/depthwise_avx512.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>
#include <vector>

#include "base/check.h"
#include "kernels/aligned.h"
#include "kernels/avx512vnni.h"

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512vbmi")

namespace pared {
namespace {

constexpr int64_t kColumns = 4;  // kernel columns a step
constexpr size_t kQuarters = 4;  // vectors of 16 pixels a tile

struct TilePlan {
  std::array<int64_t, kQuarters> first, second;  // windows' offsets in the padded image
  alignas(64) std::array<std::array<uint8_t, 64>, kQuarters> picks;
  bool has_second = false;
};

// Offset of output pixel `pixel` in the padded image.
int64_t OffsetOf(const ConvGeometry& g, int64_t padded_width, int64_t pixel) {
  pixel = std::min(pixel, g.out_pixels() - 1);
  return pixel / g.out_width() * g.stride_y * padded_width + pixel % g.out_width() * g.stride_x;
}

// Nothing where 16 pixels need more than two windows.
std::optional<TilePlan> PlanTile(const ConvGeometry& g, int64_t padded_width, int64_t tile) {
  TilePlan plan{};
  const int64_t columns = std::min(kColumns, g.kernel_width);
  for (size_t q = 0; q < kQuarters; ++q) {
    const int64_t begin = tile * 64 + static_cast<int64_t>(q) * 16;
    plan.first[q] = plan.second[q] = OffsetOf(g, padded_width, begin);
    for (int64_t i = 0; i < 16; ++i) {
      const int64_t offset = OffsetOf(g, padded_width, begin + i);
      // Past the last kernel column the weights are zero, whatever is picked.
      for (int64_t x = 0; x < kColumns; ++x) {
        const int64_t at = offset + std::min(x, columns - 1) * g.dilation_x;
        int64_t pick = at - plan.first[q];
        if (pick >= 64) {
          if (plan.second[q] == plan.first[q]) plan.second[q] = at;
          if (at - plan.second[q] >= 64) return {};
          pick = 64 + at - plan.second[q];
          plan.has_second = true;
        }
        plan.picks[q][static_cast<size_t>(i * kColumns + x)] = static_cast<uint8_t>(pick);
      }
    }
  }
  return plan;
}

// Sums in the order of pixels to 64 codes.
[[gnu::always_inline]] inline void StoreCodes(const EpilogueView& e, int64_t channel, uint8_t* y,
                                              const avx512::Sums& s) {
  const __m512 scale = _mm512_set1_ps(e.scale[channel]);
  const __m512 high = _mm512_set1_ps(e.high_minus_zero);
  const __m512i zero_point = _mm512_set1_epi16(static_cast<int16_t>(e.zero_point));
  const __m512i a =
      _mm512_packs_epi32(avx512::Scale(s.c0, scale, high), avx512::Scale(s.c1, scale, high));
  const __m512i b =
      _mm512_packs_epi32(avx512::Scale(s.c2, scale, high), avx512::Scale(s.c3, scale, high));
  const __m512i bytes =
      _mm512_packus_epi16(_mm512_adds_epi16(a, zero_point), _mm512_adds_epi16(b, zero_point));
  // The packs left four pixels of each of the four vectors in each 128-bit lane.
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  const __m512i low = _mm512_set1_epi8(static_cast<char>(e.low));
  _mm512_storeu_si512(y, _mm512_max_epu8(_mm512_permutexvar_epi32(order, bytes), low));
}

class DirectDepthwise final : public PackedDepthwise {
 public:
  DirectDepthwise(const DepthwiseWeights& weights, Isa isa, std::vector<TilePlan> tiles)
      : im2col_(weights.geometry, isa),
        multiplier_(weights.multiplier),
        channels_(weights.geometry.channels * weights.multiplier),
        tiles_(std::move(tiles)),
        epilogue_(weights.epilogue, channels_) {
    const ConvGeometry& g = weights.geometry;
    const int64_t padded_width = g.width + g.pad_left + g.pad_right;
    plane_ = padded_width * (g.height + g.pad_top + g.pad_bottom);
    for (int64_t row = 0; row < g.kernel_height; ++row) {
      for (int64_t column = 0; column < g.kernel_width; column += kColumns) {
        steps_.push_back(row * g.dilation_y * padded_width + column * g.dilation_x);
      }
    }
    PackWeights(weights);
  }

  const Im2col& im2col() const override { return im2col_; }

  void Run(const uint8_t* image, const Range& range, void* y,
           std::byte* /*scratch*/) const noexcept override {
    const TilePlan& plan = tiles_[static_cast<size_t>(range.tile)];
    uint8_t* tile = static_cast<uint8_t*>(y) + range.tile * channels_ * 64;
    plan.has_second ? RunTile<true>(image, plan, range, tile)
                    : RunTile<false>(image, plan, range, tile);
  }
  size_t scratch_bytes() const override { return 0; }
  const char* kernel_name() const override { return "depthwise_direct_avx512vnni"; }

 private:
  // [channel][step][4], zeros past the last kernel column.
  void PackWeights(const DepthwiseWeights& weights) {
    const ConvGeometry& g = weights.geometry;
    weights_ = AlignedBuffer<int8_t>(static_cast<size_t>(channels_) * steps_.size() * kColumns);
    const int8_t* from = weights.values.data();
    int8_t* to = weights_.data();
    for (int64_t row = 0; row < channels_ * g.kernel_height; ++row) {
      for (int64_t column = 0; column < g.kernel_width; column += kColumns, to += kColumns) {
        const int64_t count = std::min(kColumns, g.kernel_width - column);
        std::memcpy(to, from, static_cast<size_t>(count));
        from += count;
      }
    }
  }

  template <bool kTwoWindows>
  void RunTile(const uint8_t* image, const TilePlan& plan, const Range& range,
               uint8_t* y) const noexcept {
    const EpilogueView e = epilogue_.view();
    __m512i picks[kQuarters];
    for (size_t q = 0; q < kQuarters; ++q) picks[q] = avx512::Load(plan.picks[q].data());
    const auto pick = [&](const uint8_t* at, size_t q) __attribute__((always_inline)) {
      const __m512i first = avx512::Load(at + plan.first[q]);
      if constexpr (!kTwoWindows) return _mm512_permutexvar_epi8(picks[q], first);
      return _mm512_permutex2var_epi8(first, picks[q], avx512::Load(at + plan.second[q]));
    };
    const int64_t row = static_cast<int64_t>(steps_.size()) * kColumns;
    for (int64_t c = range.begin; c < range.end; ++c) {
      const uint8_t* channel = image + c / multiplier_ * plane_;
      const int8_t* w = weights_.data() + c * row;
      avx512::Sums s;
      s.c0 = s.c1 = s.c2 = s.c3 = _mm512_set1_epi32(e.bias[c]);
      for (const int64_t step : steps_) {
        const uint8_t* at = channel + step;
        const __m512i weights = avx512::BroadcastWeights(w);
        w += kColumns;
        avx512::Dot(s.c0, pick(at, 0), weights);
        avx512::Dot(s.c1, pick(at, 1), weights);
        avx512::Dot(s.c2, pick(at, 2), weights);
        avx512::Dot(s.c3, pick(at, 3), weights);
      }
      StoreCodes(e, c, y + c * 64, s);
    }
  }

  Im2col im2col_;
  int64_t multiplier_, channels_;
  int64_t plane_ = 0;           // bytes of a padded channel
  std::vector<int64_t> steps_;  // offsets in it
  std::vector<TilePlan> tiles_;
  AlignedBuffer<int8_t> weights_;
  PackedEpilogue epilogue_;
};

}  // namespace

std::unique_ptr<PackedDepthwise> PackDirectDepthwise(const DepthwiseWeights& weights, Isa isa) {
  const ConvGeometry& g = weights.geometry;
  if (weights.epilogue.output != GemmOutput::kUInt8) return nullptr;
  std::vector<TilePlan> tiles;
  for (int64_t tile = 0; tile < g.out_tiles(); ++tile) {
    const std::optional<TilePlan> plan = PlanTile(g, g.width + g.pad_left + g.pad_right, tile);
    if (!plan) return nullptr;
    tiles.push_back(*plan);
  }
  return std::make_unique<DirectDepthwise>(weights, isa, std::move(tiles));
}

}  // namespace pared

#pragma GCC pop_options
