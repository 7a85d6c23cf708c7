// The window of a convolution or pool: kernel, strides, dilations and padding as ONNX states them.

#include <algorithm>
#include <string>

#include "base/error.h"
#include "evaluator/ops_int8.h"

namespace pared {
namespace {

constexpr int64_t kGrainBytes = 32768;

int64_t At(const std::vector<int64_t>& values, size_t index, int64_t fallback) {
  return index < values.size() ? values[index] : fallback;
}

// One axis of a window: kernel, stride, dilation, padding before and after.
struct Axis {
  int64_t kernel = 1, stride = 1, dilation = 1, before = 0, after = 0;
};

// ONNX auto_pad: the output is the input divided by the stride, rounded up.
void PadSame(Axis& axis, int64_t size, bool upper) {
  const int64_t out = (size + axis.stride - 1) / axis.stride;
  const int64_t covered = (out - 1) * axis.stride + axis.dilation * (axis.kernel - 1) + 1;
  const int64_t total = std::max<int64_t>(0, covered - size);
  axis.before = upper ? total / 2 : total - total / 2;
  axis.after = total - axis.before;
}

// ONNX ceil_mode: one more output where the windows do not end with the input, unless that window
// would begin in the padding.
void PadToCeiling(Axis& axis, int64_t size) {
  const int64_t covered = axis.dilation * (axis.kernel - 1) + 1;
  const int64_t rest = (size + axis.before + axis.after - covered) % axis.stride;
  if (rest == 0) return;
  const int64_t last = size + axis.before + axis.after - covered - rest + axis.stride;
  if (last < size + axis.before) axis.after += axis.stride - rest;
}

Axis AxisOf(const Node& node, size_t index, int64_t size) {
  const std::vector<int64_t> kernel = node.Ints("kernel_shape"), pads = node.Ints("pads");
  Axis axis{.kernel = kernel[index],
            .stride = At(node.Ints("strides"), index, 1),
            .dilation = At(node.Ints("dilations"), index, 1),
            .before = At(pads, index, 0),
            .after = At(pads, index + kernel.size(), 0)};
  const std::string auto_pad = node.String("auto_pad", "NOTSET");
  if (auto_pad == "VALID") axis.before = axis.after = 0;
  if (auto_pad == "SAME_UPPER" || auto_pad == "SAME_LOWER") {
    PadSame(axis, size, auto_pad == "SAME_UPPER");
  }
  if (node.Int("ceil_mode", 0) != 0) PadToCeiling(axis, size);
  const bool valid = axis.kernel > 0 && axis.stride > 0 && axis.dilation > 0 && axis.before >= 0 &&
                     axis.after >= 0 &&
                     size + axis.before + axis.after >= axis.dilation * (axis.kernel - 1) + 1;
  if (!valid) {
    throw Error(ErrorCode::kInvalidArgument,
                "the window does not fit an axis of " + std::to_string(size), NodeLabel(node));
  }
  return axis;
}

}  // namespace

ConvGeometry GeometryOf(const Node& node, const Shape& x) {
  const size_t axes = node.Ints("kernel_shape").size();
  if (x.size() != axes + 2 || (axes != 1 && axes != 2)) {
    throw Error(ErrorCode::kInvalidArgument,
                "x has shape " + ShapeText(x) + ", which does not fit a window of " +
                    std::to_string(axes) + " axes",
                NodeLabel(node));
  }
  const bool flat = axes == 1;
  const Axis rows = flat ? Axis{} : AxisOf(node, 0, x[2]);
  const Axis columns = AxisOf(node, axes - 1, x.back());
  return {.channels = x[1],
          .height = flat ? 1 : x[2],
          .width = x.back(),
          .kernel_height = rows.kernel,
          .kernel_width = columns.kernel,
          .stride_y = rows.stride,
          .stride_x = columns.stride,
          .dilation_y = rows.dilation,
          .dilation_x = columns.dilation,
          .pad_top = rows.before,
          .pad_left = columns.before,
          .pad_bottom = rows.after,
          .pad_right = columns.after};
}

Shape OutputShape(const ConvGeometry& geometry, const Shape& x, int64_t channels) {
  Shape shape = {x[0], channels};
  if (x.size() == 4) shape.push_back(geometry.out_height());
  shape.push_back(geometry.out_width());
  return shape;
}

PaddedImage PadImage(const Tensor& x, int64_t image, const Im2col& im2col, uint8_t padding,
                     Scratch& scratch) {
  const ImageSize size = ImageOf(x.shape());
  const int64_t channels = im2col.geometry().channels, groups = size.channels / channels;
  const size_t stride = (im2col.image_bytes() + 63) / 64 * 64;
  auto* padded =
      reinterpret_cast<uint8_t*>(scratch.Temporary(stride * static_cast<size_t>(groups)));
  const bool planar = IsPlanar(x);
  const uint8_t* codes =
      Codes(x) + image * (planar ? size.planar_bytes() : size.channels * size.pixels);
  const int64_t grain = std::max<int64_t>(1, kGrainBytes / std::max<int64_t>(1, size.pixels));
  for (int64_t g = 0; g < groups; ++g) {
    uint8_t* out = padded + stride * static_cast<size_t>(g);
    scratch.ParallelFor(channels, grain, [&](int64_t begin, int64_t end) {
      if (planar) {
        im2col.PadPlanar({codes, g * channels, size.channels}, padding, begin, end, out);
      } else {
        im2col.PadRowMajor(codes + g * channels * size.pixels, padding, begin, end, out);
      }
    });
  }
  return {padded, stride};
}

}  // namespace pared
