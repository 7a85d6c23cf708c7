// Rx1 sparse kernels for AVX-512 VNNI; the format is in kernels/sparse.h.
//
// One step is one entry: four rows of x, anywhere in the tile, become a quad by 8 unpacks, as in
// the dense kernel, and each of the R rows adds its four weights times the quad:
//
//   R = 1: 4 loads, 8 unpacks,  4 vpdpbusd     a dense row of the same weights:  4 vpdpbusd
//   R = 2: 4 loads, 8 unpacks,  8 vpdpbusd                                       8
//   R = 4: 4 loads, 8 unpacks, 16 vpdpbusd                                      16
//
// R = 1 and 2 go over two tiles at once where there are two, so that offsets and weights are read
// once for 128 columns. Blocks of k keep what is read of x in the caches; sums wait in scratch from
// one block to the next.

#include <algorithm>
#include <array>
#include <utility>

#include "kernels/avx512vnni.h"
#include "kernels/kernels.h"
#include "kernels/sparse.h"

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")

namespace pared {
namespace {

using namespace avx512;

// What one assembly statement reads.
struct SparseArgs {
  const uint8_t* x;           // 0: of the block, first tile
  const uint8_t* x2;          // 8: second tile
  const uint8_t* entries;     // 16
  int64_t count;              // 24
  const int32_t* bias;        // 32
  const std::byte* partials;  // 40: sums so far, [R][tiles of this statement][4][64 bytes], or null
};

#define SPARSE_SETUP         \
  "movq 0(%[args]), %%r8\n"  \
  "movq 8(%[args]), %%rdx\n" \
  "movq 16(%[args]), %%r9\n" \
  "movq 24(%[args]), %%rcx\n"

// Sums start from the bias, or from the partial sums of the blocks before.
#define SPARSE_INIT(broadcasts, loads)   \
  "movq 40(%[args]), %%r10\n"            \
  "testq %%r10, %%r10\n"                 \
  "jnz 4f\n"                             \
  "movq 32(%[args]), %%r10\n" broadcasts \
  "jmp 5f\n"                             \
  "4:\n" loads "5:\n"

#define SPARSE_BIAS(offset, a, b, c, d) PARED_QUAD_BROADCAST(offset "(%%r10)", a, b, c, d)
#define SPARSE_PARTIAL(row, a, b, c, d)   \
  "vmovdqa64 256*" row "(%%r10), %" a     \
  "\n"                                    \
  "vmovdqa64 256*" row "+64(%%r10), %" b  \
  "\n"                                    \
  "vmovdqa64 256*" row "+128(%%r10), %" c \
  "\n"                                    \
  "vmovdqa64 256*" row "+192(%%r10), %" d "\n"

#define SPARSE_LOOP_BEGIN    \
  "testq %%rcx, %%rcx\n"     \
  "jz 2f\n"                  \
  ".p2align 5\n"             \
  "1:\n"                     \
  "movzwl 0(%%r9), %%r10d\n" \
  "movzwl 2(%%r9), %%r11d\n" \
  "movzwl 4(%%r9), %%r12d\n" \
  "movzwl 6(%%r9), %%r13d\n"

#define SPARSE_QUAD(base) \
  "vmovdqu64 (%%" base    \
  ",%%r10,8), %%zmm24\n"  \
  "vmovdqu64 (%%" base    \
  ",%%r11,8), %%zmm25\n"  \
  "vmovdqu64 (%%" base    \
  ",%%r12,8), %%zmm26\n"  \
  "vmovdqu64 (%%" base ",%%r13,8), %%zmm27\n" PARED_QUAD_UNPACK

#define SPARSE_WEIGHTS(offset, weights) "vpbroadcastd " offset "(%%r9), %%zmm" weights "\n"

#define SPARSE_LOOP_END(entry_bytes) \
  "addq $" entry_bytes               \
  ", %%r9\n"                         \
  "decq %%rcx\n"                     \
  "jnz 1b\n"                         \
  "2:\n"

#define SPARSE_CLOBBERS "r8", "r9", "r10", "r11", "r12", "r13", "rcx", "rdx", PARED_QUAD_CLOBBERS

// Accumulate<R, T>: R rows over T tiles; sums of row r and tile t in s[r * T + t].
template <int R, int T>
void Accumulate(const SparseArgs& args, Sums (&s)[R * T]);

template <>
[[gnu::always_inline]] inline void Accumulate<1, 1>(const SparseArgs& args, Sums (&s)[1]) {
  asm volatile(SPARSE_SETUP SPARSE_INIT(SPARSE_BIAS("0", "0", "1", "2", "3"),
                                        SPARSE_PARTIAL("0", "0", "1", "2", "3"))
                   SPARSE_LOOP_BEGIN SPARSE_QUAD("r8") SPARSE_WEIGHTS("8", "28")
                       PARED_QUAD_DOT("28", "0", "1", "2", "3") SPARSE_LOOP_END("12")
               : PARED_SUMS_OUT(s[0])
               : [args] "r"(&args)
               : SPARSE_CLOBBERS);
}

template <>
[[gnu::always_inline]] inline void Accumulate<1, 2>(const SparseArgs& args, Sums (&s)[2]) {
  asm volatile(SPARSE_SETUP SPARSE_INIT(
                   SPARSE_BIAS("0", "0", "1", "2", "3") SPARSE_BIAS("0", "4", "5", "6", "7"),
                   SPARSE_PARTIAL("0", "0", "1", "2", "3") SPARSE_PARTIAL("1", "4", "5", "6", "7"))
                   SPARSE_LOOP_BEGIN SPARSE_QUAD("r8") SPARSE_WEIGHTS("8", "28") PARED_QUAD_DOT(
                       "28", "0", "1", "2", "3") SPARSE_QUAD("rdx") SPARSE_WEIGHTS("8", "28")
                       PARED_QUAD_DOT("28", "4", "5", "6", "7") SPARSE_LOOP_END("12")
               : PARED_SUMS_OUT(s[0]), PARED_SUMS_OUT(s[1])
               : [args] "r"(&args)
               : SPARSE_CLOBBERS);
}

template <>
[[gnu::always_inline]] inline void Accumulate<2, 1>(const SparseArgs& args, Sums (&s)[2]) {
  asm volatile(SPARSE_SETUP SPARSE_INIT(
                   SPARSE_BIAS("0", "0", "1", "2", "3") SPARSE_BIAS("4", "4", "5", "6", "7"),
                   SPARSE_PARTIAL("0", "0", "1", "2", "3") SPARSE_PARTIAL("1", "4", "5", "6", "7"))
                   SPARSE_LOOP_BEGIN SPARSE_QUAD("r8") SPARSE_WEIGHTS("8", "28")
                       SPARSE_WEIGHTS("12", "29") PARED_QUAD_DOT("28", "0", "1", "2", "3")
                           PARED_QUAD_DOT("29", "4", "5", "6", "7") SPARSE_LOOP_END("16")
               : PARED_SUMS_OUT(s[0]), PARED_SUMS_OUT(s[1])
               : [args] "r"(&args)
               : SPARSE_CLOBBERS);
}

#define SPARSE_SUMS_4 \
  PARED_SUMS_OUT(s[0]), PARED_SUMS_OUT(s[1]), PARED_SUMS_OUT(s[2]), PARED_SUMS_OUT(s[3])
#define SPARSE_PARTIALS_4                 \
  SPARSE_PARTIAL("0", "0", "1", "2", "3") \
  SPARSE_PARTIAL("1", "4", "5", "6", "7") \
  SPARSE_PARTIAL("2", "8", "9", "10", "11") SPARSE_PARTIAL("3", "12", "13", "14", "15")

template <>
[[gnu::always_inline]] inline void Accumulate<2, 2>(const SparseArgs& args, Sums (&s)[4]) {
  asm volatile(
      SPARSE_SETUP SPARSE_INIT(
          SPARSE_BIAS("0", "0", "1", "2", "3") SPARSE_BIAS("0", "4", "5", "6", "7")
              SPARSE_BIAS("4", "8", "9", "10", "11") SPARSE_BIAS("4", "12", "13", "14", "15"),
          SPARSE_PARTIALS_4) SPARSE_LOOP_BEGIN SPARSE_QUAD("r8") SPARSE_WEIGHTS("8", "28")
          SPARSE_WEIGHTS("12", "29") PARED_QUAD_DOT("28", "0", "1", "2", "3") PARED_QUAD_DOT(
              "29", "8", "9", "10", "11") SPARSE_QUAD("rdx") SPARSE_WEIGHTS("8", "28")
              SPARSE_WEIGHTS("12", "29") PARED_QUAD_DOT("28", "4", "5", "6", "7")
                  PARED_QUAD_DOT("29", "12", "13", "14", "15") SPARSE_LOOP_END("16")
      : SPARSE_SUMS_4
      : [args] "r"(&args)
      : SPARSE_CLOBBERS);
}

template <>
[[gnu::always_inline]] inline void Accumulate<4, 1>(const SparseArgs& args, Sums (&s)[4]) {
  asm volatile(
      SPARSE_SETUP SPARSE_INIT(
          SPARSE_BIAS("0", "0", "1", "2", "3") SPARSE_BIAS("4", "4", "5", "6", "7")
              SPARSE_BIAS("8", "8", "9", "10", "11") SPARSE_BIAS("12", "12", "13", "14", "15"),
          SPARSE_PARTIALS_4) SPARSE_LOOP_BEGIN SPARSE_QUAD("r8") SPARSE_WEIGHTS("8", "28")
          SPARSE_WEIGHTS("12", "29") SPARSE_WEIGHTS("16", "30") SPARSE_WEIGHTS("20", "31")
              PARED_QUAD_DOT("28", "0", "1", "2", "3") PARED_QUAD_DOT("29", "4", "5", "6", "7")
                  PARED_QUAD_DOT("30", "8", "9", "10", "11")
                      PARED_QUAD_DOT("31", "12", "13", "14", "15") SPARSE_LOOP_END("24")
      : SPARSE_SUMS_4
      : [args] "r"(&args)
      : SPARSE_CLOBBERS);
}

[[gnu::always_inline]] inline void StorePartial(std::byte* out, const Sums& s) {
  _mm512_store_si512(out, s.c0);
  _mm512_store_si512(out + 64, s.c1);
  _mm512_store_si512(out + 128, s.c2);
  _mm512_store_si512(out + 192, s.c3);
}

// One tile, or two, as a RunTiles call sees them.
struct Tiles {
  const uint8_t* x;    // [T][k][64]
  int64_t x_stride;    // bytes from tile to tile
  std::byte* y;        // [T][m][64]
  int64_t y_stride;    // bytes
  std::byte* scratch;  // partial sums
  // What the next call reads, or null: lines of x to ask for meanwhile.
  const uint8_t* next;
  int64_t next_lines;
};

// Lists jump about in x, which no hardware prefetcher follows: where x is larger than half of a
// 1 MB L2 cache, the next tiles are fetched while these are in work.
constexpr int64_t kFetchedBytes = 512 * 1024;

// All rows over T tiles.
template <int R, int T>
void RunTiles(const SparseLists& lists, int64_t block_k, const EpilogueView& e, int64_t m,
              const Tiles& tiles) noexcept {
  SparseArgs args{};
  args.entries = lists.entries();
  const uint32_t* count = lists.counts();
  const int64_t groups = lists.blocks() * lists.row_groups();
  const int64_t lines = (tiles.next_lines + groups - 1) / groups;  // a group
  const uint8_t* next = tiles.next;
  const uint8_t* const next_end = next + tiles.next_lines * 64;
  for (int64_t block = 0; block < lists.blocks(); ++block) {
    args.x = tiles.x + block * block_k * 64;
    args.x2 = args.x + tiles.x_stride;
    const bool is_last = block + 1 == lists.blocks();
    for (int64_t group = 0; group < lists.row_groups(); ++group) {
      std::byte* partials = tiles.scratch + group * R * T * 256;
      args.count = *count++;
      args.bias = e.bias + group * R;
      args.partials = block == 0 ? nullptr : partials;
      for (int64_t i = 0; i < lines && next < next_end; ++i, next += 64) {
        _mm_prefetch(next, _MM_HINT_T1);
      }
      Sums sums[R * T];
      Accumulate<R, T>(args, sums);
      args.entries += args.count * (8 + 4 * R);
#pragma GCC unroll 4
      for (int i = 0; i < R * T; ++i) {
        const int64_t row = group * R + i / T;
        if (!is_last) {
          StorePartial(partials + i * 256, sums[i]);
        } else if (row < m) {
          StoreRow(e, row, tiles.y + (i % T) * tiles.y_stride, sums[i]);
        }
      }
    }
  }
}

template <int R, int... r>
[[gnu::always_inline]] inline void NarrowStep(__m512i (&sums)[R], const uint8_t* x,
                                              const uint8_t* entry,
                                              std::integer_sequence<int, r...>) {
  uint16_t offsets[4];
  __builtin_memcpy(offsets, entry, sizeof offsets);
  const __m512i q =
      Interleave16(x + offsets[0] * 8, x + offsets[1] * 8, x + offsets[2] * 8, x + offsets[3] * 8);
  const int8_t* w = reinterpret_cast<const int8_t*>(entry + 8);
  (Dot(sums[r], q, BroadcastWeights(w + 4 * r)), ...);
}

// All rows over columns [0, 16) of one tile: x and y may begin inside one.
template <int R>
void RunColumns16(const SparseLists& lists, int64_t block_k, const EpilogueView& e, int64_t m,
                  const Tiles& tiles) noexcept {
  constexpr std::make_integer_sequence<int, R> kRows;
  const uint8_t* entry = lists.entries();
  const uint32_t* count = lists.counts();
  for (int64_t block = 0; block < lists.blocks(); ++block) {
    const uint8_t* x = tiles.x + block * block_k * 64;
    const bool is_last = block + 1 == lists.blocks();
    for (int64_t group = 0; group < lists.row_groups(); ++group) {
      std::byte* partials = tiles.scratch + group * R * 64;
      __m512i sums[R];
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) {
        sums[r] = block == 0 ? _mm512_set1_epi32(e.bias[group * R + r])
                             : _mm512_load_si512(partials + r * 64);
      }
      for (uint32_t i = *count++; i > 0; --i, entry += 8 + 4 * R) {
        NarrowStep<R>(sums, x, entry, kRows);
      }
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) {
        if (!is_last) {
          _mm512_store_si512(partials + r * 64, sums[r]);
        } else if (group * R + r < m) {
          StoreRow16(e, group * R + r, tiles.y, sums[r]);
        }
      }
    }
  }
}

