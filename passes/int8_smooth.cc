#include "passes/int8_smooth.h"

#include <algorithm>
#include <cmath>

#include "model/rewrite.h"
#include "passes/int8_params.h"

namespace pared {
namespace {

// A factor beyond these bounds follows from a channel that next to nothing is known of.
constexpr double kFactorMax = 1e4;

using Group = std::vector<const WeightSite*>;

class Smoother {
 public:
  Smoother(const Int8ChoiceContext& context, const Int8Choice& choice)
      : context_(context), choice_(choice), names_(*context.model) {}

  Smoothing Run(const Calibration& calibration, const SmoothingStrengths& strengths) {
    const Graph& graph = context_.model->graph;
    Smoothing result{*context_.model, {}};
    Graph& out = result.model.graph;
    out.nodes.clear();
    std::unordered_map<std::string, std::string> smoothed;
    for (const Node& node : graph.nodes) {
      const Group group = GroupOf(node);
      Node copy = node;
      const auto strength = strengths.find(node.inputs.empty() ? "" : node.inputs[0]);
      if (!group.empty() && strength != strengths.end()) {
        const std::string& value = node.inputs[0];
        const std::vector<float>& factors = FactorsOf(value, group, calibration, strength->second);
        if (!factors.empty()) {
          if (!smoothed.contains(value)) {
            smoothed[value] = AddDivision(value, factors, out);
            result.values.push_back(value);
          }
          copy.inputs[0] = smoothed.at(value);
          copy.inputs[1] = AddWeight(*choice_.weights.at(&node), factors, out);
        }
      }
      out.nodes.push_back(std::move(copy));
    }
    EraseDead(out);
    return result;
  }

 private:
  // All products of the node's input; empty: they cannot be smoothed together.
  Group GroupOf(const Node& node) const {
    if (!IsProduct(node) || choice_.only_quantized.contains(node.inputs[0])) return {};
    Group group;
    for (const Node* reader : context_.index->consumers(node.inputs[0])) {
      if (!IsProduct(*reader) || reader->inputs[0] != node.inputs[0]) continue;
      const WeightSite* site = choice_.weights.at(reader);
      if (!OwnsWeight(*site)) return {};
      group.push_back(site);
    }
    return group;
  }

  bool IsProduct(const Node& node) const {
    const auto site = choice_.weights.find(&node);
    if (site == choice_.weights.end() || site->second->input != 1) return false;
    if (node.op_type == "Gemm") return node.Int("transA", 0) == 0;
    return node.op_type == "MatMul" && site->second->shape.size() == 2;
  }

  bool OwnsWeight(const WeightSite& site) const {
    return context_.index->consumers(site.root.second).size() == 1 &&
           context_.index->consumers(site.node->inputs[1]).size() == 1;
  }

  const std::vector<float>& FactorsOf(const std::string& value, const Group& group,
                                      const Calibration& calibration, double strength) {
    const auto [known, is_new] = factors_.try_emplace(value);
    if (!is_new) return known->second;
    const auto channels = calibration.channels.find(value);
    if (channels == calibration.channels.end()) return known->second;
    const std::vector<float>& inputs = channels->second.magnitudes;
    std::vector<float> weights(inputs.size(), 0);
    for (const WeightSite* site : group) {
      if (site->layout.groups != 1 || site->layout.k != std::ssize(inputs)) return known->second;
      AddMagnitudes(*site, weights);
    }
    for (size_t i = 0; i < inputs.size(); ++i) {
      const double factor = std::pow(static_cast<double>(inputs[i]), strength) /
                            std::pow(static_cast<double>(weights[i]), 1 - strength);
      const bool is_known = inputs[i] > 0 && weights[i] > 0;
      known->second.push_back(
          is_known ? static_cast<float>(std::clamp(factor, 1 / kFactorMax, kFactorMax)) : 1);
    }
    return known->second;
  }

  static void AddMagnitudes(const WeightSite& site, std::vector<float>& magnitudes) {
    const std::vector<float> elements = ViewedElements(site);
    for (int64_t row = 0; row < site.layout.rows; ++row) {
      for (int64_t k = 0; k < site.layout.k; ++k) {
        const float element = elements[static_cast<size_t>(site.layout.Index(0, row, k))];
        float& largest = magnitudes[static_cast<size_t>(k)];
        largest = std::max(largest, std::fabs(element));
      }
    }
  }

  std::string AddDivision(const std::string& value, const std::vector<float>& factors,
                          Graph& graph) {
    std::vector<float> inverse;
    for (const float factor : factors) inverse.push_back(1 / factor);
    Node node;
    node.op_type = "Mul";
    const std::string result = names_.Make(value + "_smoothed");
    node.name = names_.Make(result + "_Mul");
    node.inputs = {value, names_.Make(value + "_smoothing")};
    node.outputs = {result};
    const Shape shape = {std::ssize(inverse)};
    graph.initializers.set(node.inputs[1], {Tensor::Make<float>(shape, std::move(inverse)), ""});
    graph.nodes.push_back(std::move(node));
    return result;
  }

  std::string AddWeight(const WeightSite& site, const std::vector<float>& factors, Graph& graph) {
    std::vector<float> elements = ViewedElements(site);
    for (int64_t row = 0; row < site.layout.rows; ++row) {
      for (int64_t k = 0; k < site.layout.k; ++k) {
        elements[static_cast<size_t>(site.layout.Index(0, row, k))] *=
            factors[static_cast<size_t>(k)];
      }
    }
    const std::string name = names_.Make(site.node->inputs[1] + "_smoothed");
    graph.initializers.set(name, {Tensor::Make<float>(site.shape, std::move(elements)), ""});
    return name;
  }

  const Int8ChoiceContext& context_;
  const Int8Choice& choice_;
  FreshNames names_;
  std::unordered_map<std::string, std::vector<float>> factors_;  // empty: not to be smoothed
};

}  // namespace

Smoothing SmoothInt8(const Int8ChoiceContext& context, const Int8Choice& choice,
                     const Calibration& calibration, const SmoothingStrengths& strengths) {
  return Smoother(context, choice).Run(calibration, strengths);
}

}  // namespace pared
