// The sliding window of Conv, ConvTranspose and the pools: its attributes and, for one input shape,
// where it lies. Up to three spatial axes; fewer are led by axes of extent 1.

#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "model/graph.h"
#include "model/tensor.h"

namespace pared {

struct WindowAttributes {
  std::vector<int64_t> kernel, strides, dilations, pads, output_padding, output_shape;
  std::string auto_pad = "NOTSET";
  bool ceil_mode = false;
  std::string label;
};

// Reads the attributes; kernel stays empty where the node has no kernel_shape.
WindowAttributes ReadWindow(const Node& node);

using Axes3 = std::array<int64_t, 3>;  // depth, height, width

struct Window {
  Axes3 in = {1, 1, 1}, out = {1, 1, 1}, kernel = {1, 1, 1}, stride = {1, 1, 1};
  Axes3 dilation = {1, 1, 1}, pad_begin = {0, 0, 0}, pad_end = {0, 0, 0};
  int64_t in_count() const { return in[0] * in[1] * in[2]; }
  int64_t out_count() const { return out[0] * out[1] * out[2]; }
  int64_t taps() const { return kernel[0] * kernel[1] * kernel[2]; }
};

// For an input [N, C, spatial...]. `kernel` stands in where the node gave none. Throws
// kInvalidArgument where ranks do not fit or the window does not fit the padded input, and
// kUnsupported for more than three spatial axes.
Window PlanWindow(const WindowAttributes& attributes, const Shape& input,
                  const std::vector<int64_t>& kernel);
// The same for ConvTranspose, whose output is the larger side.
Window PlanTransposedWindow(const WindowAttributes& attributes, const Shape& input,
                            const std::vector<int64_t>& kernel);

// [N, channels, out...] with the spatial rank of `input`.
Shape WindowShape(const Window& window, const Shape& input, int64_t channels);

}  // namespace pared
