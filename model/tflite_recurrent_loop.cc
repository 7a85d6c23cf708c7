// WHILEs that are layers of sequences, as LSTM, GRU and RNN.

#include <utility>

#include "model/tflite_looped_layer.h"
#include "model/tflite_ops.h"

namespace pared {
namespace {

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
std::string Biases(TfliteValues& values, const TfliteLoopedLayer& layer, int64_t units) {
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
  const std::optional<TfliteLoopedLayer> found = FindLoopedLayer(values, op);
  if (!found) return false;
  const TfliteLoopedLayer& layer = *found;
  const int64_t units = layer.units;
  values.Forget(values.Part(PartsOf(op)[1]));
  const bool is_lstm = layer.type == "LSTM";
  const auto state = [&](size_t i) {
    const int64_t t = op.inputs[i];
    return values.Emit("Unsqueeze", {values.Plain(t), values.AddInt64({0})}, values.BaseOf(t));
  };
  std::vector<std::string> inputs = {
      values.Plain(op.inputs[layer.sequence]),
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
  for (const auto& [i, has_all] : layer.lists) {
    if (has_all) {
      define(i, made[0], 1);
    } else {
      values.Define(op.outputs[i], Form::kPlain, made[1]);
    }
  }
  values.DefineAs(op.outputs[layer.sequence], op.inputs[layer.sequence]);
  for (const size_t i : layer.counters) {
    const int64_t t = op.outputs[i];
    const auto end = static_cast<int32_t>(layer.steps);
    values.Define(t, Form::kPlain,
                  values.AddInitializer(values.BaseOf(t), Tensor::Make<int32_t>({}, {end})));
  }
  return true;
}

}  // namespace pared
