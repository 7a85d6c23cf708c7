#include "evaluator/window.h"

#include <algorithm>

#include "base/error.h"
#include "evaluator/op_checks.h"

namespace pared {
namespace {

void Require(bool holds, const char* message, const std::string& label) {
  if (!holds) RefuseNode(message, label);
}

// Puts what was given for `rank` axes behind leading defaults.
Axes3 Lead(const std::vector<int64_t>& given, size_t offset, size_t rank, int64_t lead) {
  Axes3 axes = {lead, lead, lead};
  for (size_t i = 0; i < rank; ++i) {
    if (!given.empty()) axes[3 - rank + i] = given[offset + i];
  }
  return axes;
}

struct Ranked {
  Window window;
  size_t rank;
};

Ranked Begin(const WindowAttributes& a, const Shape& input, const std::vector<int64_t>& given) {
  Require(input.size() >= 3, "the input must have a batch, a channel and a spatial axis", a.label);
  const size_t rank = input.size() - 2;
  if (rank > 3) {
    throw Error(ErrorCode::kUnsupported, "more than three spatial axes", a.label);
  }
  const std::vector<int64_t>& kernel = a.kernel.empty() ? given : a.kernel;
  const auto fits = [&](const std::vector<int64_t>& list, size_t count) {
    return list.empty() || list.size() == count;
  };
  Require(kernel.size() == rank, "kernel_shape does not fit the rank of the input", a.label);
  Require(fits(a.strides, rank), "strides does not fit the rank of the input", a.label);
  Require(fits(a.dilations, rank), "dilations does not fit the rank of the input", a.label);
  Require(fits(a.pads, 2 * rank), "pads does not fit the rank of the input", a.label);
  Ranked r{.window = {}, .rank = rank};
  r.window.in = Lead(input, 2, rank, 1);
  r.window.kernel = Lead(kernel, 0, rank, 1);
  r.window.stride = Lead(a.strides, 0, rank, 1);
  r.window.dilation = Lead(a.dilations, 0, rank, 1);
  r.window.pad_begin = Lead(a.pads, 0, rank, 0);
  r.window.pad_end = Lead(a.pads, rank, rank, 0);
  for (size_t d = 0; d < 3; ++d) {
    Require(r.window.kernel[d] > 0, "kernel_shape must be positive", a.label);
    Require(r.window.stride[d] > 0, "strides must be positive", a.label);
    Require(r.window.dilation[d] > 0, "dilations must be positive", a.label);
  }
  return r;
}

}  // namespace

WindowAttributes ReadWindow(const Node& node) {
  WindowAttributes a;
  a.kernel = node.Ints("kernel_shape");
  a.strides = node.Ints("strides");
  a.dilations = node.Ints("dilations");
  a.pads = node.Ints("pads");
  a.output_padding = node.Ints("output_padding");
  a.output_shape = node.Ints("output_shape");
  a.auto_pad = node.String("auto_pad", "NOTSET");
  a.ceil_mode = node.Int("ceil_mode", 0) != 0;
  a.label = NodeLabel(node);
  const bool is_known = a.auto_pad == "NOTSET" || a.auto_pad == "VALID" ||
                        a.auto_pad == "SAME_UPPER" || a.auto_pad == "SAME_LOWER";
  if (!is_known) RefuseNode("auto_pad is \"" + a.auto_pad + "\"", a.label);
  if (a.auto_pad != "NOTSET") a.pads.clear();
  return a;
}

Window PlanWindow(const WindowAttributes& a, const Shape& input,
                  const std::vector<int64_t>& kernel) {
  Window w = Begin(a, input, kernel).window;
  for (size_t d = 0; d < 3; ++d) {
    const int64_t reach = (w.kernel[d] - 1) * w.dilation[d] + 1;
    if (a.auto_pad.starts_with("SAME")) {
      w.out[d] = (w.in[d] + w.stride[d] - 1) / w.stride[d];
      const int64_t total = std::max<int64_t>(0, (w.out[d] - 1) * w.stride[d] + reach - w.in[d]);
      w.pad_begin[d] = a.auto_pad == "SAME_LOWER" ? total - total / 2 : total / 2;
      w.pad_end[d] = total - w.pad_begin[d];
      continue;
    }
    const int64_t room = w.in[d] + w.pad_begin[d] + w.pad_end[d] - reach;
    Require(room >= 0, "the window is larger than the padded input", a.label);
    w.out[d] = room / w.stride[d] + 1;
    if (a.ceil_mode && room % w.stride[d] != 0) {
      // A window that would begin in the padding at the end is left out.
      const bool begins_inside = w.out[d] * w.stride[d] < w.in[d] + w.pad_begin[d];
      w.out[d] += begins_inside ? 1 : 0;
    }
  }
  return w;
}

Window PlanTransposedWindow(const WindowAttributes& a, const Shape& input,
                            const std::vector<int64_t>& kernel) {
  const Ranked r = Begin(a, input, kernel);
  Window w = r.window;
  const Axes3 extra = Lead(a.output_padding, 0, a.output_padding.empty() ? 0 : r.rank, 0);
  const bool has_shape = !a.output_shape.empty();
  const size_t skip = has_shape && a.output_shape.size() == r.rank + 2 ? 2 : 0;
  if (has_shape) {
    Require(a.output_shape.size() == r.rank + skip, "output_shape does not fit the rank", a.label);
  }
  const Axes3 wanted = Lead(a.output_shape, skip, has_shape ? r.rank : 0, 1);
  for (size_t d = 0; d < 3; ++d) {
    const int64_t whole =
        w.stride[d] * (w.in[d] - 1) + extra[d] + (w.kernel[d] - 1) * w.dilation[d] + 1;
    const bool is_spatial = d >= 3 - r.rank;
    if (is_spatial && (has_shape || a.auto_pad.starts_with("SAME"))) {
      w.out[d] = has_shape ? wanted[d] : w.in[d] * w.stride[d];
      const int64_t total = std::max<int64_t>(0, whole - w.out[d]);
      w.pad_begin[d] = a.auto_pad == "SAME_UPPER" ? total / 2 : total - total / 2;
      w.pad_end[d] = total - w.pad_begin[d];
    } else {
      w.out[d] = whole - w.pad_begin[d] - w.pad_end[d];
    }
    Require(w.out[d] >= 0, "the output would have a negative extent", a.label);
  }
  return w;
}

Shape WindowShape(const Window& window, const Shape& input, int64_t channels) {
  Shape shape = {input[0], channels};
  for (size_t d = 5 - input.size(); d < 3; ++d) shape.push_back(window.out[d]);
  return shape;
}

}  // namespace pared
