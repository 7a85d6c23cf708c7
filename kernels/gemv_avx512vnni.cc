// Rows in lanes, for few columns: blocks of 16 output rows, whose 16 x 4 weights of a step fill one
// vector, [m/16][steps][16][4]. Four values of x are broadcast to all lanes.
//
//   step s is k = 4 s, ..., 4 s + 3; steps without a nonzero weight are left out, so that 16x4
//   blocks run sparse, and a list says which s are there
//
// One row of x at a time reads each weight once and is bound by memory; four rows share the loads.

#include <immintrin.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "kernels/gemv.h"
#include "kernels/kernels.h"

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")

namespace pared {
namespace {

constexpr int64_t kLanes = 16;

// One block of rows of the matrix.
struct Block {
  const int8_t* w;        // [steps][16][4]
  const uint16_t* index;  // [steps]: which four k
  int64_t steps;
  int64_t k;
};

// Four x from `at`, zeros past k.
[[gnu::always_inline]] inline __m512i BroadcastX(const uint8_t* x, int64_t at, int64_t k) {
  int32_t four = 0;
  __builtin_memcpy(&four, x + at, static_cast<size_t>(std::min<int64_t>(4, k - at)));
  return _mm512_set1_epi32(four);
}

[[gnu::always_inline]] inline __m512i BroadcastWhole(const uint8_t* x, int64_t at) {
  int32_t four = 0;
  __builtin_memcpy(&four, x + at, 4);
  return _mm512_set1_epi32(four);
}

// Sums of one row of x; two chains hide the latency of vpdpbusd.
__m512i SumBlock(const Block& b, const uint8_t* x, __m512i bias) noexcept {
  // Only the last step can reach past k.
  const bool has_tail = b.steps > 0 && int64_t{b.index[b.steps - 1]} * 4 + 4 > b.k;
  const int64_t whole = b.steps - (has_tail ? 1 : 0);
  __m512i even = bias, odd = _mm512_setzero_si512();
  int64_t i = 0;
  for (; i + 2 <= whole; i += 2) {
    even = _mm512_dpbusd_epi32(even, BroadcastWhole(x, int64_t{b.index[i]} * 4),
                               _mm512_load_si512(b.w + i * 64));
    odd = _mm512_dpbusd_epi32(odd, BroadcastWhole(x, int64_t{b.index[i + 1]} * 4),
                              _mm512_load_si512(b.w + i * 64 + 64));
  }
  for (; i < b.steps; ++i) {
    even = _mm512_dpbusd_epi32(even, BroadcastX(x, int64_t{b.index[i]} * 4, b.k),
                               _mm512_load_si512(b.w + i * 64));
  }
  return _mm512_add_epi32(even, odd);
}

// Four rows of x, k apart.
void SumBlock4(const Block& b, const uint8_t* x, __m512i bias, __m512i* sums) noexcept {
  __m512i s0 = bias, s1 = bias, s2 = bias, s3 = bias;
  for (int64_t i = 0; i < b.steps; ++i) {
    const int64_t at = int64_t{b.index[i]} * 4;
    const __m512i w = _mm512_load_si512(b.w + i * 64);
    if (at + 4 <= b.k) [[likely]] {
      s0 = _mm512_dpbusd_epi32(s0, BroadcastWhole(x, at), w);
      s1 = _mm512_dpbusd_epi32(s1, BroadcastWhole(x + b.k, at), w);
      s2 = _mm512_dpbusd_epi32(s2, BroadcastWhole(x + 2 * b.k, at), w);
      s3 = _mm512_dpbusd_epi32(s3, BroadcastWhole(x + 3 * b.k, at), w);
    } else {
      s0 = _mm512_dpbusd_epi32(s0, BroadcastX(x, at, b.k), w);
      s1 = _mm512_dpbusd_epi32(s1, BroadcastX(x + b.k, at, b.k), w);
      s2 = _mm512_dpbusd_epi32(s2, BroadcastX(x + 2 * b.k, at, b.k), w);
      s3 = _mm512_dpbusd_epi32(s3, BroadcastX(x + 3 * b.k, at, b.k), w);
    }
  }
  sums[0] = s0;
  sums[1] = s1;
  sums[2] = s2;
  sums[3] = s3;
}

// Rows [row, row + 16) of one column, those that exist.
void StoreLanes(const EpilogueView& e, int64_t row, __mmask16 mask, void* y, int64_t at,
                __m512i sum) noexcept {
  if (e.output == GemmOutput::kInt32) {
    _mm512_mask_storeu_epi32(static_cast<int32_t*>(y) + at, mask, sum);
    return;
  }
  const __m512 v = _mm512_mul_ps(_mm512_cvtepi32_ps(sum), _mm512_loadu_ps(e.scale + row));
  if (e.output == GemmOutput::kFloat32) {
    _mm512_mask_storeu_ps(static_cast<float*>(y) + at, mask, v);
    return;
  }
  const __m512 capped = _mm512_min_ps(v, _mm512_set1_ps(e.high_minus_zero));
  const __m512i floor = _mm512_set1_epi32(e.low - e.zero_point);
  const __m512i codes = _mm512_add_epi32(_mm512_max_epi32(_mm512_cvtps_epi32(capped), floor),
                                         _mm512_set1_epi32(e.zero_point));
  _mm_mask_storeu_epi8(static_cast<uint8_t*>(y) + at, mask, _mm512_cvtepi32_epi8(codes));
}

class GemvAvx512Vnni final : public PackedGemv {
 public:
  explicit GemvAvx512Vnni(const GemmWeights& weights)
      : m_(weights.m),
        k_(weights.k),
        epilogue_(weights.epilogue, (weights.m + kLanes - 1) / kLanes * kLanes) {
    std::vector<int8_t> packed;
    for (int64_t row = 0; row < m_; row += kLanes) {
      starts_.push_back(static_cast<int64_t>(index_.size()));
      for (int64_t k = 0; k < k_; k += 4) AppendStep(weights, row, k, packed);
    }
    starts_.push_back(static_cast<int64_t>(index_.size()));
    values_ = AlignedBuffer<int8_t>(std::span<const int8_t>(packed));
  }

