// Normalizations over a batch, a channel, a group, a layer or a window.

#include <algorithm>
#include <array>
#include <cmath>
#include <string>
#include <vector>

#include "evaluator/op_checks.h"
#include "evaluator/ops.h"
#include "evaluator/softmax.h"
#include "kernels/f32.h"

namespace pared {
namespace {

struct NormNode {
  std::string label;
  float epsilon = 1e-5F;
  int64_t axis = -1;
  const F32Kernels* kernels = nullptr;
};

NormNode ReadNorm(const Node& node, const OpContext& context) {
  NormNode norm;
  norm.label = NodeLabel(node);
  norm.epsilon = node.Float("epsilon", 1e-5F);
  norm.axis = node.Int("axis", -1);
  norm.kernels = &F32KernelsFor(context.isa);
  return norm;
}

// y = x * scale + shift over one contiguous run.
template <class T>
void ScaleShift(const NormNode& node, const T* x, T* y, int64_t count, T scale, T shift) {
  if constexpr (std::is_same_v<T, float>) {
    node.kernels->scale_shift(x, y, count, scale, shift);
  } else {
    for (int64_t i = 0; i < count; ++i) y[i] = x[i] * scale + shift;
  }
}

struct Moments {
  double mean, variance;
};
template <class T>
Moments MomentsOf(const T* x, int64_t count) {
  double sum = 0;
  for (int64_t i = 0; i < count; ++i) sum += static_cast<double>(x[i]);
  const double mean = sum / static_cast<double>(count);
  double squares = 0;
  for (int64_t i = 0; i < count; ++i) {
    const double d = static_cast<double>(x[i]) - mean;
    squares += d * d;
  }
  return {mean, squares / static_cast<double>(count)};
}

// An input as doubles, whatever float type it has (statistics may differ in type from x).
std::vector<double> DoublesOf(const Tensor& tensor, const std::string& label) {
  std::vector<double> out;
  DispatchFloat(tensor.dtype(), label, [&]<class T>() {
    for (const T value : tensor.data<T>()) out.push_back(static_cast<double>(value));
  });
  return out;
}

struct BatchNormRun {
  std::vector<double> scale, bias, mean, variance;
};

// Statistics of the batch itself; the running ones go to outputs 1 and 2.
template <class T>
void UseBatchStatistics(const Tensor& x, float momentum, BatchNormRun& run,
                        std::span<Tensor> outputs, Scratch& scratch) {
  const int64_t channels = x.shape()[1];
  const int64_t plane = Extent(x.shape(), 2, x.rank());
  std::array<std::span<T>, 2> running;
  for (size_t i = 0; i < 2; ++i) {
    if (outputs.size() > i + 1) running[i] = scratch.Allocate<T>(outputs[i + 1], {channels});
  }
  std::vector<T> values(Sz(x.shape()[0] * plane));
  for (int64_t c = 0; c < channels; ++c) {
    for (int64_t n = 0; n < x.shape()[0]; ++n) {
      const T* from = x.data<T>().data() + (n * channels + c) * plane;
      std::copy(from, from + plane, values.data() + n * plane);
    }
    const Moments m = MomentsOf(values.data(), static_cast<int64_t>(values.size()));
    const double keep = static_cast<double>(momentum);
    const size_t at = Sz(c);
    if (!running[0].empty()) {
      running[0][at] = static_cast<T>(run.mean[at] * keep + m.mean * (1 - keep));
    }
    if (!running[1].empty()) {
      running[1][at] = static_cast<T>(run.variance[at] * keep + m.variance * (1 - keep));
    }
    run.mean[at] = m.mean;
    run.variance[at] = m.variance;
  }
}

Op PrepareBatchNorm(const Node& node, const OpContext& context) {
  CheckInputCount(node, 5, 5);
  const bool trains = node.Int("training_mode", 0) != 0;
  const float momentum = node.Float("momentum", 0.9F);
  return [norm = ReadNorm(node, context), trains, momentum](
             std::span<const Tensor* const> inputs, std::span<Tensor> outputs, Scratch& scratch) {
    const Tensor& x = *inputs[0];
    if (x.rank() < 1) RefuseNode("the input must have a batch axis", norm.label);
    const int64_t channels = x.rank() > 1 ? x.shape()[1] : 1;
    const int64_t plane = Extent(x.shape(), std::min<int64_t>(2, x.rank()), x.rank());
    BatchNormRun run{DoublesOf(*inputs[1], norm.label), DoublesOf(*inputs[2], norm.label),
                     DoublesOf(*inputs[3], norm.label), DoublesOf(*inputs[4], norm.label)};
    for (const std::vector<double>* list : {&run.scale, &run.bias, &run.mean, &run.variance}) {
      if (static_cast<int64_t>(list->size()) != channels) {
        RefuseNode("scale, bias, mean and variance must have one element a channel", norm.label);
      }
    }
    DispatchFloat(x.dtype(), norm.label, [&]<class T>() {
      if (trains) UseBatchStatistics<T>(x, momentum, run, outputs, scratch);
      T* y = scratch.Allocate<T>(outputs[0], x.shape()).data();
      const T* values = x.data<T>().data();
      scratch.ParallelFor(x.shape()[0] * channels, 8, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
          const size_t c = Sz(i % channels);
          const double scale =
              run.scale[c] / std::sqrt(run.variance[c] + static_cast<double>(norm.epsilon));
          ScaleShift<T>(norm, values + i * plane, y + i * plane, plane, static_cast<T>(scale),
                        static_cast<T>(run.bias[c] - run.mean[c] * scale));
        }
      });
    });
  };
}

