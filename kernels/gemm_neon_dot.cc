// Dense and sparse kernels for aarch64 with the dot products of Armv8.2 (sdot).

#include <arm_neon.h>

#include <algorithm>
#include <cstdint>

#include "kernels/kernels.h"
#include "kernels/packing.h"
#include "kernels/reference.h"
#include "kernels/sparse.h"

#pragma GCC push_options
#pragma GCC target("arch=armv8.2-a+dotprod")

#include "kernels/gemm_neon.h"

namespace pared {
namespace {

struct NeonDot {
  static constexpr const char* kDenseName = "dense_neon_dot";
  static constexpr const char* kSparseNames[] = {"sparse_1x1_neon_dot", "sparse_2x1_neon_dot",
                                                 "sparse_4x1_neon_dot"};
  static constexpr const char* kGemvName = "gemv_neon_dot";
  static constexpr bool kSignedInput = true;

  // x - 128
  [[gnu::always_inline]] static uint8x16_t Load(const uint8_t* p) {
    return veorq_u8(vld1q_u8(p), vdupq_n_u8(0x80));
  }
  [[gnu::always_inline]] static int32x4_t Dot(int32x4_t sum, uint8x16_t x, int8x16_t w) {
    return vdotq_s32(sum, vreinterpretq_s8_u8(x), w);
  }
};

}  // namespace

void DenseRowNeonDot(const uint8_t* x, const int8_t* w, int64_t k, const EpilogueView& e,
                     int64_t row, void* y) noexcept {
  DensePanelNeon<NeonDot, 1, 4>(x, w, k, e, row, static_cast<std::byte*>(y));
}

std::unique_ptr<PackedGemm> PackDenseNeonDot(const GemmWeights& weights) {
  return std::make_unique<DenseNeon<NeonDot>>(weights);
}
std::unique_ptr<PackedGemm> PackSparse1x1NeonDot(const GemmWeights& weights) {
  return std::make_unique<SparseNeon<NeonDot, 1>>(weights);
}
std::unique_ptr<PackedGemm> PackSparse2x1NeonDot(const GemmWeights& weights) {
  return std::make_unique<SparseNeon<NeonDot, 2>>(weights);
}
std::unique_ptr<PackedGemm> PackSparse4x1NeonDot(const GemmWeights& weights) {
  return std::make_unique<SparseNeon<NeonDot, 4>>(weights);
}
std::unique_ptr<PackedGemv> PackGemvNeonDot(const GemmWeights& weights) {
  return std::make_unique<GemvNeon<NeonDot>>(weights);
}

}  // namespace pared

#pragma GCC pop_options
