// Layers of sequences as TensorFlow Lite operators: one step after the other, as its own layer
// keeps states from one run to the next, and has no GRU.
//
//   all = FULLY_CONNECTED(X, W, b)   x_t = UNPACK(all)   z_t = x_t + FULLY_CONNECTED(h, R)   ...

#include <algorithm>
#include <array>
#include <span>
#include <utility>

#include "model/permute.h"
#include "model/tflite_lowering.h"
#include "model/tflite_weights.h"

namespace pared {
namespace {

using Kind = TfliteOptionsKind;

constexpr int64_t kStepsMax = 256;

// Weights of one direction; places of tensors.
struct Weights {
  int64_t of_step = -1, step_bias = -1;
  int64_t of_state = -1, state_bias = -1;  // -1: what is added belongs to the step's
};

struct States {
  int64_t hidden = -1, cell = -1;
};

class Layer {
 public:
  explicit Layer(TfliteLowering& l)
      : l_(l),
        type_(l.node().op_type == "DynamicQuantizeLSTM" ? "LSTM" : l.node().op_type),
        is_dynamic_(l.node().op_type != type_),
        gates_(type_ == "LSTM"  ? 4
               : type_ == "GRU" ? 3
                                : 1) {
    Check();
  }

  void Lower() {
    const std::string direction = l_.node().String("direction", "forward");
    std::vector<int64_t> all, hidden, cells;
    for (int64_t d = 0; d < directions_; ++d) {
      const bool is_reverse = d == 1 || direction == "reverse";
      auto [outputs, last] = Run(d, is_reverse);
      hidden.push_back(last.hidden);
      if (type_ == "LSTM") cells.push_back(last.cell);
      if (is_reverse) std::ranges::reverse(outputs);
      all.push_back(Packed(outputs, 0, {steps_, batch_, units_}));
    }
    const Shape states = {directions_, batch_, units_};
    Define(0, Packed(all, 1, {steps_, directions_, batch_, units_}));
    Define(1, Packed(hidden, 0, states));
    if (type_ == "LSTM") Define(2, Packed(cells, 0, states));
  }

 private:
  void Check() {
    const Node& node = l_.node();
    const Shape x = l_.ShapeOf(l_.Input(0)), r = l_.ShapeOf(l_.Input(2));
    l_.Require(x.size() == 3 && r.size() == 3 && x[2] > 0 && std::ranges::min(r) > 0,
               "an input or weights of unknown shape");
    steps_ = x[0], batch_ = x[1], directions_ = r[0];
    units_ = node.Int("hidden_size", is_dynamic_ ? r[1] : r[2]);
    const auto whole = [&](int64_t columns) {
      return is_dynamic_ ? Shape{directions_, columns, rows()}
                         : Shape{directions_, rows(), columns};
    };
    l_.Require(units_ > 0 && r == whole(units_) && l_.ShapeOf(l_.Input(1)) == whole(x[2]),
               "weights of other shapes than its gates");
    l_.Require(steps_ > 0 && steps_ <= kStepsMax,
               "steps that are open, or more than " + std::to_string(kStepsMax));
    l_.Require(node.Int("layout", 0) == 0 && !node.attributes.contains("clip") &&
                   node.Int("input_forget", 0) == 0 && !l_.HasInput(4) && !l_.HasInput(7),
               "lengths, peepholes, clips or another layout of a recurrent layer");
    l_.Require(!node.attributes.contains("activations") || HasOwnActivations(),
               "other activations of a recurrent layer than its own");
  }

  bool HasOwnActivations() const {
    const std::vector<std::string> own =
        type_ == "LSTM"  ? std::vector<std::string>{"Sigmoid", "Tanh", "Tanh"}
        : type_ == "GRU" ? std::vector<std::string>{"Sigmoid", "Tanh"}
                         : std::vector<std::string>{"Tanh"};
    const auto* given =
        std::get_if<std::vector<std::string>>(&l_.node().attributes.at("activations").value);
    if (given == nullptr || given->size() % own.size() != 0) return false;
    for (size_t i = 0; i < given->size(); ++i) {
      if ((*given)[i] != own[i % own.size()]) return false;
    }
    return true;
  }

