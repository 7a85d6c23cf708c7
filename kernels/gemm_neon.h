// The 128-bit NEON kernels, dense and Rx1 sparse: the same loops over two dot products.
//
//   NEON dot:   sdot takes signed bytes: x - 128 is multiplied, and the bias has 128 * sum of w
//   NEON I8MM:  usdot takes x as it is
//
// Sixteen columns of four k are zipped to four vectors, each with the four k of four columns: the
// columns stay in order. Both dot products add four products to int32 exactly.
//
// Included inside a file's target pragma, after everything that this header includes.

#pragma once

#include <arm_neon.h>

#include <algorithm>
#include <cstdint>

#include "kernels/aligned.h"
#include "kernels/packing.h"
#include "kernels/sparse.h"

namespace pared {
namespace {

constexpr int64_t kNeonColumns = 16;

// x[i]: four k of columns 4 i to 4 i + 3.
struct NeonQuad {
  uint8x16_t x[4];
};

[[gnu::always_inline]] inline NeonQuad Zip(uint8x16_t r0, uint8x16_t r1, uint8x16_t r2,
                                           uint8x16_t r3) {
  const uint16x8_t low01 = vreinterpretq_u16_u8(vzip1q_u8(r0, r1));
  const uint16x8_t high01 = vreinterpretq_u16_u8(vzip2q_u8(r0, r1));
  const uint16x8_t low23 = vreinterpretq_u16_u8(vzip1q_u8(r2, r3));
  const uint16x8_t high23 = vreinterpretq_u16_u8(vzip2q_u8(r2, r3));
  return {{vreinterpretq_u8_u16(vzip1q_u16(low01, low23)),
           vreinterpretq_u8_u16(vzip2q_u16(low01, low23)),
           vreinterpretq_u8_u16(vzip1q_u16(high01, high23)),
           vreinterpretq_u8_u16(vzip2q_u16(high01, high23))}};
}

// Where the four k of a step lie, in bytes.
struct NeonRows {
  int64_t r0, r1, r2, r3;
};

template <class V>
[[gnu::always_inline]] inline NeonQuad LoadQuad(const uint8_t* x, const NeonRows& rows) {
  return Zip(V::Load(x + rows.r0), V::Load(x + rows.r1), V::Load(x + rows.r2),
             V::Load(x + rows.r3));
}

// The sums of R rows over 16 Q columns.
template <class V, int R, int Q>
struct NeonSums {
  int32x4_t s[R][4 * Q];

  [[gnu::always_inline]] void SetBias(const int32_t* bias) {
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 16
      for (int i = 0; i < 4 * Q; ++i) s[r][i] = vdupq_n_s32(bias[r]);
    }
  }
  // Adds four k; `w` has four weights of each row.
  [[gnu::always_inline]] void Step(const uint8_t* x, const NeonRows& rows, const int8_t* w) {
#pragma GCC unroll 4
    for (int q = 0; q < Q; ++q) {
      const NeonQuad quad = LoadQuad<V>(x + q * kNeonColumns, rows);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        int32_t four = 0;
        __builtin_memcpy(&four, w + 4 * r, 4);
        const int8x16_t weights = vreinterpretq_s8_s32(vdupq_n_s32(four));
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) s[r][4 * q + i] = V::Dot(s[r][4 * q + i], quad.x[i], weights);
      }
    }
  }
  // Waiting between blocks of k: [R][16 Q].
  [[gnu::always_inline]] void StorePartial(int32_t* p) const {
    for (int r = 0; r < R; ++r) {
      for (int i = 0; i < 4 * Q; ++i) vst1q_s32(p + (r * 4 * Q + i) * 4, s[r][i]);
    }
  }
  [[gnu::always_inline]] void LoadPartial(const int32_t* p) {
    for (int r = 0; r < R; ++r) {
      for (int i = 0; i < 4 * Q; ++i) s[r][i] = vld1q_s32(p + (r * 4 * Q + i) * 4);
    }
  }
};

