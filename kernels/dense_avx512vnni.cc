// Dense kernel for AVX-512 VNNI: panels of R = 6 rows, [k/4][R][4] of int8, over tiles of 64
// columns.
//
//          k0 k1 k2 k3   k4 ...                x (planar tile)      row k0: 64 columns
//   row 0  w  w  w  w  | row 0 ...                                  row k1: 64 columns   -> a quad
//   ...                                                             row k2, row k3
//   row 5  w  w  w  w  | row 5 ...
//
// One step is 4 loads and 8 unpacks for a quad, then R broadcasts and 4 R vpdpbusd: 24 of 32
// registers hold sums. Rows beyond k in the last step are loaded from row k - 1: their weights
// are zeros, and no load leaves the tile.

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include "kernels/avx512vnni.h"
#include "kernels/kernels.h"

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")

namespace pared {
namespace {

using avx512::BroadcastWeights;
using avx512::Dot;
using avx512::Load;
using avx512::Quad;

constexpr int64_t kPanelRows = 6;

template <int R>
[[gnu::always_inline]] inline void Step(__m512i (&sum)[R][4], const Quad& q, const int8_t* w) {
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    const __m512i weights = BroadcastWeights(w + 4 * r);
    Dot(sum[r][0], q.x0, weights);
    Dot(sum[r][1], q.x1, weights);
    Dot(sum[r][2], q.x2, weights);
    Dot(sum[r][3], q.x3, weights);
  }
}

// Rows [row, row + R) of one tile.
template <int R>
void Panel(const uint8_t* x, const int8_t* w, int64_t k, const EpilogueView& e, int64_t row,
           void* y) noexcept {
  __m512i sum[R][4];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    sum[r][0] = sum[r][1] = sum[r][2] = sum[r][3] = _mm512_set1_epi32(e.bias[row + r]);
  }
  for (int64_t i = 0; i < k / 4; ++i, x += 256, w += 4 * R) {
    const Quad q = avx512::Interleave(Load(x), Load(x + 64), Load(x + 128), Load(x + 192));
    Step<R>(sum, q, w);
  }
  if (const int64_t rest = k % 4; rest != 0) {
    const uint8_t* last = x + (rest - 1) * 64;
    const Quad q = avx512::Interleave(Load(x), Load(std::min(x + 64, last)),
                                      Load(std::min(x + 128, last)), Load(last));
    Step<R>(sum, q, w);
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    avx512::StoreRow(e, row + r, y, sum[r][0], sum[r][1], sum[r][2], sum[r][3]);
  }
}

// The same for columns [0, 16 U) of a tile.
template <int R, int U>
void NarrowPanel(const uint8_t* x, const int8_t* w, int64_t k, const EpilogueView& e, int64_t row,
                 void* y) noexcept {
  __m512i sum[R][U];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 2
    for (int u = 0; u < U; ++u) sum[r][u] = _mm512_set1_epi32(e.bias[row + r]);
  }
  for (int64_t i = 0; i < k; i += 4, w += 4 * R) {
    const uint8_t* r0 = x + i * 64;
    const uint8_t* r1 = x + std::min(i + 1, k - 1) * 64;
    const uint8_t* r2 = x + std::min(i + 2, k - 1) * 64;
    const uint8_t* r3 = x + std::min(i + 3, k - 1) * 64;
#pragma GCC unroll 2
    for (int u = 0; u < U; ++u) {
      const __m512i q = avx512::Interleave16(r0 + 16 * u, r1 + 16 * u, r2 + 16 * u, r3 + 16 * u);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) Dot(sum[r][u], q, BroadcastWeights(w + 4 * r));
    }
  }
  std::byte* out = static_cast<std::byte*>(y);
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 2
    for (int u = 0; u < U; ++u) {
      avx512::StoreRow16(e, row + r, out + 16 * u * OutputBytes(e.output), sum[r][u]);
    }
  }
}

using PanelFn = void (*)(const uint8_t*, const int8_t*, int64_t, const EpilogueView&, int64_t,
                         void*) noexcept;
// [units of 16 columns: 1, 2, 4][rows - 1]
constexpr PanelFn kPanels[3][kPanelRows] = {
    {NarrowPanel<1, 1>, NarrowPanel<2, 1>, NarrowPanel<3, 1>, NarrowPanel<4, 1>, NarrowPanel<5, 1>,
     NarrowPanel<6, 1>},
    {NarrowPanel<1, 2>, NarrowPanel<2, 2>, NarrowPanel<3, 2>, NarrowPanel<4, 2>, NarrowPanel<5, 2>,
     NarrowPanel<6, 2>},
    {Panel<1>, Panel<2>, Panel<3>, Panel<4>, Panel<5>, Panel<6>}};

class DenseAvx512Vnni final : public PackedGemm {
 public:
  explicit DenseAvx512Vnni(const GemmWeights& weights)
      : m_(weights.m),
        k_(weights.k),
        values_(PackDensePanels(weights, kPanelRows)),
        epilogue_(weights.epilogue, weights.m) {}

  void RunColumns(const uint8_t* x, int64_t columns, void* y,
                  std::byte* /*scratch*/) const noexcept override {
    const EpilogueView e = epilogue_.view();
    const int64_t y_tile_bytes = m_ * kTileColumns * OutputBytes(e.output);
    const int64_t k_padded = (k_ + 3) / 4 * 4;
    for (int64_t n = 0; n < columns; n += kTileColumns) {
      const int64_t tile = n / kTileColumns, rest = columns - n;
      const PanelFn* panels = kPanels[rest <= 16 ? 0 : rest <= 32 ? 1 : 2];
      for (int64_t row = 0; row < m_; row += kPanelRows) {
        panels[std::min(kPanelRows, m_ - row) - 1](
            x + tile * k_ * kTileColumns, values_.data() + row * k_padded, k_, e, row,
            static_cast<std::byte*>(y) + tile * y_tile_bytes);
      }
    }
  }
  size_t scratch_bytes() const override { return 0; }
  size_t weight_bytes() const override { return values_.size_bytes() + epilogue_.size_bytes(); }
  const char* kernel_name() const override { return "dense_avx512vnni"; }

 private:
  int64_t m_, k_;
  AlignedBuffer<int8_t> values_;
  PackedEpilogue epilogue_;
};

}  // namespace

std::unique_ptr<PackedGemm> PackDenseAvx512Vnni(const GemmWeights& weights) {
  return std::make_unique<DenseAvx512Vnni>(weights);
}

}  // namespace pared

#pragma GCC pop_options