  bool resets_behind() const { return l_.node().Int("linear_before_reset", 0) != 0; }
  int64_t rows() const { return gates_ * units_; }

  // Rows [begin, end) of a direction of the constant [directions, rows, columns].
  int64_t Rows(size_t input, int64_t direction, int64_t begin, int64_t end) {
    const std::string& value = l_.Input(input);
    const std::string name = l_.result() + (input == 1 ? "/weight" : "/recurrence");
    if (const Tensor* whole = l_.Constant(value); whole && whole->dtype() == DType::kFloat32) {
      const int64_t columns = whole->shape()[2];
      const auto part =
          whole->data<float>().subspan(static_cast<size_t>((direction * rows() + begin) * columns),
                                       static_cast<size_t>((end - begin) * columns));
      return l_.AddConstant(name,
                            Tensor::Make<float>({end - begin, columns},
                                                std::vector<float>(part.begin(), part.end())));
    }
    auto stored = l_.StoredCodes(value);
    const bool is_all = begin == 0 && end == rows() && directions_ == 1;
    if (!stored || !is_all || stored->tensor.rank() != 3) {
      const int64_t columns = l_.ShapeOf(value)[2];
      return Part(l_.Plain(value), {direction, begin, 0}, {end - begin, columns});
    }
    const Shape shape = {stored->tensor.shape()[1], stored->tensor.shape()[2]};
    stored->tensor = stored->tensor.Reshaped(shape);
    l_.Require(stored->scales.size() <= 1 || stored->axis > 0, "scales along the directions");
    stored->axis = stored->scales.size() > 1 ? stored->axis - 1 : 0;
    const int64_t codes = l_.AddCodes(name, *stored);
    return stored->scales.empty() ? l_.EmitTyped("DEQUANTIZE", {codes}, shape, DType::kFloat32)
                                  : l_.Dequantized(codes);
  }

  // Of a DynamicQuantizeLSTM: symmetric codes [1, columns, rows] with a scale for each row, or one.
  int64_t CodesByColumns(size_t input, size_t scale) {
    const Tensor* codes = l_.Constant(l_.Input(input));
    const Tensor* scales = l_.Constant(l_.Input(scale));
    const Tensor* points = l_.Constant(l_.Input(scale + 1));
    l_.Require(codes && scales && points && directions_ == 1 && codes->dtype() == DType::kInt8 &&
                   scales->dtype() == DType::kFloat32 && points->dtype() == DType::kInt8 &&
                   (scales->count() == 1 || scales->count() == rows()) &&
                   std::ranges::count(points->data<int8_t>(), 0) == points->count(),
               "weights of a DynamicQuantizeLSTM that are computed, not symmetric or of two "
               "directions");
    const Shape shape = {codes->shape()[2], codes->shape()[1]};
    TfliteLowering::Stored stored{Permuted(*codes, {0, 2, 1}).Reshaped(shape), {}, {}, 0};
    stored.scales.assign(scales->data<float>().begin(), scales->data<float>().end());
    stored.zero_points.assign(stored.scales.size(), 0);
    return l_.AddCodes(l_.result() + (input == 1 ? "/weight" : "/recurrence"), stored);
  }

  // Of one direction: what begins there and has the shape.
  int64_t Part(int64_t whole, const std::vector<int64_t>& begin, const Shape& shape) {
    Shape sizes = shape;
    sizes.insert(sizes.begin(), 1);
    const int64_t counts = l_.AddInts(sizes);
    const int64_t part = l_.EmitTyped("SLICE", {whole, l_.AddInts(begin), counts}, std::move(sizes),
                                      DType::kFloat32);
    return l_.Reshaped(part, shape);
  }

