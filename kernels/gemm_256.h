// The 256-bit kernels, dense and Rx1 sparse, for AVX2 and for AVX-VNNI: the same loops over a
// different dot product. Half a tile, 32 columns, is worked on at a time.
//
//   AVX-VNNI: four k a step, as in kernels/avx512vnni.h; weights are four int8
//   AVX2:     two k a step; x is widened to 16 bits, because vpmaddubsw would saturate, and
//             vpmaddwd adds the two products exactly; weights are two int16
//
// Either way a step gives four vectors of 32-bit lanes, whose columns are, in 128-bit lanes,
//
//   x0: 0-3 16-19     x1: 4-7 20-23     x2: 8-11 24-27     x3: 12-15 28-31
//
// Included inside a file's target pragma, after everything that this header includes.

#pragma once

#include <immintrin.h>

#include <algorithm>
#include <cstdint>

#include "kernels/packing.h"
#include "kernels/sparse.h"

namespace pared {
namespace {

struct Quad256 {
  __m256i x0, x1, x2, x3;
};

// The sums of one row over 32 columns.
struct Sums256 {
  __m256i c0, c1, c2, c3;
};

[[gnu::always_inline]] inline __m256i Load256(const uint8_t* p) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}

[[gnu::always_inline]] inline __m256i Broadcast256(const void* four_bytes) {
  int32_t v = 0;
  __builtin_memcpy(&v, four_bytes, 4);
  return _mm256_set1_epi32(v);
}

template <class V>
[[gnu::always_inline]] inline void DotRow(Sums256& s, const Quad256& q, __m256i w) {
  s.c0 = V::Dot(s.c0, q.x0, w);
  s.c1 = V::Dot(s.c1, q.x1, w);
  s.c2 = V::Dot(s.c2, q.x2, w);
  s.c3 = V::Dot(s.c3, q.x3, w);
}

// See Scale in kernels/avx512vnni.h.
[[gnu::always_inline]] inline __m256i Scale256(__m256i sum, __m256 scale, __m256 high) {
  return _mm256_cvtps_epi32(_mm256_min_ps(_mm256_mul_ps(_mm256_cvtepi32_ps(sum), scale), high));
}

// To 32 columns of y's row; y may begin at column 32 of a tile.
[[gnu::always_inline]] inline void StoreRow256(const EpilogueView& e, int64_t row, std::byte* y,
                                               const Sums256& s) {
  if (e.output == GemmOutput::kUInt8) [[likely]] {
    const __m256 scale = _mm256_set1_ps(e.scale[row]), high = _mm256_set1_ps(e.high_minus_zero);
    const __m256i zero_point = _mm256_set1_epi16(static_cast<int16_t>(e.zero_point));
    const __m256i a = _mm256_packs_epi32(Scale256(s.c0, scale, high), Scale256(s.c1, scale, high));
    const __m256i b = _mm256_packs_epi32(Scale256(s.c2, scale, high), Scale256(s.c3, scale, high));
    const __m256i bytes =
        _mm256_packus_epi16(_mm256_adds_epi16(a, zero_point), _mm256_adds_epi16(b, zero_point));
    const __m256i low = _mm256_set1_epi8(static_cast<char>(e.low));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(y + row * 64), _mm256_max_epu8(bytes, low));
    return;
  }
  const __m256i ordered[4] = {
      _mm256_permute2x128_si256(s.c0, s.c1, 0x20), _mm256_permute2x128_si256(s.c2, s.c3, 0x20),
      _mm256_permute2x128_si256(s.c0, s.c1, 0x31), _mm256_permute2x128_si256(s.c2, s.c3, 0x31)};
  for (int i = 0; i < 4; ++i) {
    __m256i v = ordered[i];
    if (e.output == GemmOutput::kFloat32) {
      v = _mm256_castps_si256(_mm256_mul_ps(_mm256_cvtepi32_ps(v), _mm256_set1_ps(e.scale[row])));
    }
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(y + row * 256 + 32 * i), v);
  }
}

[[gnu::always_inline]] inline Sums256 Bias256(const EpilogueView& e, int64_t row) {
  const __m256i v = _mm256_set1_epi32(e.bias[row]);
  return {v, v, v, v};
}

// Rows [row, row + R) of half a tile.
template <class V, int R>
void DensePanel256(const uint8_t* x, const int8_t* w, int64_t k, const EpilogueView& e, int64_t row,
                   std::byte* y) noexcept {
  Sums256 s0 = Bias256(e, row), s1 = Bias256(e, row + R - 1);
  const auto step = [&](const Quad256& q) __attribute__((always_inline)) {
    DotRow<V>(s0, q, Broadcast256(w));
    if constexpr (R == 2) DotRow<V>(s1, q, Broadcast256(w + 4));
    w += 4 * R;
  };
  for (int64_t i = 0; i < k / V::kGroup; ++i, x += V::kGroup * 64) {
    step(V::Interleave(x, {64, 128, 192}));
  }
  // Rows past k - 1 have weights of zero; row k - 1 is read in their place.
  if (const int64_t rest = k % V::kGroup; rest != 0) {
    const int64_t last = (rest - 1) * 64;
    step(V::Interleave(x, {std::min<int64_t>(64, last), std::min<int64_t>(128, last), last}));
  }
  StoreRow256(e, row, y, s0);
  if constexpr (R == 2) StoreRow256(e, row + 1, y, s1);
}

template <class V>
class Dense256 final : public PackedGemm {
 public:
  explicit Dense256(const GemmWeights& weights)
      : m_(weights.m),
        k_(weights.k),
        values_(PackDensePanels(weights, V::kGroup, {2, 1})),
        epilogue_(weights.epilogue, weights.m) {}