// InstanceNormalization and GroupNormalization: each group of `width` channels of an image has
// statistics of its own. `scale_step` channels share one scale.
struct GroupRun {
  int64_t width, scale_step;
};
template <class T>
void RunGroups(const NormNode& node, const GroupRun& run, std::span<const Tensor* const> inputs,
               Tensor& output, Scratch& scratch) {
  const Tensor& x = *inputs[0];
  const int64_t channels = x.shape()[1];
  const int64_t plane = Extent(x.shape(), 2, x.rank());
  const T* values = x.data<T>().data();
  const std::vector<double> scale = DoublesOf(*inputs[1], node.label);
  const std::vector<double> bias = DoublesOf(*inputs[2], node.label);
  const int64_t needed = (channels + run.scale_step - 1) / run.scale_step;
  if (static_cast<int64_t>(scale.size()) != needed || scale.size() != bias.size()) {
    RefuseNode("scale and bias do not fit the channels", node.label);
  }
  T* y = scratch.Allocate<T>(output, x.shape()).data();
  scratch.ParallelFor(x.shape()[0] * channels / run.width, 1, [&](int64_t begin, int64_t end) {
    for (int64_t group = begin; group < end; ++group) {
      const Moments m = MomentsOf(values + group * run.width * plane, run.width * plane);
      const double inverse = 1 / std::sqrt(m.variance + static_cast<double>(node.epsilon));
      for (int64_t i = group * run.width; i < (group + 1) * run.width; ++i) {
        const size_t at = Sz(i % channels / run.scale_step);
        const double factor = scale[at] * inverse;
        ScaleShift<T>(node, values + i * plane, y + i * plane, plane, static_cast<T>(factor),
                      static_cast<T>(bias[at] - m.mean * factor));
      }
    }
  });
}

Op PrepareInstanceNorm(const Node& node, const OpContext& context) {
  CheckInputCount(node, 3, 3);
  return [norm = ReadNorm(node, context)](std::span<const Tensor* const> inputs,
                                          std::span<Tensor> outputs, Scratch& scratch) {
    if (inputs[0]->rank() < 3) RefuseNode("the input must have rank 3 or more", norm.label);
    DispatchFloat(inputs[0]->dtype(), norm.label, [&]<class T>() {
      RunGroups<T>(norm, {.width = 1, .scale_step = 1}, inputs, outputs[0], scratch);
    });
  };
}

