// RNN, GRU and LSTM, in ONNX's gate order: LSTM i o f c, GRU z r h; and com.microsoft's
// DynamicQuantizeLSTM, an LSTM whose weights are 8-bit codes.
//
// The inputs of all steps are multiplied by W at once; each step then multiplies the state by R.

#include <algorithm>
#include <array>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "evaluator/dynamic_product.h"
#include "evaluator/float_gemm.h"
#include "evaluator/op_checks.h"
#include "evaluator/ops.h"
#include "evaluator/recurrent_gates.h"
#include "kernels/f32.h"

namespace pared {
namespace {

enum class CellKind { kRnn, kGru, kLstm };

struct CellNode {
  std::string label;
  CellKind kind = CellKind::kRnn;
  int64_t gates = 1, hidden = 0, directions = 1;
  bool is_reverse = false, is_batch_first = false;
  bool linear_before_reset = false, couples_forget = false;
  float clip = 0;
  std::vector<std::vector<Gate>> activations;  // by direction
  const F32Kernels* kernels = nullptr;
  // W, R by direction. Dynamic ones: of codes; else none.
  std::array<std::vector<std::shared_ptr<const PackedRhs>>, 2> packed;
  std::array<std::vector<std::shared_ptr<const DynamicProduct>>, 2> dynamic;

