// Single-precision inner kernels, one table for each instruction set.
//
// A kernel computes each output element in an order that depends on the sizes alone, so a result
// does not depend on how work is cut among threads. Between instruction sets results differ in
// rounding (fused multiply-add, width of sums).

#pragma once

#include <cstdint>
#include <limits>

#include "kernels/cpu.h"

namespace pared {

// Applied in place after bias; all but kNone, kClamp and kLeakyRelu cost an exponential or a
// division for each element.
enum class ActivationKind {
  kNone,
  kClamp,        // min(max(x, alpha), beta)
  kLeakyRelu,    // x < 0 ? alpha x : x
  kSigmoid,      //
  kTanh,         //
  kHardSigmoid,  // clamp(alpha x + beta, 0, 1)
  kHardSwish,    // x clamp(x / 6 + 1 / 2, 0, 1)
  kSilu,         // x sigmoid(alpha x)
  kGelu,         // x (1 + erf(x / sqrt 2)) / 2
  kGeluTanh,     // its approximation by tanh
  kExp,
  kErf,
};

struct ActivationF32 {
  ActivationKind kind = ActivationKind::kNone;
  float alpha = 0, beta = 0;
};

// What a clamp leaves; infinite for every other activation.
struct ClampF32 {
  float low, high;
};
inline ClampF32 ClampOf(const ActivationF32& activation) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  if (activation.kind == ActivationKind::kClamp) return {activation.alpha, activation.beta};
  return {-kInfinity, kInfinity};
}

// One tile of C = A B: `rows` x `columns` sums over k.
struct GemmTileF32 {
  const float* a = nullptr;  // element (r, k) at a[r * a_row + k * a_step]
  int64_t a_row = 0, a_step = 0;
  const float* b = nullptr;  // row k at b + k * b_step; tile_columns floats are read of each
  int64_t b_step = 0;
  // Where set, vector v of row k is at b_vectors[v] + b_offsets[k] instead: see reads_images.
  const int64_t* b_offsets = nullptr;
  const float* b_vectors[2] = {nullptr, nullptr};
  // Where set, row k of b is copied to packed + k * tile_columns, which costs next to nothing
  // beside the multiplications. Whole tiles of columns only.
  float* packed = nullptr;
  // Where set, what a later tile reads is fetched into the L2 cache: one line at
  // ahead + k * ahead_step for each k.
  const float* ahead = nullptr;
  int64_t ahead_step = 0;
  float* c = nullptr;  // row r at c + r * c_row
  int64_t c_row = 0;
  int64_t k = 0;
  int64_t rows = 0, columns = 0;  // at most the table's tile
  bool accumulate = false;        // add to what c holds
  bool finish = true;             // the last part of k: apply what follows
  const float* row_bias = nullptr;
  const float* column_bias = nullptr;
  const float* addend = nullptr;  // laid out as c
  ActivationF32 activation{};
};

constexpr int64_t kSparseBlockK = 128;

// Rows of a sparse A by one block of B: `tile` says what one row does with its sums, of row 0; of
// it only c, c_row, columns and what follows the sums are read. Vector v of row k of B is at panels
// + v / t * kSparseBlockK * tile_columns + k * tile_columns + v % t * lanes, where t = tile_columns
// / lanes.
struct SparseRowsF32 {
  const float* values = nullptr;    // nonzeros
  const uint8_t* k = nullptr;       // the row of B's block that each multiplies
  const int64_t* begins = nullptr;  // row r: nonzeros [begins[r], begins[r + 1])
  int64_t rows = 0;
  const float* panels = nullptr;
  float* sums = nullptr;    // [rows][sparse_columns]
  bool begins_sums = true;  // else `sums` are added to
  bool ends_sums = true;    // else they are kept in `sums`
  GemmTileF32 tile{};
};

constexpr int64_t kTapSlack = 64;

// Rows of sums over taps: y[x] = bias + sum over t of weights[t] * source[offsets[t] + x], clamped.
struct TapRowsF32 {
  const float* source = nullptr;  // readable kTapSlack floats past the last one used
  int64_t source_step = 0;        // from one row to the next
  const int64_t* offsets = nullptr;
  const float* weights = nullptr;
  int64_t taps = 0;
  float bias = 0;
  float low = 0, high = 0;
  float* y = nullptr;
  int64_t y_step = 0;
  int64_t rows = 0, count = 0;
};

// A depthwise convolution of `channels` planes, at most `lanes` of the table: channels lie in the
// lanes of a vector, so that neither narrow planes nor strides leave lanes idle.
constexpr int64_t kDepthwiseBlock = 8;  // most outputs of a row that are summed at once

struct DepthwiseF32 {
  const float* x = nullptr;        // [channels][in_height][in_width]
  float* y = nullptr;              // [channels][out_height][out_width]
  const float* weights = nullptr;  // [kernel_y][kernel_x][lanes]
  const float* bias = nullptr;     // [lanes]
  int64_t channels = 0;
  int64_t in_height = 0, in_width = 0, out_height = 0, out_width = 0;
  int64_t kernel_y = 1, kernel_x = 1, stride_y = 1, stride_x = 1, dilation_y = 1, dilation_x = 1;
  int64_t pad_y = 0, pad_x = 0;
  int64_t row_vectors = 0;  // of a padded row: what the taps of kDepthwiseBlock outputs reach, too
  int64_t band_rows = 0;    // output rows at a time
  float low = 0, high = 0;  // clamp
  const float* addend = nullptr;  // laid out as y, or null
  // [input rows of a band][row_vectors][lanes], [band_rows * out_width + kDepthwiseBlock][lanes]
  float* band = nullptr;
  float* sums = nullptr;
};

