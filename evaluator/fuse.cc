// The order in which fusion rules are tried; the rules are in fuse_*.cc.

#include "evaluator/fuse.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <utility>

#include "evaluator/expand_qoperators.h"
#include "evaluator/fuse_float.h"
#include "evaluator/fuse_graph.h"

namespace pared {
namespace {

int32_t CodeOf(float value, const Quantized& output) {
  const float code = std::nearbyint(value / output.scale) + static_cast<float>(output.zero_point);
  return static_cast<int32_t>(std::clamp(code, 0.0f, 255.0f));
}

// The bound that input or attribute number `index` of a Clip states; nothing where it is not
// constant.
std::optional<float> ClipBound(const FuseGraph& graph, const Node& clip, size_t index) {
  const float open =
      index == 1 ? std::numeric_limits<float>::lowest() : std::numeric_limits<float>::max();
  const float attribute = clip.Float(index == 1 ? "min" : "max", open);
  if (clip.inputs.size() <= index || clip.inputs[index].empty()) return attribute;
  const Tensor* bound = graph.constant(clip.inputs[index]);
  if (bound == nullptr || bound->dtype() != DType::kFloat32 || bound->count() != 1) return {};
  if (std::isnan(bound->data<float>()[0])) return {};
  return bound->data<float>()[0];
}

// Narrows `range` to what `node` lets pass. Quantization is monotonic, so clipping codes equals
// clipping before it. False: `node` is no Relu or Clip.
bool Narrow(const FuseGraph& graph, const Node& node, const Quantized& output, CodeLimits& range) {
  float low = 0, high = std::numeric_limits<float>::max();
  if (!node.domain.empty()) return false;
  if (node.op_type == "Clip") {
    const std::optional<float> min = ClipBound(graph, node, 1), max = ClipBound(graph, node, 2);
    if (!min || !max || *min > *max) return false;
    low = *min;
    high = *max;
  } else if (node.op_type != "Relu") {
    return false;
  }
  // What comes after this node in the model has been applied to `range` already.
  range.low = std::clamp(CodeOf(low, output), range.low, range.high);
  range.high = std::clamp(CodeOf(high, output), range.low, range.high);
  return true;
}

bool FuseOne(FuseGraph& graph, const Match& match) {
  const Node& node = *match.node;
  if (!node.domain.empty()) return false;
  const std::string& op = node.op_type;
  if (op == "Conv") return FuseConvolution(graph, match);
  if (op == "MatMul" || op == "Gemm") return FuseMatrixProduct(graph, match);
  if (op == "Add" || op == "Sub" || op == "Mul") return FuseBinary(graph, match);
  if (op == "MaxPool" || op == "AveragePool" || op == "GlobalAveragePool") {
    return FusePooling(graph, match);
  }
  if (op == "Concat") return FuseConcat(graph, match);
  return FuseMovement(graph, match);
}

void FuseInto(FuseGraph& graph, TableFusion& tables, const Node& quantize) {
  const std::optional<Quantized> output = graph.QuantizedBy(quantize);
  if (!output || tables.Fuse(quantize, *output)) return;
  Match match{.node = graph.producer(quantize.inputs[0]),
              .value = quantize.inputs[0],
              .output = *output,
              .range = {}};
  while (match.node != nullptr && graph.IsInner(match.value) &&
         Narrow(graph, *match.node, *output, match.range)) {
    match.value = match.node->inputs[0];
    match.node = graph.producer(match.value);
  }
  if (match.node != nullptr && graph.IsInner(match.value)) FuseOne(graph, match);
}

}  // namespace

Model FuseForExecution(Model model, const ExecutorOptions& options) {
  // Watched values stay as if they were outputs; a run frees them like others.
  const std::vector<ValueInfo> outputs = model.graph.outputs;
  for (const std::string& value : options.watched) model.graph.outputs.emplace_back().name = value;
  ExpandQOperators(model);
  FuseGraph graph(std::move(model), options);
  TableFusion tables(graph);
  for (const Node& node : graph.graph().nodes) {
    if (node.op_type == "QuantizeLinear" && node.domain.empty()) FuseInto(graph, tables, node);
  }
  FuseFloatResults(graph);
  FuseDynamic(graph);
  Model fused = FuseFloat(graph.Finish());
  fused.graph.outputs = outputs;
  return fused;
}

}  // namespace pared
