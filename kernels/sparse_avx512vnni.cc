// Rx1 sparse kernels for AVX-512 VNNI; the format is in kernels/sparse.h.
//
// One step is one entry: four rows of x, anywhere in the tile, become a quad by 8 unpacks, as in
// the dense kernel, and each of the R rows adds its four weights times the quad:
//
//   R = 1: 4 loads, 8 unpacks,  4 vpdpbusd     a dense row of the same weights:  4 vpdpbusd
//   R = 2: 4 loads, 8 unpacks,  8 vpdpbusd                                       8
//   R = 4: 4 loads, 8 unpacks, 16 vpdpbusd                                      16
//
// R = 1 and 2 go over two tiles at once where there are two: lists of few entries gain, since
// offsets and weights are read once for 128 columns; R = 1 only where both fit the L1 cache. Up to
// 8 columns behind the last whole tile are done with it, other 32 and fewer by the 256-bit loops.
// Blocks of k keep what is read of x in the caches; sums wait in scratch from one block to the
// next.

#include <algorithm>

#include "kernels/avx512vnni.h"
#include "kernels/kernels.h"
#include "kernels/sparse.h"

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")

#include "kernels/sparse_steps_avx512vnni.h"

namespace pared {
namespace {

// What a RunTiles call works on: T tiles, and the columns behind them.
struct Tiles {
  const uint8_t* x;       // [T][k][64]
  int64_t x_stride;       // bytes from tile to tile
  std::byte* y;           // [T][m][64]
  int64_t y_stride;       // bytes
  const uint8_t* behind;  // [k][8], or null
  std::byte* scratch;     // partial sums
  // What the next call reads, or null: lines of x to ask for meanwhile.
  const uint8_t* next;
  int64_t next_lines;
};

// Lists jump about in x, which no hardware prefetcher follows: where x is larger than half of a
// 1 MB L2 cache, the next tiles are fetched while these are in work.
constexpr int64_t kFetchedBytes = 512 * 1024;

struct SparseProduct {
  const SparseLists& lists;
  int64_t block_k, m;
  EpilogueView e;
};

template <int R, int T, bool kBehind>
[[gnu::always_inline]] inline void StoreRows(const SparseProduct& p, const Tiles& tiles,
                                             int64_t first, const SparseSums<R, T>& s) {
#pragma GCC unroll 4
  for (int i = 0; i < R * T; ++i) {
    const int64_t row = first + i / T;
    if (row < p.m) StoreRow(p.e, row, tiles.y + i % T * tiles.y_stride, s.tiles[i]);
  }
  if constexpr (kBehind) {
    std::byte* y = tiles.y + T * tiles.y_stride;
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      if (first + r < p.m) StoreRow256(p.e, first + r, y, InOrder(s.behind[r]));
    }
  }
}

// All rows over T tiles and the columns behind them.
template <int R, int T, bool kBehind>
void RunTiles(const SparseProduct& p, const Tiles& tiles) noexcept {
  SparseArgs args{};
  const uint8_t* entries = p.lists.entries();
  const uint32_t* count = p.lists.counts();
  const int64_t groups = p.lists.blocks() * p.lists.row_groups();
  const int64_t lines = (tiles.next_lines + groups - 1) / groups;  // a group
  const uint8_t* next = tiles.next;
  const uint8_t* const next_end = next + tiles.next_lines * 64;
  for (int64_t block = 0; block < p.lists.blocks(); ++block) {
    args.x = tiles.x + block * p.block_k * kTileColumns;
    args.x2 = kBehind ? tiles.behind + block * p.block_k * kBehindMax : args.x + tiles.x_stride;
    for (int64_t group = 0; group < p.lists.row_groups(); ++group) {
      std::byte* partials = tiles.scratch + group * kPartialBytes<R, T, kBehind>;
      args.bias = p.e.bias + group * R;
      args.partials = block == 0 ? nullptr : partials;
      for (int64_t i = 0; i < lines && next < next_end; ++i, next += 64) {
        _mm_prefetch(next, _MM_HINT_T1);
      }
      SparseSums<R, T> sums;
      Accumulate<R, T, kBehind>(args, entries, *count++, sums);
      if (block + 1 < p.lists.blocks()) {
        StorePartials<R, T, kBehind>(partials, sums);
      } else {
        StoreRows<R, T, kBehind>(p, tiles, group * R, sums);
      }
    }
  }
}

// At most 16 columns and no tile before them, for the 256-bit loops: [k][16] words that hold each
// byte twice. Two rows blend to pairs and two pairs unpack to quads, half of the shuffles that
// bytes need.
struct Words256 : Vnni256 {
  static constexpr int64_t kRowBytes = 32;

  template <int N>
  [[gnu::always_inline]] static Vectors256<N> Interleave(const uint8_t* x, const RowOffsets& o) {
    static_assert(N == 2);
    const __m256i pairs01 = _mm256_mask_loadu_epi8(Load256(x + o.r0), kOddBytes, x + o.r1);
    const __m256i pairs23 = _mm256_mask_loadu_epi8(Load256(x + o.r2), kOddBytes, x + o.r3);
    return {_mm256_unpacklo_epi16(pairs01, pairs23), _mm256_unpackhi_epi16(pairs01, pairs23)};
  }