// Transposes sums to rows of outputs: y[o][p] = clamp(sums[p][o] + bias[o] + addend[o][p]).
struct TransposeF32 {
  const float* sums = nullptr;  // rows of `sums_row` floats, of which whole vectors are read
  int64_t sums_row = 0;
  int64_t pixels = 0, outputs = 0;
  float* y = nullptr;
  int64_t y_row = 0;
  const float* bias = nullptr;    // null: none
  const float* addend = nullptr;  // laid out as y, or null
  float low = 0, high = 0;
};

// Pads rows and sorts each by remainder modulo `stride`: the padded row's element x goes to
// y[x % stride * phase_floats + x / stride]. Up to `lanes` floats behind a row are overwritten.
struct PadRowsF32 {
  const float* x = nullptr;
  int64_t count = 0, pad = 0, stride = 1;
  float* y = nullptr;
  int64_t phase_floats = 0;
  int64_t phases = stride;  // how many remainders are wanted
  float padding = 0;
  int64_t rows = 1, y_step = 0;  // rows of x lie side by side
};

// A run of output pixels whose inputs lie side by side.
struct PixelRun {
  int64_t target;  // first column of the panel
  int64_t source;  // offset of its input under a tap at 0
  int64_t count;
};

// Writes panel rows: target[k][runs[i].target + x] = source[offsets[k] + runs[i].source + x].
struct PackColumnsF32 {
  const float* source = nullptr;
  const int64_t* offsets = nullptr;
  int64_t k = 0;
  const PixelRun* runs = nullptr;
  int64_t run_count = 0;
  float* target = nullptr;
};

// Copies whole panels of columns: target[panel][k] = the tile_columns floats of row k at
// rows + k * rows_step + panel * tile_columns.
struct PackRowsF32 {
  const float* rows = nullptr;
  int64_t rows_step = 0, k = 0, panels = 0;
  float* target = nullptr;
  int64_t panel_step = 0;
};

// Tiles [first_tile, first_tile + tiles) of one row of tiles of a Winograd convolution, one
// channel: element i, j of B^T d B of tile `first_tile` + t goes to v[(6 i + j) * plane + t]. Up to
// `lanes` floats behind the last tile are overwritten.
struct WinogradInputF32 {
  const float* x = nullptr;  // the channel's image
  int64_t height = 0, width = 0, pad_y = 0, pad_x = 0;
  int64_t tile_row = 0, first_tile = 0, tiles = 0;
  float* v = nullptr;
  int64_t plane = 0;
  float* scratch = nullptr;  // WinogradScratchF32 floats
};

// Floats that the transform of so many tiles works in.
constexpr int64_t WinogradScratchF32(int64_t tiles, int64_t lanes) {
  return 48 * (tiles + lanes) / lanes * lanes;
}

// The same of one output channel: y = clamp(A^T m A + bias + addend), element i, j of m of tile t
// at m[(6 i + j) * plane + t]. Up to `lanes` floats behind the last tile are read.
struct WinogradOutputF32 {
  const float* m = nullptr;
  int64_t plane = 0, tiles = 0;
  float* y = nullptr;             // the first output of the first tile
  int64_t y_step = 0;             // from one row to the next
  int64_t rows = 0, columns = 0;  // that lie in the image: at most 4, and 4 `tiles`
  float bias = 0;
  const float* addend = nullptr;  // laid out as y, or null
  float low = 0, high = 0;        // clamp
};

struct F32Kernels {
  int64_t tile_rows, tile_columns, lanes;
  int64_t sparse_columns;  // of a sparse product's block: whole panels, or a part of one
  int64_t packed_floats;   // of panels worked on at once: half of the L2 cache
  bool reads_images;  // tiles of two vectors may take each from where a convolution's input lies
  void (*gemm_tile)(const GemmTileF32& tile) noexcept;
  void (*sparse_rows)(const SparseRowsF32& rows) noexcept;
  void (*activate)(const ActivationF32& activation, float* x, int64_t count) noexcept;
  void (*tap_sum_rows)(const TapRowsF32& rows) noexcept;
  void (*tap_max_rows)(const TapRowsF32& rows) noexcept;  // only source, offsets and y are read
  void (*depthwise)(const DepthwiseF32& planes) noexcept;
  void (*transpose)(const TransposeF32& sums) noexcept;
  void (*pack_columns)(const PackColumnsF32& pack) noexcept;
  // Null where tiles are wide enough to read such rows at full speed: the first of a panel packs
  // it.
  void (*pack_rows)(const PackRowsF32& pack) noexcept;
  void (*pad_rows)(const PadRowsF32& rows) noexcept;
  // Null where Winograd convolutions are not offered.
  void (*winograd_input)(const WinogradInputF32& tiles) noexcept;
  void (*winograd_output)(const WinogradOutputF32& tiles) noexcept;
  void (*softmax)(const float* x, float* y, int64_t count) noexcept;
  // y = (x - mean) / sqrt(variance + epsilon) over one row; mean_inverse receives mean and
  // 1 / sqrt(variance + epsilon).
  void (*normalize)(const float* x, float* y, int64_t count, float epsilon,
                    float* mean_inverse) noexcept;
  void (*scale_shift)(const float* x, float* y, int64_t count, float scale, float shift) noexcept;
  void (*multiply_add)(const float* scale, const float* shift, float* y, int64_t count) noexcept;
  float (*sum)(const float* x, int64_t count) noexcept;
  // y[i] += x[i] * factor
  void (*axpy)(const float* x, float factor, float* y, int64_t count) noexcept;
};

const F32Kernels& F32KernelsFor(Isa isa);

// The tables; those of an instruction set that the machine lacks must not be used.
extern const F32Kernels kF32Reference, kF32Avx2, kF32Avx512, kF32Neon;

}  // namespace pared
