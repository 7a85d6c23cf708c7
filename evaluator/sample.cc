#include "evaluator/sample.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <string>
#include <vector>

#include "evaluator/op_checks.h"

namespace pared {
namespace {

enum class Border { kZeros, kBorder, kReflection };

struct GridNode {
  std::string label, mode;
  Border border = Border::kZeros;
  bool aligns_corners = false;
};

double Reflect(double x, double low, double high) {
  const double range = high - low;
  if (range <= 0) return low;
  double d = std::fmod(std::abs(x - low), 2 * range);
  if (d > range) d = 2 * range - d;
  return low + d;
}

double Unnormalize(const GridNode& node, double x, int64_t extent) {
  const double n = static_cast<double>(extent);
  return node.aligns_corners ? (x + 1) / 2 * (n - 1) : ((x + 1) * n - 1) / 2;
}

// The index that stands in for `i` outside the image; -1: zero.
int64_t BorderIndex(const GridNode& node, int64_t i, int64_t extent) {
  if (i >= 0 && i < extent) return i;
  if (node.border == Border::kZeros) return -1;
  if (node.border == Border::kBorder) return std::clamp<int64_t>(i, 0, extent - 1);
  const double low = node.aligns_corners ? 0 : -0.5;
  const double high = static_cast<double>(extent) - (node.aligns_corners ? 1 : 0.5);
  const double reflected = Reflect(static_cast<double>(i), low, high);
  return std::clamp<int64_t>(static_cast<int64_t>(std::nearbyint(reflected)), 0, extent - 1);
}

// The taps of one coordinate: indices (-1: zero) and weights.
struct Taps {
  std::array<int64_t, 4> index{};
  std::array<double, 4> weight{};
  size_t count = 0;
};

Taps GridTaps(const GridNode& node, double normalized, int64_t extent) {
  double x = Unnormalize(node, normalized, extent);
  Taps taps;
  const auto add = [&](int64_t i, double weight) {
    taps.index[taps.count] = BorderIndex(node, i, extent);
    taps.weight[taps.count++] = weight;
  };
  // Far outside, a coordinate would not fit an index.
  if (!std::isfinite(x)) x = -1e6;
  x = std::clamp(x, -1e9, 1e9);
  if (node.mode != "cubic") {
    if (node.border == Border::kBorder) x = std::clamp(x, 0.0, static_cast<double>(extent - 1));
    if (node.border == Border::kReflection) {
      const double low = node.aligns_corners ? 0 : -0.5;
      const double high = static_cast<double>(extent) - (node.aligns_corners ? 1 : 0.5);
      if (x < low || x > high) x = Reflect(x, low, high);
      x = std::clamp(x, 0.0, static_cast<double>(extent - 1));
    }
  }
  if (node.mode == "nearest") {
    add(static_cast<int64_t>(std::nearbyint(x)), 1);
    return taps;
  }
  const int64_t base = static_cast<int64_t>(std::floor(x));
  const double t = x - std::floor(x);
  if (node.mode == "linear") {
    add(base, 1 - t);
    add(base + 1, t);
    return taps;
  }
  constexpr double kA = -0.75;
  const auto cubic = [](double d) {
    if (d <= 1) return ((kA + 2) * d - (kA + 3)) * d * d + 1;
    return ((kA * d - 5 * kA) * d + 8 * kA) * d - 4 * kA;
  };
  add(base - 1, cubic(1 + t));
  add(base, cubic(t));
  add(base + 1, cubic(1 - t));
  add(base + 2, cubic(2 - t));
  return taps;
}

GridNode ReadGrid(const Node& node) {
  GridNode grid;
  grid.label = NodeLabel(node);
  grid.mode = node.String("mode", "linear");
  if (grid.mode == "bilinear") grid.mode = "linear";
  if (grid.mode == "bicubic") grid.mode = "cubic";
  grid.aligns_corners = node.Int("align_corners", 0) != 0;
  const std::string border = node.String("padding_mode", "zeros");
  if (border == "border") {
    grid.border = Border::kBorder;
  } else if (border == "reflection") {
    grid.border = Border::kReflection;
  } else if (border != "zeros") {
    RefuseNode("padding_mode is \"" + border + "\"", grid.label);
  }
  return grid;
}

template <class T>
double SampleAt(const std::vector<Taps>& axes, const Shape& spatial, const T* plane) {
  double sum = 0;
  std::array<size_t, 3> at{};
  while (true) {
    double weight = 1;
    int64_t index = 0;
    bool is_zero = false;
    for (size_t d = 0; d < axes.size(); ++d) {
      weight *= axes[d].weight[at[d]];
      is_zero = is_zero || axes[d].index[at[d]] < 0;
      index = index * spatial[d] + axes[d].index[at[d]];
    }
    if (!is_zero) sum += weight * static_cast<double>(plane[index]);
    size_t d = axes.size();
    while (d > 0 && ++at[d - 1] == axes[d - 1].count) at[--d] = 0;
    if (d == 0) return sum;
  }
}

template <class T>
void RunGridSample(const GridNode& node, const Tensor& x, const Tensor& grid, Tensor& output,
                   Scratch& scratch) {
  const size_t rank = x.shape().size() - 2;
  const Shape spatial(x.shape().begin() + 2, x.shape().end());
  Shape shape = {x.shape()[0], x.shape()[1]};
  shape.insert(shape.end(), grid.shape().begin() + 1, grid.shape().end() - 1);
  T* y = scratch.Allocate<T>(output, shape).data();
  const int64_t places = Extent(shape, 2, static_cast<int64_t>(shape.size()));
  const int64_t channels = shape[1];
  const int64_t plane = ElementCount(spatial);
  std::vector<double> coordinates;
  DispatchFloat(grid.dtype(), node.label, [&]<class G>() {
    coordinates.assign(grid.data<G>().begin(), grid.data<G>().end());
  });
  const T* values = x.data<T>().data();
  scratch.ParallelFor(shape[0] * places, 64, [&](int64_t begin, int64_t end) {
    std::vector<Taps> axes(rank);
    for (int64_t i = begin; i < end; ++i) {
      // The grid names the innermost axis first.
      for (size_t d = 0; d < rank; ++d) {
        axes[d] = GridTaps(node, coordinates[Sz(i) * rank + rank - 1 - d], spatial[d]);
      }
      const int64_t n = i / places;
      for (int64_t c = 0; c < channels; ++c) {
        y[(n * channels + c) * places + i % places] =
            static_cast<T>(SampleAt(axes, spatial, values + (n * channels + c) * plane));
      }
    }
  });
}

struct RoiNode {
  std::string label, transform;
  bool is_max = false;
  int64_t out_height = 1, out_width = 1, sampling = 0;
  double scale = 1;
};

template <class T>
double Bilinear(const T* plane, int64_t height, int64_t width, double y, double x, bool is_max) {
  if (y < -1 || y > static_cast<double>(height) || x < -1 || x > static_cast<double>(width)) {
    return 0;
  }
  y = std::max(y, 0.0);
  x = std::max(x, 0.0);
  int64_t y0 = static_cast<int64_t>(y);
  int64_t x0 = static_cast<int64_t>(x);
  const int64_t y1 = std::min(y0 + 1, height - 1);
  const int64_t x1 = std::min(x0 + 1, width - 1);
  if (y0 >= height - 1) y = static_cast<double>(y0 = height - 1);
  if (x0 >= width - 1) x = static_cast<double>(x0 = width - 1);
  const double fy = y - static_cast<double>(y0);
  const double fx = x - static_cast<double>(x0);
  const auto at = [&](int64_t row, int64_t column) {
    return static_cast<double>(plane[row * width + column]);
  };
  const std::array<double, 4> parts = {(1 - fy) * (1 - fx) * at(y0, x0), (1 - fy) * fx * at(y0, x1),
                                       fy * (1 - fx) * at(y1, x0), fy * fx * at(y1, x1)};
  if (is_max) return *std::max_element(parts.begin(), parts.end());
  return parts[0] + parts[1] + parts[2] + parts[3];
}

struct RoiBox {
  double y, x, bin_height, bin_width;
  int64_t rows, columns;  // samples of a bin
};
RoiBox BoxOf(const RoiNode& node, const double* roi) {
  const double shift = node.transform == "half_pixel" ? 0.5 : 0;
  RoiBox box{};
  box.x = roi[0] * node.scale - shift;
  box.y = roi[1] * node.scale - shift;
  double width = roi[2] * node.scale - shift - box.x;
  double height = roi[3] * node.scale - shift - box.y;
  if (node.transform != "half_pixel") {
    width = std::max(width, 1.0);
    height = std::max(height, 1.0);
  }
  box.bin_height = height / static_cast<double>(node.out_height);
  box.bin_width = width / static_cast<double>(node.out_width);
  const auto samples = [&](double bin) {
    return node.sampling > 0 ? node.sampling : static_cast<int64_t>(std::ceil(bin));
  };
  box.rows = samples(box.bin_height);
  box.columns = samples(box.bin_width);
  return box;
}

template <class T>
double PoolBin(const RoiNode& node, const RoiBox& box, const T* plane, const Shape& shape,
               int64_t bin) {
  const double top = box.y + static_cast<double>(bin / node.out_width) * box.bin_height;
  const double left = box.x + static_cast<double>(bin % node.out_width) * box.bin_width;
  double sum = 0;
  for (int64_t i = 0; i < box.rows * box.columns; ++i) {
    const double fy = (static_cast<double>(i / box.columns) + 0.5) / static_cast<double>(box.rows);
    const double fx =
        (static_cast<double>(i % box.columns) + 0.5) / static_cast<double>(box.columns);
    const double value = Bilinear(plane, shape[2], shape[3], top + fy * box.bin_height,
                                  left + fx * box.bin_width, node.is_max);
    sum = node.is_max ? (i == 0 ? value : std::max(sum, value)) : sum + value;
  }
  const int64_t count = std::max<int64_t>(1, box.rows * box.columns);
  return node.is_max ? sum : sum / static_cast<double>(count);
}

template <class T>
void RunRoiAlign(const RoiNode& node, std::span<const Tensor* const> inputs, Tensor& output,
                 Scratch& scratch) {
  const Tensor& x = *inputs[0];
  const std::span<const T> rois = inputs[1]->data<T>();
  const std::vector<int64_t> images = IntegersOf(*inputs[2], node.label);
  const int64_t channels = x.shape()[1];
  const int64_t count = static_cast<int64_t>(images.size());
  T* y = scratch.Allocate<T>(output, {count, channels, node.out_height, node.out_width}).data();
  const int64_t bins = node.out_height * node.out_width;
  const int64_t plane = x.shape()[2] * x.shape()[3];
  for (const int64_t image : images) {
    if (image < 0 || image >= x.shape()[0]) RefuseNode("batch index out of range", node.label);
  }
  scratch.ParallelFor(count, 1, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      std::array<double, 4> roi{};
      for (size_t i = 0; i < 4; ++i) roi[i] = static_cast<double>(rois[Sz(r) * 4 + i]);
      const RoiBox box = BoxOf(node, roi.data());
      for (int64_t c = 0; c < channels; ++c) {
        const T* from = x.data<T>().data() + (images[Sz(r)] * channels + c) * plane;
        for (int64_t bin = 0; bin < bins; ++bin) {
          y[(r * channels + c) * bins + bin] =
              static_cast<T>(PoolBin(node, box, from, x.shape(), bin));
        }
      }
    }
  });
}

