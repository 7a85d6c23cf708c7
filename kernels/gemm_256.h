// The 256-bit kernels, dense and Rx1 sparse, for AVX2 and for AVX-VNNI: the same loops over a
// different dot product. Half a tile, 32 columns, is worked on at a time, and 16 at the end.
//
//   AVX-VNNI: four k a step, as in kernels/avx512vnni.h; weights are four int8
//   AVX2:     two k a step; x is widened to 16 bits, because vpmaddubsw would saturate, and
//             vpmaddwd adds the two products exactly; weights are two int16
//
// Either way a step gives four vectors of 32-bit lanes, whose columns are, in 128-bit lanes,
//
//   v0: 0-3 16-19     v1: 4-7 20-23     v2: 8-11 24-27     v3: 12-15 28-31
//
// or two vectors, v0: 0-7 and v1: 8-15, of 16 columns.
//
// Included inside a file's target pragma, after everything that this header includes.

#pragma once

#include <immintrin.h>

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "kernels/packing.h"
#include "kernels/sparse.h"

namespace pared {
namespace {

// Where the rows of a step begin; AVX2 has the first two only.
struct RowOffsets {
  int64_t r0, r1, r2, r3;
};

// Row i of an entry, where a row has kRowBytes.
template <int64_t kRowBytes>
[[gnu::always_inline]] inline int64_t Offset(const uint8_t* entry, int i) {
  uint16_t units = 0;
  __builtin_memcpy(&units, entry + 2 * i, 2);
  return int64_t{units} * (kRowBytes / 8);
}

// One step's operand, or the sums of one row: 8 N columns.
template <int N>
struct Vectors256 {
  __m256i v[N];
};

[[gnu::always_inline]] inline __m256i Load256(const uint8_t* p) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}

[[gnu::always_inline]] inline __m256i Broadcast256(const void* four_bytes) {
  int32_t v = 0;
  __builtin_memcpy(&v, four_bytes, 4);
  return _mm256_set1_epi32(v);
}

template <class V, int N>
[[gnu::always_inline]] inline void DotRow(Vectors256<N>& s, const Vectors256<N>& x, __m256i w) {
#pragma GCC unroll 4
  for (int i = 0; i < N; ++i) s.v[i] = V::Dot(s.v[i], x.v[i], w);
}

// See Scale in kernels/avx512vnni.h.
[[gnu::always_inline]] inline __m256i Scale256(__m256i sum, __m256 scale, __m256 high) {
  return _mm256_cvtps_epi32(_mm256_min_ps(_mm256_mul_ps(_mm256_cvtepi32_ps(sum), scale), high));
}

// The codes of sums, in the order in which the packs leave them.
template <int N>
[[gnu::always_inline]] inline __m256i Codes256(const EpilogueView& e, const Vectors256<N>& s,
                                               __m256 scale) {
  const __m256 high = _mm256_set1_ps(e.high_minus_zero);
  const __m256i zero_point = _mm256_set1_epi16(static_cast<int16_t>(e.zero_point));
  const __m256i low = _mm256_set1_epi8(static_cast<char>(e.low));
  const auto words = [&](int i) __attribute__((always_inline)) {
    return _mm256_adds_epi16(
        _mm256_packs_epi32(Scale256(s.v[i], scale, high), Scale256(s.v[i + 1], scale, high)),
        zero_point);
  };
  return _mm256_max_epu8(_mm256_packus_epi16(words(0), words(N - 2)), low);
}

// Codes of 32 columns in the order of a step, or of 16 in order.
template <int N>
[[gnu::always_inline]] inline void StoreCodes256(const EpilogueView& e, std::byte* y,
                                                 const Vectors256<N>& s, __m256 scale) {
  const __m256i bytes = Codes256(e, s, scale);
  if constexpr (N == 4) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(y), bytes);
  } else {
    const __m128i ordered =
        _mm_unpacklo_epi32(_mm256_castsi256_si128(bytes), _mm256_extracti128_si256(bytes, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(y), ordered);
  }
}