// See RequantizeOne: the minimum returns `high` where the product is no number.
[[gnu::always_inline]] inline int32x4_t ScaleNeon(int32x4_t sum, const EpilogueView& e,
                                                  float32x4_t scale) {
  const float32x4_t high = vdupq_n_f32(e.high_minus_zero);
  const float32x4_t low = vdupq_n_f32(static_cast<float>(e.low - e.zero_point));
  const float32x4_t v = vminnmq_f32(vmulq_f32(vcvtq_f32_s32(sum), scale), high);
  return vaddq_s32(vcvtnq_s32_f32(vmaxnmq_f32(v, low)), vdupq_n_s32(e.zero_point));
}

// To 16 columns; y is where the first is stored.
[[gnu::always_inline]] inline void StoreNeon(const EpilogueView& e, int64_t row, std::byte* y,
                                             const int32x4_t* s) {
  if (e.output == GemmOutput::kInt32) {
    for (int i = 0; i < 4; ++i) vst1q_s32(reinterpret_cast<int32_t*>(y) + 4 * i, s[i]);
    return;
  }
  const float32x4_t scale = vdupq_n_f32(e.scale[row]);
  if (e.output == GemmOutput::kFloat32) {
    for (int i = 0; i < 4; ++i) {
      vst1q_f32(reinterpret_cast<float*>(y) + 4 * i, vmulq_f32(vcvtq_f32_s32(s[i]), scale));
    }
    return;
  }
  const auto narrow = [&](int32x4_t a, int32x4_t b) __attribute__((always_inline)) {
    return vcombine_u16(vqmovun_s32(ScaleNeon(a, e, scale)), vqmovun_s32(ScaleNeon(b, e, scale)));
  };
  vst1q_u8(reinterpret_cast<uint8_t*>(y),
           vcombine_u8(vmovn_u16(narrow(s[0], s[1])), vmovn_u16(narrow(s[2], s[3]))));
}

// Rows [row, row + R) of 16 Q columns; y is the tile's, from its column on.
template <class V, int R, int Q>
void DensePanelNeon(const uint8_t* x, const int8_t* w, int64_t k, const EpilogueView& e,
                    int64_t row, std::byte* y) noexcept {
  NeonSums<V, R, Q> sums;
  sums.SetBias(e.bias + row);
  for (int64_t i = 0; i < k / 4; ++i, x += 256, w += 4 * R) sums.Step(x, {0, 64, 128, 192}, w);
  // Rows past k - 1 have weights of zero; row k - 1 is read in their place.
  if (const int64_t rest = k % 4; rest != 0) {
    const int64_t last = (rest - 1) * 64;
    sums.Step(x, {0, std::min<int64_t>(64, last), std::min<int64_t>(128, last), last}, w);
  }
  const int64_t bytes = OutputBytes(e.output);
  for (int r = 0; r < R; ++r) {
    for (int q = 0; q < Q; ++q) {
      StoreNeon(e, row + r, y + ((row + r) * 64 + q * kNeonColumns) * bytes, &sums.s[r][4 * q]);
    }
  }
}

// The epilogue of kernels that multiply x - 128, where V does.
template <class V>
GemmEpilogue EpilogueFor(const GemmWeights& weights) {
  return V::kSignedInput ? SignedInputEpilogue(weights) : weights.epilogue;
}

template <class V>
class DenseNeon final : public PackedGemm {
 public:
  explicit DenseNeon(const GemmWeights& weights)
      : m_(weights.m),
        k_(weights.k),
        values_(PackDensePanels(weights, 4, {6, 4, 2, 1})),
        epilogue_(EpilogueFor<V>(weights), weights.m) {}

  void RunColumns(const uint8_t* x, int64_t columns, void* y,
                  std::byte* /*scratch*/) const noexcept override {
    const int64_t bytes = OutputBytes(epilogue_.view().output);
    for (int64_t n = 0; n < columns; n += kNeonColumns) {
      const int64_t tile = n / kTileColumns, column = n % kTileColumns;
      RunSixteen(x + tile * k_ * kTileColumns + column,
                 static_cast<std::byte*>(y) + (tile * m_ * kTileColumns + column) * bytes);
    }
  }
  size_t scratch_bytes() const override { return 0; }
  size_t weight_bytes() const override { return values_.size_bytes() + epilogue_.size_bytes(); }
  const char* kernel_name() const override { return V::kDenseName; }