Op PrepareGroupNorm(const Node& node, const OpContext& context) {
  CheckInputCount(node, 3, 3);
  const int64_t groups = node.Int("num_groups", 0);
  // Opset 18 has one scale a group, opset 21 one a channel.
  const bool is_by_group = context.opset < 21;
  return [norm = ReadNorm(node, context), groups, is_by_group](
             std::span<const Tensor* const> inputs, std::span<Tensor> outputs, Scratch& scratch) {
    const Tensor& x = *inputs[0];
    const bool fits = x.rank() >= 2 && groups > 0 && x.shape()[1] % groups == 0;
    if (!fits) RefuseNode("num_groups does not divide the channels", norm.label);
    const int64_t width = x.shape()[1] / groups;
    DispatchFloat(x.dtype(), norm.label, [&]<class T>() {
      RunGroups<T>(norm, {.width = width, .scale_step = is_by_group ? width : 1}, inputs,
                   outputs[0], scratch);
    });
  };
}

// `tensor` broadcast to the shape of the normalized axes.
template <class T>
std::vector<T> ExpandTo(const Tensor& tensor, const Shape& shape, const std::string& label) {
  const Shape& own = tensor.shape();
  Shape padded(shape.size(), 1);
  if (own.size() > shape.size()) RefuseNode("scale has too many axes", label);
  std::copy(own.begin(), own.end(), padded.end() - static_cast<int64_t>(own.size()));
  const Shape strides = StridesOf(padded);
  std::vector<T> out(Sz(ElementCount(shape)));
  const std::span<const T> values = tensor.data<T>();
  for (size_t i = 0; i < out.size(); ++i) {
    int64_t rest = static_cast<int64_t>(i);
    int64_t at = 0;
    for (size_t d = shape.size(); d-- > 0; rest /= shape[d]) {
      if (padded[d] != 1 && padded[d] != shape[d]) RefuseNode("scale does not broadcast", label);
      at += padded[d] == 1 ? 0 : rest % shape[d] * strides[d];
    }
    out[i] = values[Sz(at)];
  }
  return out;
}

enum class RowNorm { kLayer, kRms };

// Normalizes one row into y and returns its mean and the inverse of its deviation.
template <RowNorm kKind, class T>
std::array<T, 2> NormalizeRow(const NormNode& node, const T* x, T* y, int64_t count) {
  if constexpr (kKind == RowNorm::kLayer && std::is_same_v<T, float>) {
    std::array<float, 2> moments;
    node.kernels->normalize(x, y, count, node.epsilon, moments.data());
    return moments;
  }
  Moments m = {0, 0};
  if constexpr (kKind == RowNorm::kLayer) {
    m = MomentsOf(x, count);
  } else {
    for (int64_t i = 0; i < count; ++i) m.variance += static_cast<double>(x[i] * x[i]);
    m.variance /= static_cast<double>(count);
  }
  const double inverse = 1 / std::sqrt(m.variance + static_cast<double>(node.epsilon));
  for (int64_t i = 0; i < count; ++i) {
    y[i] = static_cast<T>((static_cast<double>(x[i]) - m.mean) * inverse);
  }
  return {static_cast<T>(m.mean), static_cast<T>(inverse)};
}

template <class T>
void ScaleRow(const NormNode& node, const std::vector<T>& scale, const std::vector<T>& bias, T* y) {
  if constexpr (std::is_same_v<T, float>) {
    node.kernels->multiply_add(scale.data(), bias.empty() ? nullptr : bias.data(), y,
                               static_cast<int64_t>(scale.size()));
  } else {
    for (size_t i = 0; i < scale.size(); ++i) y[i] = y[i] * scale[i] + (bias.empty() ? 0 : bias[i]);
  }
}

