// Layers of sequences that Keras 3 writes as a WHILE over the steps.
//
// Its states: counters of steps, the sequence [T,B,I] (handed on), the layer's own (hidden, of LSTM
// the cell), and the list of outputs, [T,B,H] or of the last one [1,B,H]:
//
//   x = GATHER(sequence, t)    z = FULLY_CONNECTED(x, W) + FULLY_CONNECTED(h, R) + b
//   LSTM: i, f, g, o = SPLIT(z)    c' = f' c + i' tanh(g)    h' = o' tanh(c')     with f' =
//   LOGISTIC(f) GRU:  z' h + (1 - z') tanh(xh + r' rh) with the parts of both products, z' =
//   LOGISTIC(xz + rz) RNN:  h' = tanh(z)
//
// Anything else (masks, other activations) stays a loop.

#include <algorithm>
#include <array>
#include <numeric>
#include <optional>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "model/tflite_ops.h"

namespace pared {
namespace {

using Pair = std::array<int64_t, 2>;

constexpr size_t kStatesMax = 32;  // of a layer there are 7 at most

// Fields of the options.
constexpr int kActivation = 0, kGatherAxis = 0, kGatherBatches = 1, kConcatAxis = 0, kSplits = 0;
constexpr int kBeginMask = 0;

// A product with a constant weight [rows, columns], and what is added to it; -1: nothing.
struct Product {
  int64_t input = -1, weight = -1, bias = -1;
};

struct Layer {
  std::string type;                     // "LSTM", "GRU" or "RNN"
  Product of_step, of_state;            // their biases are each one's own
  std::vector<int64_t> of_step_order;   // of the gates in the rows: as ONNX has them
  std::vector<int64_t> of_state_order;  // the same of the other product
  size_t hidden = 0, cell = 0;          // states
};

class Loop {
 public:
  Loop(const TfliteValues& values, const TfliteOp& op)
      : values_(values),
        op_(op),
        condition_(values.Part(PartsOf(op)[0])),
        body_(values.Part(PartsOf(op)[1])) {
    std::unordered_set<int64_t> read;
    for (const TfliteGraph* graph : {&condition_, &body_}) {
      for (const TfliteOp& made_by : graph->ops) {
        // What is read before it is made, of a damaged file, has no maker: no cycles here.
        read.insert(made_by.inputs.begin(), made_by.inputs.end());
        if (!FaultOf(made_by).empty()) continue;
        for (const int64_t output : made_by.outputs) {
          if (!read.contains(output)) makers_.emplace(output, &made_by);
        }
      }
    }
  }

  // What is found is in the members below.
  bool Match() {
    const size_t count = op_.inputs.size();
    if (count > kStatesMax || op_.outputs.size() != count || body_.inputs.size() != count ||
        body_.outputs.size() != count || condition_.inputs.size() != count ||
        condition_.outputs.size() != 1 || !FindSteps(condition_.outputs[0]) || steps < 1) {
      return false;
    }
    for (size_t i = 0; i < count && layer.type.empty(); ++i) {
      layer.hidden = i;
      const TfliteTensor& state = values_.tensor(body_.inputs[i]);
      const TfliteTensor& before = values_.tensor(op_.inputs[i]);
      if (state.rank() != 2 || before.rank() != 2 || state.dtype != DType::kFloat32 ||
          state.shape[1] < 1)
        continue;
      if (!MatchLstm() && !MatchGru() && !MatchRnn()) layer = Layer();
    }
    return !layer.type.empty() && FindSequence() && FindLists();
  }

  int64_t units() const { return values_.Dim(hidden(), 1); }

  Layer layer;
  int64_t steps = 0;
  size_t sequence = 0;                         // the state
  std::vector<size_t> counters;                // states
  std::vector<std::pair<size_t, bool>> lists;  // states, and whether all outputs are in it