 private:
  void RunSixteen(const uint8_t* x, std::byte* y) const noexcept {
    const EpilogueView e = epilogue_.view();
    const int64_t row_bytes = (k_ + 3) / 4 * 4;
    const auto run = [&](auto panel, int64_t row) {
      panel(x, values_.data() + row * row_bytes, k_, e, row, y);
    };
    int64_t row = 0;
    for (; row + 6 <= m_; row += 6) run(DensePanelNeon<V, 6, 1>, row);
    for (; row + 4 <= m_; row += 4) run(DensePanelNeon<V, 4, 1>, row);
    for (; row + 2 <= m_; row += 2) run(DensePanelNeon<V, 2, 1>, row);
    if (row < m_) run(DensePanelNeon<V, 1, 1>, row);
  }

  int64_t m_, k_;
  AlignedBuffer<int8_t> values_;
  PackedEpilogue epilogue_;
};

// R rows share entries of four k: as many columns at a time as leave the sums in registers.
template <class V, int R>
class SparseNeon final : public PackedGemm {
 public:
  explicit SparseNeon(const GemmWeights& weights)
      : m_(weights.m),
        k_(weights.k),
        block_k_(SparseBlockK(weights.k, kBlockRows)),
        lists_(weights, {.rows = R, .group = 4, .block_k = block_k_}),
        epilogue_(EpilogueFor<V>(weights), lists_.row_groups() * R) {}

  void RunColumns(const uint8_t* x, int64_t columns, void* y,
                  std::byte* scratch) const noexcept override {
    const int64_t bytes = OutputBytes(epilogue_.view().output);
    for (int64_t n = 0; n < columns; n += kColumns) {
      const int64_t tile = n / kTileColumns, column = n % kTileColumns;
      RunPart(columns - n, x + tile * k_ * kTileColumns + column,
              static_cast<std::byte*>(y) + (tile * m_ * kTileColumns + column) * bytes,
              reinterpret_cast<int32_t*>(scratch));
    }
  }
  size_t scratch_bytes() const override {
    const int64_t rows = lists_.blocks() == 1 ? 0 : lists_.row_groups() * R;
    return static_cast<size_t>(rows * kColumns) * sizeof(int32_t);
  }
  size_t weight_bytes() const override { return lists_.size_bytes() + epilogue_.size_bytes(); }
  const char* kernel_name() const override { return V::kSparseNames[R / 2]; }

 private:
  static constexpr int kQuads = 4 / R;
  static constexpr int64_t kColumns = kQuads * kNeonColumns;
  static constexpr int64_t kBlockRows = 1024;  // their 64 KB fit in the first cache of server cores

  template <int Q>
  static const uint8_t* AddEntries(const uint8_t* x, const uint8_t* entry, uint32_t count,
                                   NeonSums<V, R, Q>& sums) {
    for (; count > 0; --count, entry += 8 + 4 * R) {
      uint16_t units[4];
      __builtin_memcpy(units, entry, 8);
      sums.Step(x, {units[0] * 8, units[1] * 8, units[2] * 8, units[3] * 8},
                reinterpret_cast<const int8_t*>(entry + 8));
    }
    return entry;
  }

  // As many vectors of columns as `columns` fill, at most kQuads.
  void RunPart(int64_t columns, const uint8_t* x, std::byte* y, int32_t* scratch) const noexcept {
    if (columns <= kNeonColumns) return RunQuads<1>(x, y, scratch);
    if (kQuads > 2 && columns <= 2 * kNeonColumns) return RunQuads<2>(x, y, scratch);
    RunQuads<kQuads>(x, y, scratch);
  }