  void RunRows(const uint8_t* x, int64_t n, Blocks blocks, void* y) const noexcept override {
    const EpilogueView e = epilogue_.view();
    for (int64_t i = blocks.begin; i < blocks.end; ++i) {
      const int64_t start = starts_[static_cast<size_t>(i)], row = i * kLanes;
      const Block block{.w = values_.data() + start * 64,
                        .index = index_.data() + start,
                        .steps = starts_[static_cast<size_t>(i) + 1] - start,
                        .k = k_};
      const int64_t rows = std::min(kLanes, m_ - row);
      const __mmask16 mask = static_cast<__mmask16>((1U << rows) - 1);
      const __m512i bias = _mm512_loadu_si512(e.bias + row);
      int64_t column = 0;
      for (; column + 4 <= n; column += 4) {
        __m512i sums[4];
        SumBlock4(block, x + column * k_, bias, sums);
        for (int64_t j = 0; j < 4; ++j) {
          StoreLanes(e, row, mask, y, (column + j) * m_ + row, sums[j]);
        }
      }
      for (; column < n; ++column) {
        StoreLanes(e, row, mask, y, column * m_ + row, SumBlock(block, x + column * k_, bias));
      }
    }
  }
  int64_t row_blocks() const override { return (m_ + kLanes - 1) / kLanes; }
  size_t weight_bytes() const override {
    return values_.size_bytes() + index_.size() * sizeof(uint16_t) + epilogue_.size_bytes();
  }
  const char* kernel_name() const override { return "gemv_16x4_avx512vnni"; }

 private:
  void AppendStep(const GemmWeights& weights, int64_t row, int64_t k, std::vector<int8_t>& packed) {
    int8_t step[kLanes * 4] = {};
    bool is_used = false;
    for (int64_t r = 0; r < std::min(kLanes, m_ - row); ++r) {
      for (int64_t j = 0; j < std::min<int64_t>(4, k_ - k); ++j) {
        step[r * 4 + j] = weights.values[static_cast<size_t>((row + r) * k_ + k + j)];
        is_used = is_used || step[r * 4 + j] != 0;
      }
    }
    if (!is_used) return;
    packed.insert(packed.end(), step, step + kLanes * 4);
    index_.push_back(static_cast<uint16_t>(k / 4));
  }

  int64_t m_, k_;
  std::vector<int64_t> starts_;  // of each block's steps, and the end
  std::vector<uint16_t> index_;
  AlignedBuffer<int8_t> values_;
  PackedEpilogue epilogue_;
};

}  // namespace

std::unique_ptr<PackedGemv> PackGemv16x4Avx512Vnni(const GemmWeights& weights) {
  return std::make_unique<GemvAvx512Vnni>(weights);
}

}  // namespace pared

#pragma GCC pop_options