// Where lane i of four 128-bit lanes finds what belongs to its row.
[[gnu::always_inline]] inline __m512i RowOfLane() {
  return _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
}

// The dwords of R rows, each in all of its row's lanes.
template <int R>
[[gnu::always_inline]] inline __m512i SpreadRows(const void* rows) {
  if constexpr (R == 1) {
    int32_t one = 0;
    __builtin_memcpy(&one, rows, 4);
    return _mm512_set1_epi32(one);
  } else if constexpr (R == 2) {
    const __m128i two = _mm_loadl_epi64(static_cast<const __m128i*>(rows));
    return _mm512_permutexvar_epi32(RowOfLane(), _mm512_castsi128_si512(two));
  } else {
    const __m128i four = _mm_loadu_si128(static_cast<const __m128i*>(rows));
    return _mm512_permutexvar_epi32(RowOfLane(), _mm512_castsi128_si512(four));
  }
}

// Four k of four columns, columns in order, in the first R 128-bit lanes.
template <int R>
[[gnu::always_inline]] inline __m512i Interleave4(const uint8_t* x, const uint8_t* entry) {
  uint16_t offsets[4];
  __builtin_memcpy(offsets, entry, sizeof offsets);
  int32_t k[4];
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) __builtin_memcpy(&k[i], x + offsets[i] * 8, 4);
  const __m128i bytes = _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  const __m128i quads = _mm_shuffle_epi8(_mm_setr_epi32(k[0], k[1], k[2], k[3]), bytes);
  return R == 1 ? _mm512_castsi128_si512(quads) : _mm512_broadcast_i32x4(quads);
}

