// Dense and sparse kernels for aarch64 with mixed-sign dot products (usdot, Armv8.6).

#include <arm_neon.h>

#include <algorithm>
#include <cstdint>

#include "kernels/kernels.h"
#include "kernels/packing.h"
#include "kernels/reference.h"
#include "kernels/sparse.h"

#pragma GCC push_options
#pragma GCC target("arch=armv8.2-a+dotprod+i8mm")

#include "kernels/gemm_neon.h"

namespace pared {
namespace {

struct NeonI8mm {
  static constexpr const char* kDenseName = "dense_neon_i8mm";
  static constexpr const char* kSparseNames[] = {"sparse_1x1_neon_i8mm", "sparse_2x1_neon_i8mm",
                                                 "sparse_4x1_neon_i8mm"};
  static constexpr const char* kGemvName = "gemv_neon_i8mm";
  static constexpr bool kSignedInput = false;

  [[gnu::always_inline]] static uint8x16_t Load(const uint8_t* p) { return vld1q_u8(p); }
  [[gnu::always_inline]] static int32x4_t Dot(int32x4_t sum, uint8x16_t x, int8x16_t w) {
    return vusdotq_s32(sum, x, w);
  }
};

}  // namespace

void DenseRowNeonI8mm(const uint8_t* x, const int8_t* w, int64_t k, const EpilogueView& e,
                      int64_t row, void* y) noexcept {
  DensePanelNeon<NeonI8mm, 1, 4>(x, w, k, e, row, static_cast<std::byte*>(y));
}

std::unique_ptr<PackedGemm> PackDenseNeonI8mm(const GemmWeights& weights) {
  return std::make_unique<DenseNeon<NeonI8mm>>(weights);
}
std::unique_ptr<PackedGemm> PackSparse1x1NeonI8mm(const GemmWeights& weights) {
  return std::make_unique<SparseNeon<NeonI8mm, 1>>(weights);
}
std::unique_ptr<PackedGemm> PackSparse2x1NeonI8mm(const GemmWeights& weights) {
  return std::make_unique<SparseNeon<NeonI8mm, 2>>(weights);
}
std::unique_ptr<PackedGemm> PackSparse4x1NeonI8mm(const GemmWeights& weights) {
  return std::make_unique<SparseNeon<NeonI8mm, 4>>(weights);
}
std::unique_ptr<PackedGemv> PackGemvNeonI8mm(const GemmWeights& weights) {
  return std::make_unique<GemvNeon<NeonI8mm>>(weights);
}

}  // namespace pared

#pragma GCC pop_options