template <int N>
[[gnu::always_inline]] inline Vectors256<N> Ordered256(const Vectors256<N>& s) {
  if constexpr (N == 2) {
    return s;
  } else {
    return {_mm256_permute2x128_si256(s.v[0], s.v[1], 0x20),
            _mm256_permute2x128_si256(s.v[2], s.v[3], 0x20),
            _mm256_permute2x128_si256(s.v[0], s.v[1], 0x31),
            _mm256_permute2x128_si256(s.v[2], s.v[3], 0x31)};
  }
}

// To 8 N columns of y's row; y may begin inside a tile.
template <int N>
[[gnu::always_inline]] inline void StoreRow256(const EpilogueView& e, int64_t row, std::byte* y,
                                               const Vectors256<N>& s) {
  if (e.output == GemmOutput::kUInt8) [[likely]] {
    return StoreCodes256(e, y + row * 64, s, _mm256_set1_ps(e.scale[row]));
  }
  const Vectors256<N> ordered = Ordered256(s);
#pragma GCC unroll 4
  for (int i = 0; i < N; ++i) {
    __m256i v = ordered.v[i];
    if (e.output == GemmOutput::kFloat32) {
      v = _mm256_castps_si256(_mm256_mul_ps(_mm256_cvtepi32_ps(v), _mm256_set1_ps(e.scale[row])));
    }
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(y + row * 256 + 32 * i), v);
  }
}

template <int N>
[[gnu::always_inline]] inline Vectors256<N> Same256(__m256i value) {
  Vectors256<N> out;
#pragma GCC unroll 4
  for (int i = 0; i < N; ++i) out.v[i] = value;
  return out;
}

// Calls `run(offset of the first column in x's tiles, in y's, columns as a constant)` for 32
// columns at a time, and for 16 where no more are left.
template <class Run>
[[gnu::always_inline]] inline void ForColumns256(int64_t columns, const Run& run) {
  for (int64_t n = 0; n < columns; n += 32) {
    if (columns - n > 16) {
      run(n / kTileColumns, n % kTileColumns, std::integral_constant<int, 4>());
    } else {
      run(n / kTileColumns, n % kTileColumns, std::integral_constant<int, 2>());
    }
  }
}

// Rows [row, row + R) of 8 N columns.
template <class V, int R, int N>
void DensePanel256(const uint8_t* x, const int8_t* w, int64_t k, const EpilogueView& e, int64_t row,
                   std::byte* y) noexcept {
  Vectors256<N> s[R];
#pragma GCC unroll 2
  for (int r = 0; r < R; ++r) s[r] = Same256<N>(_mm256_set1_epi32(e.bias[row + r]));
  const auto step = [&](const RowOffsets& offsets) __attribute__((always_inline)) {
    const Vectors256<N> q = V::template Interleave<N>(x, offsets);
#pragma GCC unroll 2
    for (int r = 0; r < R; ++r) DotRow<V>(s[r], q, Broadcast256(w + 4 * r));
    w += 4 * R;
  };
  for (int64_t i = 0; i < k / V::kGroup; ++i, x += V::kGroup * 64) step({0, 64, 128, 192});
  // Rows past k - 1 have weights of zero; row k - 1 is read in their place.
  if (const int64_t rest = k % V::kGroup; rest != 0) {
    const int64_t last = (rest - 1) * 64;
    step({0, std::min<int64_t>(64, last), std::min<int64_t>(128, last), last});
  }
#pragma GCC unroll 2
  for (int r = 0; r < R; ++r) StoreRow256(e, row + r, y, s[r]);
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
    ForColumns256(columns, [&](int64_t tile, int64_t column, auto n) {
      const uint8_t* in = x + tile * k_ * kTileColumns + column;
      std::byte* out =
          static_cast<std::byte*>(y) + (tile * m_ * kTileColumns + column) * OutputBytes(e.output);
      int64_t row = 0;
      for (; row + 2 <= m_; row += 2) {
        DensePanel256<V, 2, n>(in, values_.data() + row * row_bytes, k_, e, row, out);
      }
      if (row < m_) DensePanel256<V, 1, n>(in, values_.data() + row * row_bytes, k_, e, row, out);
    });
  }
  size_t scratch_bytes() const override { return 0; }
  size_t weight_bytes() const override { return values_.size_bytes() + epilogue_.size_bytes(); }
  const char* kernel_name() const override { return V::kDenseName; }

 private:
  int64_t m_, k_;
  AlignedBuffer<int8_t> values_;
  PackedEpilogue epilogue_;
};