  // Both biases are added to the step's product, unless a GRU resets that of the state.
  void AddBiases(int64_t direction, Weights& weights) {
    const bool is_one = type_ != "GRU" || !resets_behind();
    const auto count = static_cast<size_t>(rows());
    const Tensor* given = l_.HasInput(3) ? l_.Constant(l_.node().inputs[3]) : nullptr;
    if (l_.HasInput(3) && given == nullptr) {
      const int64_t all = l_.Plain(l_.node().inputs[3]);
      weights.step_bias = Part(all, {direction, 0}, {rows()});
      weights.state_bias = Part(all, {direction, rows()}, {rows()});
      if (!is_one) return;
      weights.step_bias = l_.Plus(weights.step_bias, std::exchange(weights.state_bias, -1));
      return;
    }
    std::vector<float> step(count), state(count);
    if (given != nullptr) {
      const std::vector<float> both = l_.Floats(l_.node().inputs[3], "the biases");
      l_.Require(std::ssize(both) == directions_ * 2 * rows(), "biases of another length");
      const auto first = both.begin() + direction * 2 * rows();
      std::copy_n(first, count, step.begin());
      std::copy_n(first + rows(), count, state.begin());
    }
    for (size_t i = 0; i < count && is_one; ++i) step[i] += std::exchange(state[i], 0.0F);
    weights.step_bias =
        l_.AddConstant(l_.result() + "/bias", Tensor::Make<float>({rows()}, std::move(step)));
    if (is_one) return;
    weights.state_bias = l_.AddConstant(l_.result() + "/reset_bias",
                                        Tensor::Make<float>({rows()}, std::move(state)));
  }

  int64_t Product(int64_t x, int64_t weight, int64_t bias, Shape shape) {
    const bool keeps_axes = shape.size() != 2;
    return l_.EmitTyped(
        "FULLY_CONNECTED", {x, weight, bias}, std::move(shape), DType::kFloat32,
        {Kind::kFullyConnected, {{0, int8_t{0}}, {2, keeps_axes}, {3, is_dynamic_}}});
  }

  std::vector<int64_t> Parts(int64_t t, int64_t count) {
    std::vector<int64_t> parts;
    for (int64_t i = 0; i < count; ++i)
      parts.push_back(l_.AddLike({batch_, units_}, DType::kFloat32));
    l_.EmitSeveral("SPLIT", {gate_axis_, t}, parts, {Kind::kSplit, {{0, Narrow(count)}}});
    return parts;
  }

  int64_t Packed(const std::vector<int64_t>& parts, int64_t axis, const Shape& shape) {
    if (parts.size() == 1) return l_.Reshaped(parts[0], shape);
    return l_.EmitTyped("PACK", parts, shape, DType::kFloat32,
                        {Kind::kPack, {{0, Narrow(std::ssize(parts))}, {1, Narrow(axis)}}});
  }

  void Define(size_t output, int64_t t) {
    const std::vector<std::string>& outputs = l_.node().outputs;
    if (output >= outputs.size() || outputs[output].empty()) return;
    l_.DefineOutput(output, PlainOrder(std::ssize(l_.tensor(t).shape)), t);
  }

  // The state before the first step.
  int64_t Initial(size_t input, int64_t direction, int64_t step) {
    if (l_.HasInput(input)) {
      const int64_t all = l_.Plain(l_.node().inputs[input]);
      if (directions_ == 1) return l_.Reshaped(all, {batch_, units_});
      return Part(all, {direction, 0, 0}, {batch_, units_});
    }
    if (batch_ < 0) return l_.Float("ZEROS_LIKE", {Parts(step, gates_)[0]});
    const std::vector<float> zeros(static_cast<size_t>(batch_ * units_));
    return l_.AddConstant(l_.result() + "/zeros", Tensor::Make<float>({batch_, units_}, zeros));
  }

  int64_t Sigmoid(int64_t t) { return l_.Float("LOGISTIC", {t}); }
  int64_t Tanh(int64_t t) { return l_.Float("TANH", {t}); }
  int64_t Minus(int64_t a, int64_t b) { return l_.Float("SUB", {a, b}, {Kind::kSub, {}}); }