template <RowNorm kKind>
Op PrepareRowNorm(const Node& node, const OpContext& context) {
  CheckInputCount(node, 2, 3);
  return [norm = ReadNorm(node, context)](std::span<const Tensor* const> inputs,
                                          std::span<Tensor> outputs, Scratch& scratch) {
    const Tensor& x = *inputs[0];
    const int64_t axis = NormalizeAxis(norm.axis, x.rank(), norm.label);
    const Shape row_shape(x.shape().begin() + axis, x.shape().end());
    const int64_t count = ElementCount(row_shape);
    const int64_t rows = Extent(x.shape(), 0, axis);
    Shape moments_shape = x.shape();
    std::fill(moments_shape.begin() + axis, moments_shape.end(), 1);
    DispatchFloat(x.dtype(), norm.label, [&]<class T>() {
      if (inputs[1]->dtype() != x.dtype()) RefuseDType(inputs[1]->dtype(), norm.label);
      const std::vector<T> scale = ExpandTo<T>(*inputs[1], row_shape, norm.label);
      std::vector<T> bias;
      if (inputs.size() > 2 && inputs[2] != nullptr) {
        bias = ExpandTo<T>(*inputs[2], row_shape, norm.label);
      }
      T* y = scratch.Allocate<T>(outputs[0], x.shape()).data();
      std::array<T*, 2> moments = {nullptr, nullptr};
      for (size_t i = 1; i < std::min<size_t>(outputs.size(), 3); ++i) {
        moments[i - 1] = scratch.Allocate<T>(outputs[i], moments_shape).data();
      }
      const T* values = x.data<T>().data();
      if (count == 0) return;
      const int64_t grain = std::max<int64_t>(1, 4096 / count);
      scratch.ParallelFor(rows, grain, [&](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; ++row) {
          const std::array<T, 2> found =
              NormalizeRow<kKind, T>(norm, values + row * count, y + row * count, count);
          ScaleRow<T>(norm, scale, bias, y + row * count);
          for (size_t i = 0; i < 2; ++i) {
            if (moments[i] != nullptr) moments[i][row] = found[i];
          }
        }
      });
    });
  };
}

Op PrepareLrn(const Node& node, const OpContext& /*context*/) {
  CheckInputCount(node, 1, 1);
  const std::string label = NodeLabel(node);
  const int64_t size = node.Int("size", 0);
  if (size < 1) RefuseNode("size must be positive", label);
  const double alpha = static_cast<double>(node.Float("alpha", 1e-4F)) / static_cast<double>(size);
  const double beta = static_cast<double>(node.Float("beta", 0.75F));
  const double bias = static_cast<double>(node.Float("bias", 1));
  return [label, size, alpha, beta, bias](std::span<const Tensor* const> inputs,
                                          std::span<Tensor> outputs, Scratch& scratch) {
    const Tensor& x = *inputs[0];
    if (x.rank() < 2) RefuseNode("the input must have a channel axis", label);
    const int64_t channels = x.shape()[1];
    const int64_t plane = Extent(x.shape(), 2, x.rank());
    DispatchFloat(x.dtype(), label, [&]<class T>() {
      T* y = scratch.Allocate<T>(outputs[0], x.shape()).data();
      const T* values = x.data<T>().data();
      scratch.ParallelFor(x.shape()[0] * channels, 1, [&](int64_t begin, int64_t end) {
        std::vector<double> squares(Sz(plane));
        for (int64_t i = begin; i < end; ++i) {
          const int64_t c = i % channels;
          const int64_t low = std::max<int64_t>(0, c - (size - 1) / 2);
          const int64_t high = std::min(channels - 1, c + size / 2);
          std::fill(squares.begin(), squares.end(), 0.0);
          for (int64_t j = low; j <= high; ++j) {
            const T* from = values + (i - c + j) * plane;
            for (int64_t p = 0; p < plane; ++p) {
              squares[Sz(p)] += static_cast<double>(from[p]) * static_cast<double>(from[p]);
            }
          }
          for (int64_t p = 0; p < plane; ++p) {
            y[i * plane + p] = static_cast<T>(static_cast<double>(values[i * plane + p]) /
                                              std::pow(bias + alpha * squares[Sz(p)], beta));
          }
        }
      });
    });
  };
}

Op PrepareLpNorm(const Node& node, const OpContext& /*context*/) {
  CheckInputCount(node, 1, 1);
  const std::string label = NodeLabel(node);
  const int64_t axis = node.Int("axis", -1);
  const int64_t p = node.Int("p", 2);
  if (p != 1 && p != 2) RefuseNode("p must be 1 or 2", label);
  return [label, axis, p](std::span<const Tensor* const> inputs, std::span<Tensor> outputs,
                          Scratch& scratch) {
    const Tensor& x = *inputs[0];
    const int64_t at = NormalizeAxis(axis, x.rank(), label);
    const int64_t count = x.shape()[Sz(at)];
    const int64_t inner = Extent(x.shape(), at + 1, x.rank());
    DispatchFloat(x.dtype(), label, [&]<class T>() {
      T* y = scratch.Allocate<T>(outputs[0], x.shape()).data();
      const T* values = x.data<T>().data();
      for (int64_t line = 0; line < Extent(x.shape(), 0, at) * inner; ++line) {
        const int64_t first = line / inner * count * inner + line % inner;
        double norm = 0;
        for (int64_t i = 0; i < count; ++i) {
          const double v = static_cast<double>(values[first + i * inner]);
          norm += p == 1 ? std::abs(v) : v * v;
        }
        if (p == 2) norm = std::sqrt(norm);
        for (int64_t i = 0; i < count; ++i) {
          const double v = static_cast<double>(values[first + i * inner]);
          y[first + i * inner] = static_cast<T>(norm == 0 ? 0 : v / norm);
        }
      }
    });
  };
}

