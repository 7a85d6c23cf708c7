// Dense kernel for AVX-512 VNNI: panels of R = 6 (at the end 4, 2, 1) rows, [k/4][R][4] of
// int8, over tiles of 64 columns.
//
//          k0 k1 k2 k3   k4 ...                x (planar tile)      row k0: 64 columns
//   row 0  w  w  w  w  | row 0 ...                                  row k1: 64 columns   -> a quad
//   ...                                                             row k2, row k3
//   row 5  w  w  w  w  | row 5 ...
//
// One step is 4 loads and 8 unpacks for a quad, then R broadcasts and 4 R vpdpbusd: 24 of 32
// registers hold sums. Rows beyond k in the last step are loaded from row k - 1: their weights
// are zeros, and no load leaves the tile.

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include "kernels/avx512vnni.h"
#include "kernels/dense_tail_avx512vnni.h"
#include "kernels/kernels.h"

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")

namespace pared {
namespace {

using namespace avx512;

// What one assembly statement reads.
struct DenseArgs {
  const uint8_t* x;      // 0
  const int8_t* w;       // 8
  const int32_t* bias;   // 16
  int64_t steps;         // 24: whole ones, k / 4
  int64_t rest;          // 32: 1 where a step of k % 4 rows follows
  int64_t rest_rows[3];  // 40: offsets of its rows 1 to 3 from row 0, within the tile
};

// Rows are at (r8), (r8 + r10), (r8 + r11), (r8 + r12), so that the last step is the same code.
#define DENSE_SETUP           \
  "movq 0(%[args]), %%r8\n"   \
  "movq 8(%[args]), %%r9\n"   \
  "movq 16(%[args]), %%r13\n" \
  "movq 24(%[args]), %%rcx\n" \
  "movq 32(%[args]), %%rdx\n" \
  "movl $64, %%r10d\n"        \
  "movl $128, %%r11d\n"       \
  "movl $192, %%r12d\n"

#define DENSE_LOOP_BEGIN              \
  "testq %%rcx, %%rcx\n"              \
  "jz 2f\n"                           \
  ".p2align 5\n"                      \
  "1:\n"                              \
  "vmovdqu64 (%%r8), %%zmm24\n"       \
  "vmovdqu64 (%%r8,%%r10), %%zmm25\n" \
  "vmovdqu64 (%%r8,%%r11), %%zmm26\n" \
  "vmovdqu64 (%%r8,%%r12), %%zmm27\n" PARED_QUAD_UNPACK

#define DENSE_LOOP_END(step_bytes) \
  "addq $256, %%r8\n"              \
  "addq $" step_bytes              \
  ", %%r9\n"                       \
  "decq %%rcx\n"                   \
  "jnz 1b\n"                       \
  "2:\n"                           \
  "testq %%rdx, %%rdx\n"           \
  "jz 3f\n"                        \
  "movq 40(%[args]), %%r10\n"      \
  "movq 48(%[args]), %%r11\n"      \
  "movq 56(%[args]), %%r12\n"      \
  "movl $1, %%ecx\n"               \
  "xorl %%edx, %%edx\n"            \
  "jmp 1b\n"                       \
  "3:\n"

#define DENSE_ROW(offset, weights, a, b, c, d) \
  "vpbroadcastd " offset "(%%r9), %%zmm" weights "\n" PARED_QUAD_DOT(weights, a, b, c, d)
#define DENSE_BIAS(offset, a, b, c, d) PARED_QUAD_BROADCAST(offset "(%%r13)", a, b, c, d)

#define DENSE_CLOBBERS "r8", "r9", "r10", "r11", "r12", "r13", "rcx", "rdx", PARED_QUAD_CLOBBERS

[[gnu::always_inline]] inline void Accumulate(const DenseArgs& args, Sums (&s)[1]) {
  asm volatile(DENSE_SETUP DENSE_BIAS("0", "0", "1", "2", "3")
                   DENSE_LOOP_BEGIN DENSE_ROW("0", "28", "0", "1", "2", "3") DENSE_LOOP_END("4")
               : PARED_SUMS_OUT(s[0])
               : [args] "r"(&args)
               : DENSE_CLOBBERS);
}

[[gnu::always_inline]] inline void Accumulate(const DenseArgs& args, Sums (&s)[2]) {
  asm volatile(DENSE_SETUP DENSE_BIAS("0", "0", "1", "2", "3") DENSE_BIAS("4", "4", "5", "6", "7")
                   DENSE_LOOP_BEGIN DENSE_ROW("0", "28", "0", "1", "2", "3")
                       DENSE_ROW("4", "29", "4", "5", "6", "7") DENSE_LOOP_END("8")
               : PARED_SUMS_OUT(s[0]), PARED_SUMS_OUT(s[1])
               : [args] "r"(&args)
               : DENSE_CLOBBERS);
}

[[gnu::always_inline]] inline void Accumulate(const DenseArgs& args, Sums (&s)[4]) {
  asm volatile(DENSE_SETUP DENSE_BIAS("0", "0", "1", "2", "3") DENSE_BIAS("4", "4", "5", "6", "7")
                   DENSE_BIAS("8", "8", "9", "10", "11") DENSE_BIAS("12", "12", "13", "14", "15")
                       DENSE_LOOP_BEGIN DENSE_ROW("0", "28", "0", "1", "2", "3") DENSE_ROW(
                           "4", "29", "4", "5", "6", "7") DENSE_ROW("8", "30", "8", "9", "10", "11")
                           DENSE_ROW("12", "31", "12", "13", "14", "15") DENSE_LOOP_END("16")
               : PARED_SUMS_OUT(s[0]), PARED_SUMS_OUT(s[1]), PARED_SUMS_OUT(s[2]),
                 PARED_SUMS_OUT(s[3])
               : [args] "r"(&args)
               : DENSE_CLOBBERS);
}

[[gnu::always_inline]] inline void Accumulate(const DenseArgs& args, Sums (&s)[6]) {
  asm volatile(
      DENSE_SETUP DENSE_BIAS("0", "0", "1", "2", "3") DENSE_BIAS("4", "4", "5", "6", "7")
          DENSE_BIAS("8", "8", "9", "10", "11") DENSE_BIAS("12", "12", "13", "14", "15")
              DENSE_BIAS("16", "16", "17", "18", "19") DENSE_BIAS("20", "20", "21", "22", "23")
                  DENSE_LOOP_BEGIN DENSE_ROW("0", "28", "0", "1", "2", "3") DENSE_ROW(
                      "4", "29", "4", "5", "6", "7") DENSE_ROW("8", "30", "8", "9", "10", "11")
                      DENSE_ROW("12", "31", "12", "13", "14", "15")
                          DENSE_ROW("16", "28", "16", "17", "18", "19")
                              DENSE_ROW("20", "29", "20", "21", "22", "23") DENSE_LOOP_END("24")
      : PARED_SUMS_OUT(s[0]), PARED_SUMS_OUT(s[1]), PARED_SUMS_OUT(s[2]), PARED_SUMS_OUT(s[3]),
        PARED_SUMS_OUT(s[4]), PARED_SUMS_OUT(s[5])
      : [args] "r"(&args)
      : DENSE_CLOBBERS);
}

// Rows [row, row + R) of one tile.
template <int R>
void Panel(const uint8_t* x, const int8_t* w, int64_t k, const EpilogueView& e, int64_t row,
           void* y) noexcept {
  DenseArgs args{.x = x, .w = w, .bias = e.bias + row, .steps = k / 4, .rest = 0, .rest_rows = {}};
  if (const int64_t rest = k % 4; rest != 0) {
    args.rest = 1;
    for (int64_t i = 1; i < 4; ++i) args.rest_rows[i - 1] = std::min(i, rest - 1) * 64;
  }
  Sums sums[R];
  Accumulate(args, sums);
  StoreRow(e, row, y, sums[0]);
  if constexpr (R >= 2) StoreRow(e, row + 1, y, sums[1]);
  if constexpr (R >= 4) {
    StoreRow(e, row + 2, y, sums[2]);
    StoreRow(e, row + 3, y, sums[3]);
  }
  if constexpr (R >= 6) {
    StoreRow(e, row + 4, y, sums[4]);
    StoreRow(e, row + 5, y, sums[5]);
  }
}

using PanelFn = void (*)(const uint8_t*, const int8_t*, int64_t, const EpilogueView&, int64_t,
                         void*) noexcept;
// Every number of rows is a sum of 6, 4, 2 and 1.
struct Height {
  int64_t rows;
  PanelFn panel;
};
constexpr Height kHeights[] = {{6, Panel<6>}, {4, Panel<4>}, {2, Panel<2>}, {1, Panel<1>}};

class DenseAvx512Vnni final : public PackedGemm {
 public:
  explicit DenseAvx512Vnni(const GemmWeights& weights)
      : m_(weights.m),
        k_(weights.k),
        values_(PackDensePanels(weights, 4, {6, 4, 2, 1})),
        epilogue_(weights.epilogue, weights.m) {}

