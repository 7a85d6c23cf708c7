// The loop of block_fit.h, compiled by block_fit.cc for each instruction set (each_isa.h).
//
// No include guard on purpose: each includer makes its own copy.

// In halves, so that no sum waits for fifteen others.
inline double Total(const Lanes& lanes) {
  float sums[kBlockLanes];
  std::memcpy(sums, &lanes, sizeof(Lanes));
  for (int64_t half = kBlockLanes / 2; half > 0; half /= 2) {
    for (int64_t i = 0; i < half; ++i) sums[i] += sums[i + half];
  }
  return static_cast<double>(sums[0]);
}

BlockSums Sums(const BlockProblem& problem) {
  constexpr float kRound = 12582912.0F;  // 1.5 * 2^23: adding it rounds to even
  Lanes e = {}, p = {}, q = {};
  const Lanes scale = Lanes{} + problem.scale;
  const Lanes low = Lanes{} + problem.low, high = Lanes{} + problem.high;
  for (int64_t i = 0; i < problem.count; i += kBlockLanes) {
    Lanes value, weight = Lanes{} + 1.0F;
    std::memcpy(&value, problem.values + i, sizeof(Lanes));
    if (problem.importance != nullptr) std::memcpy(&weight, problem.importance + i, sizeof(Lanes));
    Lanes code = value / scale;
    code = code < low ? low : code;
    code = code > high ? high : code;
    code = (code + kRound) - kRound;
    const Lanes off = value - scale * code;
    e += weight * off * off;
    p += weight * value * code;
    q += weight * code * code;
  }
  return {Total(e), Total(p), Total(q)};
}
