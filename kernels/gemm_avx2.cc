// Dense and sparse kernels for AVX2.

#include <immintrin.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "kernels/kernels.h"
#include "kernels/packing.h"
#include "kernels/sparse.h"

#pragma GCC push_options
#pragma GCC target("avx2")

#include "kernels/gemm_256.h"

namespace pared {
namespace {

struct Avx2 {
  static constexpr int64_t kGroup = 2;
  static constexpr int64_t kRowBytes = 64;
  static constexpr const char* kSparse1Name = "sparse_1x1_avx2";
  static constexpr const char* kSparse2Name = "sparse_2x1_avx2";

  [[gnu::always_inline]] static __m256i Dot(__m256i sum, __m256i x, __m256i w) {
    return _mm256_add_epi32(sum, _mm256_madd_epi16(x, w));
  }

  template <int64_t kBytes>
  [[gnu::always_inline]] static RowOffsets Offsets(const uint8_t* entry) {
    return {Offset<kBytes>(entry, 0), Offset<kBytes>(entry, 1), 0, 0};
  }

  template <int N>
  [[gnu::always_inline]] static Vectors256<N> Interleave(const uint8_t* x, const RowOffsets& o) {
    if constexpr (N == 4) {
      const __m256i r0 = Load256(x + o.r0), r1 = Load256(x + o.r1);
      const __m256i zero = _mm256_setzero_si256();
      const __m256i low = _mm256_unpacklo_epi8(r0, r1), high = _mm256_unpackhi_epi8(r0, r1);
      return {_mm256_unpacklo_epi8(low, zero), _mm256_unpackhi_epi8(low, zero),
              _mm256_unpacklo_epi8(high, zero), _mm256_unpackhi_epi8(high, zero)};
    } else {
      const __m128i r0 = _mm_loadu_si128(reinterpret_cast<const __m128i*>(x + o.r0));
      const __m128i r1 = _mm_loadu_si128(reinterpret_cast<const __m128i*>(x + o.r1));
      return {_mm256_cvtepu8_epi16(_mm_unpacklo_epi8(r0, r1)),
              _mm256_cvtepu8_epi16(_mm_unpackhi_epi8(r0, r1))};
    }
  }
};

// Sixteen columns of x, widened once to pairs of int16 for all rows: [ceil(k / 2)][2][8][2]. In
// each step six rows take 2 loads of x and 6 of weights for 12 products of 16.
constexpr int64_t kColumns = 16, kPairBytes = 64;

void WidenColumns(const uint8_t* x, int64_t k, std::byte* wide) noexcept {
  const auto pair = [&](const uint8_t* even, const uint8_t* odd) {
    const Vectors256<2> q = Avx2::Interleave<2>(even, {0, odd - even, 0, 0});
    _mm256_store_si256(reinterpret_cast<__m256i*>(wide), q.v[0]);
    _mm256_store_si256(reinterpret_cast<__m256i*>(wide + 32), q.v[1]);
    wide += kPairBytes;
  };
  for (int64_t i = 0; i + 2 <= k; i += 2, x += 2 * 64) pair(x, x + 64);
  if (k % 2 != 0) pair(x, x);  // the second weight is zero
}

// Rows [row, row + R) of sixteen columns.
template <int R>
void WidePanel(const std::byte* wide, const int8_t* w, int64_t pairs, const EpilogueView& e,
               int64_t row, std::byte* y) noexcept {
  Vectors256<2> s[R];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) s[r] = Same256<2>(_mm256_set1_epi32(e.bias[row + r]));
  for (int64_t i = 0; i < pairs; ++i, wide += kPairBytes, w += 4 * R) {
    const Vectors256<2> q = {_mm256_load_si256(reinterpret_cast<const __m256i*>(wide)),
                             _mm256_load_si256(reinterpret_cast<const __m256i*>(wide + 32))};
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) DotRow<Avx2>(s[r], q, Broadcast256(w + 4 * r));
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) StoreRow256(e, row + r, y, s[r]);
}