 private:
  // The operator that makes the tensor where it is of the type, with no activation of its own.
  const TfliteOp* Maker(int64_t t, const std::string& type) const {
    const auto found = makers_.find(t);
    if (found == makers_.end() || found->second->type != type) return nullptr;
    const bool can_have = type == "ADD" || type == "MUL" || type == "SUB" ||
                          type == "FULLY_CONNECTED" || type == "CONCATENATION";
    const int activation = type == "CONCATENATION" ? 1 : kActivation;
    return can_have && found->second->Option<int8_t>(activation) != 0 ? nullptr : found->second;
  }
  // The input of a function of one element; -1: it is none.
  int64_t Inside(int64_t t, const std::string& type) const {
    const TfliteOp* maker = Maker(t, type);
    return maker == nullptr ? -1 : maker->inputs[0];
  }
  // Both orders of the operands of what adds or multiplies; none where the type is another.
  std::vector<Pair> Operands(int64_t t, const std::string& type) const {
    const TfliteOp* maker = Maker(t, type);
    if (maker == nullptr || maker->inputs.size() != 2) return {};
    return {{maker->inputs[0], maker->inputs[1]}, {maker->inputs[1], maker->inputs[0]}};
  }
  int64_t Reshaped(int64_t t) const {
    for (int64_t before = Inside(t, "RESHAPE"); before >= 0; before = Inside(t, "RESHAPE")) {
      t = before;
    }
    return t;
  }
  // Constants of halves come with a DEQUANTIZE.
  int64_t Constant(int64_t t) const {
    if (const int64_t stored = Inside(t, "DEQUANTIZE"); stored >= 0) t = stored;
    return t >= 0 && values_.IsConstant(t) ? t : -1;
  }
  std::optional<int64_t> Number(int64_t t) const {
    if (t < 0 || !values_.IsConstant(t) || values_.tensor(t).constant.count() != 1) return {};
    if (values_.tensor(t).constant.dtype() != DType::kInt32) return {};
    return values_.tensor(t).constant.data<int32_t>()[0];
  }
  std::vector<int64_t> Integers(int64_t t) const {
    const bool is_known = values_.IsConstant(t) && values_.tensor(t).dtype == DType::kInt32;
    return is_known ? values_.Integers(t, "") : std::vector<int64_t>();
  }
  int64_t Last(int64_t t) const {
    return values_.tensor(t).rank() == 0 ? -1 : values_.tensor(t).shape.back();
  }
  int64_t hidden() const { return body_.inputs[layer.hidden]; }
  int64_t hidden_after() const { return body_.outputs[layer.hidden]; }
  bool IsCounter(int64_t t, const std::vector<int64_t>& of) const {
    return std::ranges::any_of(counters, [&](size_t i) { return of[i] == t; });
  }

  // Counters below constants, from 0 by steps of 1.
  bool FindSteps(int64_t t) {
    if (const TfliteOp* both = Maker(t, "LOGICAL_AND")) {
      return FindSteps(both->inputs[0]) && FindSteps(both->inputs[1]);
    }
    const TfliteOp* less = Maker(t, "LESS");
    if (less == nullptr) return false;
    const auto at = std::ranges::find(condition_.inputs, less->inputs[0]);
    const std::optional<int64_t> end = Number(less->inputs[1]);
    if (at == condition_.inputs.end() || !end) return false;
    const auto i = static_cast<size_t>(at - condition_.inputs.begin());
    const auto counts = [&](const Pair& sum) {
      return sum[0] == body_.inputs[i] && Number(sum[1]) == 1;
    };
    if (Number(op_.inputs[i]) != 0 ||
        !std::ranges::any_of(Operands(body_.outputs[i], "ADD"), counts)) {
      return false;
    }
    steps = counters.empty() ? *end : std::min(steps, *end);
    counters.push_back(i);
    return true;
  }