// R rows of four columns, row r in 128-bit lane r.
template <int R>
void StoreRows4(const EpilogueView& e, int64_t row, int64_t m, std::byte* y, __m512i sums) {
  const int64_t bytes = OutputBytes(e.output);
  if (e.output != GemmOutput::kInt32) {
    sums = Finished(e, sums, _mm512_castsi512_ps(SpreadRows<R>(e.scale + row)));
    if (bytes == 1) sums = _mm512_castsi128_si512(_mm512_cvtepi32_epi8(sums));
  }
  alignas(64) std::byte values[64];
  _mm512_store_si512(values, sums);
  for (int64_t r = 0; r < R && row + r < m; ++r) {
    std::byte* out = y + (row + r) * kTileColumns * bytes;
    if (bytes == 1) {
      __builtin_memcpy(out, values + 4 * r, 4);
    } else {
      __builtin_memcpy(out, values + 16 * r, 16);
    }
  }
}

// All rows over columns [0, 4) of one tile.
template <int R>
void RunColumns4(const SparseLists& lists, int64_t block_k, const EpilogueView& e, int64_t m,
                 const Tiles& tiles) noexcept {
  const uint8_t* entry = lists.entries();
  const uint32_t* count = lists.counts();
  for (int64_t block = 0; block < lists.blocks(); ++block) {
    const uint8_t* x = tiles.x + block * block_k * 64;
    for (int64_t group = 0; group < lists.row_groups(); ++group) {
      std::byte* partials = tiles.scratch + group * 64;
      __m512i sums = block == 0 ? SpreadRows<R>(e.bias + group * R) : _mm512_load_si512(partials);
      for (uint32_t i = *count++; i > 0; --i, entry += 8 + 4 * R) {
        Dot(sums, Interleave4<R>(x, entry), SpreadRows<R>(entry + 8));
      }
      if (block + 1 < lists.blocks()) {
        _mm512_store_si512(partials, sums);
      } else {
        StoreRows4<R>(e, group * R, m, tiles.y, sums);
      }
    }
  }
}

