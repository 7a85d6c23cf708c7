// Conv, ConvTranspose and FusedConv on floats.

#include <array>
#include <memory>
#include <vector>

#include "evaluator/activation.h"
#include "evaluator/conv_transpose.h"
#include "evaluator/deform_conv.h"
#include "evaluator/op_checks.h"
#include "evaluator/ops.h"
#include "evaluator/window.h"
#include "evaluator/worker_slots.h"
#include "kernels/conv_f32.h"

namespace pared {
namespace {

// What the node says, shared by all its runs.
struct ConvNode {
  WindowAttributes window;
  int64_t groups = 1;
  ActivationF32 activation;
  const F32Kernels* kernels = nullptr;
  std::shared_ptr<const ConvF32> packed;  // null: weights or bias are not constant
};

std::vector<int64_t> SpatialOf(const Shape& weights) {
  return {weights.begin() + 2, weights.end()};
}

void CheckShapes(const ConvNode& node, const Tensor& x, const Tensor& w) {
  const std::string& label = node.window.label;
  if (x.rank() < 3 || w.rank() != x.rank()) {
    RefuseNode("input " + ShapeText(x.shape()) + " and weights " + ShapeText(w.shape()) +
                   " must both have rank 3 or more",
               label);
  }
  const bool divides = node.groups > 0 && w.shape()[0] % node.groups == 0;
  if (!divides || x.shape()[1] != w.shape()[1] * node.groups) {
    RefuseNode("input " + ShapeText(x.shape()) + " has not the channels that weights " +
                   ShapeText(w.shape()) + " in " + std::to_string(node.groups) + " groups take",
               label);
  }
}

std::shared_ptr<const ConvF32> PackConv(const ConvNode& node, const Tensor& w, const Tensor* b) {
  const std::string& label = node.window.label;
  if (w.dtype() != DType::kFloat32) RefuseDType(w.dtype(), label);
  if (w.rank() < 3 || node.groups < 1 || w.shape()[0] % node.groups != 0) {
    RefuseNode("weights " + ShapeText(w.shape()) + " do not make " + std::to_string(node.groups) +
                   " groups",
               label);
  }
  if (b != nullptr && b->count() != w.shape()[0]) {
    RefuseNode("bias has " + std::to_string(b->count()) + " elements for " +
                   std::to_string(w.shape()[0]) + " outputs",
               label);
  }
  // An input of the least extent that the window accepts stands in for the real one.
  Shape probe = {1, w.shape()[1] * node.groups};
  for (size_t axis = 2; axis < w.shape().size(); ++axis) probe.push_back(1 << 20);
  const Window window = PlanWindow(node.window, probe, SpatialOf(w.shape()));
  ConvF32Options options;
  options.channels = w.shape()[1] * node.groups;
  options.outputs = w.shape()[0];
  options.groups = node.groups;
  options.kernel = window.kernel;
  options.stride = window.stride;
  options.dilation = window.dilation;
  options.activation = node.activation;
  const std::span<const float> bias = b == nullptr ? std::span<const float>() : b->data<float>();
  const auto kept = std::make_shared<const Tensor>(w);
  const std::shared_ptr<const float> weights(kept, kept->data<float>().data());
  return std::make_shared<const ConvF32>(options, weights, bias, *node.kernels);
}

void RunFloat(const ConvF32& conv, const Window& window, std::span<const Tensor* const> inputs,
              Tensor& output, Scratch& scratch) {
  const Tensor& x = *inputs[0];
  const int64_t channels = x.shape()[1];
  const int64_t outputs = inputs[1]->shape()[0];
  const Tensor* addend = inputs.size() > 3 ? inputs[3] : nullptr;
  const Shape shape = WindowShape(window, x.shape(), outputs);
  if (addend != nullptr && addend->shape() != shape) {
    RefuseNode(
        "addend has shape " + ShapeText(addend->shape()) + ", the result " + ShapeText(shape),
        "Conv");
  }
  const std::span<float> y = scratch.Allocate<float>(output, shape);
  if (y.empty()) return;
  const ConvF32Plan plan = conv.Plan(window.in, window.out, window.pad_begin, scratch.threads());
  float* buffer =
      plan.buffer_floats == 0
          ? nullptr
          : reinterpret_cast<float*>(scratch.Temporary(Sz(plan.buffer_floats) * sizeof(float)));
  for (int64_t n = 0; n < shape[0]; ++n) {
    const float* image = x.data<float>().data() + n * channels * window.in_count();
    const int64_t at = n * outputs * window.out_count();
    if (buffer != nullptr) {
      scratch.ParallelFor(channels, 1, [&](int64_t begin, int64_t end) {
        conv.Pad(plan, image, begin, end, buffer);
      });
    }
    ForEachShare(scratch, plan.units, plan.scratch_floats,
                 [&](int64_t begin, int64_t end, float* memory) {
                   conv.RunUnits(plan, buffer == nullptr ? image : buffer, y.data() + at,
                                 addend == nullptr ? nullptr : addend->data<float>().data() + at,
                                 begin, end, memory);
                 });
  }
}

// One output of a double convolution, tap by tap.
double ConvolveAt(const Window& w, const double* x, const double* weights, int64_t channels,
                  const Axes3& at) {
  double sum = 0;
  for (int64_t c = 0; c < channels; ++c) {
    for (int64_t tap = 0; tap < w.taps(); ++tap, ++weights) {
      const Axes3 k = {tap / w.kernel[2] / w.kernel[1], tap / w.kernel[2] % w.kernel[1],
                       tap % w.kernel[2]};
      int64_t index = c;
      bool inside = true;
      for (size_t d = 0; d < 3; ++d) {
        const int64_t i = at[d] * w.stride[d] + k[d] * w.dilation[d] - w.pad_begin[d];
        inside = inside && i >= 0 && i < w.in[d];
        index = index * w.in[d] + i;
      }
      if (inside) sum += *weights * x[index];
    }
  }
  return sum;
}

void RunDouble(const ConvNode& node, const Window& window, std::span<const Tensor* const> inputs,
               Tensor& output, Scratch& scratch) {
  const Shape& weights_shape = inputs[1]->shape();
  const Shape shape = WindowShape(window, inputs[0]->shape(), weights_shape[0]);
  const std::span<double> y = scratch.Allocate<double>(output, shape);
  const double* x = inputs[0]->data<double>().data();
  const double* weights = inputs[1]->data<double>().data();
  const bool has_bias = inputs.size() > 2 && inputs[2] != nullptr;
  const double* bias = has_bias ? inputs[2]->data<double>().data() : nullptr;
  const int64_t outputs = weights_shape[0];
  const int64_t channels = weights_shape[1];
  scratch.ParallelFor(shape[0] * outputs, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t m = i % outputs;
      const int64_t group = m / (outputs / node.groups);
      const double* from = x + (i / outputs * node.groups + group) * channels * window.in_count();
      for (int64_t p = 0; p < window.out_count(); ++p) {
        const Axes3 at = {p / window.out[2] / window.out[1], p / window.out[2] % window.out[1],
                          p % window.out[2]};
        y[Sz(i * window.out_count() + p)] =
            (bias == nullptr ? 0 : bias[m]) +
            ConvolveAt(window, from, weights + m * channels * window.taps(), channels, at);
      }
    }
  });
}

