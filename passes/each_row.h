// Work on the rows of a matrix, on TBB's threads.

#pragma once

#include <tbb/blocked_range.h>
#include <tbb/parallel_for.h>

#include <cstdint>

namespace pared {

// Calls `visit(row)` for each of `rows` rows of `k` floats, so many at a time as are worth a
// thread.
template <class Visit>
void ForEachRow(int64_t rows, int64_t k, const Visit& visit) {
  constexpr int64_t kSerialFloats = 4096;
  const tbb::blocked_range<int64_t> all(0, rows, kSerialFloats / k + 1);
  tbb::parallel_for(all, [&](const auto& range) {
    for (int64_t row = range.begin(); row != range.end(); ++row) visit(row);
  });
}

}  // namespace pared