  template <int Q>
  void RunQuads(const uint8_t* x, std::byte* y, int32_t* scratch) const noexcept {
    const EpilogueView e = epilogue_.view();
    const int64_t bytes = OutputBytes(e.output);
    const uint8_t* entry = lists_.entries();
    const uint32_t* count = lists_.counts();
    for (int64_t block = 0; block < lists_.blocks(); ++block, x += block_k_ * 64) {
      for (int64_t row = 0; row < lists_.row_groups() * R; row += R, ++count) {
        NeonSums<V, R, Q> sums;
        int32_t* partial = scratch + row * kColumns;
        if (block == 0) {
          sums.SetBias(e.bias + row);
        } else {
          sums.LoadPartial(partial);
        }
        entry = AddEntries(x, entry, *count, sums);
        if (block + 1 < lists_.blocks()) {
          sums.StorePartial(partial);
          continue;
        }
        for (int64_t r = 0; r < std::min<int64_t>(R, m_ - row); ++r) {
          for (int q = 0; q < Q; ++q) {
            StoreNeon(e, row + r, y + ((row + r) * 64 + q * kNeonColumns) * bytes,
                      &sums.s[r][4 * q]);
          }
        }
      }
    }
  }

  int64_t m_, k_, block_k_;
  SparseLists lists_;
  PackedEpilogue epilogue_;
};

// Few columns, each a row of k: dot products along k, four output rows at a time.
template <class V>
class GemvNeon final : public PackedGemv {
 public:
  explicit GemvNeon(const GemmWeights& weights)
      : m_(weights.m),
        k_(weights.k),
        stride_((weights.k + 15) / 16 * 16),
        values_(static_cast<size_t>((weights.m + kRows - 1) / kRows * kRows * stride_)),
        epilogue_(EpilogueFor<V>(weights)) {
    for (int64_t m = 0; m < m_; ++m) {
      std::copy_n(weights.values.data() + m * k_, k_, values_.data() + m * stride_);
    }
  }

  void RunRows(const uint8_t* x, int64_t n, Blocks blocks, void* y) const noexcept override {
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t row = blocks.begin * kRows; row < std::min(m_, blocks.end * kRows);
           row += kRows) {
        const int32x4_t sums = SumRows(x + i * k_, values_.data() + row * stride_);
        alignas(16) int32_t lanes[kRows];
        vst1q_s32(lanes, sums);
        for (int64_t r = 0; r < std::min(kRows, m_ - row); ++r) {
          const int32_t bias = epilogue_.bias[static_cast<size_t>(row + r)];
          StoreOne(lanes[r] + bias, row + r, epilogue_, y, i * m_ + row + r);
        }
      }
    }
  }
  int64_t row_blocks() const override { return (m_ + kRows - 1) / kRows; }
  size_t weight_bytes() const override { return values_.size_bytes(); }
  const char* kernel_name() const override { return V::kGemvName; }

 private:
  static constexpr int64_t kRows = 4;

  int32x4_t SumRows(const uint8_t* x, const int8_t* w) const noexcept {
    int32x4_t s[kRows] = {vdupq_n_s32(0), vdupq_n_s32(0), vdupq_n_s32(0), vdupq_n_s32(0)};
    const auto step = [&](const uint8_t* sixteen, int64_t k) __attribute__((always_inline)) {
      const uint8x16_t v = V::Load(sixteen);
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r) s[r] = V::Dot(s[r], v, vld1q_s8(w + r * stride_ + k));
    };
    int64_t k = 0;
    for (; k + 16 <= k_; k += 16) step(x + k, k);
    if (k < k_) {
      uint8_t rest[16] = {};
      std::copy_n(x + k, k_ - k, rest);
      step(rest, k);
    }
    return vpaddq_s32(vpaddq_s32(s[0], s[1]), vpaddq_s32(s[2], s[3]));
  }

  int64_t m_, k_, stride_;
  AlignedBuffer<int8_t> values_;
  GemmEpilogue epilogue_;
};

}  // namespace
}  // namespace pared
