// Differences that float16 does not carry: a variance as E[x^2] - E[x]^2 where the mean is large
// against the deviation. Both operands are in range and each is right to 2^-11 of itself, but their
// difference is a small part of them and mostly made of their rounding.

#include <algorithm>
#include <array>
#include <cmath>

#include "base/error.h"
#include "evaluator/executor.h"
#include "passes/calibrate.h"
#include "passes/fp16_nodes.h"

namespace pared {
namespace {

constexpr double kCancelledDb = 12;  // of the 72 dB that float16 has

// Results of these carry the rounding of what they are made of, and add their own.
constexpr std::array<const char*, 14> kCarriers = {
    "Mul",     "Div",    "Pow",       "Neg",     "Sqrt",      "ReduceMean", "ReduceSum",
    "Reshape", "Expand", "Unsqueeze", "Squeeze", "Transpose", "Identity",   "ReduceSumSquare"};

bool IsSum(const Node& node) {
  return node.domain.empty() && (node.op_type == "Add" || node.op_type == "Sub") &&
         node.inputs[0] != node.inputs[1];
}

double MeanSquare(const Tensor& tensor) {
  double sum = 0;
  for (const float x : tensor.data<float>()) sum += static_cast<double>(x) * static_cast<double>(x);
  return sum / static_cast<double>(tensor.count());
}

// By how much the result of each Add and Sub is smaller than its larger operand: in dB, on the
// sample where that is most.
std::unordered_map<const Node*, double> Cancellations(const Model& model, PassContext& context) {
  std::unordered_set<std::string> watched;
  for (const Node& node : model.graph.nodes) {
    if (!IsSum(node)) continue;
    watched.insert(node.inputs.begin(), node.inputs.end());
    watched.insert(node.outputs.begin(), node.outputs.end());
  }
  std::unordered_map<const Node*, double> worst;
  const Executor executor(model, {.threads = context.threads, .fuse = false, .seed = context.seed});
  const int64_t count = CalibrationCount(context);
  for (int64_t sample = 0; sample < count; ++sample) {
    if (context.cancelled()) throw Error(ErrorCode::kCancelled, "cancelled while calibrating");
    std::unordered_map<std::string, double> squares;
    const Observer observer = [&](const std::string& value, const Tensor& tensor) {
      if (tensor.dtype() != DType::kFloat32 || tensor.count() == 0) return;
      if (watched.contains(value)) squares[value] = MeanSquare(tensor);
    };
    executor.Run(context.calibration->Sample(sample, executor.inputs()), &observer);
    for (const Node& node : model.graph.nodes) {
      if (!IsSum(node)) continue;
      const auto a = squares.find(node.inputs[0]), b = squares.find(node.inputs[1]),
                 y = squares.find(node.outputs[0]);
      if (a == squares.end() || b == squares.end() || y == squares.end()) continue;
      const double larger = std::max(a->second, b->second);
      if (larger == 0 || y->second == 0) continue;
      double& db = worst[&node];
      db = std::max(db, 10 * std::log10(larger / y->second));
    }
  }
  return worst;
}

}  // namespace

Reasons FindCancelling(const Model& model, PassContext& context) {
  Reasons single;
  const GraphIndex index(model.graph);
  const std::unordered_map<const Node*, double> cancelled = Cancellations(model, context);
  for (const Node& node : model.graph.nodes) {
    const auto found = cancelled.find(&node);
    if (found == cancelled.end() || found->second < kCancelledDb) continue;
    const std::string reason =
        "\"" + node.outputs[0] + "\" is a difference " +
        std::to_string(std::lround(found->second)) +
        " dB smaller than what it is made of: float16 would carry little of it";
    std::vector<const Node*> left = {&node};
    while (!left.empty()) {
      const Node* next = left.back();
      left.pop_back();
      if (!single.emplace(next, reason).second) continue;
      for (const std::string& input : next->inputs) {
        const Node* maker = index.producer(input);
        if (maker == nullptr || !maker->domain.empty()) continue;
        if (std::ranges::find(kCarriers, maker->op_type) != kCarriers.end()) left.push_back(maker);
      }
    }
  }
  return single;
}

}  // namespace pared
