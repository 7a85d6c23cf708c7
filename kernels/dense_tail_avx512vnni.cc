#include "kernels/dense_tail_avx512vnni.h"

#include <algorithm>

#include "kernels/avx512vnni.h"

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,bmi2")

namespace pared {
namespace {

using namespace avx512;

constexpr int64_t kSinglesMax = 7;  // more columns than these are cheaper as a vector, whatever k
constexpr int64_t kVectorsMax = 3;
constexpr int64_t kColumnsAtOnce = 4;

// Costs in tiles, measured at k = 64 to 4608.
double VectorCost(int64_t k) { return 0.255 + 3 / static_cast<double>(k); }
double SinglesCost(int64_t singles, int64_t k) {
  if (singles == 0) return 0;
  return 0.015 + static_cast<double>(singles) * (0.031 + 4.5 / static_cast<double>(k));
}

constexpr int64_t kColumnSlack = 64;  // a load of 16 quads may begin at the last one

int64_t StepsOf(int64_t k) { return (k + 3) / 4; }
int64_t ColumnBytes(int64_t k) { return (4 * StepsOf(k) + kColumnSlack + 63) / 64 * 64; }

// [k][64] -> [k/4][vectors][16][4]
void PackQuads(const DenseTail& tail, int64_t vectors, std::byte* quads) {
  for (int64_t i = 0; i < tail.k; i += 4) {
    const uint8_t* rows[4];
    for (int64_t j = 0; j < 4; ++j) rows[j] = tail.x + std::min(i + j, tail.k - 1) * 64;
    for (int64_t v = 0; v < vectors; ++v, quads += 64) {
      const __m512i quad =
          Interleave16(rows[0] + 16 * v, rows[1] + 16 * v, rows[2] + 16 * v, rows[3] + 16 * v);
      _mm512_store_si512(quads, quad);
    }
  }
}

// Column `column` of the tile as [k]; what lies behind is zero.
void PackColumn(const DenseTail& tail, int64_t column, uint8_t* out) {
  const uint8_t* x = tail.x + column;
  for (int64_t i = 0; i < tail.k; ++i) out[i] = x[i * 64];
  std::fill(out + tail.k, out + ColumnBytes(tail.k), uint8_t{0});
}

// R rows of V vectors of columns.
template <int R, int V>
void VectorPanel(const std::byte* quads, const int8_t* w, int64_t steps, const EpilogueView& e,
                 int64_t row, void* y) noexcept {
  __m512i sums[R * V];
#pragma GCC unroll 18
  for (int i = 0; i < R * V; ++i) sums[i] = _mm512_set1_epi32(e.bias[row + i / V]);
  for (int64_t i = 0; i < steps; ++i, quads += 64 * V, w += 4 * R) {
    __m512i x[V];
#pragma GCC unroll 3
    for (int v = 0; v < V; ++v) x[v] = Load(quads + 64 * v);
#pragma GCC unroll 6
    for (int r = 0; r < R; ++r) {
      const __m512i weights = BroadcastWeights(w + 4 * r);
#pragma GCC unroll 3
      for (int v = 0; v < V; ++v) Dot(sums[r * V + v], x[v], weights);
    }
  }
  auto* out = static_cast<std::byte*>(y);
#pragma GCC unroll 18
  for (int i = 0; i < R * V; ++i) {
    StoreRow16(e, row + i / V, out + 16 * (i % V) * OutputBytes(e.output), sums[i]);
  }
}

// Packed columns, the first of them column `first` of the tile.
struct Columns {
  const uint8_t* bytes;
  int64_t stride, first;
};

// Rows [row, row + R) of one column, sums in the low lanes.
template <int R>
[[gnu::always_inline]] inline void StoreColumn(const EpilogueView& e, int64_t row, int64_t column,
                                               void* y, __m512i sums) {
  constexpr __mmask16 kRows = (1U << R) - 1;
  alignas(64) int32_t values[16];
  sums = _mm512_add_epi32(sums, _mm512_maskz_loadu_epi32(kRows, e.bias + row));
  if (e.output != GemmOutput::kInt32) {
    sums = Finished(e, sums, _mm512_maskz_loadu_ps(kRows, e.scale + row));
  }
  _mm512_store_si512(values, sums);
  for (int64_t r = 0; r < R; ++r) {
    const int64_t at = (row + r) * 64 + column;
    if (e.output == GemmOutput::kUInt8) {
      static_cast<uint8_t*>(y)[at] = static_cast<uint8_t>(values[r]);
    } else {
      static_cast<int32_t*>(y)[at] = values[r];
    }
  }
}

// For R = 6 three vectors of weights are 8 steps; otherwise one is 16 / R.
template <int R>
inline constexpr int kLoads = R == 6 ? 3 : 1;

// Where R rows' weights meet lane `i` of a group of vectors: dword i is row i % R of step i / R.
template <int R>
struct StepsOfLanes {
  alignas(64) int32_t steps[16 * kLoads<R>];
  constexpr StepsOfLanes() : steps() {
    for (int i = 0; i < 16 * kLoads<R>; ++i) steps[i] = i / R;
  }
};
template <int R>
inline constexpr StepsOfLanes<R> kStepsOfLanes;

// The sums of R rows in the low lanes, from parts in the order of their weights.
template <int R>
[[gnu::always_inline]] inline __m512i SumSteps(const __m512i* parts) {
  __m512i sum = parts[0];
  if constexpr (R == 6) {  // lanes 0-11 are two steps
    sum = _mm512_add_epi32(sum, _mm512_alignr_epi32(parts[1], parts[0], 12));
    sum = _mm512_add_epi32(sum, _mm512_alignr_epi32(parts[2], parts[1], 8));
    sum = _mm512_add_epi32(sum, _mm512_alignr_epi32(parts[2], parts[2], 4));
    return _mm512_add_epi32(sum, _mm512_alignr_epi32(sum, sum, 6));
  }
  sum = _mm512_add_epi32(sum, _mm512_alignr_epi32(sum, sum, 8));
  sum = _mm512_add_epi32(sum, _mm512_alignr_epi32(sum, sum, 4));
  if constexpr (R <= 2) sum = _mm512_add_epi32(sum, _mm512_alignr_epi32(sum, sum, 2));
  if constexpr (R == 1) sum = _mm512_add_epi32(sum, _mm512_alignr_epi32(sum, sum, 1));
  return sum;
}

// Rows [row, row + R) of C columns, which share what is loaded of the weights: [C][stride] at x.
template <int R, int C>
void ColumnPanel(const Columns& x, const int8_t* w, int64_t steps, const EpilogueView& e,
                 int64_t row, void* y) noexcept {
  constexpr int kVectors = kLoads<R>, kSteps = 16 * kVectors / R;
  const int32_t* lanes = kStepsOfLanes<R>.steps;
  __m512i sums[C * kVectors];
#pragma GCC unroll 12
  for (int i = 0; i < C * kVectors; ++i) sums[i] = _mm512_setzero_si512();
  const auto add = [&](int64_t step, const __m512i* weights) __attribute__((always_inline)) {
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c) {
      const __m512i quads = Load(x.bytes + c * x.stride + 4 * step);
#pragma GCC unroll 3
      for (int v = 0; v < kVectors; ++v) {
        Dot(sums[c * kVectors + v], _mm512_permutexvar_epi32(Load(lanes + 16 * v), quads),
            weights[v]);
      }
    }
  };
  __m512i weights[kVectors];
  int64_t i = 0;
  for (; i + kSteps <= steps; i += kSteps, w += 64 * kVectors) {
#pragma GCC unroll 3
    for (int v = 0; v < kVectors; ++v) weights[v] = Load(w + 64 * v);
    add(i, weights);
  }
  if (const auto left = static_cast<int>((steps - i) * R); left > 0) {  // dwords of weights
#pragma GCC unroll 3
    for (int v = 0; v < kVectors; ++v) {
      const auto mask = static_cast<__mmask16>(
          _bzhi_u32(0xffff, static_cast<unsigned>(std::clamp(left - 16 * v, 0, 16))));
      weights[v] = _mm512_maskz_loadu_epi32(mask, w + 64 * v);
    }
    add(i, weights);
  }
#pragma GCC unroll 4
  for (int c = 0; c < C; ++c) {
    StoreColumn<R>(e, row, x.first + c, y, SumSteps<R>(sums + c * kVectors));
  }
}

using VectorFn = void (*)(const std::byte*, const int8_t*, int64_t, const EpilogueView&, int64_t,
                          void*) noexcept;
using ColumnFn = void (*)(const Columns&, const int8_t*, int64_t, const EpilogueView&, int64_t,
                          void*) noexcept;

struct Height {
  int64_t rows;
  VectorFn vectors[kVectorsMax];
  ColumnFn columns[kColumnsAtOnce];
};

template <int R>
constexpr Height kHeight = {
    R,
    {VectorPanel<R, 1>, VectorPanel<R, 2>, VectorPanel<R, 3>},
    {ColumnPanel<R, 1>, ColumnPanel<R, 2>, ColumnPanel<R, 3>, ColumnPanel<R, 4>}};
constexpr Height kHeights[] = {kHeight<6>, kHeight<4>, kHeight<2>, kHeight<1>};

}  // namespace