  // The tensor is a sum of products and a constant. Where both products add to one value the
  // constant belongs to the step's.
  bool AddTerms(int64_t t, Layer& found) const {
    if (values_.Dim(hidden(), 0) == 1) t = Reshaped(t);
    if (const TfliteOp* sum = Maker(t, "ADD")) {
      return AddTerms(sum->inputs[0], found) && AddTerms(sum->inputs[1], found);
    }
    const TfliteOp* maker = Maker(t, "FULLY_CONNECTED");
    if (maker == nullptr) {
      const int64_t bias = Constant(t);
      return bias >= 0 && std::exchange(found.of_step.bias, bias) < 0;
    }
    Product product{maker->inputs[0], Constant(maker->inputs[1]), -1};
    Product& place = product.input == hidden() ? found.of_state : found.of_step;
    if (maker->HasInput(2)) {
      product.bias = Constant(maker->inputs[2]);
      if (product.bias < 0 || place.bias >= 0) return false;
    } else {
      product.bias = place.bias;
    }
    if (place.weight >= 0 || product.weight < 0) return false;
    place = product;
    return true;
  }

  // Which part of SPLIT or which STRIDED_SLICE of a whole of `gates` the tensor is, and the whole.
  std::optional<Pair> PartOf(int64_t t, int64_t gates) const {
    if (Last(t) != units()) return {};
    int64_t place = -1, whole = -1;
    if (const TfliteOp* split = Maker(t, "SPLIT")) {
      place = std::ranges::find(split->outputs, t) - split->outputs.begin();
      whole = split->inputs[1];
      if (split->Option<int32_t>(kSplits) != gates) return {};
    } else if (const TfliteOp* slice = Maker(t, "STRIDED_SLICE")) {
      const std::vector<int64_t> begin = Integers(slice->inputs[1]);
      if (begin.size() != 2 || Integers(slice->inputs[3]) != std::vector<int64_t>{1, 1}) return {};
      const bool is_open = (slice->Option<int32_t>(kBeginMask) >> 1 & 1) != 0;
      place = is_open ? 0 : begin[1] / units();
      whole = slice->inputs[0];
      if (!is_open && begin[1] % units() != 0) return {};
    }
    if (place < 0 || place >= gates || Last(whole) != gates * units()) {
      return {};
    }
    return Pair{place, whole};
  }
  // Parts of one whole, by their places in it; which is then in `whole`.
  bool Places(const std::vector<int64_t>& parts, std::vector<int64_t>& places,
              int64_t& whole) const {
    for (const int64_t t : parts) {
      const std::optional<Pair> part = PartOf(t, std::ssize(parts));
      if (!part || std::ranges::count(places, (*part)[0]) > 0) return false;
      if (!places.empty() && (*part)[1] != whole) return false;
      places.push_back((*part)[0]);
      whole = (*part)[1];
    }
    return true;
  }

  bool MatchLstm() {
    const auto is_state = [&](int64_t after, int64_t t) {
      for (size_t i = 0; i < body_.outputs.size(); ++i) {
        layer.cell = i;
        if (body_.outputs[i] == after && body_.inputs[i] == t) return true;
      }
      return false;
    };
    for (const auto& [gate, made] : Operands(hidden_after(), "MUL")) {
      const int64_t output = Inside(gate, "LOGISTIC"), cell = Inside(made, "TANH");
      if (output < 0 || cell < 0) continue;
      for (const auto& [kept, added] : Operands(cell, "ADD")) {
        for (const auto& [forget, before] : Operands(kept, "MUL")) {
          for (const auto& [input, candidate] : Operands(added, "MUL")) {
            const std::vector<int64_t> gates = {Inside(input, "LOGISTIC"), output,
                                                Inside(forget, "LOGISTIC"),
                                                Inside(candidate, "TANH")};
            int64_t whole = -1;
            std::vector<int64_t> places;
            if (std::ranges::count(gates, -1) > 0 || !is_state(cell, before)) continue;
            if (!Places(gates, places, whole) || !AddTerms(whole, layer)) return false;
            layer.type = "LSTM";
            layer.of_step_order = layer.of_state_order = places;
            return IsWhole(4);
          }
        }
      }
    }
    return false;
  }

