// Single-precision 3 x 3 convolutions of stride 1 by Winograd's algorithm F(4 x 4, 3 x 3): 36
// multiplications for 16 outputs of a channel in place of 144.
//
//   y = A^T [ sum over channels of (G g G^T) * (B^T d B) ] A        (* element by element)
//
// d: a tile of 6 x 6 inputs, tiles lie 4 apart; g: the 3 x 3 weights; y: 4 x 4 outputs (A. Lavin
// and S. Gray, Fast Algorithms for Convolutional Neural Networks, CVPR 2016). The matrices are
// those of Toom and Cook: G[i][j] = p_i^j / product over k != i of (p_i - p_k), A^T[i][j] = p_j^i,
// and row i of B^T the coefficients of the product over k != i of (x - p_k); infinity takes the
// highest power. The points 0, +-3/4, +-3/2 are used in place of the customary 0, +-1, +-2: their
// matrices are as exact in floats, and sums of 256 channels of random inputs err 1.2e-6 of the
// outputs' deviation in place of 2.4e-6 (root mean square; 0.6e-6 summed directly).
//
// The work is cut into blocks of tiles. Of each block all channels are transformed, then a few
// outputs at a time are multiplied, position by position of the 36, and transformed back. The order
// of sums depends on the shapes alone.

#pragma once

#include <cstdint>
#include <span>

#include "kernels/aligned.h"
#include "kernels/f32.h"

namespace pared {

struct WinogradShapeF32 {
  int64_t channels = 0, outputs = 0;
  int64_t height = 0, width = 0;          // of the image
  int64_t out_height = 0, out_width = 0;  // what lies behind the image is zero
  int64_t pad_y = 0, pad_x = 0;           // zeros before the image
};

// What is expected to be faster than summing directly.
bool PrefersWinograd(const WinogradShapeF32& shape, const F32Kernels& kernels);

// What it is expected to take, in multiply-adds of whole vectors in dense tiles.
double WinogradCost(const WinogradShapeF32& shape, const F32Kernels& kernels);

struct WinogradPlanF32 {
  WinogradShapeF32 shape{};
  int64_t tiles_x = 0, tiles = 0;  // of a row; of the image
  int64_t block_tiles = 0, blocks = 0;
  int64_t pitch = 0;       // floats of a block's tiles
  int64_t row_blocks = 0;  // of outputs that are multiplied at a time
  int64_t splits = 1;      // pieces of the outputs that are worked on alone
  int64_t units = 0;       // independent pieces of work
  int64_t scratch_floats = 0;
};

WinogradPlanF32 PlanWinograd(const WinogradShapeF32& shape, const F32Kernels& kernels,
                             int64_t threads);

// weights: [outputs][channels][3][3]. G g G^T, each position packed as a left operand.
AlignedBuffer<float> PackWinograd(const float* weights, int64_t outputs, int64_t channels,
                                  const F32Kernels& kernels);

struct WinogradCallF32 {
  const float* weights = nullptr;  // packed
  const float* x = nullptr;        // [channels][height][width]
  float* y = nullptr;              // [outputs][out_height][out_width]
  std::span<const float> bias{};   // [outputs], or empty
  const float* addend = nullptr;   // laid out as y, or null
  ActivationF32 activation{};
};
// `scratch`: the plan's, of the calling thread alone.
void RunWinograd(const WinogradPlanF32& plan, const F32Kernels& kernels,
                 const WinogradCallF32& call, int64_t unit, float* scratch) noexcept;

}  // namespace pared
