// Part of kernels/f32_body.h: depthwise convolution with channels in the lanes.
//
// A band of input rows is transposed to [row][column][lane] with zeros for the horizontal padding
// written out, summed there, and the sums are transposed back. Taps above and below the plane are
// left out. Each sum goes over its taps in order, whatever the band.

// Where the vectors of one output row begin.
struct LaneRow {
  const float* x;        // of the first tap inside the plane
  const float* weights;  // of that tap
  int64_t taps_y;
  float* y;
};

// Where the next pixel of the band goes, and how many are left in its row.
struct BandAt {
  float* to;
  int64_t left;
};

// `count` pixels, at most a vector, of at most a vector of channels. Steps without a branch: where
// a row ends is hard to foretell.
template <bool kWhole>
inline void SpreadBlock(const DepthwiseF32& d, const float* x, int64_t count, BandAt& at) {
  constexpr int64_t kLanes = Vec::kWidth;
  constexpr int64_t kAhead = 128;  // 512 bytes: 16 streams are too many for the prefetcher
  const int64_t plane = d.in_height * d.in_width;
  const int64_t skip = (d.row_vectors - d.in_width) * kLanes;
  Vec block[kLanes];
#pragma GCC unroll 16
  for (int64_t c = 0; c < kLanes; ++c) {
    const float* from = x + c * plane;
    __builtin_prefetch(from + kAhead);
    block[c] = kWhole ? Vec::Load(from) : c >= d.channels ? Vec(0.0F) : Vec::LoadFirst(from, count);
  }
  Transpose(block);
#pragma GCC unroll 16
  for (int64_t i = 0; i < kLanes; ++i) {
    if (!kWhole && i == count) break;
    block[i].Store(at.to);
    const int64_t ends = -static_cast<int64_t>(--at.left == 0);
    at.to += kLanes + (skip & ends);
    at.left += d.in_width & ends;
  }
}

// Transposes input rows [begin, end) into the band.
inline void SpreadRows(const DepthwiseF32& d, int64_t begin, int64_t end) {
  constexpr int64_t kLanes = Vec::kWidth;
  const int64_t pixels = (end - begin) * d.in_width;
  const float* x = d.x + begin * d.in_width;
  BandAt at{d.band + d.pad_x * kLanes, d.in_width};
  int64_t p = 0;
  if (d.channels == kLanes) {
    for (; p + kLanes <= pixels; p += kLanes) SpreadBlock<true>(d, x + p, kLanes, at);
  }
  for (; p < pixels; p += kLanes) {
    SpreadBlock<false>(d, x + p, pixels - p < kLanes ? pixels - p : kLanes, at);
  }
}

// Outputs [first, first + lanes) of TransposeF32, pixels from p on.
template <bool kWhole>
[[gnu::always_inline]] inline void TransposeBlock(const TransposeF32& t, int64_t first, int64_t p) {
  constexpr int64_t kLanes = Vec::kWidth;
  const Vec low(t.low);
  const Vec high(t.high);
  const int64_t count = t.pixels - p < kLanes ? t.pixels - p : kLanes;
  const int64_t outputs = t.outputs - first;
  Vec block[kLanes];
#pragma GCC unroll 16
  for (int64_t i = 0; i < kLanes; ++i) {
    block[i] = kWhole || i < count ? Vec::Load(t.sums + (p + i) * t.sums_row + first) : Vec(0.0F);
  }
  Transpose(block);
#pragma GCC unroll 16
  for (int64_t i = 0; i < kLanes; ++i) {
    if (!kWhole && i == outputs) break;
    const int64_t at = (first + i) * t.y_row + p;
    Vec value = block[i];
    if (t.bias != nullptr) value = value + Vec(t.bias[first + i]);
    if (kWhole || count == kLanes) {
      if (t.addend != nullptr) value = value + Vec::Load(t.addend + at);
      Clamp(value, low, high).Store(t.y + at);
    } else {
      if (t.addend != nullptr) value = value + Vec::LoadFirst(t.addend + at, count);
      Clamp(value, low, high).StoreFirst(t.y + at, count);
    }
  }
}

inline void TransposeLanes(TransposeF32 t, int64_t first) {
  constexpr int64_t kLanes = Vec::kWidth;
  int64_t p = 0;
  if (t.outputs - first >= kLanes) {
    for (; p + kLanes <= t.pixels; p += kLanes) TransposeBlock<true>(t, first, p);
  }
  for (; p < t.pixels; p += kLanes) TransposeBlock<false>(t, first, p);
}

void TransposeSums(const TransposeF32& t) noexcept {
  for (int64_t first = 0; first < t.outputs; first += Vec::kWidth) TransposeLanes(t, first);
}