  // The update gate, and the candidate's sum.
  std::optional<Pair> GruGates() const {
    for (const auto& [kept, added] : Operands(hidden_after(), "ADD")) {
      for (const auto& [gate, before] : Operands(kept, "MUL")) {
        for (const auto& [rest, candidate] : Operands(added, "MUL")) {
          const TfliteOp* opposite = Maker(rest, "SUB");
          const int64_t update = Inside(gate, "LOGISTIC"), sum = Inside(candidate, "TANH");
          if (before == hidden() && opposite != nullptr && opposite->inputs[1] == gate &&
              IsOne(opposite->inputs[0]) && update >= 0 && sum >= 0) {
            return Pair{update, sum};
          }
        }
      }
    }
    return {};
  }
  bool IsOne(int64_t t) const {
    t = Constant(t);
    if (t < 0 || values_.tensor(t).constant.count() != 1) return false;
    constexpr uint16_t kOneOfHalves = 0x3c00;
    const Tensor& value = values_.tensor(t).constant;
    if (value.dtype() == DType::kFloat16) return value.data<Float16>()[0].bits == kOneOfHalves;
    return value.dtype() == DType::kFloat32 && value.data<float>()[0] == 1.0F;
  }

  bool MatchGru() {
    const std::optional<Pair> gates = GruGates();
    if (!gates) return false;
    for (const auto& [step_update, state_update] : Operands((*gates)[0], "ADD")) {
      for (const auto& [step_candidate, reset_candidate] : Operands((*gates)[1], "ADD")) {
        for (const auto& [gate, state_candidate] : Operands(reset_candidate, "MUL")) {
          for (const auto& [step_reset, state_reset] : Operands(Inside(gate, "LOGISTIC"), "ADD")) {
            Layer found = layer;
            int64_t of_step = -1, of_state = -1;
            if (Places({step_update, step_reset, step_candidate}, found.of_step_order, of_step) &&
                Places({state_update, state_reset, state_candidate}, found.of_state_order,
                       of_state) &&
                AddTerms(of_state, found) && found.of_step.bias < 0 && AddTerms(of_step, found)) {
              found.type = "GRU";
              layer = std::move(found);
              return IsWhole(3);
            }
          }
        }
      }
    }
    return false;
  }

  bool MatchRnn() {
    const int64_t sum = Inside(hidden_after(), "TANH");
    if (sum < 0 || !AddTerms(sum, layer)) return false;
    layer.type = "RNN";
    layer.of_step_order = layer.of_state_order = {0};
    return IsWhole(1);
  }

  // Both products are there, with rows for so many gates.
  bool IsWhole(int64_t gates) const {
    for (const Product* product : {&layer.of_step, &layer.of_state}) {
      if (product->weight < 0 || values_.tensor(product->weight).rank() != 2 ||
          values_.Dim(product->weight, 0) != gates * units() ||
          (product == &layer.of_state && values_.Dim(product->weight, 1) != units())) {
        return false;
      }
      const int64_t bias = product->bias;
      if (bias >= 0 && values_.tensor(bias).constant.count() != gates * units()) return false;
    }
    return layer.of_state.input == hidden();
  }

  bool FindSequence() {
    const TfliteOp* step = Maker(layer.of_step.input, "GATHER");
    if (step == nullptr || step->Option<int32_t>(kGatherAxis) != 0 ||
        step->Option<int32_t>(kGatherBatches) != 0 || !IsCounter(step->inputs[1], body_.inputs)) {
      return false;
    }
    const auto at = std::ranges::find(body_.inputs, step->inputs[0]);
    if (at == body_.inputs.end()) return false;
    sequence = static_cast<size_t>(at - body_.inputs.begin());
    const int64_t t = op_.inputs[sequence];
    return body_.outputs[sequence] == *at && values_.tensor(t).rank() == 3 &&
           values_.Dim(t, 0) == steps;
  }

