#include "passes/matrix_product.h"

#include <tbb/blocked_range2d.h>
#include <tbb/parallel_for.h>

#include <algorithm>

#include "base/check.h"
#include "kernels/gemm_f32.h"
#include "kernels/sparse_f32.h"

namespace pared {
namespace {

// Of a product, what one thread takes at a time: enough to use a packed panel many times.
constexpr int64_t kRowBlocks = 64, kPanels = 4;
constexpr int64_t kSparseRows = 512;
// Below, threads cost more than they gain.
constexpr int64_t kSerialMacs = int64_t{1} << 18;

const F32Kernels& Kernels() { return F32KernelsFor(SelectedIsa()); }

template <class Body>
void ForRange(int64_t count, bool is_serial, const Body& body) {
  if (is_serial) {
    body(0, count);
    return;
  }
  tbb::parallel_for(tbb::blocked_range<int64_t>(0, count),
                    [&](const auto& range) { body(range.begin(), range.end()); });
}

void Pack(const MatrixF32& right, int64_t panels, bool is_serial, float* packed) {
  ForRange(panels, is_serial,
           [&](int64_t begin, int64_t end) { PackRhs(right, Kernels(), begin, end, packed); });
}

void PackRows(const MatrixF32& left, bool is_serial, std::vector<float>& packed) {
  const int64_t tile = Kernels().tile_rows;
  ForRange(CeilDiv(left.rows, tile), is_serial, [&](int64_t begin, int64_t end) {
    MatrixF32 part = left;
    part.data += begin * tile * left.row_step;
    part.rows = std::min(end * tile, left.rows) - begin * tile;
    PackLhs(part, Kernels(), packed.data() + begin * tile * left.columns);
  });
}

// c [m][n] of packed operands.
GemmF32 Packed(const Product& product, const float* lhs, const float* rhs, float* c) {
  GemmF32 gemm;
  gemm.m = product.m;
  gemm.n = product.n;
  gemm.k = product.k;
  gemm.b = rhs;
  gemm.c = c;
  gemm.c_row = product.n;
  SetPackedLhs(gemm, lhs, Kernels());
  return gemm;
}

// Of a symmetric product only what stands on and above, or on and below, the diagonal.
enum class Part { kAll, kAbove, kBelow };

void Run(const GemmF32& gemm, Part part, bool is_serial) {
  const F32Kernels& kernels = Kernels();
  const int64_t blocks = RowBlocks(gemm, kernels), panels = Panels(gemm, kernels);
  const auto body = [&](TileRange range) {
    if (part == Part::kAbove) {
      const int64_t above = range.panel_end * kernels.tile_columns / kernels.tile_rows + 1;
      range.block_end = std::min(range.block_end, above);
    } else if (part == Part::kBelow) {
      const int64_t below = range.panel_begin * kernels.tile_columns / kernels.tile_rows;
      range.block_begin = std::max(range.block_begin, below);
    }
    if (range.block_begin < range.block_end) RunGemm(gemm, kernels, range);
  };
  if (is_serial) {
    body({0, blocks, 0, panels});
    return;
  }
  const tbb::blocked_range2d<int64_t> all(0, blocks, kRowBlocks, 0, panels, kPanels);
  tbb::parallel_for(
      all,
      [&](const auto& range) {
        body({range.rows().begin(), range.rows().end(), range.cols().begin(), range.cols().end()});
      },
      tbb::simple_partitioner());
}

// c [m][n] = a b where the rows of `a` are mostly zeros and b is packed; else false, and nothing.
bool RunSparse(std::span<const float* const> a, int64_t k, int64_t n, const float* packed,
               float* c) {
  const F32Kernels& kernels = Kernels();
  const int64_t m = std::ssize(a), vectors = CeilDiv(n, kernels.lanes);
  int64_t nonzeros = 0;
  for (const float* row : a) nonzeros += NonZeros(row, k);
  if (SparseCost(m, k, nonzeros, vectors) >= static_cast<double>(m * k * vectors)) return false;
  const SparseLhsF32 left = PackSparseRows(a, k, nonzeros);
  const int64_t width = std::max(kernels.sparse_columns, kernels.tile_columns);
  const tbb::blocked_range2d<int64_t> all(0, m, kSparseRows, 0, CeilDiv(n, width), 1);
  tbb::parallel_for(all, [&](const auto& range) {
    std::vector<float> scratch(static_cast<size_t>(SparseScratchFloats(kernels)));
    for (int64_t group = range.cols().begin(); group < range.cols().end(); ++group) {
      const int64_t column = group * width;
      RunSparseBlock({.a = &left,
                      .row_begin = range.rows().begin(),
                      .row_end = range.rows().end(),
                      .b = packed,
                      .column = column,
                      .count = std::min(width, n - column),
                      .c = c,
                      .c_row = n},
                     kernels, scratch.data());
    }
  });
  return true;
}

std::vector<float> MultiplyTiles(const Product& product, const std::vector<float>& a,
                                 const std::vector<float>& b, Part part) {
  const auto& [m, n, k, is_a_transposed, is_b_transposed] = product;
  const F32Kernels& kernels = Kernels();
  const bool is_serial = m * n * k <= kSerialMacs;
  std::vector<float> c(static_cast<size_t>(m * n));
  std::vector<float> rhs(static_cast<size_t>(PackedRhsFloats(k, n, kernels)));
  const MatrixF32 right = {b.data(), k, n, is_b_transposed ? 1 : n, is_b_transposed ? k : 1};
  Pack(right, CeilDiv(n, kernels.tile_columns), is_serial, rhs.data());
  if (!is_serial && part == Part::kAll && !is_a_transposed) {
    std::vector<const float*> rows;
    for (int64_t row = 0; row < m; ++row) rows.push_back(a.data() + row * k);
    if (RunSparse(rows, k, n, rhs.data(), c.data())) return c;
  }
  std::vector<float> lhs(static_cast<size_t>(PackedLhsFloats(m, k, kernels)));
  const GemmF32 gemm = Packed(product, lhs.data(), rhs.data(), c.data());
  PackRows({a.data(), m, k, is_a_transposed ? 1 : k, is_a_transposed ? m : 1}, is_serial, lhs);
  Run(gemm, part, is_serial);
  return c;
}

}  // namespace

std::vector<float> Multiply(const Product& product, const std::vector<float>& a,
                            const std::vector<float>& b) {
  return MultiplyTiles(product, a, b, Part::kAll);
}

std::vector<float> Gram(const std::vector<float>& x, int64_t count, int64_t k) {
  std::vector<float> h = MultiplyTiles({k, k, count, true, false}, x, x, Part::kAbove);
  constexpr int64_t kTile = 64;  // both sides of a transposed copy stay in cache
  tbb::parallel_for(int64_t{0}, (k + kTile - 1) / kTile, [&](int64_t tile) {
    const int64_t begin = tile * kTile, end = std::min(k, begin + kTile);
    for (int64_t left = 0; left < end; left += kTile) {
      for (int64_t row = begin; row < end; ++row) {
        for (int64_t i = left; i < std::min(left + kTile, row); ++i) {
          h[static_cast<size_t>(row * k + i)] = h[static_cast<size_t>(i * k + row)];
        }
      }
    }
  });
  return h;
}

// The addend is the result's own memory, which the first of several blocks of k would overwrite.
static_assert(kOuterColumnsMax <= kBlockK);

void SubtractOuterProduct(const OuterProduct& product) {
  PARED_CHECK(product.columns <= kOuterColumnsMax);
  const F32Kernels& kernels = Kernels();
  const int64_t k = product.columns, end = product.column + k, m = product.n - end;
  if (m <= 0) return;
  const bool is_serial = m * m * k <= kSerialMacs;
  const float* from = product.matrix.data() + end * product.n + product.column;
  std::vector<float> lhs(static_cast<size_t>(PackedLhsFloats(m, k, kernels)));
  std::vector<float> rhs(static_cast<size_t>(PackedRhsFloats(k, m, kernels)));
  GemmF32 gemm =
      Packed({m, m, k}, lhs.data(), rhs.data(), product.matrix.data() + end * product.n + end);
  gemm.c_row = product.n;
  gemm.addend = gemm.c;  // element by element in place
  PackRows({from, m, k, product.n, 1}, is_serial, lhs);
  Pack({from, k, m, 1, product.n}, Panels(gemm, kernels), is_serial, rhs.data());
  for (float& value : lhs) value = -value;
  Run(gemm, Part::kBelow, is_serial);
}

RightMatrix::RightMatrix(std::span<const float> b, int64_t k, int64_t n)
    : k_(k), n_(n), packed_(static_cast<size_t>(PackedRhsFloats(k, n, Kernels()))) {
  const int64_t width = Kernels().tile_columns;
  Pack({b.data(), k, n, n, 1}, (n + width - 1) / width, k * n <= kSerialMacs, packed_.data());
}

void RightMatrix::Multiply(std::span<const float* const> a, std::span<float> c) const {
  const F32Kernels& kernels = Kernels();
  const int64_t m = std::ssize(a), tile = kernels.tile_rows;
  const bool is_serial = m * n_ * k_ <= kSerialMacs;
  if (!is_serial && RunSparse(a, k_, n_, packed_.data(), c.data())) return;
  std::vector<float> lhs(static_cast<size_t>(PackedLhsFloats(m, k_, kernels)), 0.0f);
  ForRange((m + tile - 1) / tile, is_serial, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin * tile; row < std::min(m, end * tile); ++row) {
      float* to = lhs.data() + row / tile * tile * k_ + row % tile;
      const float* from = a[static_cast<size_t>(row)];
      for (int64_t i = 0; i < k_; ++i) to[i * tile] = from[i];
    }
  });
  Run(Packed({m, n_, k_}, lhs.data(), packed_.data(), c.data()), Part::kAll, is_serial);
}

}  // namespace pared
