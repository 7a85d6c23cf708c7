#include "evaluator/layers.h"

#include <algorithm>
#include <span>

#include "evaluator/metrics.h"

namespace pared {
namespace {

constexpr size_t kElementsMax = 65'536;

// As LayerStats calls a node.
std::string NameOf(const Node& node) { return node.name.empty() ? NodeLabel(node) : node.name; }

// The name of what each node of the main graph makes first, by the node's name.
std::map<std::string, std::string> FirstOutputs(const Graph& graph) {
  std::map<std::string, std::string> outputs;
  for (const Node& node : graph.nodes) {
    if (!node.outputs.empty()) outputs.emplace(NameOf(node), node.outputs[0]);
  }
  return outputs;
}

// Every n-th element, so that at most kElementsMax are left.
std::vector<float> Thinned(std::span<const float> values) {
  const size_t step = (values.size() + kElementsMax - 1) / kElementsMax;
  if (step <= 1) return {values.begin(), values.end()};
  std::vector<float> some;
  for (size_t i = 0; i < values.size(); i += step) some.push_back(values[i]);
  return some;
}

// The least and greatest of a constant's elements; nullopt: it is none of floats.
std::optional<std::pair<double, double>> RangeOf(const Graph& graph, const std::string& name) {
  const Initializer* constant = graph.initializers.find(name);
  if (constant == nullptr || constant->tensor.dtype() != DType::kFloat32) return std::nullopt;
  const std::span<const float> values = constant->tensor.data<float>();
  if (values.empty()) return std::nullopt;
  const auto [least, greatest] = std::ranges::minmax_element(values);
  return std::pair{double{*least}, double{*greatest}};
}

class ScaleFinder {
 public:
  explicit ScaleFinder(const Graph& graph) : graph_(graph) {
    for (const Node& node : graph.nodes) {
      if (node.op_type == "DequantizeLinear" && !node.outputs.empty() && node.inputs.size() >= 2) {
        dequantized_[node.outputs[0]] = node.inputs[1];
      } else if (node.op_type == "QuantizeLinear" && node.inputs.size() >= 2) {
        quantized_.emplace(node.inputs[0], node.inputs[1]);
      } else if ((node.op_type == "Relu" || node.op_type == "Clip") && !node.outputs.empty()) {
        clipped_.emplace(node.inputs[0], node.outputs[0]);
      }
    }
  }

  LayerScales Of(const Node& node) const {
    // QLinearConv and QLinearMatMul: x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero.
    const bool is_operator = node.op_type.starts_with("QLinear") && node.inputs.size() >= 8;
    LayerScales scales;
    if (is_operator) {
      Take(node.inputs[1], node.inputs[4], node.inputs[6], scales);
    } else if (node.inputs.size() >= 2 && !node.outputs.empty() &&
               !node.op_type.ends_with("quantizeLinear")) {
      Take(ScaleAt(dequantized_, node.inputs[0]), ScaleAt(dequantized_, node.inputs[1]),
           OutputScale(node.outputs[0]), scales);
    }
    return scales;
  }

 private:
  using Names = std::map<std::string, std::string>;

  static std::string ScaleAt(const Names& names, const std::string& value) {
    const auto found = names.find(value);
    return found == names.end() ? "" : found->second;
  }

  // Before or after the Relu that a runtime fuses.
  std::string OutputScale(const std::string& value) const {
    const std::string own = ScaleAt(quantized_, value);
    return own.empty() ? ScaleAt(quantized_, ScaleAt(clipped_, value)) : own;
  }

  void Take(const std::string& input, const std::string& weight, const std::string& output,
            LayerScales& scales) const {
    if (const auto range = RangeOf(graph_, input)) scales.input = range->second;
    if (const auto range = RangeOf(graph_, output)) scales.output = range->second;
    if (const auto range = RangeOf(graph_, weight)) {
      scales.weight_min = range->first;
      scales.weight_max = range->second;
    }
  }

  const Graph& graph_;
  Names dequantized_;  // value to the name of its scale
  Names quantized_;    // likewise, of what is quantized
  Names clipped_;      // value to what Relu or Clip makes of it
};

}  // namespace

std::map<std::string, double> LayerSqnr(const Model& model, const Model& reference,
                                        const std::vector<Tensor>& inputs,
                                        const std::vector<LayerStats>& layers) {
  const std::map<std::string, std::string> outputs = FirstOutputs(model.graph);
  std::map<std::string, std::string> wanted;  // value to layer
  for (const LayerStats& layer : layers) {
    const auto found = outputs.find(layer.node);
    if (found != outputs.end() && layer.macs > 0) wanted.emplace(found->second, layer.node);
  }
  struct Exact {
    Shape shape;
    std::vector<float> elements;
  };
  std::map<std::string, Exact> exact;
  const Observer keep = [&](const std::string& value, const Tensor& tensor) {
    if (!wanted.contains(value) || tensor.dtype() != DType::kFloat32) return;
    exact.emplace(value, Exact{tensor.shape(), Thinned(tensor.data<float>())});
  };
  if (!wanted.empty()) Executor(reference, {.fuse = false}).Run(inputs, &keep);
  std::map<std::string, double> sqnr_db;
  const Observer compare = [&](const std::string& value, const Tensor& tensor) {
    const auto reference_value = exact.find(value);
    if (reference_value == exact.end() || tensor.dtype() != DType::kFloat32) return;
    // Where channels were taken out there is nothing to compare.
    if (reference_value->second.shape != tensor.shape()) return;
    FidelitySums sums;
    sums.Add(reference_value->second.elements, Thinned(tensor.data<float>()));
    sqnr_db[wanted.at(value)] = sums.SqnrDb();
  };
  if (!exact.empty()) Executor(model, {.fuse = false}).Run(inputs, &compare);
  return sqnr_db;
}

std::map<std::string, LayerScales> ScalesOf(const Model& model) {
  const ScaleFinder finder(model.graph);
  std::map<std::string, LayerScales> all;
  for (const Node& node : model.graph.nodes) {
    const LayerScales scales = finder.Of(node);
    if (scales.input || scales.output || scales.weight_min) all.emplace(NameOf(node), scales);
  }
  return all;
}

}  // namespace pared