// The normalized coordinates of one axis, -1 to 1.
double GridCoordinate(int64_t i, int64_t extent, bool aligns_corners) {
  const double n = static_cast<double>(extent);
  const double at = static_cast<double>(i);
  if (aligns_corners) return extent == 1 ? 0 : -1 + 2 * at / (n - 1);
  return -1 + (2 * at + 1) / n;
}

}  // namespace

Op PrepareGridSample(const Node& node, const OpContext& /*context*/) {
  CheckInputCount(node, 2, 2);
  return [grid = ReadGrid(node)](std::span<const Tensor* const> inputs, std::span<Tensor> outputs,
                                 Scratch& scratch) {
    const Tensor& x = *inputs[0];
    const Shape& places = inputs[1]->shape();
    const bool fits = x.rank() >= 3 && x.rank() <= 5 && places.size() == x.shape().size() &&
                      places.back() == x.rank() - 2 && places[0] == x.shape()[0];
    if (!fits) RefuseNode("the grid does not fit the input", grid.label);
    DispatchFloat(x.dtype(), grid.label,
                  [&]<class T>() { RunGridSample<T>(grid, x, *inputs[1], outputs[0], scratch); });
  };
}

Op PrepareAffineGrid(const Node& node, const OpContext& /*context*/) {
  CheckInputCount(node, 2, 2);
  const std::string label = NodeLabel(node);
  const bool aligns_corners = node.Int("align_corners", 0) != 0;
  return [label, aligns_corners](std::span<const Tensor* const> inputs, std::span<Tensor> outputs,
                                 Scratch& scratch) {
    const Tensor& theta = *inputs[0];
    const std::vector<int64_t> size = IntegersOf(*inputs[1], label);
    const size_t rank = size.size() - 2;
    const bool fits = size.size() >= 4 && theta.rank() == 3 &&
                      theta.shape()[1] == static_cast<int64_t>(rank) &&
                      theta.shape()[2] == static_cast<int64_t>(rank) + 1;
    if (!fits) RefuseNode("theta does not fit size", label);
    Shape shape = {size[0]};
    shape.insert(shape.end(), size.begin() + 2, size.end());
    shape.push_back(static_cast<int64_t>(rank));
    const int64_t places = Extent(shape, 1, static_cast<int64_t>(rank) + 1);
    DispatchFloat(theta.dtype(), label, [&]<class T>() {
      T* y = scratch.Allocate<T>(outputs[0], shape).data();
      const T* rows = theta.data<T>().data();
      for (int64_t i = 0; i < size[0] * places; ++i) {
        std::vector<double> at(rank + 1, 1.0);  // innermost axis first, then 1
        int64_t rest = i % places;
        for (size_t d = rank; d-- > 0; rest /= shape[d + 1]) {
          at[rank - 1 - d] = GridCoordinate(rest % shape[d + 1], shape[d + 1], aligns_corners);
        }
        for (size_t r = 0; r < rank; ++r) {
          double sum = 0;
          const size_t row = (Sz(i / places) * rank + r) * (rank + 1);
          for (size_t c = 0; c <= rank; ++c) sum += static_cast<double>(rows[row + c]) * at[c];
          y[Sz(i) * rank + r] = static_cast<T>(sum);
        }
      }
    });
  };
}

Op PrepareRoiAlign(const Node& node, const OpContext& context) {
  CheckInputCount(node, 3, 3);
  RoiNode roi;
  roi.label = NodeLabel(node);
  roi.is_max = node.String("mode", "avg") == "max";
  // Opset 10 knew no half pixels.
  roi.transform = context.opset < 16 ? "output_half_pixel"
                                     : node.String("coordinate_transformation_mode", "half_pixel");
  roi.out_height = node.Int("output_height", 1);
  roi.out_width = node.Int("output_width", 1);
  roi.sampling = node.Int("sampling_ratio", 0);
  roi.scale = static_cast<double>(node.Float("spatial_scale", 1));
  return [roi](std::span<const Tensor* const> inputs, std::span<Tensor> outputs, Scratch& scratch) {
    const bool fits = inputs[0]->rank() == 4 && inputs[1]->rank() == 2 &&
                      inputs[1]->shape()[1] == 4 && inputs[2]->count() == inputs[1]->shape()[0];
    if (!fits) RefuseNode("rois do not fit", roi.label);
    DispatchFloat(inputs[0]->dtype(), roi.label,
                  [&]<class T>() { RunRoiAlign<T>(roi, inputs, outputs[0], scratch); });
  };
}

}  // namespace pared
