// Copies elements that lie at strides into a dense array: the inside of Transpose, Slice, Expand
// and Tile.

#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "evaluator/ops.h"

namespace pared {

// Element (i0, i1, ...) lies at offset + i0 * strides[0] + ...; strides may be 0 or negative.
struct StridedView {
  std::vector<int64_t> dims, strides;
  int64_t offset = 0;
};

// The same elements in the same order with fewer axes: at least one, the first dim 1 where none is.
StridedView Merged(const StridedView& view);

inline constexpr int64_t kCopyGrain = 16384;  // elements a task
inline constexpr int64_t kTile = 16;          // 16 x 16 floats: 16 cache lines on either side

template <class T>
void CopyRow(const T* from, int64_t stride, int64_t count, T* to) {
  if (stride == 1) {
    std::memcpy(to, from, static_cast<size_t>(count) * sizeof(T));
  } else if (stride == 0) {
    std::fill_n(to, count, *from);
  } else {
    for (int64_t i = 0; i < count; ++i) to[i] = from[i * stride];
  }
}

// to[r * to_stride + c] = from[r + c * from_stride], for all r < rows, c < columns.
template <class T>
void TransposePlane(const T* from, int64_t from_stride, int64_t rows, int64_t columns, T* to,
                    int64_t to_stride) {
  for (int64_t r0 = 0; r0 < rows; r0 += kTile) {
    const int64_t r1 = std::min(rows, r0 + kTile);
    for (int64_t c0 = 0; c0 < columns; c0 += kTile) {
      const int64_t c1 = std::min(columns, c0 + kTile);
      for (int64_t r = r0; r < r1; ++r) {
        for (int64_t c = c0; c < c1; ++c) to[r * to_stride + c] = from[r + c * from_stride];
      }
    }
  }
}

// Calls body(from_offset, to_offset) for the indices `range` of `axes`, counted row-major.
// `to_strides`: of the dense result.
template <class Body>
void ForEachOuter(const StridedView& view, const std::vector<size_t>& axes,
                  const std::vector<int64_t>& to_strides, std::pair<int64_t, int64_t> range,
                  const Body& body) {
  for (int64_t flat = range.first; flat < range.second; ++flat) {
    int64_t rest = flat, from = view.offset, to = 0;
    for (size_t i = axes.size(); i-- > 0;) {
      const size_t axis = axes[i];
      const int64_t index = rest % view.dims[axis];
      rest /= view.dims[axis];
      from += index * view.strides[axis];
      to += index * to_strides[axis];
    }
    body(from, to);
  }
}

template <class T>
void CopyStrided(const T* from, const StridedView& unmerged, T* to, const Scratch& scratch) {
  const StridedView view = Merged(unmerged);
  const size_t last = view.dims.size() - 1;
  std::vector<int64_t> to_strides(view.dims.size());
  int64_t count = 1;
  for (size_t axis = view.dims.size(); axis-- > 0; count *= view.dims[axis]) {
    to_strides[axis] = count;
  }
  if (count == 0) return;
  // Where the last axis jumps and another one does not, the two are done in tiles.
  size_t plane = last;
  const bool jumps = view.strides[last] != 1 && view.strides[last] != 0;
  for (size_t axis = 0; jumps && axis < last; ++axis) {
    if (view.strides[axis] == 1 && view.dims[axis] > 1) plane = axis;
  }
  std::vector<size_t> outer;
  int64_t outer_count = 1;
  for (size_t axis = 0; axis < last; ++axis) {
    if (axis == plane) continue;
    outer.push_back(axis);
    outer_count *= view.dims[axis];
  }
  const int64_t grain = std::max<int64_t>(1, kCopyGrain / (count / outer_count));
  scratch.ParallelFor(outer_count, grain, [&](int64_t begin, int64_t end) {
    ForEachOuter(view, outer, to_strides, {begin, end}, [&](int64_t from_at, int64_t to_at) {
      if (plane == last) {
        CopyRow(from + from_at, view.strides[last], view.dims[last], to + to_at);
      } else {
        TransposePlane(from + from_at, view.strides[last], view.dims[plane], view.dims[last],
                       to + to_at, to_strides[plane]);
      }
    });
  });
}

}  // namespace pared
