// The loops of sums.h, compiled by sums.cc for each instruction set (each_isa.h).
//
// No include guard on purpose: each includer makes its own copy.

// The value of channel or column i: arrays advance, single values stay.
template <bool kAlongChannels>
inline int32_t Corrected(const SumLine& line, int64_t i) {
  const int64_t channel = kAlongChannels ? i : 0, column = kAlongChannels ? 0 : i;
  const uint32_t sum =
      static_cast<uint32_t>(line.sums[i]) + static_cast<uint32_t>(line.offset[channel]) -
      static_cast<uint32_t>(line.w_zero[channel]) * static_cast<uint32_t>(line.column_sums[column]);
  return static_cast<int32_t>(sum);
}

template <bool kAlongChannels>
void ToInts(const SumLine& line, int32_t* __restrict y) {
  for (int64_t i = 0; i < line.count; ++i) y[i] = Corrected<kAlongChannels>(line, i);
}

template <bool kAlongChannels>
void ToFloats(const SumLine& line, const SumsToFloat& to, float* __restrict y) {
  const float low = to.relu ? 0.0F : -std::numeric_limits<float>::infinity();
  for (int64_t i = 0; i < line.count; ++i) {
    const int64_t channel = kAlongChannels ? i : 0;
    // Adding -0.0F changes no number, not even the sign of a zero.
    const float bias = to.bias == nullptr ? -0.0F : to.bias[channel];
    const float value =
        static_cast<float>(Corrected<kAlongChannels>(line, i)) * to.scale[channel] + bias;
    y[i] = value < low ? low : value;
  }
}

// Adding 1.5 * 2^23 rounds to even what lies within 2^22; the bounds of codes do.
inline uint8_t CodeOf(float scaled, const SumsToCodes& to) {
  constexpr float kRound = 12582912.0F;
  const float low = static_cast<float>(-to.zero_point);
  const float high = static_cast<float>(255 - to.zero_point);
  const float bounded = scaled > low ? (scaled < high ? scaled : high) : low;  // low for NaN
  const int32_t rounded = static_cast<int32_t>((bounded + kRound) - kRound);
  return static_cast<uint8_t>((rounded + to.zero_point) ^ (to.is_signed ? 0x80 : 0));
}

template <bool kAlongChannels>
void ToCodes(const SumLine& line, const SumsToCodes& to, uint8_t* __restrict y) {
  for (int64_t i = 0; i < line.count; ++i) {
    const float scale = to.scale[kAlongChannels ? i : 0];
    y[i] = CodeOf(static_cast<float>(Corrected<kAlongChannels>(line, i)) * scale, to);
  }
}

void Store(const SumLine& line, int32_t* y) {
  line.along == SumsAlong::kChannels ? ToInts<true>(line, y) : ToInts<false>(line, y);
}
void Store(const SumLine& line, const SumsToFloat& to, float* y) {
  line.along == SumsAlong::kChannels ? ToFloats<true>(line, to, y) : ToFloats<false>(line, to, y);
}
void Store(const SumLine& line, const SumsToCodes& to, uint8_t* y) {
  line.along == SumsAlong::kChannels ? ToCodes<true>(line, to, y) : ToCodes<false>(line, to, y);
}