size_t DenseTailScratch(int64_t k) {
  return static_cast<size_t>(StepsOf(k) * 64 * kVectorsMax + kSinglesMax * ColumnBytes(k));
}

bool RunDenseTailAvx512Vnni(const DenseTail& tail, const EpilogueView& e) noexcept {
  int64_t vectors = tail.columns / 16, singles = tail.columns % 16;
  double singles_cost = SinglesCost(singles, tail.k);
  if (singles > kSinglesMax || singles_cost > VectorCost(tail.k)) {
    ++vectors;
    singles = 0;
    singles_cost = 0;
  }
  if (static_cast<double>(vectors) * VectorCost(tail.k) + singles_cost >= 1) return false;
  const int64_t steps = StepsOf(tail.k), column_bytes = ColumnBytes(tail.k);
  auto* columns = reinterpret_cast<uint8_t*>(tail.scratch + steps * 64 * vectors);
  PackQuads(tail, vectors, tail.scratch);
  for (int64_t c = 0; c < singles; ++c) {
    PackColumn(tail, 16 * vectors + c, columns + c * column_bytes);
  }
  const int8_t* w = tail.w;
  for (int64_t row = 0; row < tail.m;) {
    const Height& height = *std::find_if(std::begin(kHeights), std::end(kHeights),
                                         [&](const Height& h) { return h.rows <= tail.m - row; });
    if (vectors > 0) height.vectors[vectors - 1](tail.scratch, w, steps, e, row, tail.y);
    for (int64_t c = 0; c < singles; c += kColumnsAtOnce) {
      const int64_t count = std::min(singles - c, kColumnsAtOnce);
      height.columns[count - 1]({columns + c * column_bytes, column_bytes, 16 * vectors + c}, w,
                                steps, e, row, tail.y);
    }
    w += height.rows * steps * 4;
    row += height.rows;
  }
  return true;
}

}  // namespace pared

#pragma GCC pop_options