  void RunColumns(const uint8_t* x, int64_t columns, void* y,
                  std::byte* scratch) const noexcept override {
    const int64_t x_bytes = k_ * kTileColumns;
    const int64_t y_bytes = m_ * kTileColumns * OutputBytes(epilogue_.view().output);
    auto* out = static_cast<std::byte*>(y);
    for (; columns > 0; columns -= kTileColumns, x += x_bytes, out += y_bytes) {
      if (columns < kTileColumns && RunTail(x, columns, out, scratch)) return;
      RunTile(x, out);
    }
  }
  size_t scratch_bytes() const override { return DenseTailScratch(k_); }
  size_t weight_bytes() const override { return values_.size_bytes() + epilogue_.size_bytes(); }
  const char* kernel_name() const override { return "dense_avx512vnni"; }

 private:
  void RunTile(const uint8_t* x, void* y) const noexcept {
    const EpilogueView e = epilogue_.view();
    const int64_t k_padded = (k_ + 3) / 4 * 4;
    for (int64_t row = 0; row < m_;) {
      const Height& height = *std::find_if(std::begin(kHeights), std::end(kHeights),
                                           [&](const Height& h) { return h.rows <= m_ - row; });
      height.panel(x, values_.data() + row * k_padded, k_, e, row, y);
      row += height.rows;
    }
  }
  bool RunTail(const uint8_t* x, int64_t columns, void* y, std::byte* scratch) const noexcept {
    const DenseTail tail{.x = x,
                         .columns = columns,
                         .w = values_.data(),
                         .m = m_,
                         .k = k_,
                         .y = y,
                         .scratch = scratch};
    return RunDenseTailAvx512Vnni(tail, epilogue_.view());
  }

  int64_t m_, k_;
  AlignedBuffer<int8_t> values_;
  PackedEpilogue epilogue_;
};

}  // namespace

void DenseRowAvx512Vnni(const uint8_t* x, const int8_t* w, int64_t k, const EpilogueView& e,
                        int64_t row, void* y) noexcept {
  Panel<1>(x, w, k, e, row, y);
}

std::unique_ptr<PackedGemm> PackDenseAvx512Vnni(const GemmWeights& weights) {
  return std::make_unique<DenseAvx512Vnni>(weights);
}

}  // namespace pared

#pragma GCC pop_options
