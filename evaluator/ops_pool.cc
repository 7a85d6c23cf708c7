// MaxPool, AveragePool, LpPool, their global forms and MaxUnpool.

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <vector>

#include "evaluator/op_checks.h"
#include "evaluator/ops.h"
#include "evaluator/window.h"
#include "evaluator/worker_slots.h"
#include "kernels/f32.h"

namespace pared {
namespace {

enum class PoolKind { kMax, kAverage, kLp };

struct PoolNode {
  PoolKind kind = PoolKind::kMax;
  WindowAttributes window;
  bool count_include_pad = false;
  bool column_major = false;  // MaxPool's storage_order, for its indices
  int64_t p = 2;
  const F32Kernels* kernels = nullptr;
};

// The taps of one output on one axis that lie within [low, high).
struct TapRange {
  int64_t begin, end;  // of taps
  int64_t first;       // input index under tap 0
};
TapRange TapsWithin(const Window& w, size_t d, int64_t out, int64_t low, int64_t high) {
  TapRange range{.begin = 0, .end = w.kernel[d], .first = out * w.stride[d] - w.pad_begin[d]};
  while (range.begin < range.end && range.first + range.begin * w.dilation[d] < low) ++range.begin;
  while (range.end > range.begin && range.first + (range.end - 1) * w.dilation[d] >= high) {
    --range.end;
  }
  return range;
}

// Calls visit(index) for each input of the output at (z, y, x) that is no padding.
template <class Visit>
void VisitWindow(const Window& w, const std::array<TapRange, 3>& taps, const Visit& visit) {
  for (int64_t kz = taps[0].begin; kz < taps[0].end; ++kz) {
    const int64_t z = taps[0].first + kz * w.dilation[0];
    for (int64_t ky = taps[1].begin; ky < taps[1].end; ++ky) {
      const int64_t row = z * w.in[1] + taps[1].first + ky * w.dilation[1];
      for (int64_t kx = taps[2].begin; kx < taps[2].end; ++kx) {
        visit(row * w.in[2] + taps[2].first + kx * w.dilation[2]);
      }
    }
  }
}

std::array<TapRange, 3> TapsAt(const Window& w, const Axes3& at) {
  std::array<TapRange, 3> taps;
  for (size_t d = 0; d < 3; ++d) taps[d] = TapsWithin(w, d, at[d], 0, w.in[d]);
  return taps;
}

// How many taps count for an average that includes padding: a window cut by ceil_mode counts only
// up to the end of the padding.
int64_t CountPadded(const Window& w, const Axes3& at) {
  int64_t count = 1;
  for (size_t d = 0; d < 3; ++d) {
    const TapRange taps = TapsWithin(w, d, at[d], -w.pad_begin[d], w.in[d] + w.pad_end[d]);
    count *= taps.end - taps.begin;
  }
  return count;
}

template <class T>
T PoolOne(const PoolNode& node, const Window& w, const T* x, const Axes3& at, int64_t& arg) {
  const std::array<TapRange, 3> taps = TapsAt(w, at);
  if (node.kind == PoolKind::kMax) {
    T best = std::numeric_limits<T>::lowest();
    if constexpr (std::is_floating_point_v<T>) best = -std::numeric_limits<T>::infinity();
    arg = -1;
    VisitWindow(w, taps, [&](int64_t i) {
      if (arg >= 0 && !(x[i] > best)) return;
      best = x[i];
      arg = i;
    });
    return best;
  }
  if (node.kind == PoolKind::kLp) {
    const double p = static_cast<double>(node.p);
    double sum = 0;
    VisitWindow(w, taps,
                [&](int64_t i) { sum += std::pow(std::abs(static_cast<double>(x[i])), p); });
    return static_cast<T>(std::pow(sum, 1 / p));
  }
  double sum = 0;
  int64_t count = 0;
  VisitWindow(w, taps, [&](int64_t i) {
    sum += static_cast<double>(x[i]);
    ++count;
  });
  if (node.count_include_pad) count = CountPadded(w, at);
  return static_cast<T>(sum / static_cast<double>(count));
}

int64_t ColumnMajor(const Window& w, int64_t index) {
  const int64_t x = index % w.in[2];
  const int64_t y = index / w.in[2] % w.in[1];
  const int64_t z = index / w.in[2] / w.in[1];
  return z + w.in[0] * (y + w.in[1] * x);
}

template <class T>
void RunPlain(const PoolNode& node, const Window& w, const Tensor& x, std::span<Tensor> outputs,
              Scratch& scratch) {
  const Shape shape = WindowShape(w, x.shape(), x.shape()[1]);
  const std::span<T> y = scratch.Allocate<T>(outputs[0], shape);
  const bool wants_indices = outputs.size() > 1;
  int64_t* indices = wants_indices ? scratch.Allocate<int64_t>(outputs[1], shape).data() : nullptr;
  const T* values = x.data<T>().data();
  scratch.ParallelFor(x.shape()[0] * x.shape()[1], 1, [&](int64_t begin, int64_t end) {
    for (int64_t plane = begin; plane < end; ++plane) {
      for (int64_t p = 0; p < w.out_count(); ++p) {
        const Axes3 at = {p / w.out[2] / w.out[1], p / w.out[2] % w.out[1], p % w.out[2]};
        int64_t arg = 0;
        const int64_t out = plane * w.out_count() + p;
        y[Sz(out)] = PoolOne(node, w, values + plane * w.in_count(), at, arg);
        if (indices == nullptr) continue;
        indices[out] = plane * w.in_count() + (node.column_major ? ColumnMajor(w, arg) : arg);
      }
    }
  });
}

// The padded copy of one plane, its columns sorted by remainder modulo the stride, so that every
// tap of a row of outputs is a contiguous row (as in kernels/conv_f32.h).
struct PaddedPlane {
  Axes3 extent = {1, 1, 1};
  int64_t phase_floats = 0, row_floats = 0;
  std::vector<int64_t> offsets;
  std::vector<float> inverse_counts;  // of an average, by output
  int64_t floats() const { return extent[0] * extent[1] * row_floats; }
};

PaddedPlane PlanPlane(const PoolNode& node, const Window& w) {
  PaddedPlane plane;
  for (size_t d = 0; d < 3; ++d) {
    const int64_t reach = (w.out[d] - 1) * w.stride[d] + (w.kernel[d] - 1) * w.dilation[d] + 1;
    plane.extent[d] = std::max(reach, w.in[d] + w.pad_begin[d]);
  }
  plane.phase_floats = (plane.extent[2] + w.stride[2] - 1) / w.stride[2];
  plane.row_floats = plane.phase_floats * w.stride[2];
  for (int64_t tap = 0; tap < w.taps(); ++tap) {
    const int64_t row = tap / w.kernel[2] / w.kernel[1] * w.dilation[0] * plane.extent[1] +
                        tap / w.kernel[2] % w.kernel[1] * w.dilation[1];
    const int64_t column = tap % w.kernel[2] * w.dilation[2];
    plane.offsets.push_back(row * plane.row_floats + column % w.stride[2] * plane.phase_floats +
                            column / w.stride[2]);
  }
  if (node.kind != PoolKind::kAverage) return plane;
  for (int64_t p = 0; p < w.out_count(); ++p) {
    const Axes3 at = {p / w.out[2] / w.out[1], p / w.out[2] % w.out[1], p % w.out[2]};
    int64_t count = 1;
    for (const TapRange& taps : TapsAt(w, at)) count *= taps.end - taps.begin;
    if (node.count_include_pad) count = CountPadded(w, at);
    plane.inverse_counts.push_back(1.0F / static_cast<float>(count));
  }
  return plane;
}

// Copies a plane into the padded one, whose rows around it hold the padding already.
void FillPlane(const Window& w, const PaddedPlane& plane, PadRowsF32 pad, const F32Kernels& kernels,
               float* out) {
  for (int64_t z = 0; z < w.in[0]; ++z, pad.x += pad.rows * pad.count) {
    const int64_t row = (z + w.pad_begin[0]) * plane.extent[1] + w.pad_begin[1];
    pad.y = out + row * plane.row_floats;
    kernels.pad_rows(pad);
  }
}

void RunFloat(const PoolNode& node, const Window& w, const Tensor& x, Tensor& output,
              Scratch& scratch) {
  const std::span<float> y =
      scratch.Allocate<float>(output, WindowShape(w, x.shape(), x.shape()[1]));
  const PaddedPlane plane = PlanPlane(node, w);
  const std::vector<float> ones(plane.offsets.size(), 1.0F);
  const bool is_max = node.kind == PoolKind::kMax;
  const float padding = is_max ? -std::numeric_limits<float>::infinity() : 0.0F;
  const float* values = x.data<float>().data();
  const PadRowsF32 pad{.count = w.in[2],
                       .pad = w.pad_begin[2],
                       .stride = w.stride[2],
                       .phase_floats = plane.phase_floats,
                       .padding = padding,
                       .rows = w.in[1],
                       .y_step = plane.row_floats};
  ForEachShare(scratch, x.shape()[0] * x.shape()[1], plane.floats() + kTapSlack,
               [&](int64_t begin, int64_t end, float* memory) {
                 TapRowsF32 taps{.source_step = w.stride[1] * plane.row_floats,
                                 .offsets = plane.offsets.data(),
                                 .weights = ones.data(),
                                 .taps = static_cast<int64_t>(ones.size()),
                                 .low = -std::numeric_limits<float>::infinity(),
                                 .high = std::numeric_limits<float>::infinity(),
                                 .y_step = w.out[2],
                                 .rows = w.out[1],
                                 .count = w.out[2]};
                 std::fill(memory, memory + plane.floats(), padding);
                 for (int64_t i = begin; i < end; ++i) {
                   PadRowsF32 part = pad;
                   part.x = values + i * w.in_count();
                   FillPlane(w, plane, part, *node.kernels, memory);
                   float* out = y.data() + i * w.out_count();
                   for (int64_t z = 0; z < w.out[0]; ++z) {
                     const int64_t in_row = z * w.stride[0] * plane.extent[1];
                     taps.source = memory + in_row * plane.row_floats;
                     taps.y = out + z * w.out[1] * w.out[2];
                     is_max ? node.kernels->tap_max_rows(taps) : node.kernels->tap_sum_rows(taps);
                   }
                   if (is_max) continue;
                   node.kernels->multiply_add(plane.inverse_counts.data(), nullptr, out,
                                              w.out_count());
                 }
               });
}

PoolNode ReadPool(const Node& node, const OpContext& context, PoolKind kind) {
  CheckInputCount(node, 1, 1);
  PoolNode pool;
  pool.kind = kind;
  pool.window = ReadWindow(node);
  pool.count_include_pad = node.Int("count_include_pad", 0) != 0;
  pool.column_major = node.Int("storage_order", 0) != 0;
  pool.p = node.Int("p", 2);
  pool.kernels = &F32KernelsFor(context.isa);
  if (pool.window.kernel.empty()) RefuseNode("kernel_shape is missing", pool.window.label);
  return pool;
}

template <PoolKind kKind>
Op PreparePool(const Node& node, const OpContext& context) {
  return [pool = ReadPool(node, context, kKind)](std::span<const Tensor* const> inputs,
                                                 std::span<Tensor> outputs, Scratch& scratch) {
    const Tensor& x = *inputs[0];
    const Window window = PlanWindow(pool.window, x.shape(), {});
    const bool is_plain = pool.kind == PoolKind::kLp || outputs.size() > 1;
    if (x.dtype() == DType::kFloat32 && !is_plain && window.out_count() > 0) {
      return RunFloat(pool, window, x, outputs[0], scratch);
    }
    if (pool.kind == PoolKind::kMax) {
      DispatchNumber(x.dtype(), pool.window.label,
                     [&]<class T>() { RunPlain<T>(pool, window, x, outputs, scratch); });
      return;
    }
    DispatchFloat(x.dtype(), pool.window.label,
                  [&]<class T>() { RunPlain<T>(pool, window, x, outputs, scratch); });
  };
}

template <class T>
T PoolAll(PoolKind kind, int64_t p, std::span<const T> x) {
  if (kind == PoolKind::kMax) {
    T best = x[0];
    for (const T value : x) best = value > best || std::isnan(value) ? value : best;
    return best;
  }
  double sum = 0;
  for (const T value : x) {
    const double v = static_cast<double>(value);
    sum += kind == PoolKind::kAverage ? v : std::pow(std::abs(v), static_cast<double>(p));
  }
  return static_cast<T>(kind == PoolKind::kAverage ? sum / static_cast<double>(x.size())
                                                   : std::pow(sum, 1 / static_cast<double>(p)));
}

template <PoolKind kKind>
Op PrepareGlobalPool(const Node& node, const OpContext& context) {
  CheckInputCount(node, 1, 1);
  const std::string label = NodeLabel(node);
  const int64_t p = node.Int("p", 2);
  const F32Kernels& kernels = F32KernelsFor(context.isa);
  return [label, p, &kernels](std::span<const Tensor* const> inputs, std::span<Tensor> outputs,
                              Scratch& scratch) {
    const Tensor& x = *inputs[0];
    if (x.rank() < 2) RefuseNode("the input must have a batch and a channel axis", label);
    Shape shape(x.shape().size(), 1);
    shape[0] = x.shape()[0];
    shape[1] = x.shape()[1];
    const int64_t count = Extent(x.shape(), 2, x.rank());
    if (count == 0) RefuseNode("the input has no spatial elements", label);
    DispatchFloat(x.dtype(), label, [&]<class T>() {
      const std::span<T> y = scratch.Allocate<T>(outputs[0], shape);
      const std::span<const T> values = x.data<T>();
      scratch.ParallelFor(static_cast<int64_t>(y.size()), 8, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
          const std::span<const T> plane = values.subspan(Sz(i * count), Sz(count));
          if constexpr (kKind == PoolKind::kAverage && std::is_same_v<T, float>) {
            y[Sz(i)] = kernels.sum(plane.data(), count) / static_cast<float>(count);
          } else {
            y[Sz(i)] = PoolAll<T>(kKind, p, plane);
          }
        }
      });
    });
  };
}

