// Resize, sampling at computed places, and moves between depth and space.

#include <algorithm>
#include <array>
#include <string>
#include <vector>

#include "evaluator/conv_transpose.h"
#include "evaluator/op_checks.h"
#include "evaluator/ops.h"
#include "evaluator/resize.h"
#include "evaluator/sample.h"

namespace pared {
namespace {

struct BlockNode {
  std::string label;
  int64_t block = 1;
  bool is_crd = false;
};

BlockNode ReadBlock(const Node& node) {
  CheckInputCount(node, 1, 1);
  BlockNode read{.label = NodeLabel(node),
                 .block = node.Int("blocksize", 0),
                 .is_crd = node.String("mode", "DCR") == "CRD"};
  if (read.block < 1) RefuseNode("blocksize must be positive", read.label);
  return read;
}

Op PrepareDepthToSpace(const Node& node, const OpContext& /*context*/) {
  return [block = ReadBlock(node)](std::span<const Tensor* const> inputs, std::span<Tensor> outputs,
                                   Scratch& scratch) {
    const Tensor& x = *inputs[0];
    const int64_t b = block.block;
    const bool fits = x.rank() == 4 && x.shape()[1] % (b * b) == 0;
    if (!fits) RefuseNode("blocksize does not divide " + ShapeText(x.shape()), block.label);
    const int64_t channels = x.shape()[1] / (b * b);
    const int64_t height = x.shape()[2];
    const int64_t width = x.shape()[3];
    const Shape shape = {x.shape()[0], channels, height * b, width * b};
    DispatchWidth(x.dtype(), block.label, [&]<class T>() {
      T* y = AllocateLike<T>(outputs[0], x.dtype(), shape, scratch);
      const T* values = Elements<T>(x);
      scratch.ParallelFor(shape[0] * channels, 1, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
          const int64_t c = i % channels;
          for (int64_t row = 0; row < height * b; ++row) {
            T* to = y + (i * height * b + row) * width * b;
            for (int64_t dx = 0; dx < b; ++dx) {
              const int64_t part = row % b * b + dx;
              const int64_t source = block.is_crd ? c * b * b + part : part * channels + c;
              const int64_t plane = i / channels * channels * b * b + source;
              const T* from = values + (plane * height + row / b) * width;
              for (int64_t column = 0; column < width; ++column) to[column * b + dx] = from[column];
            }
          }
        }
      });
    });
  };
}

Op PrepareSpaceToDepth(const Node& node, const OpContext& /*context*/) {
  return [block = ReadBlock(node)](std::span<const Tensor* const> inputs, std::span<Tensor> outputs,
                                   Scratch& scratch) {
    const Tensor& x = *inputs[0];
    const int64_t b = block.block;
    const bool fits = x.rank() == 4 && x.shape()[2] % b == 0 && x.shape()[3] % b == 0;
    if (!fits) RefuseNode("blocksize does not divide " + ShapeText(x.shape()), block.label);
    const int64_t channels = x.shape()[1];
    const int64_t height = x.shape()[2] / b;
    const int64_t width = x.shape()[3] / b;
    const Shape shape = {x.shape()[0], channels * b * b, height, width};
    DispatchWidth(x.dtype(), block.label, [&]<class T>() {
      T* y = AllocateLike<T>(outputs[0], x.dtype(), shape, scratch);
      const T* values = Elements<T>(x);
      scratch.ParallelFor(shape[0] * shape[1], 1, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
          const int64_t out = i % shape[1];
          const int64_t part = block.is_crd ? out % (b * b) : out / channels;
          const int64_t c = block.is_crd ? out / (b * b) : out % channels;
          const int64_t plane = i / shape[1] * channels + c;
          for (int64_t row = 0; row < height; ++row) {
            const T* from =
                values + (plane * height * b + row * b + part / b) * width * b + part % b;
            T* to = y + (i * height + row) * width;
            for (int64_t column = 0; column < width; ++column) to[column] = from[column * b];
          }
        }
      });
    });
  };
}