  // In the order that the unpacks turn to columns in order.
  static void Pack(const uint8_t* x, int64_t k, uint8_t* words) {
    const __m256i twice = _mm256_setr_epi8(0, 0, 1, 1, 2, 2, 3, 3, 8, 8, 9, 9, 10, 10, 11, 11,  //
                                           4, 4, 5, 5, 6, 6, 7, 7, 12, 12, 13, 13, 14, 14, 15, 15);
    for (int64_t i = 0; i < k; ++i, x += kTileColumns, words += kRowBytes) {
      const __m128i row = _mm_loadu_si128(reinterpret_cast<const __m128i*>(x));
      _mm256_store_si256(reinterpret_cast<__m256i*>(words),
                         _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(row), twice));
    }
  }

 private:
  static constexpr __mmask32 kOddBytes = 0xaaaaaaaa;
};

// Rows of a tile in a block. R = 1 is bound by loads and wants most of them from the L1 cache; with
// more rows an entry only L2 matters: two tiles of a block take half of 1 MB.
constexpr int64_t kBlockRows1 = 1280;
constexpr int64_t kBlockRows = 4096;
constexpr int64_t kPairedRows1 = 512;

template <int R>
class SparseAvx512Vnni final : public PackedGemm {
 public:
  SparseAvx512Vnni(const GemmWeights& weights, const char* name)
      : m_(weights.m),
        k_(weights.k),
        block_k_(SparseBlockK(weights.k, R == 1 ? kBlockRows1 : kBlockRows)),
        name_(name),
        lists_(weights, {.rows = R, .group = 4, .block_k = block_k_}),
        packing_pays_(lists_.size_bytes() / (8 + 4 * R) > static_cast<size_t>(k_)),
        epilogue_(weights.epilogue, lists_.row_groups() * R) {}

  void RunColumns(const uint8_t* x, int64_t columns, void* y,
                  std::byte* scratch) const noexcept override {
    const EpilogueView e = epilogue_.view();
    const SparseProduct p{.lists = lists_, .block_k = block_k_, .m = m_, .e = e};
    auto* packed = reinterpret_cast<uint8_t*>(scratch);
    Tiles tiles{.x = x,
                .x_stride = k_ * kTileColumns,
                .y = static_cast<std::byte*>(y),
                .y_stride = m_ * kTileColumns * OutputBytes(e.output),
                .behind = nullptr,
                .scratch = scratch + PackedBytes(),
                .next = nullptr,
                .next_lines = 0};
    const bool fetches = columns * k_ > kFetchedBytes;
    while (columns > 32) {
      const int64_t count = TilesAtOnce(columns);
      columns -= count * kTileColumns;
      if (columns > 0 && columns <= kBehindMax) return RunLast(p, tiles, packed);
      const int64_t left = (columns + kTileColumns - 1) / kTileColumns;
      tiles.next = fetches ? tiles.x + count * tiles.x_stride : nullptr;
      tiles.next_lines = fetches ? std::min(left, count) * k_ : 0;
      RunWhole(p, tiles, count);
      tiles.x += count * tiles.x_stride;
      tiles.y += count * tiles.y_stride;
    }
    if (columns > 0) RunHalf(p, tiles, columns, packed);
  }
  size_t scratch_bytes() const override {
    const int64_t tile = std::max(kPartialBytes<R, 1, true>, kPartialBytes<R, kTilesMax, false>);
    const int64_t partials = lists_.blocks() == 1 ? 0 : lists_.row_groups() * tile;
    return static_cast<size_t>(PackedBytes() + partials);
  }
  size_t weight_bytes() const override { return lists_.size_bytes() + epilogue_.size_bytes(); }
  const char* kernel_name() const override { return name_; }

 private:
  static constexpr int kTilesMax = R <= 2 ? 2 : 1;

  // 33 columns are computed as 64; with columns behind it the last tile is alone.
  int64_t TilesAtOnce(int64_t columns) const {
    const int64_t behind = columns - 2 * kTileColumns;
    if (R == 1 && k_ > kPairedRows1) return 1;
    return behind > kBehindMax || (behind > -32 && behind <= 0) ? kTilesMax : 1;
  }

  // Direct calls, which the compiler inlines: lists are short.
  static void RunWhole(const SparseProduct& p, const Tiles& tiles, int64_t count) noexcept {
    if constexpr (kTilesMax > 1) {
      if (count > 1) return RunTiles<R, kTilesMax, false>(p, tiles);
    }
    RunTiles<R, 1, false>(p, tiles);
  }

  int64_t PackedBytes() const {
    const int64_t bytes = std::max(k_ * Words256::kRowBytes, k_ * kBehindMax + kBehindSlack);
    return (bytes + 63) / 64 * 64;
  }

  // The last tile with the columns behind it.
  void RunLast(const SparseProduct& p, Tiles tiles, uint8_t* packed) const noexcept {
    PackBehind(tiles.x + tiles.x_stride, k_, packed);
    tiles.behind = packed;
    tiles.next_lines = 0;
    RunTiles<R, 1, true>(p, tiles);
  }

  // At most 32 columns.
  void RunHalf(const SparseProduct& p, const Tiles& tiles, int64_t columns,
               uint8_t* packed) const noexcept {
    SparseColumns256 half{.lists = p.lists,
                          .block_k = p.block_k,
                          .m = p.m,
                          .x = tiles.x,
                          .y = tiles.y,
                          .scratch = tiles.scratch};
    if (columns > 16 || !packing_pays_) return RunSparse256<Vnni256, R, 4>(half, p.e);
    Words256::Pack(tiles.x, k_, packed);
    half.x = packed;
    RunSparse256<Words256, R, 2>(half, p.e);
  }

  int64_t m_, k_, block_k_;
  const char* name_;
  SparseLists lists_;
  bool packing_pays_;  // of words: what an entry gains is about what a row of x costs
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