  States Step(int64_t x, const States& before, const Weights& weights) {
    if (type_ == "GRU") return {GruStep(x, before.hidden, weights), -1};
    const int64_t sums =
        l_.Plus(x, Product(before.hidden, weights.of_state, weights.state_bias, {batch_, rows()}));
    if (type_ == "RNN") return {Tanh(sums), -1};
    const std::vector<int64_t> gates = Parts(sums, 4);  // input, output, forget, cell
    const int64_t cell = l_.Plus(l_.Times(Sigmoid(gates[2]), before.cell),
                                 l_.Times(Sigmoid(gates[0]), Tanh(gates[3])));
    return {l_.Times(Sigmoid(gates[1]), Tanh(cell)), cell};
  }

  int64_t GruStep(int64_t x, int64_t hidden, const Weights& weights) {
    const std::vector<int64_t> from_x = Parts(x, 3);  // update, reset, candidate
    const int64_t count = resets_behind() ? 3 : 2;
    const std::vector<int64_t> from_h = Parts(
        Product(hidden, weights.of_state, weights.state_bias, {batch_, count * units_}), count);
    const int64_t update = Sigmoid(l_.Plus(from_x[0], from_h[0]));
    const int64_t reset = Sigmoid(l_.Plus(from_x[1], from_h[1]));
    const int64_t more = resets_behind()
                             ? l_.Times(reset, from_h[2])
                             : Product(l_.Times(reset, hidden), of_reset_, -1, {batch_, units_});
    const int64_t candidate = Tanh(l_.Plus(from_x[2], more));
    return l_.Plus(candidate, l_.Times(update, Minus(hidden, candidate)));
  }

  // The outputs in the order of their computation, and the last states.
  std::pair<std::vector<int64_t>, States> Run(int64_t direction, bool is_reverse) {
    Weights weights;
    weights.of_step = is_dynamic_ ? CodesByColumns(1, 8) : Rows(1, direction, 0, rows());
    const bool is_split = type_ == "GRU" && !resets_behind();
    weights.of_state =
        is_dynamic_ ? CodesByColumns(2, 10) : Rows(2, direction, 0, is_split ? 2 * units_ : rows());
    if (is_split) of_reset_ = Rows(2, direction, 2 * units_, rows());
    AddBiases(direction, weights);
    gate_axis_ = l_.AddInt("axis", 1);
    const int64_t all = Product(l_.Plain(l_.Input(0)), weights.of_step, weights.step_bias,
                                {steps_, batch_, rows()});
    std::vector<int64_t> steps, outputs;
    for (int64_t i = 0; i < steps_; ++i) {
      steps.push_back(l_.AddLike({batch_, rows()}, DType::kFloat32));
    }
    l_.EmitSeveral("UNPACK", {all}, steps, {Kind::kUnpack, {{0, Narrow(steps_)}, {1, int32_t{0}}}});
    if (is_reverse) std::ranges::reverse(steps);
    States states = {Initial(5, direction, steps[0]), -1};
    if (type_ == "LSTM") states.cell = Initial(6, direction, steps[0]);
    for (const int64_t step : steps) {
      states = Step(step, states, weights);
      outputs.push_back(states.hidden);
    }
    return {outputs, states};
  }

  TfliteLowering& l_;
  const std::string type_;
  const bool is_dynamic_;  // weights are codes, and activations get some as the file runs
  const int64_t gates_;
  int64_t steps_ = 0, batch_ = 0, directions_ = 0, units_ = 0;
  int64_t gate_axis_ = -1;
  int64_t of_reset_ = -1;  // the candidate's rows, of a GRU that resets before the product
};

void LowerRecurrent(TfliteLowering& l) { Layer(l).Lower(); }

constexpr TfliteLoweringInfo kOps[] = {{"LSTM", LowerRecurrent},
                                       {"GRU", LowerRecurrent},
                                       {"RNN", LowerRecurrent},
                                       {"DynamicQuantizeLSTM", LowerRecurrent}};

}  // namespace

std::span<const TfliteLoweringInfo> LowerRecurrentOps() { return kOps; }

}  // namespace pared
