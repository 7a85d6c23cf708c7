#include "passes/tflite_form.h"

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "evaluator/float_patterns.h"
#include "model/domain.h"
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

// Whether the node is of the type and one of ONNX's own.
bool Is(const Node* node, const std::string& op_type) {
  return node != nullptr && node->op_type == op_type && IsDefaultDomain(node->domain);
}

// Before:  q, s, z = DynamicQuantizeLinear(x)   y = Mul(Cast(MatMulInteger(q, w, z, wz)), Mul(s,
// ws)) After:   y = DynamicQuantizeMatMul(x, w, ws, wz)
std::optional<Node> DynamicProduct(const Node& node, const GraphIndex& index) {
  if (!Is(&node, "Mul")) return std::nullopt;
  for (size_t i = 0; i < 2; ++i) {
    const Node* cast = index.producer(node.inputs[i]);
    const Node* scale = index.producer(node.inputs[1 - i]);
    if (!Is(cast, "Cast") || !Is(scale, "Mul")) continue;
    const Node* product = index.producer(cast->inputs[0]);
    if (!Is(product, "MatMulInteger") || product->inputs.size() < 3) continue;
    const Node* quantizer = index.producer(product->inputs[0]);
    if (!Is(quantizer, "DynamicQuantizeLinear") || product->inputs[2] != quantizer->outputs[2]) {
      continue;
    }
    const auto own = std::ranges::find(scale->inputs, quantizer->outputs[1]);
    if (own == scale->inputs.end()) continue;
    Node made = node;
    made.op_type = "DynamicQuantizeMatMul";
    made.domain = "com.microsoft";
    made.inputs = {quantizer->inputs[0], product->inputs[1],
                   scale->inputs[own == scale->inputs.begin() ? 1 : 0]};
    if (product->inputs.size() > 3) made.inputs.push_back(product->inputs[3]);
    return made;
  }
  return std::nullopt;
}

void JoinDynamicProducts(Model& model) {
  Graph& graph = model.graph;
  std::vector<std::pair<size_t, Node>> made;
  const GraphIndex index(graph);
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    if (auto node = DynamicProduct(graph.nodes[i], index)) made.emplace_back(i, std::move(*node));
  }
  if (made.empty()) return;
  ImportDomain(model, "com.microsoft", 1);
  for (auto& [i, node] : made) graph.nodes[i] = std::move(node);
  EraseDead(graph);
}

// Whether codes are made of the value, behind what a product takes in.
bool BecomesCodes(const GraphIndex& index, const std::string& value) {
  const std::vector<const Node*>& readers = index.consumers(value);
  if (index.is_output(value) || readers.size() != 1) return false;
  const Node* reader = readers[0];
  if (Is(reader, "QuantizeLinear")) return true;
  const bool is_taken_in = Is(reader, "Relu") || Is(reader, "Clip") || Is(reader, "Add");
  return is_taken_in && BecomesCodes(index, reader->outputs[0]);
}

}  // namespace

int64_t CountFloatResults(const Graph& graph) {
  const GraphIndex index(graph);
  int64_t count = 0;
  for (const Node& node : graph.nodes) {
    const bool is_product =
        Is(&node, "Conv") || Is(&node, "ConvTranspose") || Is(&node, "Gemm") || Is(&node, "MatMul");
    if (!is_product || node.inputs.size() < 2) continue;
    int64_t computed = 0, all = 0;  // of the operands, in codes: those that are no constants
    for (size_t i = 0; i < 2; ++i) {
      const Node* decoder = index.producer(node.inputs[i]);
      if (!Is(decoder, "DequantizeLinear")) continue;
      ++all;
      if (!graph.initializers.contains(decoder->inputs[0])) ++computed;
    }
    if (all == 2 && computed > 0 && !BecomesCodes(index, node.outputs[0])) ++count;
  }
  return count;
}

Model TfliteForm(Model model, const std::filesystem::path& spill) {
  InlineFunctions(model);
  const HalfStorage halves(model, spill);
  JoinPatterns(model);
  JoinDynamicProducts(model);
  Json report = Json::object();
  halves.Restore(model, report);
  return model;
}

}  // namespace pared
