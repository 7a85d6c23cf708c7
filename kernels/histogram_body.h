// The loops of histogram.h, compiled by histogram.cc for each instruction set (each_isa.h).
//
// No include guard on purpose: each includer makes its own copy.

struct Extremes {
  int32_t positive = 0;  // the largest bit pattern: positive floats are ordered as integers are
  int32_t negative = 0;  // likewise, without the sign
  int32_t nan_count = 0, not_finite_count = 0;
};

void FindExtremes(const float* __restrict x, int64_t count, Extremes& found) {
  int32_t positive = 0, negative = 0, nan_count = 0, not_finite_count = 0;
  for (int64_t i = 0; i < count; ++i) {
    const int32_t bits = std::bit_cast<int32_t>(x[i]);
    const int32_t magnitude = bits & kInt32Max, sign = bits >> 31;  // -1 or 0, as all that follow
    const int32_t is_not_finite = (kInfinity - 1 - magnitude) >> 31;
    const int32_t finite = magnitude & ~is_not_finite;
    positive = std::max(positive, finite & ~sign);
    negative = std::max(negative, finite & sign);
    not_finite_count -= is_not_finite;
    nan_count -= (kInfinity - magnitude) >> 31;
  }
  found.positive = std::max(found.positive, positive);
  found.negative = std::max(found.negative, negative);
  found.nan_count += nan_count;
  found.not_finite_count += not_finite_count;
}

void FindPlaces(const float* __restrict x, int64_t count, int32_t* __restrict places) {
  constexpr int32_t kLast = HistogramBins::kOfSign - 1;
  for (int64_t i = 0; i < count; ++i) {
    const int32_t bits = std::bit_cast<int32_t>(x[i]);
    const int32_t magnitude = bits & kInt32Max;
    int32_t bin = (magnitude >> kShift) - kFirstBin;
    bin = bin < 0 ? 0 : bin;
    bin = bin > kLast ? kLast : bin;
    bin += (bits >> 31) & HistogramBins::kOfSign;
    // Zeros, of which there are many, go round: no count waits for the one before.
    const int32_t zero = kZeroPlace + static_cast<int32_t>(i % kZeroPlaces);
    bin = magnitude == 0 ? zero : bin;
    places[i] = magnitude >= kInfinity ? kNotFinitePlace : bin;
  }
}

void Count(const float* x, int64_t count, int64_t* counts, Extremes& extremes) {
  int32_t places[kChunk];
  for (int64_t begin = 0; begin < count; begin += kChunk) {
    const int64_t size = count - begin < kChunk ? count - begin : kChunk;
    FindExtremes(x + begin, size, extremes);
    if (counts == nullptr) continue;
    FindPlaces(x + begin, size, places);
    for (int64_t i = 0; i < size; ++i) ++counts[places[i]];
  }
}

struct Lanes {
  static constexpr int64_t kCount = 8;
  double sums[kCount] = {};
  int32_t largest[kCount] = {};  // bit patterns of magnitudes
};

// Two by four lanes, which the compiler turns into conversions of whole vectors.
using FourInts = int32_t [[gnu::vector_size(16)]];
using FourFloats = float [[gnu::vector_size(16)]];
using FourDoubles = double [[gnu::vector_size(32)]];

inline void AddFour(const float* x, FourDoubles& sums, FourInts& largest) {
  FourInts bits;
  std::memcpy(&bits, x, sizeof(bits));
  const FourInts is_not_finite = (kInfinity - 1 - (bits & kInt32Max)) >> 31;  // -1 or 0
  const FourInts finite = bits & ~is_not_finite;
  const FourInts magnitude = finite & kInt32Max;
  sums += __builtin_convertvector(__builtin_bit_cast(FourFloats, finite), FourDoubles);
  largest = magnitude > largest ? magnitude : largest;
}

void AddFinite(const float* x, int64_t count, Lanes& lanes) {
  FourDoubles sums[2] = {};
  FourInts largest[2] = {};
  const int64_t whole = count / Lanes::kCount * Lanes::kCount;
  for (int64_t i = 0; i < whole; i += Lanes::kCount) {
    AddFour(x + i, sums[0], largest[0]);
    AddFour(x + i + 4, sums[1], largest[1]);
  }
  if (whole < count) {
    float last[Lanes::kCount] = {};
    std::copy_n(x + whole, count - whole, last);
    AddFour(last, sums[0], largest[0]);
    AddFour(last + 4, sums[1], largest[1]);
  }
  std::memcpy(lanes.sums, sums, sizeof(sums));
  std::memcpy(lanes.largest, largest, sizeof(largest));
}
