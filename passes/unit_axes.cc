#include "passes/unit_axes.h"

#include <optional>
#include <unordered_set>
#include <utility>

#include "model/rewrite.h"
#include "passes/select_nodes.h"

namespace pared {
namespace {

// The one axis of a Squeeze or Unsqueeze of opset 13; nullopt: another number, or computed.
std::optional<int64_t> AxisOf(const Node& node, const Graph& graph, const GraphIndex& index,
                              int64_t ir_version) {
  if (node.inputs.size() < 2) return std::nullopt;
  const Tensor* axes = ConstantOf(graph, index, node.inputs[1], ir_version);
  if (axes == nullptr || axes->dtype() != DType::kInt64 || axes->count() != 1) return std::nullopt;
  return axes->data<int64_t>()[0];
}

bool Is(const Node* node, const char* op_type) {
  return node != nullptr && node->domain.empty() && node->op_type == op_type;
}

struct UnitAxis {
  size_t conv = 0;
  std::string input, output;  // without the axis
  int64_t axis = 0;           // of the spatial ones
  Tensor weight;              // with it
};

std::optional<UnitAxis> FindUnitAxis(const Graph& graph, const GraphIndex& index,
                                     int64_t ir_version, size_t at) {
  const Node& conv = graph.nodes[at];
  if (conv.inputs.size() < 2) return std::nullopt;
  const Node* unsqueeze = index.producer(conv.inputs[0]);
  const std::vector<const Node*>& readers = index.consumers(conv.outputs[0]);
  if (!Is(unsqueeze, "Unsqueeze") || readers.size() != 1 || !Is(readers[0], "Squeeze") ||
      index.is_output(conv.outputs[0])) {
    return std::nullopt;
  }
  const Tensor* weight = ConstantOf(graph, index, conv.inputs[1], ir_version);
  if (weight == nullptr || weight->dtype() != DType::kFloat32) return std::nullopt;
  const int64_t rank = weight->rank();
  auto axis = AxisOf(*unsqueeze, graph, index, ir_version);
  auto squeezed = AxisOf(*readers[0], graph, index, ir_version);
  for (auto* of : {&axis, &squeezed}) {
    if (*of && **of < 0) **of += rank;
  }
  if (!axis || axis != squeezed || *axis < 2 || *axis >= rank || rank < 4) return std::nullopt;
  if (weight->shape()[static_cast<size_t>(*axis)] != 1) return std::nullopt;
  const std::vector<int64_t> pads = conv.Ints("pads");
  for (size_t i = 0; i < pads.size(); ++i) {
    const bool is_axis = static_cast<int64_t>(i) % (rank - 2) == *axis - 2;
    if (is_axis && pads[i] != 0) return std::nullopt;
  }
  return UnitAxis{at, unsqueeze->inputs[0], readers[0]->outputs[0], *axis - 2, *weight};
}

void Drop(const UnitAxis& found, Graph& graph, FreshNames& names) {
  Node& conv = graph.nodes[found.conv];
  const int64_t spatial = found.weight.rank() - 2;
  Shape shape = found.weight.shape();
  shape.erase(shape.begin() + 2 + found.axis);
  conv.inputs[0] = found.input;
  conv.inputs[1] = names.Make(conv.inputs[1] + "_squeezed");
  conv.outputs[0] = found.output;
  graph.initializers.set(conv.inputs[1], {found.weight.Reshaped(std::move(shape)), ""});
  for (const char* attribute : {"kernel_shape", "strides", "dilations", "pads"}) {
    std::vector<int64_t> values = conv.Ints(attribute);
    if (values.empty()) continue;
    if (std::ssize(values) == 2 * spatial) values.erase(values.begin() + spatial + found.axis);
    values.erase(values.begin() + found.axis);
    conv.attributes.find(attribute)->value = std::move(values);
  }
}

}  // namespace

std::vector<std::string> DropUnitAxes(Model& model, const std::function<bool(const Node&)>& keep) {
  std::vector<std::string> dropped;
  FreshNames names(model);
  EditGraphs(model.graph, [&](Graph& graph) {
    std::vector<UnitAxis> found;
    {
      const GraphIndex index(graph);
      for (size_t at = 0; at < graph.nodes.size(); ++at) {
        if (!Is(&graph.nodes[at], "Conv") || keep(graph.nodes[at])) continue;
        auto unit = FindUnitAxis(graph, index, model.ir_version, at);
        if (unit) found.push_back(std::move(*unit));
      }
    }
    std::unordered_set<std::string> made;
    for (const UnitAxis& unit : found) {
      KeepName(graph.nodes[unit.conv], graph.nodes);
      dropped.push_back(NodeLabel(graph.nodes[unit.conv]));
      Drop(unit, graph, names);
      made.insert(unit.output);
    }
    std::erase_if(graph.nodes, [&](const Node& node) {
      return Is(&node, "Squeeze") && made.contains(node.outputs[0]);
    });
    EraseDead(graph);
  });
  return dropped;
}

}  // namespace pared