// The columns [N, C * taps, positions] of sliding blocks, added back into an image.
Op PrepareCol2Im(const Node& node, const OpContext& /*context*/) {
  CheckInputCount(node, 3, 3);
  const WindowAttributes attributes = ReadWindow(node);
  return [attributes](std::span<const Tensor* const> inputs, std::span<Tensor> outputs,
                      Scratch& scratch) {
    const Tensor& x = *inputs[0];
    const std::vector<int64_t> image = IntegersOf(*inputs[1], attributes.label);
    const std::vector<int64_t> block = IntegersOf(*inputs[2], attributes.label);
    Shape shape = {x.shape()[0], 1};
    shape.insert(shape.end(), image.begin(), image.end());
    // A window over the image: its outputs are the columns' positions.
    Window window = PlanWindow(attributes, shape, block);
    std::swap(window.in, window.out);
    const bool fits =
        x.rank() == 3 && x.shape()[1] % window.taps() == 0 && x.shape()[2] == window.in_count();
    if (!fits) RefuseNode("columns " + ShapeText(x.shape()) + " do not fit", attributes.label);
    shape[1] = x.shape()[1] / window.taps();
    DispatchNumber(x.dtype(), attributes.label, [&]<class T>() {
      T* y = scratch.Allocate<T>(outputs[0], shape).data();
      for (int64_t i = 0; i < shape[0] * shape[1]; ++i) {
        T* to = y + i * window.out_count();
        std::fill(to, to + window.out_count(), T{});
        AddColumns(window, x.data<T>().data() + i * window.taps() * window.in_count(), to);
      }
    });
  };
}

Op PrepareCenterCropPad(const Node& node, const OpContext& /*context*/) {
  CheckInputCount(node, 2, 2);
  const std::string label = NodeLabel(node);
  const std::vector<int64_t> axes = node.Ints("axes");
  return [label, axes](std::span<const Tensor* const> inputs, std::span<Tensor> outputs,
                       Scratch& scratch) {
    const Tensor& x = *inputs[0];
    const std::vector<int64_t> wanted = IntegersOf(*inputs[1], label);
    const size_t count = axes.empty() ? x.shape().size() : axes.size();
    if (wanted.size() != count) RefuseNode("shape has not one element an axis", label);
    Shape shape = x.shape();
    Shape shift(shape.size());  // of the input's index against the output's
    for (size_t i = 0; i < count; ++i) {
      const int64_t axis = axes.empty() ? static_cast<int64_t>(i) : axes[i];
      const size_t d = Sz(NormalizeAxis(axis, x.rank(), label));
      shape[d] = wanted[i];
      const int64_t more = shape[d] - x.shape()[d];
      shift[d] = more > 0 ? -(more / 2) : -more / 2;
    }
    const Shape strides = StridesOf(x.shape());
    DispatchWidth(x.dtype(), label, [&]<class T>() {
      T* y = AllocateLike<T>(outputs[0], x.dtype(), shape, scratch);
      const T* values = Elements<T>(x);
      const int64_t total = ElementCount(shape);
      for (int64_t i = 0; i < total; ++i) {
        int64_t rest = i;
        int64_t at = 0;
        bool is_inside = true;
        for (size_t d = shape.size(); d-- > 0; rest /= shape[d]) {
          const int64_t index = rest % shape[d] + shift[d];
          is_inside = is_inside && index >= 0 && index < x.shape()[d];
          at += index * strides[d];
        }
        y[i] = is_inside ? values[at] : T{};
      }
    });
  };
}

constexpr std::array kOps = {
    OpInfo{"Resize", "", PrepareResize},
    OpInfo{"Upsample", "", PrepareUpsample},
    OpInfo{"GridSample", "", PrepareGridSample},
    OpInfo{"AffineGrid", "", PrepareAffineGrid},
    OpInfo{"RoiAlign", "", PrepareRoiAlign},
    OpInfo{"DepthToSpace", "", PrepareDepthToSpace},
    OpInfo{"SpaceToDepth", "", PrepareSpaceToDepth},
    OpInfo{"Col2Im", "", PrepareCol2Im},
    OpInfo{"CenterCropPad", "", PrepareCenterCropPad},
};

}  // namespace

std::span<const OpInfo> ResizeOps() { return kOps; }

}  // namespace pared
