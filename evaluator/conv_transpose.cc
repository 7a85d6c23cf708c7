#include "evaluator/conv_transpose.h"

#include <algorithm>
#include <memory>
#include <vector>

#include "evaluator/op_checks.h"
#include "evaluator/worker_slots.h"
#include "kernels/gemm_f32.h"

namespace pared {
namespace {

struct TransposeNode {
  WindowAttributes window;
  int64_t groups = 1;
  const F32Kernels* kernels = nullptr;
  std::shared_ptr<const std::vector<float>> packed;  // null: the weights are not constant
};

// Weights [channels][outputs / groups][taps], each group as a left operand of rows (output, tap).
std::vector<float> PackWeights(const TransposeNode& node, const Tensor& w) {
  const int64_t k = w.shape()[0] / node.groups;
  const int64_t m = w.count() / std::max<int64_t>(1, w.shape()[0]);
  const int64_t floats = PackedLhsFloats(m, k, *node.kernels);
  std::vector<float> packed(Sz(floats * node.groups));
  for (int64_t g = 0; g < node.groups; ++g) {
    const MatrixF32 matrix{.data = w.data<float>().data() + g * k * m,
                           .rows = m,
                           .columns = k,
                           .row_step = 1,
                           .column_step = m};
    PackLhs(matrix, *node.kernels, packed.data() + g * floats);
  }
  return packed;
}

struct GroupRun {
  const float* packed;
  const float* x;  // [channels of the group][positions]
  float* panels;
  float* columns;
};

void MultiplyGroup(const TransposeNode& node, const Window& window, int64_t m, int64_t k,
                   const GroupRun& run, const Scratch& scratch) {
  GemmF32 gemm;
  gemm.m = m;
  gemm.n = window.in_count();
  gemm.k = k;
  SetPackedLhs(gemm, run.packed, *node.kernels);
  gemm.b = run.panels;
  gemm.c = run.columns;
  gemm.c_row = gemm.n;
  const MatrixF32 right{
      .data = run.x, .rows = k, .columns = gemm.n, .row_step = gemm.n, .column_step = 1};
  scratch.ParallelFor(Panels(gemm, *node.kernels), 4, [&](int64_t begin, int64_t end) {
    PackRhs(right, *node.kernels, begin, end, run.panels);
    RunGemm(gemm, *node.kernels, {0, RowBlocks(gemm, *node.kernels), begin, end});
  });
}

void RunFloat(const TransposeNode& node, const Window& window,
              std::span<const Tensor* const> inputs, Tensor& output, Scratch& scratch) {
  const Tensor& x = *inputs[0];
  const Tensor& w = *inputs[1];
  const int64_t k = x.shape()[1] / node.groups;
  const int64_t group_outputs = w.shape()[1];
  const int64_t m = group_outputs * window.taps();
  const int64_t outputs = group_outputs * node.groups;
  const bool has_bias = inputs.size() > 2 && inputs[2] != nullptr;
  const float* bias = has_bias ? inputs[2]->data<float>().data() : nullptr;
  const std::span<float> y =
      scratch.Allocate<float>(output, WindowShape(window, x.shape(), outputs));
  std::vector<float> fresh;
  if (node.packed == nullptr) fresh = PackWeights(node, w);
  const float* packed = node.packed == nullptr ? fresh.data() : node.packed->data();
  const auto memory = [&](int64_t floats) {
    return reinterpret_cast<float*>(scratch.Temporary(Sz(std::max<int64_t>(floats, 1)) * 4));
  };
  GroupRun run{};
  run.panels = memory(PackedRhsFloats(k, window.in_count(), *node.kernels));
  run.columns = memory(m * window.in_count());
  for (int64_t n = 0; n < x.shape()[0]; ++n) {
    for (int64_t g = 0; g < node.groups; ++g) {
      run.packed = packed + g * PackedLhsFloats(m, k, *node.kernels);
      run.x = x.data<float>().data() + (n * node.groups + g) * k * window.in_count();
      MultiplyGroup(node, window, m, k, run, scratch);
      scratch.ParallelFor(group_outputs, 1, [&](int64_t begin, int64_t end) {
        for (int64_t o = begin; o < end; ++o) {
          const int64_t channel = g * group_outputs + o;
          float* to = y.data() + (n * outputs + channel) * window.out_count();
          std::fill(to, to + window.out_count(), bias == nullptr ? 0.0F : bias[channel]);
          AddColumns(window, run.columns + o * window.taps() * window.in_count(), to);
        }
      });
    }
  }
}

// Doubles, one contribution at a time.
void RunDouble(const TransposeNode& node, const Window& window,
               std::span<const Tensor* const> inputs, Tensor& output, Scratch& scratch) {
  const Tensor& x = *inputs[0];
  const Tensor& w = *inputs[1];
  const int64_t k = x.shape()[1] / node.groups;
  const int64_t outputs = w.shape()[1] * node.groups;
  const bool has_bias = inputs.size() > 2 && inputs[2] != nullptr;
  const std::span<double> y =
      scratch.Allocate<double>(output, WindowShape(window, x.shape(), outputs));
  std::vector<double> columns(Sz(window.taps() * window.in_count()));
  for (int64_t i = 0; i < x.shape()[0] * outputs; ++i) {
    const int64_t channel = i % outputs;
    const int64_t g = channel / w.shape()[1];
    const double* from =
        x.data<double>().data() + (i / outputs * node.groups + g) * k * window.in_count();
    std::fill(columns.begin(), columns.end(), 0.0);
    for (int64_t c = 0; c < k; ++c) {
      const double* taps = w.data<double>().data() +
                           ((g * k + c) * w.shape()[1] + channel % w.shape()[1]) * window.taps();
      for (int64_t j = 0; j < window.taps() * window.in_count(); ++j) {
        columns[Sz(j)] +=
            taps[j / window.in_count()] * from[c * window.in_count() + j % window.in_count()];
      }
    }
    double* to = y.data() + i * window.out_count();
    std::fill(to, to + window.out_count(), has_bias ? inputs[2]->data<double>()[Sz(channel)] : 0);
    AddColumns(window, columns.data(), to);
  }
}

}  // namespace

Op PrepareConvTranspose(const Node& node, const OpContext& context) {
  CheckInputCount(node, 2, 3);
  TransposeNode transpose;
  transpose.window = ReadWindow(node);
  transpose.groups = node.Int("group", 1);
  transpose.kernels = &F32KernelsFor(context.isa);
  if (transpose.groups < 1) RefuseNode("group must be positive", transpose.window.label);
  const Tensor* w = context.constants.size() > 1 ? context.constants[1] : nullptr;
  if (w != nullptr && w->dtype() == DType::kFloat32 && w->rank() > 2) {
    transpose.packed = std::make_shared<const std::vector<float>>(PackWeights(transpose, *w));
  }
  return [transpose](std::span<const Tensor* const> inputs, std::span<Tensor> outputs,
                     Scratch& scratch) {
    const Shape& x = inputs[0]->shape();
    const Shape& w_shape = inputs[1]->shape();
    const std::string& label = transpose.window.label;
    const bool fits = x.size() >= 3 && w_shape.size() == x.size() && x[1] == w_shape[0] &&
                      x[1] % transpose.groups == 0;
    if (!fits) {
      RefuseNode("input " + ShapeText(x) + " does not fit weights " + ShapeText(w_shape), label);
    }
    const Window window =
        PlanTransposedWindow(transpose.window, x, {w_shape.begin() + 2, w_shape.end()});
    scratch.AddMacs(ElementCount(x) * w_shape[1] * window.taps());
    if (inputs[0]->dtype() == DType::kFloat64) {
      return RunDouble(transpose, window, inputs, outputs[0], scratch);
    }
    if (inputs[0]->dtype() != DType::kFloat32) RefuseDType(inputs[0]->dtype(), label);
    RunFloat(transpose, window, inputs, outputs[0], scratch);
  };
}

}  // namespace pared
