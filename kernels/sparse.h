// The Rx1 family: R output rows share a list of arbitrary k.
//
// For each block of k and each group of R rows, a list of entries; an entry is G values of k, at
// which any of the rows has a nonzero weight, and the R x G weights:
//
//   u16 offset of each k in its block, in units of 8 bytes (a row of a tile is 64 bytes)
//   row 0: w[k0] w[k1] w[k2] w[k3]      row 1: w[k0] w[k1] w[k2] w[k3]     ...
//
// VNNI kernels take G = 4 weights of int8; without VNNI G = 2 weights of int16: 4 bytes a row
// either way. The last entry of a list is filled up with weights of zero. Unstructured weights cost
// 12 / 4 = 3 bytes a nonzero with R = 1, 2x1 blocks 2 bytes, 4x1 blocks 1.5 bytes.

#pragma once

#include <cstdint>
#include <vector>

#include "kernels/aligned.h"
#include "kernels/gemm.h"

namespace pared {

struct SparseFormat {
  int64_t rows;     // R
  int64_t group;    // G: 4 or 2
  int64_t block_k;  // at most 8,192, so that the offsets fit
};

// The length of equal blocks of at most `limit`.
int64_t SparseBlockK(int64_t k, int64_t limit);

class SparseLists {
 public:
  SparseLists(const GemmWeights& weights, const SparseFormat& format);

  int64_t row_groups() const { return row_groups_; }
  int64_t blocks() const { return blocks_; }
  const uint8_t* entries() const { return entries_.data(); }
  // Entries of each row group of block 0, then of block 1, ...
  const uint32_t* counts() const { return counts_.data(); }
  size_t size_bytes() const { return entries_.size_bytes() + counts_.size() * sizeof(uint32_t); }

 private:
  void Append(const GemmWeights& weights, const SparseFormat& format, int64_t block, int64_t row,
              std::vector<int64_t>& used, std::vector<uint8_t>& entries);

  int64_t row_groups_, blocks_;
  std::vector<uint32_t> counts_;
  AlignedBuffer<uint8_t> entries_;
};

// Entries that SparseLists would hold with R = 1, 2, 4: what the cost model counts.
int64_t CountEntries(const GemmWeights& weights, int64_t rows, int64_t group);

}  // namespace pared