  // All other states are lists of outputs.
  bool FindLists() {
    for (size_t i = 0; i < body_.inputs.size(); ++i) {
      const bool is_cell = layer.type == "LSTM" && i == layer.cell;
      if (i == sequence || i == layer.hidden || is_cell || std::ranges::count(counters, i) > 0) {
        continue;
      }
      const int64_t after = body_.outputs[i];
      if (values_.tensor(after).rank() != 3 || Last(after) != units()) return false;
      const bool is_last = Maker(after, "RESHAPE") != nullptr &&
                           Reshaped(after) == hidden_after() && values_.Dim(after, 0) == 1;
      if (!is_last && !SetsOutput(body_.inputs[i], after)) return false;
      lists.emplace_back(i, !is_last);
    }
    return true;
  }

  // `after` is `before` with the output in the place of the counter.
  bool SetsOutput(int64_t before, int64_t after) const {
    const TfliteOp* all = Maker(after, "CONCATENATION");
    if (all == nullptr || all->inputs.size() != 3 || all->Option<int32_t>(kConcatAxis) != 0 ||
        values_.tensor(before).rank() != 3 || values_.Dim(before, 0) != steps ||
        Reshaped(all->inputs[1]) != hidden_after()) {
      return false;
    }
    const TfliteOp *head = Maker(all->inputs[0], "SLICE"), *tail = Maker(all->inputs[2], "SLICE");
    if (head == nullptr || tail == nullptr || head->inputs[0] != before ||
        tail->inputs[0] != before) {
      return false;
    }
    const auto counts = [&](int64_t t, const std::vector<int64_t>& of) {
      const TfliteOp* joined = Maker(t, "CONCATENATION");
      return joined != nullptr && IsCounter(Reshaped(joined->inputs[0]), of);
    };
    return Integers(head->inputs[1]) == std::vector<int64_t>(3, 0) &&
           counts(head->inputs[2], body_.inputs) && counts(tail->inputs[1], body_.outputs);
  }