template <class T>
void RunMeanVariance(const Tensor& x, const std::vector<bool>& reduced, Tensor& output,
                     Scratch& scratch) {
  const std::span<T> y = scratch.Allocate<T>(output, x.shape());
  const std::span<const T> values = x.data<T>();
  Shape kept = x.shape();
  for (size_t d = 0; d < kept.size(); ++d) kept[d] = reduced[d] ? 1 : kept[d];
  const Shape strides = StridesOf(kept);
  // The group that each element belongs to.
  std::vector<size_t> group(values.size());
  for (size_t i = 0; i < group.size(); ++i) {
    size_t rest = i;
    for (size_t d = kept.size(); d-- > 0;) {
      const size_t extent = Sz(x.shape()[d]);
      if (!reduced[d]) group[i] += rest % extent * Sz(strides[d]);
      rest /= extent;
    }
  }
  const size_t groups = Sz(ElementCount(kept));
  const double count = static_cast<double>(values.size()) / static_cast<double>(groups);
  std::vector<double> mean(groups);
  std::vector<double> variance(groups);
  for (size_t i = 0; i < group.size(); ++i)
    mean[group[i]] += static_cast<double>(values[i]) / count;
  for (size_t i = 0; i < group.size(); ++i) {
    const double d = static_cast<double>(values[i]) - mean[group[i]];
    variance[group[i]] += d * d / count;
  }
  for (size_t i = 0; i < group.size(); ++i) {
    const double deviation = std::sqrt(variance[group[i]]) + 1e-9;  // as the function body has it
    y[i] = static_cast<T>((static_cast<double>(values[i]) - mean[group[i]]) / deviation);
  }
}

Op PrepareMeanVarianceNorm(const Node& node, const OpContext& /*context*/) {
  CheckInputCount(node, 1, 1);
  const std::string label = NodeLabel(node);
  const std::vector<int64_t> axes = node.Ints("axes", {0, 2, 3});
  return [label, axes](std::span<const Tensor* const> inputs, std::span<Tensor> outputs,
                       Scratch& scratch) {
    const Tensor& x = *inputs[0];
    std::vector<bool> reduced(x.shape().size());
    for (const int64_t axis : axes) reduced[Sz(NormalizeAxis(axis, x.rank(), label))] = true;
    DispatchFloat(x.dtype(), label,
                  [&]<class T>() { RunMeanVariance<T>(x, reduced, outputs[0], scratch); });
  };
}

constexpr std::array kOps = {
    OpInfo{"BatchNormalization", "", PrepareBatchNorm},
    OpInfo{"InstanceNormalization", "", PrepareInstanceNorm},
    OpInfo{"GroupNormalization", "", PrepareGroupNorm},
    OpInfo{"LayerNormalization", "", PrepareRowNorm<RowNorm::kLayer>},
    OpInfo{"RMSNormalization", "", PrepareRowNorm<RowNorm::kRms>},
    OpInfo{"LRN", "", PrepareLrn},
    OpInfo{"LpNormalization", "", PrepareLpNorm},
    OpInfo{"MeanVarianceNormalization", "", PrepareMeanVarianceNorm},
    OpInfo{"Softmax", "", PrepareSoftmax},
    OpInfo{"LogSoftmax", "", PrepareLogSoftmax},
    OpInfo{"Hardmax", "", PrepareHardmax},
};

}  // namespace

std::span<const OpInfo> NormOps() { return kOps; }

}  // namespace pared