  void RunColumns(const uint8_t* x, int64_t columns, void* y,
                  std::byte* /*scratch*/) const noexcept override {
    const EpilogueView e = epilogue_.view();
    const int64_t row_bytes = (k_ + V::kGroup - 1) / V::kGroup * 4;
    for (int64_t n = 0; n < columns; n += 32) {
      const int64_t tile = n / kTileColumns, half = n % kTileColumns;
      const uint8_t* in = x + tile * k_ * kTileColumns + half;
      std::byte* out =
          static_cast<std::byte*>(y) + (tile * m_ * kTileColumns + half) * OutputBytes(e.output);
      int64_t row = 0;
      for (; row + 2 <= m_; row += 2) {
        DensePanel256<V, 2>(in, values_.data() + row * row_bytes, k_, e, row, out);
      }
      if (row < m_) DensePanel256<V, 1>(in, values_.data() + row * row_bytes, k_, e, row, out);
    }
  }
  size_t scratch_bytes() const override { return 0; }
  size_t weight_bytes() const override { return values_.size_bytes() + epilogue_.size_bytes(); }
  const char* kernel_name() const override { return V::kDenseName; }

 private:
  int64_t m_, k_;
  AlignedBuffer<int8_t> values_;
  PackedEpilogue epilogue_;
};

// The sums of `count` entries for R rows.
template <class V, int R>
[[gnu::always_inline]] inline const uint8_t* SparseRows256(const uint8_t* x, const uint8_t* entry,
                                                           uint32_t count, Sums256& s0,
                                                           Sums256& s1) {
  for (; count > 0; --count, entry += 2 * V::kGroup + 4 * R) {
    const Quad256 q = V::Gather(x, entry);
    const uint8_t* w = entry + 2 * V::kGroup;
    DotRow<V>(s0, q, Broadcast256(w));
    if constexpr (R == 2) DotRow<V>(s1, q, Broadcast256(w + 4));
  }
  return entry;
}

[[gnu::always_inline]] inline void StorePartial256(std::byte* p, const Sums256& s) {
  __m256i* out = reinterpret_cast<__m256i*>(p);
  _mm256_store_si256(out, s.c0);
  _mm256_store_si256(out + 1, s.c1);
  _mm256_store_si256(out + 2, s.c2);
  _mm256_store_si256(out + 3, s.c3);
}

[[gnu::always_inline]] inline Sums256 LoadPartial256(const std::byte* p) {
  const __m256i* in = reinterpret_cast<const __m256i*>(p);
  return {_mm256_load_si256(in), _mm256_load_si256(in + 1), _mm256_load_si256(in + 2),
          _mm256_load_si256(in + 3)};
}

template <class V, int R>
class Sparse256 final : public PackedGemm {
 public:
  explicit Sparse256(const GemmWeights& weights)
      : m_(weights.m),
        k_(weights.k),
        block_k_(SparseBlockK(weights.k, kBlockRows)),
        lists_(weights, {.rows = R, .group = V::kGroup, .block_k = block_k_}),
        epilogue_(weights.epilogue, lists_.row_groups() * R) {}

  void RunColumns(const uint8_t* x, int64_t columns, void* y,
                  std::byte* scratch) const noexcept override {
    const int64_t bytes = OutputBytes(epilogue_.view().output);
    for (int64_t n = 0; n < columns; n += 32) {
      const int64_t tile = n / kTileColumns, half = n % kTileColumns;
      RunHalf(x + tile * k_ * kTileColumns + half,
              static_cast<std::byte*>(y) + (tile * m_ * kTileColumns + half) * bytes, scratch);
    }
  }
  size_t scratch_bytes() const override {
    return lists_.blocks() == 1 ? 0 : static_cast<size_t>(lists_.row_groups() * R * 128);
  }
  size_t weight_bytes() const override { return lists_.size_bytes() + epilogue_.size_bytes(); }
  const char* kernel_name() const override { return R == 1 ? V::kSparse1Name : V::kSparse2Name; }

 private:
  static constexpr int64_t kBlockRows = 2048;  // half of their 128 KB is read for 32 columns

  void RunHalf(const uint8_t* x, std::byte* y, std::byte* scratch) const noexcept {
    const EpilogueView e = epilogue_.view();
    const uint8_t* entry = lists_.entries();
    const uint32_t* count = lists_.counts();
    for (int64_t block = 0; block < lists_.blocks(); ++block, x += block_k_ * 64) {
      for (int64_t row = 0; row < lists_.row_groups() * R; row += R, ++count) {
        std::byte* p0 = scratch + row * 128;
        std::byte* p1 = p0 + (R - 1) * 128;
        Sums256 s0 = block == 0 ? Bias256(e, row) : LoadPartial256(p0);
        Sums256 s1 = block == 0 ? Bias256(e, row + R - 1) : LoadPartial256(p1);
        entry = SparseRows256<V, R>(x, entry, *count, s0, s1);
        if (block + 1 < lists_.blocks()) {
          StorePartial256(p0, s0);
          if constexpr (R == 2) StorePartial256(p1, s1);
        } else {
          StoreRow256(e, row, y, s0);
          if constexpr (R == 2) {
            if (row + 1 < m_) StoreRow256(e, row + 1, y, s1);
          }
        }
      }
    }
  }

  int64_t m_, k_, block_k_;
  SparseLists lists_;
  PackedEpilogue epilogue_;
};

// Offsets of the rows of a step from its first.
struct RowOffsets {
  int64_t r1, r2, r3;
};

[[gnu::always_inline]] inline uint32_t Offset(const uint8_t* entry, int i) {
  uint16_t units = 0;
  __builtin_memcpy(&units, entry + 2 * i, 2);
  return uint32_t{units} * 8;
}

}  // namespace
}  // namespace pared
