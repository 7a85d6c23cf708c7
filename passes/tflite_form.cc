#include "passes/tflite_form.h"

#include <utility>

#include "evaluator/float_patterns.h"
#include "model/infer_shapes.h"
#include "model/rewrite.h"
#include "passes/inline_functions.h"
#include "passes/widen_halves.h"

namespace pared {
namespace {

void JoinPatterns(Model& model) {
  Graph& graph = model.graph;
  for (FloatPattern& pattern :
       FindFloatPatterns(graph, model.ir_version, ShapesIfConsistent(model))) {
    const std::string& op_type = pattern.node.op_type;
    if (op_type != "Gelu" && op_type != "HardSwish") continue;
    if (!pattern.node.domain.empty()) ImportDomain(model, pattern.node.domain, 1);
    graph.nodes[pattern.last] = std::move(pattern.node);
  }
  EraseDead(graph);
}

}  // namespace

Model TfliteForm(Model model, const std::filesystem::path& spill) {
  InlineFunctions(model);
  const HalfStorage halves(model, spill);
  JoinPatterns(model);
  Json report = Json::object();
  halves.Restore(model, report);
  return model;
}

}  // namespace pared
