#include "kernels/dense_tail_avx512vnni.h"

#include <algorithm>

#include "kernels/avx512vnni.h"

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,bmi2")

namespace pared {
namespace {

using namespace avx512;

constexpr int64_t kSinglesMax = 6;  // more columns than these are cheaper as a vector
constexpr int64_t kVectorsMax = 3;
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
[[gnu::always_inline]] inline __m512i StepOfLanes(int vector) {
  alignas(64) int32_t steps[16];
  for (int i = 0; i < 16; ++i) steps[i] = (16 * vector + i) / R;
  return _mm512_load_si512(steps);
}

template <int R>
void ColumnPanel(const uint8_t* x, const int8_t* w, int64_t steps, int64_t column,
                 const EpilogueView& e, int64_t row, void* y) noexcept {
  constexpr int kVectors = kLoads<R>, kSteps = 16 * kVectors / R;
  __m512i lanes[kVectors], sums[kVectors];
#pragma GCC unroll 3
  for (int v = 0; v < kVectors; ++v) {
    lanes[v] = StepOfLanes<R>(v);
    sums[v] = _mm512_setzero_si512();
  }
  int64_t i = 0;
  for (; i + kSteps <= steps; i += kSteps, w += 64 * kVectors) {
    const __m512i quads = Load(x + 4 * i);
#pragma GCC unroll 3
    for (int v = 0; v < kVectors; ++v) {
      Dot(sums[v], _mm512_permutexvar_epi32(lanes[v], quads), Load(w + 64 * v));
    }
  }
  const __m512i quads = Load(x + 4 * i);
  const auto left = static_cast<int>((steps - i) * R);  // dwords of weights
  alignas(64) int32_t parts[16 * kVectors];
#pragma GCC unroll 3
  for (int v = 0; v < kVectors; ++v) {
    const auto mask = static_cast<__mmask16>(
        _bzhi_u32(0xffff, static_cast<unsigned>(std::clamp(left - 16 * v, 0, 16))));
    const __m512i weights = _mm512_maskz_loadu_epi32(mask, w + 64 * v);
    Dot(sums[v], _mm512_permutexvar_epi32(lanes[v], quads), weights);
    _mm512_store_si512(parts + 16 * v, sums[v]);
  }
  alignas(64) int32_t totals[16] = {};
#pragma GCC unroll 6
  for (int r = 0; r < R; ++r) {
    for (int j = r; j < 16 * kVectors; j += R) totals[r] += parts[j];
  }
  StoreColumn<R>(e, row, column, y, _mm512_load_si512(totals));
}

using VectorFn = void (*)(const std::byte*, const int8_t*, int64_t, const EpilogueView&, int64_t,
                          void*) noexcept;
using ColumnFn = void (*)(const uint8_t*, const int8_t*, int64_t, int64_t, const EpilogueView&,
                          int64_t, void*) noexcept;

struct Height {
  int64_t rows;
  VectorFn vectors[kVectorsMax];
  ColumnFn column;
};

template <int R>
constexpr Height kHeight = {
    R, {VectorPanel<R, 1>, VectorPanel<R, 2>, VectorPanel<R, 3>}, ColumnPanel<R>};
constexpr Height kHeights[] = {kHeight<6>, kHeight<4>, kHeight<2>, kHeight<1>};

}  // namespace

size_t DenseTailScratch(int64_t k) {
  return static_cast<size_t>(StepsOf(k) * 64 * kVectorsMax + kSinglesMax * ColumnBytes(k));
}

bool RunDenseTailAvx512Vnni(const DenseTail& tail, const EpilogueView& e) noexcept {
  int64_t vectors = tail.columns / 16, singles = tail.columns % 16;
  if (singles > kSinglesMax) {
    ++vectors;
    singles = 0;
  }
  if (vectors > kVectorsMax) return false;
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
    for (int64_t c = 0; c < singles; ++c) {
      height.column(columns + c * column_bytes, w, steps, 16 * vectors + c, e, row, tail.y);
    }
    w += height.rows * steps * 4;
    row += height.rows;
  }
  return true;
}

}  // namespace pared

#pragma GCC pop_options