  const TfliteValues& values_;
  const TfliteOp& op_;
  const TfliteGraph &condition_, &body_;
  std::unordered_map<int64_t, const TfliteOp*> makers_;
};

std::vector<int64_t> RowsOf(const std::vector<int64_t>& order, int64_t units) {
  std::vector<int64_t> rows;
  for (const int64_t gate : order) {
    for (int64_t i = 0; i < units; ++i) rows.push_back(gate * units + i);
  }
  return rows;
}

// The rows, in the order, of constant floats; empty: it is no such constant.
std::vector<float> Moved(const TfliteValues& values, int64_t t, const std::vector<int64_t>& rows) {
  const Tensor& stored = values.tensor(t).constant;
  std::vector<float> moved;
  if (stored.dtype() != DType::kFloat32) return moved;
  const auto columns = static_cast<size_t>(stored.count()) / rows.size();
  for (const int64_t row : rows) {
    const auto part = stored.data<float>().subspan(static_cast<size_t>(row) * columns, columns);
    moved.insert(moved.end(), part.begin(), part.end());
  }
  return moved;
}

// Rows of gates in the order, as the one direction that there is.
std::string Ordered(TfliteValues& values, int64_t t, const std::vector<int64_t>& order,
                    int64_t units) {
  const std::string base = values.BaseOf(t);
  const std::vector<int64_t> rows = RowsOf(order, units);
  if (std::vector<float> moved = Moved(values, t, rows); !moved.empty()) {
    Shape shape = values.tensor(t).shape;
    shape.insert(shape.begin(), 1);
    return values.AddInitializer(base, Tensor::Make<float>(shape, std::move(moved)));
  }
  std::string made = values.Plain(t);
  if (!std::ranges::is_sorted(order)) {
    made = values.Emit("Gather", {made, values.AddInt64(rows)}, base, IntAttribute("axis", 0));
  }
  return values.Emit("Unsqueeze", {made, values.AddInt64({0})}, base);
}

// Those of the step's product, then of the state's; zeros where there is none.
std::string Biases(TfliteValues& values, const Layer& layer, int64_t units) {
  if (layer.of_step.bias < 0 && layer.of_state.bias < 0) return "";
  const std::string base = values.BaseOf(layer.of_step.weight) + "_biases";
  const int64_t count = std::ssize(layer.of_step_order) * units;
  const std::vector<float> zeros(static_cast<size_t>(count));
  const std::pair<int64_t, const std::vector<int64_t>*> both[] = {
      {layer.of_step.bias, &layer.of_step_order}, {layer.of_state.bias, &layer.of_state_order}};
  std::vector<float> numbers;
  std::vector<std::string> names;
  for (const auto& [bias, order] : both) {
    const std::vector<float> moved = bias < 0 ? zeros : Moved(values, bias, RowsOf(*order, units));
    numbers.insert(numbers.end(), moved.begin(), moved.end());
  }
  if (std::ssize(numbers) == 2 * count) {
    return values.AddInitializer(base, Tensor::Make<float>({1, 2 * count}, std::move(numbers)));
  }
  for (const auto& [bias, order] : both) {
    names.push_back(bias >= 0
                        ? Ordered(values, bias, *order, units)
                        : values.AddInitializer(base, Tensor::Make<float>({1, count}, zeros)));
  }
  return values.Emit("Concat", names, base, IntAttribute("axis", 1));
}

}  // namespace

bool AddLoopedLayer(TfliteValues& values, const TfliteOp& op) {
  Loop loop(values, op);
  if (!loop.Match()) return false;
  const Layer& layer = loop.layer;
  const int64_t units = loop.units();
  const bool is_lstm = layer.type == "LSTM";
  const auto state = [&](size_t i) {
    const int64_t t = op.inputs[i];
    return values.Emit("Unsqueeze", {values.Plain(t), values.AddInt64({0})}, values.BaseOf(t));
  };
  std::vector<std::string> inputs = {
      values.Plain(op.inputs[loop.sequence]),
      Ordered(values, layer.of_step.weight, layer.of_step_order, units),
      Ordered(values, layer.of_state.weight, layer.of_state_order, units),
      Biases(values, layer, units),
      "",
      state(layer.hidden)};
  if (is_lstm) inputs.push_back(state(layer.cell));
  NamedAttributes attributes = IntAttribute("hidden_size", units);
  if (layer.type == "GRU") attributes = attributes + IntAttribute("linear_before_reset", 1);
  const std::string base = values.BaseOf(op.outputs[layer.hidden]);
  std::vector<std::string> bases = {base + "_all", base + "_last"};
  if (is_lstm) bases.push_back(base + "_cell");
  const std::vector<std::string> made = values.EmitSeveral(layer.type, inputs, bases, attributes);
  const auto define = [&](size_t i, const std::string& value, int64_t axis) {
    const int64_t t = op.outputs[i];
    values.Define(t, Form::kPlain,
                  values.Emit("Squeeze", {value, values.AddInt64({axis})}, values.BaseOf(t)));
  };
  define(layer.hidden, made[1], 0);
  if (is_lstm) define(layer.cell, made[2], 0);
  for (const auto& [i, has_all] : loop.lists) {
    if (has_all) {
      define(i, made[0], 1);
    } else {
      values.Define(op.outputs[i], Form::kPlain, made[1]);
    }
  }
  values.DefineAs(op.outputs[loop.sequence], op.inputs[loop.sequence]);
  for (const size_t i : loop.counters) {
    const int64_t t = op.outputs[i];
    const auto end = static_cast<int32_t>(loop.steps);
    values.Define(t, Form::kPlain,
                  values.AddInitializer(values.BaseOf(t), Tensor::Make<int32_t>({}, {end})));
  }
  return true;
}

}  // namespace pared
