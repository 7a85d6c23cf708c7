// Work on layers that need nothing of one another.

#pragma once

#include <tbb/parallel_for.h>

#include <algorithm>
#include <cstddef>
#include <filesystem>

namespace pared {

// Calls `visit(i)` for each of `count` layers and `done(i)` after it: visits on TBB's threads, a
// few layers side by side; or, where `spill` says that the weights are too many for memory
// (SpillFolder()), one after the other. What is done is done in order, by the caller's thread.
template <class Visit, class Done>
void ForEachLayer(size_t count, const std::filesystem::path& spill, const Visit& visit,
                  const Done& done) {
  const size_t at_once = spill.empty() ? 16 : 1;
  for (size_t begin = 0; begin < count; begin += at_once) {
    const size_t end = std::min(begin + at_once, count);
    tbb::parallel_for(begin, end, visit);
    for (size_t i = begin; i < end; ++i) done(i);
  }
}

}  // namespace pared