  bool has_codes() const { return !dynamic[0].empty(); }
};

// The shape of one call and its arrays for one direction.
struct CellRun {
  int64_t steps, batch, input;
  std::vector<int64_t> lengths;
  const float* x;                                 // [steps][batch][input]
  const float *bias, *peephole;                   // of the direction; null: none
  std::vector<float> products;                    // [steps][batch][gates * hidden]: x W^T
  std::vector<float> state, cell, going, wanted;  // [batch][hidden]
  std::vector<float> recurrent;                   // [batch][gates * hidden]
  std::vector<float> sums;                        // [gates * hidden], of one sequence
  std::function<void(const float*left, int64_t rows, float*out)> by_w, by_r;
};

void Limit(const CellNode& node, std::span<float> values) {
  if (node.clip <= 0) return;
  for (float& value : values) value = std::clamp(value, -node.clip, node.clip);
}

// The gates of one sequence before their activations: `x` and the row's recurrent product, each
// with its bias.
void SumGates(const CellNode& node, CellRun& run, int64_t row, const float* x) {
  const int64_t width = node.gates * node.hidden;
  const float* r = run.recurrent.data() + row * width;
  for (int64_t i = 0; i < width; ++i) run.sums[Sz(i)] = x[i] + r[i];
  if (run.bias == nullptr) return;
  for (int64_t i = 0; i < width; ++i) run.sums[Sz(i)] += run.bias[i] + run.bias[width + i];
}

// One sequence's step of an LSTM.
void StepLstm(const CellNode& node, CellRun& run, const std::vector<Gate>& f, int64_t row,
              const float* x) {
  const int64_t hidden = node.hidden;
  float* state = run.state.data() + row * hidden;
  float* cell = run.cell.data() + row * hidden;
  SumGates(node, run, row, x);
  const auto peephole = [&](int64_t at) -> const float* {
    return run.peephole == nullptr ? nullptr : run.peephole + at * hidden;
  };
  const auto open = [&](int64_t gate, const Gate& activation, const float* peep) -> const float* {
    const std::span<float> values = std::span(run.sums).subspan(Sz(gate * hidden), Sz(hidden));
    for (int64_t h = 0; peep != nullptr && h < hidden; ++h) values[Sz(h)] += peep[h] * cell[h];
    Limit(node, values);
    activation(values.data(), hidden);
    return values.data();
  };
  const float* i = open(0, f[0], peephole(0));
  const float* forget = open(2, f[0], peephole(2));
  const float* candidate = open(3, f[1], nullptr);
  for (int64_t h = 0; h < hidden; ++h) {
    const float kept = node.couples_forget ? 1 - i[h] : forget[h];
    cell[h] = kept * cell[h] + i[h] * candidate[h];
  }
  const float* o = open(1, f[0], peephole(1));  // sees the new cell
  std::copy(cell, cell + hidden, state);
  f[2](state, hidden);
  for (int64_t h = 0; h < hidden; ++h) state[h] *= o[h];
}

void StepRnn(const CellNode& node, CellRun& run, const std::vector<Gate>& f, int64_t row,
             const float* x) {
  SumGates(node, run, row, x);
  Limit(node, run.sums);
  f[0](run.sums.data(), node.hidden);
  std::ranges::copy(run.sums, run.state.begin() + row * node.hidden);
}

// The hidden gate of a GRU needs the reset state's product where the reset comes before R.
void StepGru(const CellNode& node, CellRun& run, const std::vector<Gate>& f, int64_t row,
             const float* x) {
  const int64_t hidden = node.hidden;
  float* state = run.state.data() + row * hidden;
  const int64_t width = 3 * hidden;
  float* r = run.recurrent.data() + row * width;
  SumGates(node, run, row, x);
  const std::span<float> update = std::span(run.sums).first(Sz(hidden));
  const std::span<float> reset = std::span(run.sums).subspan(Sz(hidden), Sz(hidden));
  const std::span<float> candidate = std::span(run.sums).last(Sz(hidden));
  const std::span<float> both = std::span(run.sums).first(Sz(2 * hidden));
  Limit(node, both);
  f[0](both.data(), 2 * hidden);
  if (!node.linear_before_reset) {
    for (int64_t h = 0; h < hidden; ++h) run.wanted[Sz(h)] = reset[Sz(h)] * state[h];
    run.by_r(run.wanted.data(), 1, r);
  }
  for (int64_t h = 0; h < hidden; ++h) {
    const auto bias = [&](int64_t at) { return run.bias == nullptr ? 0 : run.bias[at]; };
    float recurrent = r[2 * hidden + h] + bias(width + 2 * hidden + h);
    if (node.linear_before_reset) recurrent *= reset[Sz(h)];
    candidate[Sz(h)] = x[2 * hidden + h] + bias(2 * hidden + h) + recurrent;
  }
  Limit(node, candidate);
  f[1](candidate.data(), hidden);
  for (int64_t h = 0; h < hidden; ++h) {
    state[h] = (1 - update[Sz(h)]) * candidate[Sz(h)] + update[Sz(h)] * state[h];
  }
}

// States for the product of step t. Codes are found for the outputs of the step before: as ONNX
// Runtime has it, sequences that had ended then have no part in their range.
const float* StatesAt(const CellNode& node, CellRun& run, int64_t t) {
  if (!node.has_codes() || std::ranges::min(run.lengths) >= t) return run.state.data();
  run.going = run.state;
  for (int64_t row = 0; row < run.batch; ++row) {
    if (run.lengths[Sz(row)] >= t) continue;
    std::fill_n(run.going.begin() + row * node.hidden, node.hidden, 0.0F);
  }
  return run.going.data();
}

// Runs one direction; write(step, row, state) sees every state in the place of its step.
template <class Write>
void RunDirection(const CellNode& node, CellRun& run, bool is_reverse, const std::vector<Gate>& f,
                  const Write& write) {
  const int64_t width = node.gates * node.hidden;
  const int64_t steps = run.lengths.empty() ? 0 : std::ranges::max(run.lengths);
  run.by_w(run.x, steps * run.batch, run.products.data());
  for (int64_t t = 0; t < steps; ++t) {
    run.by_r(StatesAt(node, run, t), run.batch, run.recurrent.data());
    for (int64_t row = 0; row < run.batch; ++row) {
      const int64_t length = run.lengths[Sz(row)];
      if (t >= length) continue;  // the state stays as the last step left it
      const int64_t at = is_reverse ? length - 1 - t : t;
      const float* x = run.products.data() + (at * run.batch + row) * width;
      if (node.kind == CellKind::kLstm) StepLstm(node, run, f, row, x);
      if (node.kind == CellKind::kGru) StepGru(node, run, f, row, x);
      if (node.kind == CellKind::kRnn) StepRnn(node, run, f, row, x);
      write(at, row, run.state.data() + row * node.hidden);
    }
  }
}

// Weights of one direction, [gates * hidden][columns], used as x W^T.
MatrixF32 Transposed(const Tensor& w, int64_t direction) {
  const int64_t rows = w.shape()[1];
  const int64_t columns = w.shape()[2];
  return {w.data<float>().data() + direction * rows * columns, columns, rows, 1, columns};
}

void CheckCell(const CellNode& node, std::span<const Tensor* const> inputs) {
  const Shape& x = inputs[0]->shape();
  const Shape& w = inputs[1]->shape();
  const Shape& r = inputs[2]->shape();
  const int64_t rows = node.gates * node.hidden;
  const auto is_weight = [&](const Shape& shape, int64_t k) {
    return shape ==
           (node.has_codes() ? Shape{node.directions, k, rows} : Shape{node.directions, rows, k});
  };
  const bool fits = x.size() == 3 && is_weight(w, x[2]) && is_weight(r, node.hidden);
  if (!fits) {
    RefuseNode("X " + ShapeText(x) + ", W " + ShapeText(w) + " and R " + ShapeText(r) +
                   " do not fit hidden_size " + std::to_string(node.hidden),
               node.label);
  }
  for (const Tensor* input : inputs.first(node.has_codes() ? 1 : 3)) {
    if (input->dtype() != DType::kFloat32) RefuseDType(input->dtype(), node.label);
  }
}

// Steps first, whatever the layout: the caller's [batch][steps][input] is turned.
std::vector<float> StepsFirst(const Tensor& x) {
  const int64_t batch = x.shape()[0];
  const int64_t steps = x.shape()[1];
  const int64_t input = x.shape()[2];
  std::vector<float> out(Sz(x.count()));
  for (int64_t i = 0; i < batch * steps; ++i) {
    const float* from = x.data<float>().data() + i * input;
    std::copy(from, from + input, out.data() + (i % steps * batch + i / steps) * input);
  }
  return out;
}

// The initial state of a direction into `state`; zeros where it is not given.
void LoadState(const CellNode& node, const Tensor* given, int64_t direction, int64_t batch,
               std::vector<float>& state) {
  state.assign(Sz(batch * node.hidden), 0.0F);
  if (given == nullptr) return;
  if (given->count() != node.directions * batch * node.hidden) {
    RefuseNode("an initial state does not fit", node.label);
  }
  for (int64_t row = 0; row < batch; ++row) {
    const int64_t at =
        node.is_batch_first ? row * node.directions + direction : direction * batch + row;
    const float* from = given->data<float>().data() + at * node.hidden;
    std::copy(from, from + node.hidden, state.data() + row * node.hidden);
  }
}

void StoreState(const CellNode& node, const std::vector<float>& state, int64_t direction,
                int64_t batch, float* out) {
  if (out == nullptr) return;
  for (int64_t row = 0; row < batch; ++row) {
    const int64_t at =
        node.is_batch_first ? row * node.directions + direction : direction * batch + row;
    std::copy(state.data() + row * node.hidden, state.data() + (row + 1) * node.hidden,
              out + at * node.hidden);
  }
}

void BindProduct(const CellNode& node, const Tensor& weights, size_t which, int64_t direction,
                 Scratch& scratch, std::function<void(const float*, int64_t, float*)>& product) {
  if (node.has_codes()) {
    product = [&weights = *node.dynamic[which][Sz(direction)], &scratch](const float* left,
                                                                         int64_t rows, float* out) {
      weights.Run(left, rows, out, scratch);
    };
    return;
  }
  std::shared_ptr<const PackedRhs> packed;
  if (!node.packed[which].empty()) packed = node.packed[which][Sz(direction)];
  if (packed == nullptr) packed = PackConstantRhs(Transposed(weights, direction), *node.kernels);
  product = [packed, &node, &scratch](const float* left, int64_t rows, float* out) {
    BatchedGemm gemm;
    gemm.m = rows;
    gemm.n = packed->n;
    gemm.k = packed->k;
    gemm.a_row_step = packed->k;
    gemm.a_column_step = 1;
    gemm.packed = packed.get();
    gemm.products = {{left, nullptr, out}};
    RunBatchedGemm(gemm, *node.kernels, scratch);
  };
}

void RunCell(const CellNode& node, std::span<const Tensor* const> inputs, std::span<Tensor> outputs,
             Scratch& scratch) {
  CheckCell(node, inputs);
  const auto input = [&](size_t i) { return i < inputs.size() ? inputs[i] : nullptr; };
  const Tensor& x = *inputs[0];
  CellRun run{};
  run.steps = x.shape()[node.is_batch_first ? 1 : 0];
  run.batch = x.shape()[node.is_batch_first ? 0 : 1];
  run.input = x.shape()[2];
  std::vector<float> turned;
  if (node.is_batch_first) turned = StepsFirst(x);
  run.x = node.is_batch_first ? turned.data() : x.data<float>().data();
  run.lengths.assign(Sz(run.batch), run.steps);
  if (input(4) != nullptr) run.lengths = IntegersOf(*input(4), node.label);
  if (static_cast<int64_t>(run.lengths.size()) != run.batch) {
    RefuseNode("sequence_lens does not fit the batch", node.label);
  }
  for (const int64_t length : run.lengths) {
    if (length < 0 || length > run.steps) RefuseNode("sequence_lens out of range", node.label);
  }
  const int64_t width = node.gates * node.hidden;
  const int64_t d_count = node.directions;
  const Shape y_shape = node.is_batch_first ? Shape{run.batch, run.steps, d_count, node.hidden}
                                            : Shape{run.steps, d_count, run.batch, node.hidden};
  const Shape h_shape = node.is_batch_first ? Shape{run.batch, d_count, node.hidden}
                                            : Shape{d_count, run.batch, node.hidden};
  const std::span<float> y = scratch.Allocate<float>(outputs[0], y_shape);
  std::fill(y.begin(), y.end(), 0.0F);
  const auto last = [&](size_t i) {
    return outputs.size() > i ? scratch.Allocate<float>(outputs[i], h_shape).data() : nullptr;
  };
  float* y_h = last(1);
  float* y_c = node.kind == CellKind::kLstm ? last(2) : nullptr;
  run.products.resize(Sz(run.steps * run.batch * width));
  run.recurrent.resize(Sz(run.batch * width));
  run.wanted.resize(Sz(node.hidden));
  run.sums.resize(Sz(width));
  for (int64_t d = 0; d < d_count; ++d) {
    run.bias = input(3) == nullptr ? nullptr : input(3)->data<float>().data() + d * 2 * width;
    run.peephole =
        input(7) == nullptr ? nullptr : input(7)->data<float>().data() + d * 3 * node.hidden;
    LoadState(node, input(5), d, run.batch, run.state);
    LoadState(node, input(6), d, run.batch, run.cell);
    BindProduct(node, *inputs[1], 0, d, scratch, run.by_w);
    BindProduct(node, *inputs[2], 1, d, scratch, run.by_r);
    RunDirection(node, run, node.is_reverse || d == 1, node.activations[Sz(d)],
                 [&](int64_t t, int64_t row, const float* state) {
                   const int64_t at = node.is_batch_first ? (row * run.steps + t) * d_count + d
                                                          : (t * d_count + d) * run.batch + row;
                   std::copy(state, state + node.hidden, y.data() + at * node.hidden);
                 });
    StoreState(node, run.state, d, run.batch, y_h);
    StoreState(node, run.cell, d, run.batch, y_c);
  }
}

std::vector<std::string> DefaultGates(CellKind kind) {
  if (kind == CellKind::kRnn) return {"Tanh"};
  if (kind == CellKind::kGru) return {"Sigmoid", "Tanh"};
  return {"Sigmoid", "Tanh", "Tanh"};
}

CellNode ReadCell(const Node& node, CellKind kind, const OpContext& context) {
  CellNode cell;
  cell.label = NodeLabel(node);
  cell.kind = kind;
  cell.gates = kind == CellKind::kRnn ? 1 : kind == CellKind::kGru ? 3 : 4;
  cell.hidden = node.Int("hidden_size", 0);
  const std::string direction = node.String("direction", "forward");
  cell.directions = direction == "bidirectional" ? 2 : 1;
  cell.is_reverse = direction == "reverse";
  cell.is_batch_first = node.Int("layout", 0) != 0;
  cell.linear_before_reset = node.Int("linear_before_reset", 0) != 0;
  cell.couples_forget = node.Int("input_forget", 0) != 0;
  cell.clip = node.Float("clip", 0);
  cell.kernels = &F32KernelsFor(context.isa);
  if (cell.hidden < 1) RefuseNode("hidden_size must be positive", cell.label);
  cell.activations = ReadGates(node, DefaultGates(kind), cell.directions, *cell.kernels);
  return cell;
}

Op RunOf(CellNode cell) {
  return [cell = std::move(cell)](std::span<const Tensor* const> inputs, std::span<Tensor> outputs,
                                  Scratch& scratch) { RunCell(cell, inputs, outputs, scratch); };
}

template <CellKind kKind>
Op PrepareCell(const Node& node, const OpContext& context) {
  CheckInputCount(node, 3, 8);
  CellNode cell = ReadCell(node, kKind, context);
  for (size_t i = 0; i < 2; ++i) {
    const Tensor* w = context.constants.size() > i + 1 ? context.constants[i + 1] : nullptr;
    const bool is_usable = w != nullptr && w->dtype() == DType::kFloat32 && w->rank() == 3 &&
                           w->shape()[0] == cell.directions;
    for (int64_t d = 0; is_usable && d < cell.directions; ++d) {
      cell.packed[i].push_back(PackConstantRhs(Transposed(*w, d), *cell.kernels));
    }
  }
  return RunOf(std::move(cell));
}

// The part of a constant [directions, ...] that is one direction's, without that axis.
Tensor PartOf(const Tensor& all, int64_t direction) {
  const size_t size = all.bytes().size() / Sz(all.shape()[0]);
  return Tensor::View(all.dtype(), Shape(all.shape().begin() + 1, all.shape().end()),
                      all.bytes().subspan(Sz(direction) * size, size),
                      std::make_shared<const Tensor>(all));
}

// Inputs 8 to 11: scale and zero point of W, then of R; [directions], or [directions, gates *
// hidden] (documentation of ONNX Runtime's contributed operators).
Op PrepareDynamicLstm(const Node& node, const OpContext& context) {
  CheckInputCount(node, 3, 12);
  if (node.inputs.size() < 12) RefuseNode("must have scales and zero points", NodeLabel(node));
  CellNode cell = ReadCell(node, CellKind::kLstm, context);
  for (size_t i = 0; i < 2; ++i) {
    const Tensor* w = context.constants[1 + i];
    const Tensor* scale = context.constants[8 + 2 * i];
    const Tensor* zero_point = context.constants[9 + 2 * i];
    for (const Tensor* each : {w, scale, zero_point}) {
      const bool fits = each != nullptr && each->rank() > 0 && each->shape()[0] == cell.directions;
      if (!fits) {
        RefuseNode("weights, scales and zero points must be constants, the first axis of each " +
                       std::to_string(cell.directions) + " long",
                   cell.label);
      }
    }
    const int64_t columns = 4 * cell.hidden;
    if (w->rank() != 3 || w->shape()[2] != columns) {
      RefuseNode("weights must be [directions, inputs, " + std::to_string(columns) + "]",
                 cell.label);
    }
    for (int64_t d = 0; d < cell.directions; ++d) {
      const Tensor scales = PartOf(*scale, d);
      const bool fits = scales.count() == 1 || scales.count() == columns;
      if (scales.dtype() != DType::kFloat32 || !fits) {
        RefuseNode("scales must be float32, one, or one for each of " + std::to_string(columns) +
                       " columns, a direction",
                   cell.label);
      }
      const std::span<const float> values = scales.data<float>();
      DynamicProduct::Weights weights = {
          PartOf(*w, d), PartOf(*zero_point, d), {values.begin(), values.end()}};
      cell.dynamic[i].push_back(
          std::make_shared<const DynamicProduct>(node, std::move(weights), context));
    }
  }
  return RunOf(std::move(cell));
}

constexpr std::array kOps = {
    OpInfo{"RNN", "", PrepareCell<CellKind::kRnn>},
    OpInfo{"GRU", "", PrepareCell<CellKind::kGru>},
    OpInfo{"LSTM", "", PrepareCell<CellKind::kLstm>},
    OpInfo{"DynamicQuantizeLSTM", "com.microsoft", PrepareDynamicLstm},
};

}  // namespace

std::span<const OpInfo> RecurrentOps() { return kOps; }

}  // namespace pared
