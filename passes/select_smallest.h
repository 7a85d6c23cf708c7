// The exact threshold below which a given number of magnitudes lie.

#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

namespace pared {

// Those below `magnitude` are selected, and the first `ties` equal to it.
struct Threshold {
  float magnitude = 0;
  int64_t ties = 0;
};

// Selects exactly `count` of all elements of `lists` by least absolute value; among equals those
// that come first. No element is NaN. `count` lies between 0 and the number of elements. Lists are
// read one after the other; `is_read` is told of each when it is not read for a while.
Threshold SelectSmallest(
    const std::vector<std::span<const float>>& lists, int64_t count,
    const std::function<void(size_t list)>& is_read = [](size_t) {});

}  // namespace pared