Op PrepareMaxUnpool(const Node& node, const OpContext& /*context*/) {
  CheckInputCount(node, 2, 3);
  const WindowAttributes window = ReadWindow(node);
  return
      [window](std::span<const Tensor* const> inputs, std::span<Tensor> outputs, Scratch& scratch) {
        const Tensor& x = *inputs[0];
        const Window inferred = PlanTransposedWindow(window, x.shape(), {});
        const Shape least = WindowShape(inferred, x.shape(), x.shape()[1]);
        Shape shape = least;
        if (inputs.size() > 2 && inputs[2] != nullptr) shape = IntegersOf(*inputs[2], window.label);
        if (shape.size() != least.size()) RefuseNode("output_shape has another rank", window.label);
        DispatchNumber(x.dtype(), window.label, [&]<class T>() {
          const std::span<T> y = scratch.Allocate<T>(outputs[0], shape);
          std::fill(y.begin(), y.end(), T{});
          const std::span<const T> values = x.data<T>();
          const std::vector<int64_t> indices = IntegersOf(*inputs[1], window.label);
          const Shape strides = StridesOf(shape);
          for (size_t i = 0; i < values.size() && i < indices.size(); ++i) {
            // The index counts in the output that the window alone would give.
            int64_t rest = indices[i];
            int64_t at = 0;
            for (size_t d = least.size(); d-- > 0; rest /= least[d])
              at += rest % least[d] * strides[d];
            if (at < 0 || at >= static_cast<int64_t>(y.size())) {
              RefuseNode("index " + std::to_string(indices[i]) + " is outside the output",
                         window.label);
            }
            y[Sz(at)] = values[i];
          }
        });
      };
}

constexpr std::array kOps = {
    OpInfo{"MaxPool", "", PreparePool<PoolKind::kMax>},
    OpInfo{"AveragePool", "", PreparePool<PoolKind::kAverage>},
    OpInfo{"LpPool", "", PreparePool<PoolKind::kLp>},
    OpInfo{"GlobalMaxPool", "", PrepareGlobalPool<PoolKind::kMax>},
    OpInfo{"GlobalAveragePool", "", PrepareGlobalPool<PoolKind::kAverage>},
    OpInfo{"GlobalLpPool", "", PrepareGlobalPool<PoolKind::kLp>},
    OpInfo{"MaxUnpool", "", PrepareMaxUnpool},
};

}  // namespace

std::span<const OpInfo> PoolOps() { return kOps; }

}  // namespace pared
