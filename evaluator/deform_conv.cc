// Convolution over samples between the pixels: each tap of each output pixel has an offset of its
// own, and a weight where there is a mask. The samples of a group are gathered to [channel][tap]
// rows over the output pixels; what follows is a product of matrices.

#include "evaluator/deform_conv.h"

#include <algorithm>
#include <cmath>

#include "evaluator/op_checks.h"

namespace pared {
namespace {

struct DeformNode {
  std::string label;
  int64_t group, offset_group;
  std::vector<int64_t> strides, pads, dilations;
};

struct Sizes {
  int64_t channels, height, width, kernel_height, kernel_width, out_height, out_width;

  int64_t taps() const { return kernel_height * kernel_width; }
  int64_t pixels() const { return out_height * out_width; }
};

// Between four pixels, linearly; pixels beside the image are 0.
template <class T>
T Sample(const T* plane, const Sizes& s, T y, T x) {
  const T top = std::floor(y), left = std::floor(x);
  if (!(top >= -1 && left >= -1 && top < static_cast<T>(s.height) &&
        left < static_cast<T>(s.width))) {
    return 0;
  }
  const auto row = static_cast<int64_t>(top), column = static_cast<int64_t>(left);
  const auto pixel = [&](int64_t r, int64_t c) {
    return r < 0 || c < 0 || r >= s.height || c >= s.width ? T{0} : plane[r * s.width + c];
  };
  const T down = y - top, right = x - left;
  return (1 - down) * ((1 - right) * pixel(row, column) + right * pixel(row, column + 1)) +
         down * ((1 - right) * pixel(row + 1, column) + right * pixel(row + 1, column + 1));
}

// What one image reads.
template <class T>
struct Image {
  const T* x;        // [channels][height][width]
  const T* offsets;  // [offset_group][taps][2][pixels]
  const T* mask;     // [offset_group][taps][pixels]; null: ones
};

// The samples of one channel: [taps][pixels].
template <class T>
void GatherChannel(const DeformNode& node, const Sizes& s, const Image<T>& image, int64_t channel,
                   T* rows) {
  const int64_t part = channel / (s.channels / node.offset_group);
  for (int64_t tap = 0; tap < s.taps(); ++tap) {
    const int64_t at = part * s.taps() + tap;
    const T* offsets = image.offsets + at * 2 * s.pixels();
    const int64_t dy = tap / s.kernel_width * node.dilations[0] - node.pads[0];
    const int64_t dx = tap % s.kernel_width * node.dilations[1] - node.pads[1];
    for (int64_t p = 0; p < s.pixels(); ++p) {
      const T y = static_cast<T>(p / s.out_width * node.strides[0] + dy) + offsets[p];
      const T x = static_cast<T>(p % s.out_width * node.strides[1] + dx) + offsets[s.pixels() + p];
      T value = Sample(image.x + channel * s.height * s.width, s, y, x);
      if (image.mask != nullptr) value *= image.mask[at * s.pixels() + p];
      rows[tap * s.pixels() + p] = value;
    }
  }
}

void CheckShape(const Tensor* tensor, const Shape& wanted, const char* what,
                const std::string& label) {
  if (tensor == nullptr || tensor->shape() == wanted) return;
  RefuseNode(std::string(what) + " must have shape " + ShapeText(wanted) + ", has " +
                 ShapeText(tensor->shape()),
             label);
}

// Inputs: x, w, offset, bias, mask.
Sizes CheckedSizes(const DeformNode& node, std::span<const Tensor* const> inputs) {
  const Shape& x = inputs[0]->shape();
  const Shape& w = inputs[1]->shape();
  if (x.size() != 4 || w.size() != 4) {
    throw Error(ErrorCode::kUnsupported, "only images of two axes are supported", node.label);
  }
  Sizes s{.channels = x[1],
          .height = x[2],
          .width = x[3],
          .kernel_height = w[2],
          .kernel_width = w[3],
          .out_height = 0,
          .out_width = 0};
  const auto out = [&](size_t axis, int64_t size, int64_t kernel) {
    const int64_t reach = (kernel - 1) * node.dilations[axis] + 1;
    return (size + node.pads[axis] + node.pads[axis + 2] - reach) / node.strides[axis] + 1;
  };
  s.out_height = out(0, s.height, s.kernel_height);
  s.out_width = out(1, s.width, s.kernel_width);
  const bool groups_fit = node.group >= 1 && node.offset_group >= 1 &&
                          s.channels % node.offset_group == 0 && s.channels == w[1] * node.group &&
                          w[0] % node.group == 0;
  if (!groups_fit) RefuseNode("its channels and groups do not fit each other", node.label);
  if (s.out_height < 1 || s.out_width < 1) RefuseNode("its kernel is too large", node.label);
  const int64_t rows = node.offset_group * s.taps();
  CheckShape(inputs[2], {x[0], 2 * rows, s.out_height, s.out_width}, "offset", node.label);
  if (inputs.size() > 3) CheckShape(inputs[3], {w[0]}, "bias", node.label);
  if (inputs.size() > 4) {
    CheckShape(inputs[4], {x[0], rows, s.out_height, s.out_width}, "mask", node.label);
  }
  for (const Tensor* input : inputs) {
    if (input != nullptr && input->dtype() != inputs[0]->dtype()) {
      RefuseDType(input->dtype(), node.label);
    }
  }
  return s;
}

template <class T>
void RunDeformConv(const DeformNode& node, std::span<const Tensor* const> inputs, Tensor& out,
                   Scratch& scratch) {
  const Sizes s = CheckedSizes(node, inputs);
  const int64_t images = inputs[0]->shape()[0], outputs = inputs[1]->shape()[0];
  const int64_t depth = s.channels / node.group * s.taps(), pixels = s.pixels();
  const auto data = [&](size_t i) {
    return i < inputs.size() && inputs[i] != nullptr ? inputs[i]->data<T>().data() : nullptr;
  };
  const T *w = data(1), *bias = data(3);
  T* y = scratch.Allocate<T>(out, {images, outputs, s.out_height, s.out_width}).data();
  T* rows = reinterpret_cast<T*>(scratch.Temporary(Sz(s.channels * s.taps() * pixels) * sizeof(T)));
  for (int64_t n = 0; n < images; ++n) {
    const int64_t masks = n * node.offset_group * s.taps() * pixels;
    const Image<T> image{.x = data(0) + n * s.channels * s.height * s.width,
                         .offsets = data(2) + 2 * masks,
                         .mask = data(4) == nullptr ? nullptr : data(4) + masks};
    scratch.ParallelFor(s.channels, 1, [&](int64_t begin, int64_t end) {
      for (int64_t c = begin; c < end; ++c) {
        GatherChannel(node, s, image, c, rows + c * s.taps() * pixels);
      }
    });
    scratch.ParallelFor(outputs, 1, [&](int64_t begin, int64_t end) {
      for (int64_t m = begin; m < end; ++m) {
        T* sums = y + (n * outputs + m) * pixels;
        std::fill_n(sums, pixels, bias == nullptr ? T{0} : bias[m]);
        const T* own = rows + m / (outputs / node.group) * depth * pixels;
        for (int64_t k = 0; k < depth; ++k) {
          const T weight = w[m * depth + k];
          for (int64_t p = 0; p < pixels; ++p) sums[p] += weight * own[k * pixels + p];
        }
      }
    });
  }
}

}  // namespace

Op PrepareDeformConv(const Node& node, const OpContext&) {
  CheckInputCount(node, 3, 5);
  DeformNode deform{.label = NodeLabel(node),
                    .group = node.Int("group", 1),
                    .offset_group = node.Int("offset_group", 1),
                    .strides = node.Ints("strides", {1, 1}),
                    .pads = node.Ints("pads", {0, 0, 0, 0}),
                    .dilations = node.Ints("dilations", {1, 1})};
  const auto is_positive = [](int64_t v) { return v >= 1; };
  const bool fits = deform.strides.size() == 2 && deform.pads.size() == 4 &&
                    deform.dilations.size() == 2 &&
                    std::ranges::all_of(deform.strides, is_positive) &&
                    std::ranges::all_of(deform.dilations, is_positive);
  if (!fits)
    RefuseNode("needs two strides and dilations, of 1 at least, and four pads", deform.label);
  return [deform = std::move(deform)](std::span<const Tensor* const> inputs,
                                      std::span<Tensor> outputs, Scratch& scratch) {
    DispatchFloat(inputs[0]->dtype(), deform.label,
                  [&]<class T>() { RunDeformConv<T>(deform, inputs, outputs[0], scratch); });
  };
}

}  // namespace pared
