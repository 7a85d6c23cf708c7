// RNN, GRU and LSTM, in ONNX's gate order: LSTM i o f c, GRU z r h.
//
// The inputs of all steps are multiplied by W at once; each step then multiplies the state by R.

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "evaluator/float_gemm.h"
#include "evaluator/op_checks.h"
#include "evaluator/ops.h"
#include "kernels/f32.h"

namespace pared {
namespace {

enum class CellKind { kRnn, kGru, kLstm };

using Gate = std::function<float(float)>;

struct CellNode {
  std::string label;
  CellKind kind = CellKind::kRnn;
  int64_t gates = 1, hidden = 0, directions = 1;
  bool is_reverse = false, is_batch_first = false;
  bool linear_before_reset = false, couples_forget = false;
  float clip = 0;
  std::vector<std::vector<Gate>> activations;  // by direction
  const F32Kernels* kernels = nullptr;
  std::array<std::vector<std::shared_ptr<const PackedRhs>>, 2> packed;  // W, R by direction
};

Gate MakeGate(const std::string& given, float alpha, float beta, const std::string& label) {
  std::string name;
  for (const char c : given) name += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  if (name == "sigmoid") return [](float x) { return 1 / (1 + std::exp(-x)); };
  if (name == "tanh") return [](float x) { return std::tanh(x); };
  if (name == "relu") return [](float x) { return std::max(x, 0.0F); };
  if (name == "affine") return [=](float x) { return alpha * x + beta; };
  if (name == "leakyrelu") return [=](float x) { return x < 0 ? alpha * x : x; };
  if (name == "thresholdedrelu") return [=](float x) { return x > alpha ? x : 0.0F; };
  if (name == "scaledtanh") return [=](float x) { return alpha * std::tanh(beta * x); };
  if (name == "hardsigmoid") {
    return [=](float x) { return std::clamp(alpha * x + beta, 0.0F, 1.0F); };
  }
  if (name == "elu") return [=](float x) { return x < 0 ? alpha * (std::exp(x) - 1) : x; };
  if (name == "softsign") return [](float x) { return x / (1 + std::abs(x)); };
  if (name == "softplus") return [](float x) { return std::log1p(std::exp(x)); };
  throw Error(ErrorCode::kUnsupported, "activation \"" + given + "\"", label);
}

// The parameters are given in order to those activations that take them.
void ReadGates(const Node& node, CellNode& cell) {
  std::vector<std::string> names = node.Strings("activations");
  const std::vector<std::string> defaults =
      cell.kind == CellKind::kRnn   ? std::vector<std::string>{"Tanh"}
      : cell.kind == CellKind::kGru ? std::vector<std::string>{"Sigmoid", "Tanh"}
                                    : std::vector<std::string>{"Sigmoid", "Tanh", "Tanh"};
  if (names.empty()) {
    for (int64_t d = 0; d < cell.directions; ++d) {
      names.insert(names.end(), defaults.begin(), defaults.end());
    }
  }
  if (names.size() != defaults.size() * Sz(cell.directions)) {
    RefuseNode("activations does not fit the directions", cell.label);
  }
  const std::vector<float> alphas = node.Floats("activation_alpha");
  const std::vector<float> betas = node.Floats("activation_beta");
  size_t alpha = 0;
  size_t beta = 0;
  for (size_t i = 0; i < names.size(); ++i) {
    if (i % defaults.size() == 0) cell.activations.emplace_back();
    const std::string& n = names[i];
    const bool takes_both = n == "Affine" || n == "ScaledTanh" || n == "HardSigmoid";
    const bool takes_alpha = takes_both || n == "LeakyRelu" || n == "ThresholdedRelu" || n == "Elu";
    const float a = n == "LeakyRelu" ? 0.01F : n == "HardSigmoid" ? 0.2F : 1.0F;
    const float b = n == "HardSigmoid" ? 0.5F : n == "Affine" ? 0.0F : 1.0F;
    const bool has_alpha = takes_alpha && alpha < alphas.size();
    const bool has_beta = takes_both && beta < betas.size();
    cell.activations.back().push_back(
        MakeGate(n, has_alpha ? alphas[alpha++] : a, has_beta ? betas[beta++] : b, cell.label));
  }
}

// The shape of one call and its arrays for one direction.
struct CellRun {
  int64_t steps, batch, input;
  std::vector<int64_t> lengths;
  const float* x;                                     // [steps][batch][input]
  const float *bias, *peephole;                       // of the direction; null: none
  std::vector<float> products;                        // [steps][batch][gates * hidden]: x W^T
  std::vector<float> state, cell, recurrent, wanted;  // [batch][hidden], [batch][gates * hidden]
  std::function<void(const float*left, int64_t rows, float*out)> by_w, by_r;
};

float Limited(const CellNode& node, float x) {
  return node.clip > 0 ? std::clamp(x, -node.clip, node.clip) : x;
}

float BiasOf(const CellNode& node, const CellRun& run, int64_t gate, int64_t h, bool recurrent) {
  if (run.bias == nullptr) return 0;
  return run.bias[((recurrent ? node.gates : 0) + gate) * node.hidden + h];
}

// One sequence's step of an LSTM.
void StepLstm(const CellNode& node, CellRun& run, const std::vector<Gate>& f, int64_t row,
              const float* x) {
  const int64_t hidden = node.hidden;
  const float* r = run.recurrent.data() + row * 4 * hidden;
  float* state = run.state.data() + row * hidden;
  float* cell = run.cell.data() + row * hidden;
  for (int64_t h = 0; h < hidden; ++h) {
    const auto sum = [&](int64_t gate) {
      return x[gate * hidden + h] + r[gate * hidden + h] + BiasOf(node, run, gate, h, false) +
             BiasOf(node, run, gate, h, true);
    };
    const auto peep = [&](int64_t gate, float c) {
      return run.peephole == nullptr ? 0.0F : run.peephole[gate * hidden + h] * c;
    };
    const float i = f[0](Limited(node, sum(0) + peep(0, cell[h])));
    const float forget =
        node.couples_forget ? 1 - i : f[0](Limited(node, sum(2) + peep(2, cell[h])));
    cell[h] = forget * cell[h] + i * f[1](Limited(node, sum(3)));
    const float o = f[0](Limited(node, sum(1) + peep(1, cell[h])));
    state[h] = o * f[2](cell[h]);
  }
}

void StepRnn(const CellNode& node, CellRun& run, const std::vector<Gate>& f, int64_t row,
             const float* x) {
  float* state = run.state.data() + row * node.hidden;
  const float* r = run.recurrent.data() + row * node.hidden;
  for (int64_t h = 0; h < node.hidden; ++h) {
    const float bias = BiasOf(node, run, 0, h, false) + BiasOf(node, run, 0, h, true);
    state[h] = f[0](Limited(node, x[h] + r[h] + bias));
  }
}

// The hidden gate of a GRU needs the reset state's product where the reset comes before R.
void StepGru(const CellNode& node, CellRun& run, const std::vector<Gate>& f, int64_t row,
             const float* x) {
  const int64_t hidden = node.hidden;
  float* state = run.state.data() + row * hidden;
  float* r = run.recurrent.data() + row * 3 * hidden;
  std::vector<float> update(Sz(hidden));
  std::vector<float> reset(Sz(hidden));
  const auto sum = [&](int64_t gate, int64_t h) {
    return x[gate * hidden + h] + r[gate * hidden + h] + BiasOf(node, run, gate, h, false) +
           BiasOf(node, run, gate, h, true);
  };
  for (int64_t h = 0; h < hidden; ++h) {
    update[Sz(h)] = f[0](Limited(node, sum(0, h)));
    reset[Sz(h)] = f[0](Limited(node, sum(1, h)));
  }
  if (!node.linear_before_reset) {
    for (int64_t h = 0; h < hidden; ++h) run.wanted[Sz(h)] = reset[Sz(h)] * state[h];
    run.by_r(run.wanted.data(), 1, r);
  }
  for (int64_t h = 0; h < hidden; ++h) {
    float inner = r[2 * hidden + h] + BiasOf(node, run, 2, h, true);
    if (node.linear_before_reset) inner *= reset[Sz(h)];
    const float candidate =
        f[1](Limited(node, x[2 * hidden + h] + BiasOf(node, run, 2, h, false) + inner));
    state[h] = (1 - update[Sz(h)]) * candidate + update[Sz(h)] * state[h];
  }
}

// Runs one direction; write(step, row, state) sees every state in the place of its step.
template <class Write>
void RunDirection(const CellNode& node, CellRun& run, bool is_reverse, const std::vector<Gate>& f,
                  const Write& write) {
  const int64_t width = node.gates * node.hidden;
  run.by_w(run.x, run.steps * run.batch, run.products.data());
  for (int64_t t = 0; t < run.steps; ++t) {
    run.by_r(run.state.data(), run.batch, run.recurrent.data());
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
  const bool fits = x.size() == 3 && w == Shape{node.directions, rows, x[2]} &&
                    r == Shape{node.directions, rows, node.hidden};
  if (!fits) {
    RefuseNode("X " + ShapeText(x) + ", W " + ShapeText(w) + " and R " + ShapeText(r) +
                   " do not fit hidden_size " + std::to_string(node.hidden),
               node.label);
  }
  for (const Tensor* input : inputs.first(3)) {
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

template <CellKind kKind>
Op PrepareCell(const Node& node, const OpContext& context) {
  CheckInputCount(node, 3, 8);
  CellNode cell;
  cell.label = NodeLabel(node);
  cell.kind = kKind;
  cell.gates = kKind == CellKind::kRnn ? 1 : kKind == CellKind::kGru ? 3 : 4;
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
  ReadGates(node, cell);
  for (size_t i = 0; i < 2; ++i) {
    const Tensor* w = context.constants.size() > i + 1 ? context.constants[i + 1] : nullptr;
    const bool is_usable = w != nullptr && w->dtype() == DType::kFloat32 && w->rank() == 3 &&
                           w->shape()[0] == cell.directions;
    for (int64_t d = 0; is_usable && d < cell.directions; ++d) {
      cell.packed[i].push_back(PackConstantRhs(Transposed(*w, d), *cell.kernels));
    }
  }
  return [cell](std::span<const Tensor* const> inputs, std::span<Tensor> outputs,
                Scratch& scratch) { RunCell(cell, inputs, outputs, scratch); };
}

constexpr std::array kOps = {
    OpInfo{"RNN", "", PrepareCell<CellKind::kRnn>},
    OpInfo{"GRU", "", PrepareCell<CellKind::kGru>},
    OpInfo{"LSTM", "", PrepareCell<CellKind::kLstm>},
};

}  // namespace

std::span<const OpInfo> RecurrentOps() { return kOps; }

}  // namespace pared