// kBlock sums at once: each input vector is loaded once a tap row and meets all its taps.
template <int kTaps, int kStride, int kBlock>
inline void SumBlock(const DepthwiseF32& d, const LaneRow& row, int64_t at) {
  constexpr int64_t kLanes = Vec::kWidth;
  constexpr int kReach = (kBlock - 1) * kStride + kTaps;
  const Vec bias = Vec::Load(d.bias);
  Vec sums[kBlock];
#pragma GCC unroll 8
  for (int i = 0; i < kBlock; ++i) sums[i] = bias;
  const float* x = row.x + at * kStride * kLanes;
  const float* weights = row.weights;
  float* y = row.y + at * kLanes;  // read before the stores, which might change it
  const int64_t step = d.dilation_y * d.row_vectors * kLanes;
  for (int64_t tap_y = 0; tap_y < row.taps_y; ++tap_y, x += step, weights += kTaps * kLanes) {
    Vec taps[kTaps];
#pragma GCC unroll 5
    for (int t = 0; t < kTaps; ++t) taps[t] = Vec::Load(weights + t * kLanes);
#pragma GCC unroll 24
    for (int i = 0; i < kReach; ++i) {
      const Vec value = Vec::Load(x + i * kLanes);
#pragma GCC unroll 5
      for (int t = 0; t < kTaps; ++t) {
        const int output = (i - t) / kStride;
        if (i >= t && (i - t) % kStride == 0 && output < kBlock) {
          sums[output] = Fma(value, taps[t], sums[output]);
        }
      }
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < kBlock; ++i) sums[i].Store(y + i * kLanes);
}

// The same for any kernel, stride and dilation.
template <int kBlock>
inline void SumBlockOfAny(const DepthwiseF32& d, const LaneRow& row, int64_t at) {
  constexpr int64_t kLanes = Vec::kWidth;
  const Vec bias = Vec::Load(d.bias);
  Vec sums[kBlock];
#pragma GCC unroll 8
  for (int i = 0; i < kBlock; ++i) sums[i] = bias;
  const int64_t stride = d.stride_x * kLanes;
  const float* weights = row.weights;
  float* y = row.y + at * kLanes;  // read before the stores, which might change it
  for (int64_t tap_y = 0; tap_y < row.taps_y; ++tap_y) {
    const float* x = row.x + at * stride + tap_y * d.dilation_y * d.row_vectors * kLanes;
    for (int64_t t = 0; t < d.kernel_x; ++t, x += d.dilation_x * kLanes, weights += kLanes) {
      const Vec tap = Vec::Load(weights);
#pragma GCC unroll 8
      for (int i = 0; i < kBlock; ++i) sums[i] = Fma(Vec::Load(x + i * stride), tap, sums[i]);
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < kBlock; ++i) sums[i].Store(y + i * kLanes);
}

// One output row in blocks; the last block begins early where the row is no multiple.
template <int kTaps, int kStride, int kBlock>
void SumRow(const DepthwiseF32& d, const LaneRow& row) {
  const int64_t last = d.out_width > kBlock ? d.out_width - kBlock : 0;
  for (int64_t at = 0; at < d.out_width; at += kBlock) {
    const int64_t begin = at < last ? at : last;
    if constexpr (kTaps == 0) {
      SumBlockOfAny<kBlock>(d, row, begin);
    } else {
      SumBlock<kTaps, kStride, kBlock>(d, row, begin);
    }
  }
}

template <int kBlock>
auto SumRowFor(const DepthwiseF32& d) {
  const auto is = [&](int64_t taps, int64_t stride) {
    return d.kernel_x == taps && d.stride_x == stride && d.dilation_x == 1;
  };
  if (is(3, 1)) return SumRow<3, 1, kBlock>;
  if (is(3, 2)) return SumRow<3, 2, kBlock>;
  if (is(5, 1)) return SumRow<5, 1, kBlock>;
  if (is(5, 2)) return SumRow<5, 2, kBlock>;
  return SumRow<0, 0, kBlock>;
}

void Depthwise(const DepthwiseF32& d) noexcept {
  constexpr int64_t kLanes = Vec::kWidth;
  // Blocks of 7 suit the planes of 7 x 7, 14 x 14, ...
  const bool sevens = (d.out_width + 6) / 7 * 7 < (d.out_width + 7) / 8 * 8;
  const auto sum_row = sevens ? SumRowFor<7>(d) : SumRowFor<8>(d);
  const int64_t reach = (d.kernel_y - 1) * d.dilation_y + 1;
  const int64_t row_floats = d.row_vectors * kLanes;
  const int64_t band_inputs = (d.band_rows - 1) * d.stride_y + reach;
  for (int64_t row = 0; row < band_inputs; ++row) {
    float* band = d.band + row * row_floats;
    for (int64_t x = 0; x < d.pad_x; ++x) Vec(0.0F).Store(band + x * kLanes);
    for (int64_t x = d.pad_x + d.in_width; x < d.row_vectors; ++x) {
      Vec(0.0F).Store(band + x * kLanes);
    }
  }
  for (int64_t begin = 0; begin < d.out_height; begin += d.band_rows) {
    const int64_t end = begin + d.band_rows < d.out_height ? begin + d.band_rows : d.out_height;
    const int64_t top = begin * d.stride_y - d.pad_y;
    const int64_t bottom = (end - 1) * d.stride_y - d.pad_y + reach;
    const int64_t first = top > 0 ? top : 0;
    SpreadRows(d, first, bottom < d.in_height ? bottom : d.in_height);
    for (int64_t y = begin; y < end; ++y) {
      const int64_t source = y * d.stride_y - d.pad_y;  // of tap 0
      const int64_t above = source < 0 ? (-source + d.dilation_y - 1) / d.dilation_y : 0;
      const int64_t inside = (d.in_height - source + d.dilation_y - 1) / d.dilation_y;
      const int64_t taps_end = inside < d.kernel_y ? inside : d.kernel_y;
      const int64_t tap_row = source + above * d.dilation_y - first;
      sum_row(d, {.x = d.band + tap_row * row_floats,
                  .weights = d.weights + above * d.kernel_x * kLanes,
                  .taps_y = taps_end - above,
                  .y = d.sums + (y - begin) * d.out_width * kLanes});
    }
    TransposeSums({.sums = d.sums,
                   .sums_row = kLanes,
                   .pixels = (end - begin) * d.out_width,
                   .outputs = d.channels,
                   .y = d.y + begin * d.out_width,
                   .y_row = d.out_height * d.out_width,
                   .addend = d.addend == nullptr ? nullptr : d.addend + begin * d.out_width,
                   .low = d.low,
                   .high = d.high});
  }
}
