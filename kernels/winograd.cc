#include "kernels/winograd.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "base/check.h"
#include "kernels/packing.h"
#include "kernels/winograd_avx2.h"

namespace pared {
namespace {

constexpr int64_t kSide = 4;  // of a tile's outputs
constexpr int64_t kVector = 8;
constexpr int64_t kTaps = 9;
constexpr int64_t kSumLimit = int64_t{1} << 25;
constexpr int64_t kOperandBytes = 200 << 10;  // of 512 KB of L2
constexpr int64_t kBlockTilesMin = 16, kBlockTilesMax = 96;

int64_t RoundUp(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

// Padded to whole tiles.
ConvGeometry WholeTiles(ConvGeometry g) {
  PARED_CHECK(g.kernel_height == 3);
  PARED_CHECK(g.kernel_width == 3);
  PARED_CHECK(g.stride_y == 1);
  PARED_CHECK(g.stride_x == 1);
  PARED_CHECK(g.dilation_y == 1);
  PARED_CHECK(g.dilation_x == 1);
  g.pad_bottom += RoundUp(g.out_height(), kSide) - g.out_height();
  g.pad_right += RoundUp(g.out_width(), kSide) - g.out_width();
  return g;
}

// s G g: the integer rows of G times three weights.
std::array<int32_t, 6> TimesG(int32_t a, int32_t b, int32_t c) {
  return {3 * a, -a - b - c, -a + b - c, a + 2 * b + 4 * c, a - 2 * b + 4 * c, 3 * c};
}

// The 36 weights of one row and channel.
std::array<int16_t, kWinogradPositions> TransformWeights(const int8_t* w) {
  std::array<std::array<int32_t, 6>, 3> half{};  // by column of w
  for (size_t j = 0; j < 3; ++j) half[j] = TimesG(w[j], w[j + 3], w[j + 6]);
  std::array<int16_t, kWinogradPositions> out{};
  for (size_t i = 0; i < 6; ++i) {
    const std::array<int32_t, 6> line = TimesG(half[0][i], half[1][i], half[2][i]);
    for (size_t j = 0; j < 6; ++j) out[i * 6 + j] = static_cast<int16_t>(line[j]);
  }
  return out;
}

// Tiles side by side, eight at a time. `is_exact`: nothing is written behind them.
void TransformRun(WinogradInput in, int64_t count, int64_t stride, bool is_exact,
                  std::byte* out) noexcept {
  alignas(32) std::array<std::byte, kWinogradPositions * kVector * 4> tiles;
  for (; count > 0; count -= kVector, out += kVector * 4) {
    const bool is_whole = count >= kVector || !is_exact;
    if constexpr (kOnX86) {
      is_whole ? WinogradTransformAvx2(in, stride, out)
               : WinogradTransformAvx2(in, kVector * 4, tiles.data());
    }
    in.even += kVector * kSide;
    in.odd += kVector * kSide;
    for (int64_t p = 0; !is_whole && p < kWinogradPositions; ++p) {
      std::memcpy(out + p * stride, tiles.data() + p * kVector * 4, static_cast<size_t>(count) * 4);
    }
  }
}

// At most 64 elements.
void CopyPiece(const std::byte* from, int64_t bytes, std::byte* to) noexcept {
  if (bytes < 16 || bytes > 64) {
    std::memcpy(to, from, static_cast<size_t>(bytes));
    return;
  }
  for (int64_t i = 0; i + 16 < bytes; i += 16) std::memcpy(to + i, from + i, 16);
  std::memcpy(to + bytes - 16, from + bytes - 16, 16);
}

}  // namespace

int64_t WinogradPlan::TilesOf(const ConvGeometry& geometry) {
  return RoundUp(geometry.out_height(), kSide) / kSide * RoundUp(geometry.out_width(), kSide) /
         kSide;
}

WinogradPlan::WinogradPlan(const ConvGeometry& geometry, int64_t block_tiles, Isa isa)
    : im2col_(WholeTiles(geometry), isa),
      row_bytes_(geometry.pad_left + geometry.width + im2col_.geometry().pad_right) {
  PARED_CHECK(block_tiles > 0);
  PARED_CHECK(block_tiles % kVector == 0);
  const int64_t tiles = TilesOf(geometry), row_tiles = RoundUp(geometry.out_width(), kSide) / kSide;
  for (int64_t begin = 0; begin < tiles; begin += block_tiles) {
    const int64_t end = std::min(tiles, begin + block_tiles);
    Block& block = blocks_.emplace_back();
    block.columns = RoundUp(end - begin, kVector);
    columns_max_ = std::max(columns_max_, block.columns);
    for (int64_t tile = begin, count = 0; tile < end; tile += count) {
      count = std::min(end - tile, row_tiles - tile % row_tiles);
      block.runs.push_back({.offset = (tile / row_tiles * row_bytes_ + tile % row_tiles) * kSide,
                            .column = tile - begin,
                            .count = count});
      AddPieces(geometry, tile, block);
    }
  }
}

// Of the last run, whose first tile is `tile`.
void WinogradPlan::AddPieces(const ConvGeometry& geometry, int64_t tile, Block& block) const {
  const int64_t width = geometry.out_width(), row_tiles = RoundUp(width, kSide) / kSide;
  const Run& run = block.runs.back();
  const int64_t top = tile / row_tiles * kSide, left = tile % row_tiles * kSide;
  for (int64_t i = 0; i < std::min(kSide, geometry.out_height() - top); ++i) {
    int64_t from = (i * block.columns + run.column) * kSide;
    int64_t pixel = (top + i) * width + left;
    for (int64_t left_over = std::min(run.count * kSide, width - left); left_over > 0;) {
      const int64_t column = pixel % kTileColumns;
      const int64_t count = std::min(left_over, kTileColumns - column);
      block.pieces.push_back(
          {.from = from, .tile = pixel / kTileColumns, .column = column, .count = count});
      from += count;
      pixel += count;
      left_over -= count;
    }
  }
}

bool PackedWinograd::Accepts(const GemmWeights& weights, Isa isa) {
  if (isa != Isa::kAvx2 || weights.k % kTaps != 0) return false;
  for (int64_t m = 0; m < weights.m; ++m) {
    int64_t positive = 0, negative = 0;
    for (int64_t k = 0; k < weights.k; ++k) {
      const int64_t w = weights.values[static_cast<size_t>(m * weights.k + k)];
      (w > 0 ? positive : negative) += w;
    }
    if (255 * std::max(positive, -negative) >= kSumLimit) return false;
  }
  return true;
}

PackedWinograd::PackedWinograd(const GemmWeights& weights)
    : m_(weights.m),
      channels_(weights.k / kTaps),
      values_(
          static_cast<size_t>(RoundUp(m_, kWinogradPanelRows) * kWinogradPositions * pairs() * 2)),
      epilogue_(std::make_unique<PackedEpilogue>(weights.epilogue, weights.m)) {
  CheckedDensity(weights);
  const int64_t panel = pairs() * 2 * kWinogradPanelRows;
  for (int64_t m = 0; m < m_; ++m) {
    const int64_t first = m / kGroupRows * kGroupRows;
    const int64_t rows = std::min(kGroupRows, RoundUp(m_ - first, kWinogradPanelRows));
    int16_t* group = values_.data() + first * kWinogradPositions * pairs() * 2;
    const int64_t row = m - first;
    for (int64_t c = 0; c < channels_; ++c) {
      const auto w = TransformWeights(weights.values.data() + m * weights.k + c * kTaps);
      int16_t* to = group + row / kWinogradPanelRows * panel + c / 2 * 2 * kWinogradPanelRows +
                    row % kWinogradPanelRows * 2 + c % 2;
      for (int64_t p = 0; p < kWinogradPositions; ++p) {
        to[p * (rows / kWinogradPanelRows) * panel] = w[static_cast<size_t>(p)];
      }
    }
  }
}

PackedWinograd::~PackedWinograd() = default;

size_t PackedWinograd::weight_bytes() const {
  return values_.size_bytes() + epilogue_->size_bytes();
}

int64_t PackedWinograd::block_tiles() const {
  const int64_t tiles = kOperandBytes / (kWinogradPositions * pairs() * 4);
  return std::clamp(tiles / 16 * 16, kBlockTilesMin, kBlockTilesMax);
}

size_t PackedWinograd::operand_bytes(int64_t columns) const {
  return static_cast<size_t>(kWinogradPositions * WinogradStride(pairs(), columns));
}

size_t PackedWinograd::scratch_bytes(int64_t columns) const {
  return static_cast<size_t>(columns * (kGroupRows * kWinogradPositions + kSide * kSide) * 4);
}

void PackedWinograd::Transform(const uint8_t* image, const Part& part,
                               std::byte* operand) const noexcept {
  const WinogradPlan::Block& block = part.plan->blocks()[static_cast<size_t>(part.block)];
  const int64_t plane = part.plan->im2col().plane_bytes();
  const int64_t stride = WinogradStride(pairs(), block.columns);
  for (int64_t pair = part.begin; pair < part.end; ++pair) {
    const uint8_t* even = image + 2 * pair * plane;
    const uint8_t* odd = 2 * pair + 1 < channels_ ? even + plane : even;
    std::byte* out = operand + pair * block.columns * 4;
    for (const WinogradPlan::Run& run : block.runs) {
      const WinogradInput in{even + run.offset, odd + run.offset, part.plan->row_bytes()};
      // What is written behind a run, the next one or the next pair overwrites; not behind the
      // last.
      const bool is_exact =
          pair + 1 == part.end && run.column + run.count > block.columns - kVector;
      TransformRun(in, run.count, stride, is_exact, out + run.column * 4);
    }
  }
}

template <class Visit>
void PackedWinograd::ForEachRow(const std::byte* operand, const Part& part, std::byte* scratch,
                                const Visit& visit) const noexcept {
  const WinogradPlan::Block& block = part.plan->blocks()[static_cast<size_t>(part.block)];
  auto* products = reinterpret_cast<int32_t*>(scratch);
  const int64_t end = std::min(m_, part.end * kGroupRows);
  for (int64_t first = part.begin * kGroupRows; first < end; first += kGroupRows) {
    const int64_t rows = std::min(kGroupRows, end - first);
    const int64_t panels = RoundUp(rows, kWinogradPanelRows) / kWinogradPanelRows;
    if constexpr (kOnX86) {
      WinogradMultiplyAvx2({pairs(), block.columns, panels}, operand,
                           values_.data() + first * kWinogradPositions * pairs() * 2, products);
    }
    for (int64_t row = 0; row < rows; ++row) {
      visit(first + row, products + row * block.columns * kWinogradPositions);
    }
  }
}

void PackedWinograd::Run(const std::byte* operand, const Part& part, const Output& output,
                         std::byte* scratch) const noexcept {
  const WinogradPlan::Block& block = part.plan->blocks()[static_cast<size_t>(part.block)];
  std::byte* staged = scratch + block.columns * kGroupRows * kWinogradPositions * 4;
  ForEachRow(operand, part, scratch, [&](int64_t row, const int32_t* products) {
    if constexpr (kOnX86) {
      WinogradOutputAvx2(products, block.columns, epilogue_->view(), row, staged);
    }
    Place(block, row, staged, output);
  });
}

void PackedWinograd::Stage(const std::byte* operand, const Part& part, std::byte* staged,
                           std::byte* scratch) const noexcept {
  const int64_t columns = part.plan->blocks()[static_cast<size_t>(part.block)].columns;
  const EpilogueView e = epilogue_->view();
  const int64_t row_bytes = staged_elements(columns) * OutputBytes(e.output);
  ForEachRow(operand, part, scratch, [&](int64_t row, const int32_t* products) {
    if constexpr (kOnX86) WinogradOutputAvx2(products, columns, e, row, staged + row * row_bytes);
  });
}

// Staged outputs of one row to where they belong.
void PackedWinograd::Place(const WinogradPlan::Block& block, int64_t row, std::byte* staged,
                           const Output& output) const noexcept {
  if (output.table != nullptr) {
    auto* codes = reinterpret_cast<uint8_t*>(staged);
    const auto count = static_cast<size_t>(block.columns * kSide * kSide);
    LookUp({codes, count}, *output.table, codes, Isa::kAvx2);
  }
  const int64_t element = OutputBytes(epilogue_->view().output);
  for (const WinogradPlan::Piece& piece : block.pieces) {
    const int64_t to = (piece.tile * m_ + row) * kTileColumns + piece.column;
    CopyPiece(staged + piece.from * element, piece.count * element,
              static_cast<std::byte*>(output.y) + to * element);
  }
}

}  // namespace pared
