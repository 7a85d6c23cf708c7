// Every mode of Resize is separable: an output coordinate of one axis is a weighted sum of input
// coordinates of that axis. The weights of each axis are computed once; the axes that change are
// then resampled one after the other, the innermost last.

#include "evaluator/resize.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "evaluator/op_checks.h"

namespace pared {
namespace {

struct ResizeNode {
  std::string label;
  std::string mode = "nearest", transform = "half_pixel", nearest = "round_prefer_floor";
  std::string policy = "stretch";
  double cubic_a = -0.75, extrapolation = 0;
  bool excludes_outside = false, antialias = false;
  std::vector<int64_t> axes;
  std::vector<float> scales;  // Upsample before opset 9
};

// The taps of all outputs of one axis: output i sums weights[i][t] * x[index[i][t]].
struct AxisTaps {
  int64_t axis = 0, in = 0, out = 0, taps = 0;
  std::vector<int64_t> index;   // [out][taps]
  std::vector<double> weights;  // [out][taps]
  std::vector<bool> outside;    // [out]: takes the extrapolation value
};

struct AxisGeometry {
  double scale = 1, roi_begin = 0, roi_end = 1;
  int64_t in = 0, out = 0;
};

double InputCoordinate(const ResizeNode& node, const AxisGeometry& g, int64_t at) {
  const double x = static_cast<double>(at);
  const double in = static_cast<double>(g.in);
  const double out = static_cast<double>(g.out);
  if (node.transform == "asymmetric") return x / g.scale;
  // By the whole length of the output, as the operator's text and ONNX Runtime have it; ONNX's own
  // node tests use scale * in, which may have a fraction.
  if (node.transform == "align_corners") return g.out == 1 ? 0 : x * (in - 1) / (out - 1);
  if (node.transform == "pytorch_half_pixel") return g.out == 1 ? 0 : (x + 0.5) / g.scale - 0.5;
  if (node.transform == "tf_half_pixel_for_nn") return (x + 0.5) / g.scale;
  if (node.transform == "tf_crop_and_resize") {
    if (g.out == 1) return 0.5 * (g.roi_begin + g.roi_end) * (in - 1);
    return g.roi_begin * (in - 1) + x * (g.roi_end - g.roi_begin) * (in - 1) / (out - 1);
  }
  if (node.transform == "half_pixel_symmetric") {
    // The output may be shorter than scale * in: what is cut is cut on both sides alike.
    const double adjustment = out / (g.scale * in);
    const double center = in / 2;
    return center * (1 - adjustment) + (x + 0.5) / g.scale - 0.5;
  }
  return (x + 0.5) / g.scale - 0.5;
}

double Cubic(double a, double d) {
  d = std::abs(d);
  if (d <= 1) return ((a + 2) * d - (a + 3)) * d * d + 1;
  if (d < 2) return ((a * d - 5 * a) * d + 8 * a) * d - 4 * a;
  return 0;
}

double Linear(double d) { return std::max(0.0, 1 - std::abs(d)); }

int64_t NearestIndex(const std::string& rule, double x) {
  if (rule == "floor") return static_cast<int64_t>(std::floor(x));
  if (rule == "ceil") return static_cast<int64_t>(std::ceil(x));
  if (rule == "round_prefer_ceil") return static_cast<int64_t>(std::floor(x + 0.5));
  return static_cast<int64_t>(std::ceil(x - 0.5));
}

AxisTaps TapsOf(const ResizeNode& node, const AxisGeometry& g) {
  AxisTaps taps;
  taps.in = g.in;
  taps.out = g.out;
  const bool is_nearest = node.mode == "nearest";
  const bool is_cubic = node.mode == "cubic";
  // A downscale with antialias widens the filter by the factor.
  const double stretch = node.antialias ? std::max(1.0, 1 / g.scale) : 1.0;
  const double support = (is_cubic ? 2 : 1) * stretch;
  taps.taps = is_nearest ? 1 : static_cast<int64_t>(2 * std::ceil(support));
  if (!is_nearest && node.antialias) taps.taps += 1;
  for (int64_t i = 0; i < g.out; ++i) {
    const double x = InputCoordinate(node, g, i);
    taps.outside.push_back(node.transform == "tf_crop_and_resize" &&
                           (x < 0 || x > static_cast<double>(g.in - 1)));
    if (is_nearest) {
      taps.index.push_back(std::clamp<int64_t>(NearestIndex(node.nearest, x), 0, g.in - 1));
      taps.weights.push_back(1);
      continue;
    }
    const int64_t first = static_cast<int64_t>(std::floor(x)) - (taps.taps - 1) / 2;
    double sum = 0;
    for (int64_t t = 0; t < taps.taps; ++t) {
      const double d = (static_cast<double>(first + t) - x) / stretch;
      double weight = is_cubic ? Cubic(node.cubic_a, d) : Linear(d);
      const bool is_inside = first + t >= 0 && first + t < g.in;
      if (!is_inside && node.excludes_outside) weight = 0;
      taps.index.push_back(std::clamp<int64_t>(first + t, 0, g.in - 1));
      taps.weights.push_back(weight);
      sum += weight;
    }
    if (!node.excludes_outside && !node.antialias) continue;
    for (int64_t t = 0; t < taps.taps; ++t) taps.weights[Sz(i * taps.taps + t)] /= sum;
  }
  return taps;
}

// Resamples axis `taps.axis` of x, whose shape is `shape`.
template <class T>
void ResampleAxis(const AxisTaps& taps, const Shape& shape, const T* x, T* y, Scratch& scratch) {
  const int64_t rank = static_cast<int64_t>(shape.size());
  const int64_t inner = Extent(shape, taps.axis + 1, rank);
  const int64_t lines = Extent(shape, 0, taps.axis);
  scratch.ParallelFor(lines, 1, [&](int64_t begin, int64_t end) {
    for (int64_t line = begin; line < end; ++line) {
      const T* from = x + line * taps.in * inner;
      T* to = y + line * taps.out * inner;
      if (taps.taps == 1 && inner == 1) {  // no call for each element
        for (int64_t i = 0; i < taps.out; ++i) to[i] = from[taps.index[Sz(i)]];
        continue;
      }
      for (int64_t i = 0; i < taps.out; ++i, to += inner) {
        const int64_t* index = taps.index.data() + i * taps.taps;
        const double* weights = taps.weights.data() + i * taps.taps;
        if (taps.taps == 1) {
          std::copy(from + index[0] * inner, from + (index[0] + 1) * inner, to);
          continue;
        }
        if constexpr (std::is_floating_point_v<T>) {
          const T first = static_cast<T>(weights[0]);
          for (int64_t j = 0; j < inner; ++j) to[j] = from[index[0] * inner + j] * first;
          for (int64_t t = 1; t < taps.taps; ++t) {
            const T weight = static_cast<T>(weights[t]);
            const T* row = from + index[t] * inner;
            for (int64_t j = 0; j < inner; ++j) to[j] += row[j] * weight;
          }
        }
      }
    }
  });
}

template <class T>
void Extrapolate(const std::vector<AxisTaps>& axes, const Shape& shape, T value, T* y) {
  for (const AxisTaps& taps : axes) {
    if (std::ranges::find(taps.outside, true) == taps.outside.end()) continue;
    const int64_t inner = Extent(shape, taps.axis + 1, static_cast<int64_t>(shape.size()));
    const int64_t lines = Extent(shape, 0, taps.axis);
    for (int64_t i = 0; i < lines * taps.out; ++i) {
      if (taps.outside[Sz(i % taps.out)]) std::fill(y + i * inner, y + (i + 1) * inner, value);
    }
  }
}

// The result for arithmetic type T of a tensor whose elements are of type E.
template <class T, class E>
void RunResize(const ResizeNode& node, const std::vector<AxisTaps>& axes, const Tensor& x,
               const Shape& shape, Tensor& output, Scratch& scratch) {
  E* y = AllocateLike<E>(output, x.dtype(), shape, scratch);
  const E* values = Elements<E>(x);
  Shape current = x.shape();
  const T* from = nullptr;
  if constexpr (std::is_same_v<T, E>) {
    from = values;
  } else {
    T* wide = reinterpret_cast<T*>(scratch.Temporary(Sz(x.count()) * sizeof(T)));
    for (int64_t i = 0; i < x.count(); ++i) wide[i] = static_cast<T>(values[i]);
    from = wide;
  }
  for (size_t i = 0; i < axes.size(); ++i) {
    Shape next = current;
    next[Sz(axes[i].axis)] = axes[i].out;
    const size_t count = Sz(ElementCount(next));
    T* to = nullptr;
    if constexpr (std::is_same_v<T, E>) {
      if (i + 1 == axes.size()) to = y;
    }
    if (to == nullptr) to = reinterpret_cast<T*>(scratch.Temporary(count * sizeof(T)));
    ResampleAxis<T>(axes[i], current, from, to, scratch);
    current = next;
    from = to;
  }
  const size_t count = Sz(ElementCount(shape));
  if constexpr (std::is_same_v<T, E>) {
    if (axes.empty()) std::copy(from, from + count, y);
    Extrapolate<E>(axes, shape, static_cast<E>(node.extrapolation), y);
  } else {
    // Eight-bit images: rounded, not cut.
    constexpr double kLow = std::numeric_limits<E>::lowest();
    constexpr double kHigh = std::numeric_limits<E>::max();
    for (size_t i = 0; i < count; ++i) {
      y[i] = static_cast<E>(std::clamp(std::nearbyint(static_cast<double>(from[i])), kLow, kHigh));
    }
  }
}

template <class E>
void RunNearest(const ResizeNode& node, const std::vector<AxisTaps>& axes, const Tensor& x,
                const Shape& shape, Tensor& output, Scratch& scratch) {
  RunResize<E, E>(node, axes, x, shape, output, scratch);
}

void Run(const ResizeNode& node, const std::vector<AxisTaps>& axes, const Tensor& x,
         const Shape& shape, Tensor& output, Scratch& scratch) {
  switch (x.dtype()) {
    case DType::kFloat32:
      return RunResize<float, float>(node, axes, x, shape, output, scratch);
    case DType::kFloat64:
      return RunResize<double, double>(node, axes, x, shape, output, scratch);
    case DType::kUInt8:
      if (node.mode != "nearest") {
        return RunResize<float, uint8_t>(node, axes, x, shape, output, scratch);
      }
      break;
    case DType::kInt8:
      if (node.mode != "nearest") {
        return RunResize<float, int8_t>(node, axes, x, shape, output, scratch);
      }
      break;
    default:
      if (node.mode != "nearest") RefuseDType(x.dtype(), node.label);
  }
  DispatchInteger(x.dtype(), node.label,
                  [&]<class E>() { RunNearest<E>(node, axes, x, shape, output, scratch); });
}

ResizeNode ReadResize(const Node& node) {
  ResizeNode r;
  r.label = NodeLabel(node);
  r.mode = node.String("mode", "nearest");
  r.transform = node.String("coordinate_transformation_mode", "half_pixel");
  r.nearest = node.String("nearest_mode", "round_prefer_floor");
  r.policy = node.String("keep_aspect_ratio_policy", "stretch");
  r.cubic_a = static_cast<double>(node.Float("cubic_coeff_a", -0.75F));
  r.extrapolation = static_cast<double>(node.Float("extrapolation_value", 0));
  r.excludes_outside = node.Int("exclude_outside", 0) != 0;
  r.antialias = node.Int("antialias", 0) != 0;
  r.axes = node.Ints("axes");
  if (r.mode == "bilinear") r.mode = "linear";
  if (r.mode != "nearest" && r.mode != "linear" && r.mode != "cubic") {
    RefuseNode("mode is \"" + r.mode + "\"", r.label);
  }
  return r;
}

std::vector<double> FloatsOf(const Tensor* tensor, const std::string& label) {
  std::vector<double> out;
  if (tensor == nullptr || tensor->count() == 0) return out;
  DispatchFloat(tensor->dtype(), label, [&]<class T>() {
    for (const T value : tensor->data<T>()) out.push_back(static_cast<double>(value));
  });
  return out;
}

// The geometry of every axis of x from the inputs as ONNX gives them: for all axes, or `axes`.
struct Wanted {
  std::vector<double> scales, roi;
  std::vector<int64_t> sizes;
};
std::vector<AxisGeometry> GeometryOf(const ResizeNode& node, const Shape& shape,
                                     const Wanted& wanted) {
  std::vector<AxisGeometry> all(shape.size());
  for (size_t d = 0; d < shape.size(); ++d) all[d].in = all[d].out = shape[d];
  std::vector<int64_t> axes = node.axes;
  for (size_t d = 0; axes.size() < shape.size() && node.axes.empty(); ++d) {
    axes.push_back(static_cast<int64_t>(d));
  }
  const bool by_size = !wanted.sizes.empty();
  if ((by_size ? wanted.sizes.size() : wanted.scales.size()) != axes.size()) {
    RefuseNode("scales or sizes must have one element an axis", node.label);
  }
  const bool is_larger = node.policy == "not_smaller";
  double common = 0;  // the one scale of a policy that keeps the aspect ratio
  for (size_t i = 0; i < axes.size(); ++i) {
    const int64_t d = NormalizeAxis(axes[i], static_cast<int64_t>(shape.size()), node.label);
    AxisGeometry& g = all[Sz(d)];
    const double in = static_cast<double>(g.in);
    if (by_size) {
      g.out = wanted.sizes[i];
      g.scale = static_cast<double>(g.out) / in;
      const bool wins = i == 0 || (is_larger ? g.scale > common : g.scale < common);
      if (wins) common = g.scale;
    } else {
      g.scale = wanted.scales[i];
      g.out = static_cast<int64_t>(std::floor(in * g.scale));
    }
    if (wanted.roi.size() == 2 * axes.size()) {
      g.roi_begin = wanted.roi[i];
      g.roi_end = wanted.roi[axes.size() + i];
      if (!by_size && node.transform == "tf_crop_and_resize") {
        g.out = static_cast<int64_t>(std::floor(in * (g.roi_end - g.roi_begin) * g.scale));
      }
    }
  }
  if (!by_size || node.policy == "stretch") return all;
  for (const int64_t axis : axes) {
    AxisGeometry& g = all[Sz(NormalizeAxis(axis, static_cast<int64_t>(shape.size()), node.label))];
    g.scale = common;
    g.out = static_cast<int64_t>(std::floor(static_cast<double>(g.in) * common + 0.5));
  }
  return all;
}

void RunGeometry(const ResizeNode& node, const std::vector<AxisGeometry>& geometry, const Tensor& x,
                 Tensor& output, Scratch& scratch) {
  Shape shape;
  std::vector<AxisTaps> axes;
  for (size_t d = 0; d < geometry.size(); ++d) {
    const AxisGeometry& g = geometry[d];
    if (g.out < 0) RefuseNode("scales must be positive", node.label);
    shape.push_back(g.out);
    const bool is_same = g.in == g.out && g.scale == 1 && node.transform != "tf_crop_and_resize";
    if (is_same) continue;
    if (g.in == 0 && g.out > 0) RefuseNode("an empty axis cannot grow", node.label);
    if (!(g.scale > 0)) RefuseNode("scales must be positive", node.label);
    axes.push_back(TapsOf(node, g));
    axes.back().axis = static_cast<int64_t>(d);
  }
  Run(node, axes, x, shape, output, scratch);
}

}  // namespace

Op PrepareResize(const Node& node, const OpContext& context) {
  CheckInputCount(node, 1, 4);
  ResizeNode resize = ReadResize(node);
  // Opset 10 has inputs (X, scales) and no choice of coordinates.
  const bool is_first = context.opset < 11;
  if (is_first) {
    resize.transform = "asymmetric";
    resize.nearest = "floor";
  }
  return [resize, is_first](std::span<const Tensor* const> inputs, std::span<Tensor> outputs,
                            Scratch& scratch) {
    const auto input = [&](size_t i) { return i < inputs.size() ? inputs[i] : nullptr; };
    Wanted wanted;
    wanted.scales = FloatsOf(input(is_first ? 1 : 2), resize.label);
    if (!is_first) wanted.roi = FloatsOf(input(1), resize.label);
    if (input(3) != nullptr && input(3)->count() > 0) {
      wanted.sizes = IntegersOf(*input(3), resize.label);
    }
    const std::vector<AxisGeometry> geometry = GeometryOf(resize, inputs[0]->shape(), wanted);
    RunGeometry(resize, geometry, *inputs[0], outputs[0], scratch);
  };
}

Op PrepareUpsample(const Node& node, const OpContext& context) {
  CheckInputCount(node, 1, 2);
  ResizeNode resize = ReadResize(node);
  resize.transform = "asymmetric";
  resize.nearest = "floor";
  if (context.opset < 9) resize.scales = node.Floats("scales");
  return
      [resize](std::span<const Tensor* const> inputs, std::span<Tensor> outputs, Scratch& scratch) {
        Wanted wanted;
        wanted.scales.assign(resize.scales.begin(), resize.scales.end());
        if (inputs.size() > 1) wanted.scales = FloatsOf(inputs[1], resize.label);
        const std::vector<AxisGeometry> geometry = GeometryOf(resize, inputs[0]->shape(), wanted);
        RunGeometry(resize, geometry, *inputs[0], outputs[0], scratch);
      };
}

}  // namespace pared