// Adds `count` entries to the sums of R rows; returns where the next begin. Few rows take turns
// between two sets of sums, or each step would wait for the one before it.
template <class V, int R, int N>
[[gnu::always_inline]] inline const uint8_t* SparseRows256(const uint8_t* x, const uint8_t* entry,
                                                           uint32_t count, Vectors256<N> (&s)[R]) {
  constexpr int64_t kEntryBytes = 2 * V::kGroup + 4 * R;
  const auto step = [&](Vectors256<N>(&sums)[R]) __attribute__((always_inline)) {
    const Vectors256<N> q = V::template Interleave<N>(x, V::template Offsets<V::kRowBytes>(entry));
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      DotRow<V>(sums[r], q, Broadcast256(entry + 2 * V::kGroup + 4 * r));
    }
    entry += kEntryBytes;
  };
  if constexpr (R == 1 && V::kGroup == 4) {
    Vectors256<N> other[1] = {Same256<N>(_mm256_setzero_si256())};
    for (; count >= 2; count -= 2) {
      step(s);
      step(other);
    }
#pragma GCC unroll 4
    for (int i = 0; i < N; ++i) s[0].v[i] = _mm256_add_epi32(s[0].v[i], other[0].v[i]);
  }
  for (; count > 0; --count) step(s);
  return entry;
}

// What a sparse product over 8 N columns works on.
struct SparseColumns256 {
  const SparseLists& lists;
  int64_t block_k, m;
  const uint8_t* x;    // from the first column on, V::kRowBytes a row
  std::byte* y;        // the same
  std::byte* scratch;  // partial sums, where there are several blocks
};

// All rows over 8 N columns.
template <class V, int R, int N>
void RunSparse256(const SparseColumns256& c, const EpilogueView& e) noexcept {
  const uint8_t* entry = c.lists.entries();
  const uint32_t* count = c.lists.counts();
  const uint8_t* x = c.x;
  for (int64_t block = 0; block < c.lists.blocks(); ++block, x += c.block_k * V::kRowBytes) {
    for (int64_t row = 0; row < c.lists.row_groups() * R; row += R, ++count) {
      auto* partials = reinterpret_cast<__m256i*>(c.scratch + row * N * 32);
      Vectors256<N> s[R];
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) {
        if (block == 0) {
          s[r] = Same256<N>(_mm256_set1_epi32(e.bias[row + r]));
        } else {
#pragma GCC unroll 4
          for (int i = 0; i < N; ++i) s[r].v[i] = _mm256_load_si256(partials + r * N + i);
        }
      }
      entry = SparseRows256<V, R, N>(x, entry, *count, s);
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) {
        if (block + 1 == c.lists.blocks()) {
          if (r == 0 || row + r < c.m) StoreRow256(e, row + r, c.y, s[r]);
          continue;
        }
#pragma GCC unroll 4
        for (int i = 0; i < N; ++i) _mm256_store_si256(partials + r * N + i, s[r].v[i]);
      }
    }
  }
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
    const EpilogueView e = epilogue_.view();
    ForColumns256(columns, [&](int64_t tile, int64_t column, auto n) {
      const int64_t first = tile * m_ * kTileColumns + column;
      RunSparse256<V, R, n>({.lists = lists_,
                             .block_k = block_k_,
                             .m = m_,
                             .x = x + tile * k_ * kTileColumns + column,
                             .y = static_cast<std::byte*>(y) + first * OutputBytes(e.output),
                             .scratch = scratch},
                            e);
    });
  }
  size_t scratch_bytes() const override {
    return lists_.blocks() == 1 ? 0 : static_cast<size_t>(lists_.row_groups() * R * 128);
  }
  size_t weight_bytes() const override { return lists_.size_bytes() + epilogue_.size_bytes(); }
  const char* kernel_name() const override { return R == 1 ? V::kSparse1Name : V::kSparse2Name; }

 private:
  static constexpr int64_t kBlockRows = 2048;  // half of their 128 KB is read for 32 columns

  int64_t m_, k_, block_k_;
  SparseLists lists_;
  PackedEpilogue epilogue_;
};

}  // namespace
}  // namespace pared
