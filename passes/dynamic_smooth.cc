#include "passes/dynamic_smooth.h"

#include "passes/int8_candidate.h"
#include "passes/int8_local.h"

namespace pared {

Smoothing SmoothProducts(const Model& model, const std::unordered_set<const Node*>& excluded,
                         PassContext& pass_context) {
  const GraphIndex index(model.graph);
  const WeightScan scan = FindWeights(model);
  Int8ChoiceContext context = {&model, &index, &scan, InferShapes(model), {}};
  for (const Node* node : excluded) context.excluded.emplace(node, "excluded");
  for (const Node& node : model.graph.nodes) {
    if (node.op_type != "MatMul" && node.op_type != "Gemm") {
      context.excluded.emplace(&node, "is not in op_types");
    }
  }
  const Int8Choice choice = ChooseInt8(context);
  CalibrationRequest request;
  request.channels = InputChannels(choice);
  if (request.channels.empty()) return {model, {}};
  const Calibration calibration = Calibrate(model, request, pass_context);
  const SmoothingFactors factors = ChooseSmoothing(context, choice, calibration, pass_context);
  if (factors.empty()) return {model, {}};
  return SmoothInt8(context, choice, factors);
}

}  // namespace pared
