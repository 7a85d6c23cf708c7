// Static shares of work for ops whose workers need memory of their own.

#pragma once

#include <algorithm>
#include <cstdint>

#include "evaluator/ops.h"

namespace pared {

// Cuts [0, count) into one run of units for each worker and calls body(begin, end, memory), where
// `memory` is `floats` floats of that worker alone.
template <class Body>
void ForEachShare(Scratch& scratch, int64_t count, int64_t floats, const Body& body) {
  const int64_t workers = std::max<int64_t>(1, std::min(scratch.threads(), count));
  // Rounded up to a cache line, so that workers do not share one.
  const int64_t step = (floats + 15) / 16 * 16;
  float* memory = reinterpret_cast<float*>(
      scratch.Temporary(static_cast<size_t>(std::max<int64_t>(step * workers, 16)) * 4));
  scratch.ParallelFor(workers, 1, [&](int64_t begin, int64_t end) {
    for (int64_t worker = begin; worker < end; ++worker) {
      body(count * worker / workers, count * (worker + 1) / workers, memory + worker * step);
    }
  });
}

}  // namespace pared
