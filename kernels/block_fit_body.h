// The loop of block_fit.h, included by block_fit.cc once for each instruction set, inside a
// namespace of its own and after its `target` pragma.
//
// No include guard on purpose: each includer makes its own copy.

void Sums(const BlockProblem& problem, float* __restrict error, float* __restrict product,
          float* __restrict square) {
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
  std::memcpy(error, &e, sizeof(Lanes));
  std::memcpy(product, &p, sizeof(Lanes));
  std::memcpy(square, &q, sizeof(Lanes));
}
