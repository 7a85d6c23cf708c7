#include "kernels/sparse.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"

namespace pared {
namespace {

// The k from `begin` on, before `end`, at which some row from `row` on, before `row_end`, has a
// nonzero; written to `used`, which has room for all of them.
size_t FindUsed(const GemmWeights& weights, int64_t row, int64_t row_end, int64_t begin,
                int64_t end, std::vector<int64_t>& used) {
  size_t count = 0;
  for (int64_t k = begin; k < end; ++k) {
    int any = 0;
    for (int64_t m = row; m < row_end; ++m)
      any |= weights.values[static_cast<size_t>(m * weights.k + k)];
    used[count] = k;  // without a branch, which pruned weights would mispredict
    count += any != 0 ? 1 : 0;
  }
  return count;
}

// How many bytes of `word` are not 0: each sets the highest bit of its place, and these are added.
int64_t NonzeroBytes(uint64_t word) {
  constexpr uint64_t kLow = 0x7f7f7f7f7f7f7f7f;
  const uint64_t highest = (((word & kLow) + kLow) | word) & ~kLow;
  return static_cast<int64_t>((highest >> 7) * 0x0101010101010101 >> 56);
}

void WriteU16(uint16_t value, uint8_t*& out) {
  *out++ = static_cast<uint8_t>(value & 255);
  *out++ = static_cast<uint8_t>(value >> 8);
}

size_t EntryBytes(const SparseFormat& format) {
  return static_cast<size_t>(2 * format.group + format.rows * 4);
}

}  // namespace

int64_t SparseBlockK(int64_t k, int64_t limit) {
  const int64_t blocks = (k + limit - 1) / limit;
  return (k + blocks - 1) / blocks;
}

SparseLists::SparseLists(const GemmWeights& weights, const SparseFormat& format)
    : row_groups_((weights.m + format.rows - 1) / format.rows),
      blocks_((weights.k + format.block_k - 1) / format.block_k) {
  PARED_CHECK(format.block_k <= 8192);
  std::vector<uint8_t> entries;
  std::vector<int64_t> used(static_cast<size_t>(format.block_k + format.group));
  for (int64_t block = 0; block < blocks_; ++block) {
    for (int64_t row = 0; row < weights.m; row += format.rows) {
      Append(weights, format, block, row, used, entries);
    }
  }
  entries_ = AlignedBuffer<uint8_t>(std::span<const uint8_t>(entries));
}

void SparseLists::Append(const GemmWeights& weights, const SparseFormat& format, int64_t block,
                         int64_t row, std::vector<int64_t>& used, std::vector<uint8_t>& entries) {
  const int64_t begin = block * format.block_k;
  const int64_t end = std::min(begin + format.block_k, weights.k);
  const int64_t row_end = std::min(row + format.rows, weights.m);
  const size_t real = FindUsed(weights, row, row_end, begin, end, used);
  const size_t group = static_cast<size_t>(format.group);
  const size_t count = (real + group - 1) / group;
  std::fill_n(used.begin() + static_cast<ptrdiff_t>(real), count * group - real,
              real == 0 ? begin : used[real - 1]);
  const size_t size = entries.size();
  entries.resize(size + count * EntryBytes(format));
  uint8_t* out = entries.data() + size;
  for (size_t i = 0; i < count * group; i += group) {
    for (size_t j = i; j < i + group; ++j) {
      WriteU16(static_cast<uint16_t>((used[j] - begin) * 8), out);
    }
    for (int64_t m = row; m < row + format.rows; ++m) {
      for (size_t j = i; j < i + group; ++j) {
        const bool present = j < real && m < weights.m;
        const int8_t w =
            present ? weights.values[static_cast<size_t>(m * weights.k + used[j])] : int8_t{0};
        if (group == 4) {
          *out++ = static_cast<uint8_t>(w);
        } else {
          WriteU16(static_cast<uint16_t>(int16_t{w}), out);
        }
      }
    }
  }
  counts_.push_back(static_cast<uint32_t>(count));
}

int64_t CountEntries(const GemmWeights& weights, int64_t rows, int64_t group) {
  int64_t entries = 0;
  for (int64_t row = 0; row < weights.m; row += rows) {
    const int64_t end = std::min(row + rows, weights.m);
    // Columns from k on, at most eight, of which some row has a nonzero.
    const auto used_of = [&](int64_t k, size_t columns) {
      uint64_t any = 0;
      for (int64_t m = row; m < end; ++m) {
        uint64_t word = 0;
        std::memcpy(&word, weights.values.data() + m * weights.k + k, columns);
        any |= word;
      }
      return NonzeroBytes(any);
    };
    int64_t used = 0;
    int64_t k = 0;
    for (; k + 8 <= weights.k; k += 8) used += used_of(k, 8);
    if (k < weights.k) used += used_of(k, static_cast<size_t>(weights.k - k));
    entries += (used + group - 1) / group;
  }
  return entries;
}

}  // namespace pared