Op PrepareConv(const Node& node, const OpContext& context) {
  CheckInputCount(node, 2, 4);
  ConvNode conv;
  conv.window = ReadWindow(node);
  conv.groups = node.Int("group", 1);
  conv.activation = ReadActivation(node);
  conv.kernels = &F32KernelsFor(context.isa);
  const auto constant = [&](size_t i) {
    return i < context.constants.size() ? context.constants[i] : nullptr;
  };
  const bool has_bias = node.inputs.size() > 2 && !node.inputs[2].empty();
  const bool is_constant = constant(1) != nullptr && (!has_bias || constant(2) != nullptr);
  if (is_constant && constant(1)->dtype() == DType::kFloat32) {
    conv.packed = PackConv(conv, *constant(1), has_bias ? constant(2) : nullptr);
  }
  return
      [conv](std::span<const Tensor* const> inputs, std::span<Tensor> outputs, Scratch& scratch) {
        const Tensor& x = *inputs[0];
        const Tensor& w = *inputs[1];
        CheckShapes(conv, x, w);
        if (x.dtype() != w.dtype()) RefuseDType(w.dtype(), conv.window.label);
        const Window window = PlanWindow(conv.window, x.shape(), SpatialOf(w.shape()));
        scratch.AddMacs(x.shape()[0] * w.shape()[0] * window.out_count() * w.shape()[1] *
                        window.taps());
        if (x.dtype() == DType::kFloat64) {
          return RunDouble(conv, window, inputs, outputs[0], scratch);
        }
        if (x.dtype() != DType::kFloat32) RefuseDType(x.dtype(), conv.window.label);
        std::shared_ptr<const ConvF32> packed = conv.packed;
        if (packed == nullptr) packed = PackConv(conv, w, inputs.size() > 2 ? inputs[2] : nullptr);
        RunFloat(*packed, window, inputs, outputs[0], scratch);
      };
}

constexpr std::array kOps = {
    OpInfo{"Conv", "", PrepareConv},
    OpInfo{"ConvTranspose", "", PrepareConvTranspose},
    OpInfo{"DeformConv", "", PrepareDeformConv},
    OpInfo{"FusedConv", "com.microsoft", PrepareConv},
    OpInfo{"FloatConv", "pared", PrepareConv},
};

}  // namespace

std::span<const OpInfo> ConvOps() { return kOps; }

}  // namespace pared
