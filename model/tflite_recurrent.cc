// Layers that read sequences.

#include <array>

#include "model/tflite_ops.h"

namespace pared {
namespace {

// Inputs of UNIDIRECTIONAL_SEQUENCE_LSTM; each of four for the input, forget, cell and output gate.
constexpr size_t kInputWeights = 1, kRecurrentWeights = 5, kPeepholes = 9, kBiases = 12;
constexpr size_t kProjections = 16, kStates = 18, kNormalizations = 20, kInputs = 24;
// As ONNX orders them: input, output, forget, cell.
constexpr std::array<size_t, 4> kGates = {0, 3, 1, 2};

// Fields of the options.
constexpr int kActivation = 0, kCellClip = 1, kProjectionClip = 2, kIsTimeFirst = 3;
constexpr int8_t kTanh = 4;

void CheckKind(const TfliteValues& values, const TfliteOp& op) {
  for (size_t i = kPeepholes; i < kInputs; ++i) {
    const bool is_extra = i < kBiases || (i >= kProjections && i < kStates) || i >= kNormalizations;
    values.Require(!is_extra || !op.HasInput(i),
                   "peepholes, projections and normalizations are not supported");
  }
  for (size_t gate = 0; gate < kGates.size(); ++gate) {
    for (const size_t first : {kInputWeights, kRecurrentWeights, kBiases}) {
      values.Require(op.HasInput(first + gate), "it must have weights and biases of four gates");
    }
  }
  // Converters write 10 for layers that clip nothing. It is left out: tanh takes what is beyond for
  // 1, and only what is forgotten of such a cell later shows.
  constexpr float kNoClip = 10;
  const float clip = op.Option<float>(kCellClip);
  const bool is_clipped = (clip != 0 && clip < kNoClip) || op.Option<float>(kProjectionClip) != 0;
  values.Require(op.Option<int8_t>(kActivation) == kTanh && !is_clipped,
                 "the activation must be TANH, with no clipping");
}

// What belongs to the gates, one below the other, as the one direction that there is.
std::string Stacked(TfliteValues& values, const TfliteOp& op, size_t first,
                    const std::string& base) {
  std::vector<std::string> gates;
  for (const size_t gate : kGates) gates.push_back(values.Plain(op.inputs[first + gate]));
  const std::string all = values.Emit("Concat", gates, base, IntAttribute("axis", 0));
  return values.Emit("Unsqueeze", {all, values.AddInt64({0})}, base);
}

// From states of zeros, as a fresh interpreter has them.
void RunLstm(TfliteValues& values, const TfliteOp& op) {
  CheckKind(values, op);
  const int64_t input = op.inputs[0], output = op.outputs[0];
  values.Require(
      values.tensor(input).rank() == 3 && values.tensor(op.inputs[kRecurrentWeights]).rank() == 2,
      "the input must have 3 axes, its weights 2");
  const int64_t units = values.Dim(op.inputs[kRecurrentWeights], 0);
  values.Require(units > 0, "the number of units must be known");
  const std::string base = values.BaseOf(output);
  const bool is_time_first = op.Option<uint8_t>(kIsTimeFirst) != 0;
  const std::vector<int64_t> exchanged = {1, 0, 2};
  const std::string steps = is_time_first ? values.Plain(input) : values.Permuted(input, exchanged);
  const std::string biases = Stacked(values, op, kBiases, base + "_biases");
  const std::string none = values.Emit("Sub", {biases, biases}, base + "_recurrent_biases");
  const std::string bias =
      values.Emit("Concat", {biases, none}, base + "_bias", IntAttribute("axis", 1));
  const std::string all =
      values.Emit("LSTM",
                  {steps, Stacked(values, op, kInputWeights, base + "_weight"),
                   Stacked(values, op, kRecurrentWeights, base + "_recurrence"), bias},
                  base + "_directions", IntAttribute("hidden_size", units));
  std::string made = values.Emit("Squeeze", {all, values.AddInt64({1})}, base);
  if (!is_time_first) {
    made = values.Emit("Transpose", {made}, base, IntsAttribute("perm", exchanged));
  }
  values.Define(output, Form::kPlain, made);
}

constexpr TfliteOpInfo kOps[] = {{"UNIDIRECTIONAL_SEQUENCE_LSTM", RunLstm, 1, true}};

}  // namespace

std::span<const TfliteOpInfo> TfliteRecurrentOps() { return kOps; }

}  // namespace pared
