// The loops of elementwise.cc that work element by element, compiled for each instruction set
// (kernels/each_isa.h): over blocks of a constant length, each into a local that nothing aliases,
// which gcc vectorizes.
//
// No include guard on purpose.

// Clamped before rounding: the bounds are integers, and a conversion of what lies outside of int32
// would be undefined. The comparisons send NaN to `low`. To add and subtract 1.5 * 2^23 rounds half
// to even what is below 2^22.
inline uint8_t Saturate(float v, int32_t zero_point, int32_t low, int32_t high) {
  const float floor = static_cast<float>(low - zero_point);
  const float ceiling = static_cast<float>(high - zero_point);
  v = v > floor ? v : floor;
  v = v < ceiling ? v : ceiling;
  constexpr float kRound = 12582912.0F;
  return static_cast<uint8_t>(static_cast<int32_t>((v + kRound) - kRound) + zero_point);
}

inline float DequantizeOne(uint8_t x, QuantParams q) {
  return static_cast<float>(x - q.zero_point) * q.scale;
}

// y[i] = element(i) for all i from `begin`, kBlock at a time while that many are left. Returns
// where it stopped.
template <size_t kBlock, class Out, class Element>
inline size_t FillBlocks(size_t begin, size_t count, Out* y, const Element& element) {
  size_t i = begin;
  for (; i + kBlock <= count; i += kBlock) {
    Out block[kBlock];
    for (size_t j = 0; j < kBlock; ++j) block[j] = element(i + j);
    __builtin_memcpy(y + i, block, sizeof block);
  }
  return i;
}

template <class Out, class Element>
inline void Fill(size_t count, Out* y, const Element& element) {
  const size_t whole = FillBlocks<32>(0, count, y, element);
  FillBlocks<1>(FillBlocks<8>(whole, count, y, element), count, y, element);
}

inline void QuantizeLoop(std::span<const float> x, QuantParams q, uint8_t* y) {
  const float* from = x.data();
  Fill(x.size(), y, [=](size_t i) { return Saturate(from[i] / q.scale, q.zero_point, 0, 255); });
}

inline void DequantizeLoop(std::span<const uint8_t> x, QuantParams q, float* y) {
  const uint8_t* from = x.data();
  Fill(x.size(), y, [=](size_t i) { return DequantizeOne(from[i], q); });
}

template <bool kMultiply>
inline void CombineLoop(std::span<const uint8_t> a, const uint8_t* b, const AddParams& params,
                        uint8_t* y) {
  const uint8_t* from = a.data();
  const AddParams p = params;
  Fill(a.size(), y, [=](size_t i) {
    const float left = DequantizeOne(from[i], p.a), right = DequantizeOne(b[i], p.b);
    const float v = kMultiply ? left * right : left + right;
    return Saturate(v / p.y.scale, p.y.zero_point, p.low, p.high);
  });
}
