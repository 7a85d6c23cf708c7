// The loops of the sparse AVX-512 VNNI kernels: a list of entries (kernels/sparse.h) over one or
// two whole tiles.
//
// Of a tile a step makes a quad, as the dense kernel does. Up to 8 columns behind the last tile
// were packed to [k][8] bytes, which stay in the L1 cache; two unpacks make pairs of them and two
// make the quads of columns 0-3 and 4-7. With the entry's offsets and weights at hand that is 8
// narrow instructions more than the 20 of a tile with R = 1.
//
// Included by sparse_avx512vnni.cc only, inside its target pragma.

#pragma once

#include "kernels/avx512vnni.h"
#include "kernels/vnni_256.h"

namespace pared {
namespace {

using namespace avx512;

constexpr int64_t kBehindMax = 8;     // columns
constexpr int64_t kBehindSlack = 64;  // bytes: the last row is read as 16

inline void PackBehind(const uint8_t* x, int64_t k, uint8_t* packed) {
  for (int64_t i = 0; i < k; ++i) {
    __builtin_memcpy(packed + i * kBehindMax, x + i * kTileColumns, kBehindMax);
  }
}

// What one assembly statement reads.
struct SparseArgs {
  const uint8_t* x;           // 0: of the block, first tile
  const uint8_t* x2;          // 8: second tile, or the packed columns behind the first
  const int32_t* bias;        // 16
  const std::byte* partials;  // 24: sums so far, as StorePartials leaves them, or null
};

// Sums of row r and tile t in tiles[r * T + t]; of the columns behind, in the low halves.
template <int R, int T>
struct SparseSums {
  Sums tiles[R * T];
  Vectors256<2> behind[R];
};

// Operands: the sums of tile t and row r are group 4 (r T + t), words follow as pairs.
#define SPARSE_SUMS_0 "0", "1", "2", "3"
#define SPARSE_SUMS_4 "4", "5", "6", "7"
#define SPARSE_SUMS_8 "8", "9", "10", "11"
#define SPARSE_SUMS_12 "12", "13", "14", "15"
#define SPARSE_PAIR_4 "4", "5"
#define SPARSE_PAIR_8 "8", "9"
#define SPARSE_PAIR_10 "10", "11"
#define SPARSE_PAIR_16 "16", "17"
#define SPARSE_PAIR_18 "18", "19"
#define SPARSE_PAIR_20 "20", "21"
#define SPARSE_PAIR_22 "22", "23"

// Sums start from the bias, or from the partial sums of the blocks before.
#define SPARSE_BIAS_(...) PARED_QUAD_BROADCAST(__VA_ARGS__)
#define SPARSE_BIAS(offset, group) SPARSE_BIAS_(offset "(%%r10)", SPARSE_SUMS_##group)
#define SPARSE_BEHIND_BIAS_(offset, a, b) \
  "vpbroadcastd " offset "(%%r10), %" a   \
  "\n"                                    \
  "vmovdqa64 %" a ", %" b "\n"
#define SPARSE_BEHIND_BIAS_EACH(...) SPARSE_BEHIND_BIAS_(__VA_ARGS__)
#define SPARSE_BEHIND_BIAS(offset, pair) SPARSE_BEHIND_BIAS_EACH(offset, SPARSE_PAIR_##pair)

#define SPARSE_PARTIAL_(offset, a, b, c, d) \
  "vmovdqa64 " offset "(%%r10), %" a        \
  "\n"                                      \
  "vmovdqa64 " offset "+64(%%r10), %" b     \
  "\n"                                      \
  "vmovdqa64 " offset "+128(%%r10), %" c    \
  "\n"                                      \
  "vmovdqa64 " offset "+192(%%r10), %" d "\n"
#define SPARSE_PARTIAL_EACH(...) SPARSE_PARTIAL_(__VA_ARGS__)
#define SPARSE_PARTIAL(offset, group) SPARSE_PARTIAL_EACH(offset, SPARSE_SUMS_##group)
#define SPARSE_BEHIND_PARTIAL_(offset, a, b) \
  "vmovdqa64 " offset "(%%r10), %" a         \
  "\n"                                       \
  "vmovdqa64 " offset "+32(%%r10), %" b "\n"
#define SPARSE_BEHIND_PARTIAL_EACH(...) SPARSE_BEHIND_PARTIAL_(__VA_ARGS__)
#define SPARSE_BEHIND_PARTIAL(offset, pair) SPARSE_BEHIND_PARTIAL_EACH(offset, SPARSE_PAIR_##pair)

// The quad of the tile at `base`, from zmm24 to 27.
#define SPARSE_QUAD(base) \
  "vmovdqu64 (%%" base    \
  ",%%r10,8), %%zmm24\n"  \
  "vmovdqu64 (%%" base    \
  ",%%r11,8), %%zmm25\n"  \
  "vmovdqu64 (%%" base    \
  ",%%r12,8), %%zmm26\n"  \
  "vmovdqu64 (%%" base ",%%r13,8), %%zmm27\n" PARED_QUAD_UNPACK

// The quads of the columns behind, in xmm24 and 25.
#define SPARSE_BEHIND_QUAD                       \
  "vmovq (%%rdx,%%r10), %%xmm25\n"               \
  "vmovq (%%rdx,%%r12), %%xmm26\n"               \
  "vpunpcklbw (%%rdx,%%r11), %%xmm25, %%xmm25\n" \
  "vpunpcklbw (%%rdx,%%r13), %%xmm26, %%xmm26\n" \
  "vpunpcklwd %%xmm26, %%xmm25, %%xmm24\n"       \
  "vpunpckhwd %%xmm26, %%xmm25, %%xmm25\n"

#define SPARSE_WEIGHTS(offset, weights) "vpbroadcastd " offset "(%[entries]), %%zmm" weights "\n"
#define SPARSE_WEIGHTS_1 SPARSE_WEIGHTS("8", "28")
#define SPARSE_WEIGHTS_2 SPARSE_WEIGHTS_1 SPARSE_WEIGHTS("12", "29")
#define SPARSE_WEIGHTS_4 SPARSE_WEIGHTS_2 SPARSE_WEIGHTS("16", "30") SPARSE_WEIGHTS("20", "31")

#define SPARSE_DOT_(...) PARED_QUAD_DOT(__VA_ARGS__)
#define SPARSE_DOT(weights, group) SPARSE_DOT_(weights, SPARSE_SUMS_##group)
#define SPARSE_BEHIND_DOT_(weights, a, b)    \
  "vpdpbusd %%xmm" weights ", %%xmm24, %x" a \
  "\n"                                       \
  "vpdpbusd %%xmm" weights ", %%xmm25, %x" b "\n"
#define SPARSE_BEHIND_DOT_EACH(...) SPARSE_BEHIND_DOT_(__VA_ARGS__)
#define SPARSE_BEHIND_DOT(weights, pair) SPARSE_BEHIND_DOT_EACH(weights, SPARSE_PAIR_##pair)

// A step of R rows over a tile, and over the columns behind with the weights that it loaded.
#define SPARSE_TILE_1(base, a) SPARSE_QUAD(base) SPARSE_WEIGHTS_1 SPARSE_DOT("28", a)
#define SPARSE_TILE_2(base, a, b) \
  SPARSE_QUAD(base) SPARSE_WEIGHTS_2 SPARSE_DOT("28", a) SPARSE_DOT("29", b)
#define SPARSE_TILE_4 \
  SPARSE_QUAD("r8")   \
  SPARSE_WEIGHTS_4 SPARSE_DOT("28", 0) SPARSE_DOT("29", 4) SPARSE_DOT("30", 8) SPARSE_DOT("31", 12)
#define SPARSE_BEHIND_1 SPARSE_BEHIND_QUAD SPARSE_BEHIND_DOT("28", 4)
#define SPARSE_BEHIND_2 SPARSE_BEHIND_QUAD SPARSE_BEHIND_DOT("28", 8) SPARSE_BEHIND_DOT("29", 10)
#define SPARSE_BEHIND_4                                                      \
  SPARSE_BEHIND_QUAD SPARSE_BEHIND_DOT("28", 16) SPARSE_BEHIND_DOT("29", 18) \
      SPARSE_BEHIND_DOT("30", 20) SPARSE_BEHIND_DOT("31", 22)

#define SPARSE_ASM(entry_bytes, bias, partials, step, ...)          \
  asm volatile(                                                     \
      "movq 0(%[args]), %%r8\n"                                     \
      "movq 8(%[args]), %%rdx\n"                                    \
      "movq 24(%[args]), %%r10\n"                                   \
      "testq %%r10, %%r10\n"                                        \
      "jnz 4f\n"                                                    \
      "movq 16(%[args]), %%r10\n" bias                              \
      "jmp 5f\n"                                                    \
      "4:\n" partials                                               \
      "5:\n"                                                        \
      "testq %[count], %[count]\n"                                  \
      "jz 2f\n"                                                     \
      ".p2align 5\n"                                                \
      "1:\n"                                                        \
      "movzwl 0(%[entries]), %%r10d\n"                              \
      "movzwl 2(%[entries]), %%r11d\n"                              \
      "movzwl 4(%[entries]), %%r12d\n"                              \
      "movzwl 6(%[entries]), %%r13d\n" step "addq $" entry_bytes    \
      ", %[entries]\n"                                              \
      "decq %[count]\n"                                             \
      "jnz 1b\n"                                                    \
      "2:\n"                                                        \
      : __VA_ARGS__, [entries] "+&r"(entries), [count] "+&r"(count) \
      : [args] "r"(&args)                                           \
      : "r8", "r10", "r11", "r12", "r13", "rdx", PARED_QUAD_CLOBBERS)

#define SPARSE_OUT(i) PARED_SUMS_OUT(s.tiles[i])
#define SPARSE_BEHIND_OUT(i) "=&v"(s.behind[i].v[0]), "=&v"(s.behind[i].v[1])
#define SPARSE_OUT_2 SPARSE_OUT(0), SPARSE_OUT(1)
#define SPARSE_OUT_4 SPARSE_OUT_2, SPARSE_OUT(2), SPARSE_OUT(3)
#define SPARSE_BEHIND_OUT_2 SPARSE_BEHIND_OUT(0), SPARSE_BEHIND_OUT(1)
#define SPARSE_BEHIND_OUT_4 SPARSE_BEHIND_OUT_2, SPARSE_BEHIND_OUT(2), SPARSE_BEHIND_OUT(3)

#define SPARSE_TWO_BIAS SPARSE_BIAS("0", 0) SPARSE_BIAS("4", 4)
#define SPARSE_TWO_PARTIAL SPARSE_PARTIAL("0", 0) SPARSE_PARTIAL("256", 4)
#define SPARSE_FOUR_BIAS SPARSE_TWO_BIAS SPARSE_BIAS("8", 8) SPARSE_BIAS("12", 12)
#define SPARSE_FOUR_PARTIAL SPARSE_TWO_PARTIAL SPARSE_PARTIAL("512", 8) SPARSE_PARTIAL("768", 12)

// Sets s to what a list of `count` entries makes of T tiles and, where kBehind, of the columns
// behind; `entries` is left behind the list.
template <int R, int T, bool kBehind>
[[gnu::always_inline]] inline void Accumulate(const SparseArgs& args, const uint8_t*& entries,
                                              int64_t count, SparseSums<R, T>& s) {
  static_assert(R == 1 || R == 2 || R == 4);
  static_assert(T == 1 || (R <= 2 && T == 2 && !kBehind));
  if constexpr (R == 1 && T == 2) {
    SPARSE_ASM("12", SPARSE_BIAS("0", 0) SPARSE_BIAS("0", 4), SPARSE_TWO_PARTIAL,
               SPARSE_TILE_1("r8", 0) SPARSE_TILE_1("rdx", 4), SPARSE_OUT_2);
  } else if constexpr (T == 2) {
    SPARSE_ASM(
        "16", SPARSE_BIAS("0", 0) SPARSE_BIAS("0", 4) SPARSE_BIAS("4", 8) SPARSE_BIAS("4", 12),
        SPARSE_FOUR_PARTIAL, SPARSE_TILE_2("r8", 0, 8) SPARSE_TILE_2("rdx", 4, 12), SPARSE_OUT_4);
  } else if constexpr (R == 1 && !kBehind) {
    SPARSE_ASM("12", SPARSE_BIAS("0", 0), SPARSE_PARTIAL("0", 0), SPARSE_TILE_1("r8", 0),
               SPARSE_OUT(0));
  } else if constexpr (R == 1) {
    SPARSE_ASM("12", SPARSE_BIAS("0", 0) SPARSE_BEHIND_BIAS("0", 4),
               SPARSE_PARTIAL("0", 0) SPARSE_BEHIND_PARTIAL("256", 4),
               SPARSE_TILE_1("r8", 0) SPARSE_BEHIND_1, SPARSE_OUT(0), SPARSE_BEHIND_OUT(0));
  } else if constexpr (R == 2 && !kBehind) {
    SPARSE_ASM("16", SPARSE_TWO_BIAS, SPARSE_TWO_PARTIAL, SPARSE_TILE_2("r8", 0, 4), SPARSE_OUT_2);
  } else if constexpr (R == 2) {
    SPARSE_ASM("16", SPARSE_TWO_BIAS SPARSE_BEHIND_BIAS("0", 8) SPARSE_BEHIND_BIAS("4", 10),
               SPARSE_TWO_PARTIAL SPARSE_BEHIND_PARTIAL("512", 8) SPARSE_BEHIND_PARTIAL("576", 10),
               SPARSE_TILE_2("r8", 0, 4) SPARSE_BEHIND_2, SPARSE_OUT_2, SPARSE_BEHIND_OUT_2);
  } else if constexpr (!kBehind) {
    SPARSE_ASM("24", SPARSE_FOUR_BIAS, SPARSE_FOUR_PARTIAL, SPARSE_TILE_4, SPARSE_OUT_4);
  } else {
    SPARSE_ASM("24",
               SPARSE_FOUR_BIAS SPARSE_BEHIND_BIAS("0", 16) SPARSE_BEHIND_BIAS("4", 18)
                   SPARSE_BEHIND_BIAS("8", 20) SPARSE_BEHIND_BIAS("12", 22),
               SPARSE_FOUR_PARTIAL SPARSE_BEHIND_PARTIAL("1024", 16) SPARSE_BEHIND_PARTIAL(
                   "1088", 18) SPARSE_BEHIND_PARTIAL("1152", 20) SPARSE_BEHIND_PARTIAL("1216", 22),
               SPARSE_TILE_4 SPARSE_BEHIND_4, SPARSE_OUT_4, SPARSE_BEHIND_OUT_4);
  }
}

template <int R, int T, bool kBehind>
constexpr int64_t kPartialBytes = R*(T * 256 + (kBehind ? 64 : 0));

// The sums as the next block's Accumulate reads them.
template <int R, int T, bool kBehind>
[[gnu::always_inline]] inline void StorePartials(std::byte* out, const SparseSums<R, T>& s) {
#pragma GCC unroll 4
  for (int i = 0; i < R * T; ++i, out += 256) {
    _mm512_store_si512(out, s.tiles[i].c0);
    _mm512_store_si512(out + 64, s.tiles[i].c1);
    _mm512_store_si512(out + 128, s.tiles[i].c2);
    _mm512_store_si512(out + 192, s.tiles[i].c3);
  }
  if constexpr (kBehind) {
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r, out += 64) {
      _mm256_store_si256(reinterpret_cast<__m256i*>(out), s.behind[r].v[0]);
      _mm256_store_si256(reinterpret_cast<__m256i*>(out + 32), s.behind[r].v[1]);
    }
  }
}

// The sums of the columns behind, in order.
[[gnu::always_inline]] inline Vectors256<2> InOrder(const Vectors256<2>& s) {
  return {_mm256_inserti128_si256(s.v[0], _mm256_castsi256_si128(s.v[1]), 1),
          _mm256_setzero_si256()};
}

}  // namespace
}  // namespace pared
