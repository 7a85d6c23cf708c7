// Part of kernels/f32_body.h: sums and maxima over the taps of a window, row by row, and the padded
// rows that they read.

// kRows x kVectors outputs at once: as many chains of multiply-adds hide their latency, and each
// weight is loaded once for all. Every output is summed tap by tap, whatever the block.
template <bool kMax, int kRows, int kVectors>
void TapBlock(const TapRowsF32& t, int64_t y, int64_t x) {
  Vec acc[kRows][kVectors];
  const float* source = t.source + y * t.source_step + x;
  const auto value = [&](int64_t tap, int r, int v) __attribute__((always_inline)) {
    return Vec::Load(source + t.offsets[tap] + r * t.source_step + v * Vec::kWidth);
  };
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) acc[r][v] = kMax ? value(0, r, v) : Vec(t.bias);
  }
  for (int64_t tap = kMax ? 1 : 0; tap < t.taps; ++tap) {
    const Vec weight(kMax ? 0.0F : t.weights[tap]);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) {
        acc[r][v] =
            kMax ? MaxOrNan(value(tap, r, v), acc[r][v]) : Fma(weight, value(tap, r, v), acc[r][v]);
      }
    }
  }
  const Vec low(t.low);
  const Vec high(t.high);
  const int64_t left = t.count - x - (kVectors - 1) * Vec::kWidth;  // in the last vector
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
    float* to = t.y + (y + r) * t.y_step + x;
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      const Vec result = kMax ? acc[r][v] : Clamp(acc[r][v], low, high);
      if (v < kVectors - 1 || left >= Vec::kWidth) {
        result.Store(to + v * Vec::kWidth);
      } else {
        result.StoreFirst(to + v * Vec::kWidth, left);
      }
    }
  }
}

constexpr int Least(int a, int b) { return a < b ? a : b; }

// All rows of kVectors columns, at most kMostRows at a time, in blocks of nearly equal heights.
template <bool kMax, int kMostRows, int kVectors>
void TapColumns(const TapRowsF32& t, int64_t x) {
  using Block = void (*)(const TapRowsF32&, int64_t, int64_t);
  static constexpr Block kBlocks[] = {TapBlock<kMax, 1, kVectors>,
                                      TapBlock<kMax, 2, kVectors>,
                                      TapBlock<kMax, 3, kVectors>,
                                      TapBlock<kMax, Least(kMostRows, 4), kVectors>,
                                      TapBlock<kMax, Least(kMostRows, 5), kVectors>,
                                      TapBlock<kMax, Least(kMostRows, 6), kVectors>,
                                      TapBlock<kMax, Least(kMostRows, 7), kVectors>};
  const int64_t blocks = (t.rows + kMostRows - 1) / kMostRows;
  for (int64_t i = 0; i < blocks; ++i) {
    const int64_t begin = t.rows * i / blocks;
    kBlocks[t.rows * (i + 1) / blocks - begin - 1](t, begin, x);
  }
}

template <bool kMax>
void TapRows(const TapRowsF32& t) {
  int64_t x = 0;
  for (; x + 4 * Vec::kWidth <= t.count; x += 4 * Vec::kWidth) TapColumns<kMax, 3, 4>(t, x);
  for (; x + Vec::kWidth < t.count; x += 2 * Vec::kWidth) TapColumns<kMax, 6, 2>(t, x);
  if (x < t.count) TapColumns<kMax, 7, 1>(t, x);
}

void TapSumRows(const TapRowsF32& t) noexcept { TapRows<false>(t); }
void TapMaxRows(const TapRowsF32& t) noexcept { TapRows<true>(t); }

// The elements from x on, every kStride-th, of which there are n: what is missing in a vector is
// zero.
template <int kStride>
inline Vec EveryFirst(const float* x, int64_t n) {
  constexpr int64_t kWidth = Vec::kWidth;
  if constexpr (kStride == 1) return n >= kWidth ? Vec::Load(x) : Vec::LoadFirst(x, n);
  if (n > kWidth) return Even(Vec::Load(x), Vec::Load(x + kWidth));
  const int64_t floats = 2 * n - 1;
  if (floats <= kWidth) return Even(Vec::LoadFirst(x, floats), Vec(0.0F));
  return Even(Vec::Load(x), Vec::LoadFirst(x + kWidth, floats - kWidth));
}

// One remainder of a row. Vectors are stored whole: what one writes too much, the next overwrites.
template <int kStride>
inline void PadPhase(const PadRowsF32& p, const float* x, int64_t phase, float* y) {
  constexpr int64_t kWidth = Vec::kWidth;
  const int64_t stride = kStride == 0 ? p.stride : kStride;
  const Vec padding(p.padding);
  // The first column of this remainder that lies on the input, and how many follow it.
  int64_t first = p.pad > phase ? (p.pad - phase + stride - 1) / stride : 0;
  x += first * stride + phase - p.pad;
  const int64_t inside = p.count - (first * stride + phase - p.pad);
  if (first > p.phase_floats) first = p.phase_floats;
  const int64_t wanted = p.phase_floats - first;
  const int64_t all = inside <= 0 ? 0 : (inside + stride - 1) / stride;
  const int64_t count = all < wanted ? all : wanted;
  for (int64_t i = 0; i < first; i += kWidth) padding.Store(y + i);
  for (int64_t i = 0; i < count; i += kStride == 0 ? 1 : kWidth) {
    if constexpr (kStride == 0) {
      y[first + i] = x[i * stride];
    } else {
      EveryFirst<kStride>(x + i * stride, count - i).Store(y + first + i);
    }
  }
  int64_t end = first + count;
  do {
    padding.Store(y + end);
    end += kWidth;
  } while (end < p.phase_floats);
}

template <int kStride>
inline void PadRowsOf(const PadRowsF32& p) {
  for (int64_t row = 0; row < p.rows; ++row) {
    float* y = p.y + row * p.y_step;
    for (int64_t phase = 0; phase < p.stride && phase < p.phases; ++phase) {
      PadPhase<kStride>(p, p.x + row * p.count, phase, y + phase * p.phase_floats);
    }
  }
}

void PadRows(const PadRowsF32& p) noexcept {
  if (p.stride == 1) return PadRowsOf<1>(p);
  if (p.stride == 2) return PadRowsOf<2>(p);
  PadRowsOf<0>(p);
}
