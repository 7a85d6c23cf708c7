// Single-precision GEMM: C[m][n] = activation(sum over k of A[m][k] B[k][n] + bias + addend).
//
//   A  any strides, or packed in blocks of 6 rows:   [ceil(m / 6)][k][6]
//   B  always packed in panels of the tile's width:  [ceil(n / width)][k][width], zero-padded
//
// Work is cut into blocks of k that keep a group of panels in the L2 cache; the sums of one output
// are always taken in the order of k, so no cut changes a result.

#pragma once

#include <cstdint>

#include "kernels/f32.h"

namespace pared {

constexpr int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }
// `n` rounded up to a multiple of `unit`.
constexpr int64_t Whole(int64_t n, int64_t unit) { return CeilDiv(n, unit) * unit; }

// A strided matrix of constants or activations.
struct MatrixF32 {
  const float* data = nullptr;
  int64_t rows = 0, columns = 0;
  int64_t row_step = 0, column_step = 0;
};

int64_t PackedLhsFloats(int64_t m, int64_t k, const F32Kernels& kernels);
int64_t PackedRhsFloats(int64_t k, int64_t n, const F32Kernels& kernels);
void PackLhs(const MatrixF32& a, const F32Kernels& kernels, float* packed) noexcept;
// Panels [panel_begin, panel_end) of b, to their places in `packed`.
void PackRhs(const MatrixF32& b, const F32Kernels& kernels, int64_t panel_begin, int64_t panel_end,
             float* packed) noexcept;

struct GemmF32 {
  int64_t m = 0, n = 0, k = 0;
  const float* a = nullptr;
  int64_t a_block = 0, a_row = 0,
          a_step = 0;  // element (6 i + r, k): i a_block + r a_row + k a_step
  const float* b = nullptr;
  float* c = nullptr;
  int64_t c_row = 0;
  const float* row_bias = nullptr;
  const float* column_bias = nullptr;
  const float* addend = nullptr;
  ActivationF32 activation{};
};

// Sets a, a_block, a_row and a_step for a strided, or a packed, left operand.
void SetLhs(GemmF32& gemm, const MatrixF32& a);
void SetPackedLhs(GemmF32& gemm, const float* packed, const F32Kernels& kernels);

int64_t RowBlocks(const GemmF32& gemm, const F32Kernels& kernels);
int64_t Panels(const GemmF32& gemm, const F32Kernels& kernels);

struct TileRange {
  int64_t block_begin, block_end;  // of rows
  int64_t panel_begin, panel_end;  // of columns
};
void RunGemm(const GemmF32& gemm, const F32Kernels& kernels, const TileRange& range) noexcept;

// A part of the sums for panels that lie at `b`, each `panel_step` floats apart, rows k_begin on.
struct GemmPartF32 {
  int64_t k_begin = 0, k_count = 0;
  const float* b = nullptr;
  int64_t panel_step = 0;
  // Where set, whole panels are not packed yet: row k_begin + k is at rows + k * rows_step, from
  // column 0 on, and goes to its place in `packed`, which is `b`.
  const float* rows = nullptr;
  int64_t rows_step = 0;
  float* packed = nullptr;
  // Where set, whole panels stay where they are: see GemmTileF32::b_offsets. Two vectors a panel.
  const int64_t* b_offsets = nullptr;
  const float* const* b_vectors = nullptr;
};
void RunGemmPart(const GemmF32& gemm, const F32Kernels& kernels, const TileRange& range,
                 const GemmPartF32& part) noexcept;

// How much of k, and how many panels, are worked on at once: 128 columns at most where all of A
// stays in the L2 cache, which leaves room there for what B is packed from. A large A would be read
// twice as often from L3.
constexpr int64_t kBlockK = 512;
int64_t PanelGroup(int64_t a_floats, const F32Kernels& kernels);

}  // namespace pared