class DenseAvx2 final : public PackedGemm {
 public:
  explicit DenseAvx2(const GemmWeights& weights)
      : m_(weights.m),
        k_(weights.k),
        values_(PackDensePanels(weights, Avx2::kGroup, {6, 3, 2, 1})),
        epilogue_(weights.epilogue, weights.m) {}

  void RunColumns(const uint8_t* x, int64_t columns, void* y,
                  std::byte* scratch) const noexcept override {
    const EpilogueView e = epilogue_.view();
    for (int64_t n = 0; n < columns; n += kColumns) {
      const int64_t tile = n / kTileColumns, column = n % kTileColumns;
      WidenColumns(x + tile * k_ * kTileColumns + column, k_, scratch);
      RunRows(
          scratch, e,
          static_cast<std::byte*>(y) + (tile * m_ * kTileColumns + column) * OutputBytes(e.output));
    }
  }
  size_t scratch_bytes() const override { return static_cast<size_t>(pairs() * kPairBytes); }
  size_t weight_bytes() const override { return values_.size_bytes() + epilogue_.size_bytes(); }
  const char* kernel_name() const override { return "dense_avx2"; }

 private:
  int64_t pairs() const { return (k_ + 1) / 2; }

  void RunRows(const std::byte* wide, const EpilogueView& e, std::byte* y) const noexcept {
    const int8_t* w = values_.data();
    int64_t row = 0;
    const auto panels = [&]<int R>() {
      for (; row + R <= m_; row += R, w += pairs() * 4 * R) {
        WidePanel<R>(wide, w, pairs(), e, row, y);
      }
    };
    panels.template operator()<6>();
    panels.template operator()<3>();
    panels.template operator()<2>();
    panels.template operator()<1>();
  }

  int64_t m_, k_;
  AlignedBuffer<int8_t> values_;
  PackedEpilogue epilogue_;
};

}  // namespace

void DenseRowAvx2(const uint8_t* x, const int8_t* w, int64_t k, const EpilogueView& e, int64_t row,
                  void* y) noexcept {
  std::byte* out = static_cast<std::byte*>(y);
  DensePanel256<Avx2, 1, 4>(x, w, k, e, row, out);
  DensePanel256<Avx2, 1, 4>(x + 32, w, k, e, row, out + 32 * OutputBytes(e.output));
}

void SpanRowAvx2(const uint8_t* x, std::span<const int64_t> taps, const int8_t* w, int64_t columns,
                 const EpilogueView& e, int64_t row, uint8_t* codes) noexcept {
  const __m256i bias = _mm256_set1_epi32(e.bias[row]);
  const __m256 scale = _mm256_set1_ps(e.scale[row]);
  for (int64_t n = 0; n < columns; n += 32, x += 32, codes += 32) {
    Vectors256<4> s = Same256<4>(bias);
    for (size_t t = 0; t < taps.size(); t += 2) {
      // The second weight of an odd last tap is zero.
      const int64_t odd = taps[std::min(t + 1, taps.size() - 1)];
      const Vectors256<4> q = Avx2::Interleave<4>(x, {taps[t], odd, 0, 0});
      DotRow<Avx2>(s, q, Broadcast256(w + 2 * t));
    }
    StoreCodes256(e, reinterpret_cast<std::byte*>(codes), s, scale);
  }
}

std::unique_ptr<PackedGemm> PackDenseAvx2(const GemmWeights& weights) {
  return std::make_unique<DenseAvx2>(weights);
}
std::unique_ptr<PackedGemm> PackSparse1x1Avx2(const GemmWeights& weights) {
  return std::make_unique<Sparse256<Avx2, 1>>(weights);
}
std::unique_ptr<PackedGemm> PackSparse2x1Avx2(const GemmWeights& weights) {
  return std::make_unique<Sparse256<Avx2, 2>>(weights);
}

}  // namespace pared

#pragma GCC pop_options