// Rows of a tile in a block. R = 1 is bound by loads and wants most of them from the L1 cache; with
// more rows an entry only L2 matters: two tiles of a block take half of 1 MB.
constexpr int64_t kBlockRows1 = 1280;
constexpr int64_t kBlockRows = 4096;

template <int R>
class SparseAvx512Vnni final : public PackedGemm {
 public:
  SparseAvx512Vnni(const GemmWeights& weights, const char* name)
      : m_(weights.m),
        k_(weights.k),
        block_k_(SparseBlockK(weights.k, R == 1 ? kBlockRows1 : kBlockRows)),
        name_(name),
        lists_(weights, {.rows = R, .group = 4, .block_k = block_k_}),
        epilogue_(weights.epilogue, lists_.row_groups() * R) {}

  void RunColumns(const uint8_t* x, int64_t columns, void* y,
                  std::byte* scratch) const noexcept override {
    const EpilogueView e = epilogue_.view();
    Tiles tiles{.x = x,
                .x_stride = k_ * kTileColumns,
                .y = static_cast<std::byte*>(y),
                .y_stride = m_ * kTileColumns * OutputBytes(e.output),
                .scratch = scratch,
                .next = nullptr,
                .next_lines = 0};
    const bool fetches = columns * k_ > kFetchedBytes;
    while (columns > 0) {
      // 33 columns are computed as 64.
      const int64_t count = R <= 2 && columns > 64 + 32 ? 2 : 1;
      const int64_t left = (columns + kTileColumns - 1) / kTileColumns - count;
      if (fetches) {
        tiles.next = tiles.x + count * tiles.x_stride;
        tiles.next_lines = std::min(left, count) * k_;
      }
      if (columns <= 4) {
        RunColumns4<R>(lists_, block_k_, e, m_, tiles);
      } else if (columns <= 32) {
        RunColumns16<R>(lists_, block_k_, e, m_, tiles);
        if (columns > 16) {
          Tiles next = tiles;
          next.x += 16;
          next.y += 16 * OutputBytes(e.output);
          RunColumns16<R>(lists_, block_k_, e, m_, next);
        }
      } else if (count == 2) {
        RunTiles<R, R <= 2 ? 2 : 1>(lists_, block_k_, e, m_, tiles);
      } else {
        RunTiles<R, 1>(lists_, block_k_, e, m_, tiles);
      }
      columns -= count * kTileColumns;
      tiles.x += count * tiles.x_stride;
      tiles.y += count * tiles.y_stride;
    }
  }
  size_t scratch_bytes() const override {
    if (lists_.blocks() == 1) return 0;
    return static_cast<size_t>(lists_.row_groups() * R * 256 * (R <= 2 ? 2 : 1));
  }
  size_t weight_bytes() const override { return lists_.size_bytes() + epilogue_.size_bytes(); }
  const char* kernel_name() const override { return name_; }

 private:
  int64_t m_, k_, block_k_;
  const char* name_;
  SparseLists lists_;
  PackedEpilogue epilogue_;
};

}  // namespace

std::unique_ptr<PackedGemm> PackSparse1x1Avx512Vnni(const GemmWeights& weights) {
  return std::make_unique<SparseAvx512Vnni<1>>(weights, "sparse_1x1_avx512vnni");
}
std::unique_ptr<PackedGemm> PackSparse2x1Avx512Vnni(const GemmWeights& weights) {
  return std::make_unique<SparseAvx512Vnni<2>>(weights, "sparse_2x1_avx512vnni");
}
std::unique_ptr<PackedGemm> PackSparse4x1Avx512Vnni(const GemmWeights& weights) {
  return std::make_unique<SparseAvx512Vnni<4>>(weights, "sparse_4x1_avx512vnni");
}

}  // namespace pared

#pragma GCC pop_options
