#include "passes/int8_equalize.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "model/rewrite.h"
#include "passes/int8_params.h"

namespace pared {
namespace {

using Names = std::unordered_set<std::string>;

constexpr int kSweeps = 20;
constexpr float kFactorMax = 1e4f;  // beyond it a channel is next to zero on one side

const Names kCommuting = {"Relu",     "LeakyRelu", "MaxPool", "AveragePool", "GlobalAveragePool",
                          "Identity", "Dropout"};

class Equalizer {
 public:
  Equalizer(const Int8ChoiceContext& context, const Int8Choice& choice)
      : context_(context), choice_(choice), model_(*context.model), names_(*context.model) {}

  Equalization Run() {
    Equalization result{model_, {}, {}};
    for (const Node& node : model_.graph.nodes) FindPair(node, result.skipped);
    for (int sweep = 0; sweep < kSweeps; ++sweep) {
      for (const Pair& pair : pairs_) Equalize(pair);
    }
    for (const Pair& pair : pairs_) result.pairs.push_back(NodeLabel(*pair.first->node));
    for (auto& [node, layer] : layers_) Write(*node, layer, result.model.graph);
    EraseDead(result.model.graph);
    return result;
  }

 private:
  struct Pair {
    const WeightSite *first = nullptr, *second = nullptr;
  };
  struct Layer {
    std::vector<float> weight, bias;  // as the node sees it
  };

  // A convolution whose weight and bias nothing else reads. Null: it is none.
  const WeightSite* ConvOf(const Node& node) const {
    const auto site = choice_.weights.find(&node);
    if (site == choice_.weights.end() || node.op_type != "Conv") return nullptr;
    const bool owns_weight = context_.index->consumers(site->second->root.second).size() == 1 &&
                             context_.index->consumers(node.inputs[1]).size() == 1;
    return owns_weight ? site->second : nullptr;
  }

  void FindPair(const Node& node, std::vector<SkippedNode>& skipped) {
    const WeightSite* first = ConvOf(node);
    if (first == nullptr) return;
    std::string value = node.outputs[0], between;
    while (!context_.index->is_output(value) && context_.index->consumers(value).size() == 1) {
      const Node& reader = *context_.index->consumers(value)[0];
      const WeightSite* second = ConvOf(reader);
      if (second != nullptr && reader.inputs[0] == value) {
        AddPair({first, second}, between, skipped);
        return;
      }
      const bool commutes = kCommuting.contains(reader.op_type);
      if (!commutes && choice_.RoleOf(reader) != Int8Role::kPointwise) return;
      if (!commutes) between = reader.op_type;
      value = reader.outputs[0];
    }
  }

  void AddPair(const Pair& pair, const std::string& between, std::vector<SkippedNode>& skipped) {
    const Node& node = *pair.first->node;
    const bool has_bias = node.inputs.size() > 2 && !node.inputs[2].empty();
    const Tensor* bias =
        has_bias ? ConstantOf(model_.graph, *context_.index, node.inputs[2], model_.ir_version)
                 : nullptr;
    if (!between.empty()) {
      skipped.push_back({&node, between +
                                    " stands between it and the next convolution, and does not "
                                    "commute with scales by channel"});
    } else if (has_bias && (bias == nullptr || bias->dtype() != DType::kFloat32)) {
      skipped.push_back({&node, "its bias is no float constant"});
    } else {
      for (const WeightSite* site : {pair.first, pair.second}) {
        if (!layers_.contains(site->node)) layers_[site->node].weight = ViewedElements(*site);
      }
      if (bias != nullptr) layers_[&node].bias = ToFloat(*bias);
      pairs_.push_back(pair);
    }
  }

  // visit(element, channel) by the channel that the element makes, or reads.
  template <class Visit>
  static void ForEachOut(const WeightSite& site, Visit visit) {
    const MatrixLayout& layout = site.layout;
    for (int64_t group = 0; group < layout.groups; ++group) {
      for (int64_t row = 0; row < layout.rows; ++row) {
        for (int64_t k = 0; k < layout.k; ++k) {
          visit(static_cast<size_t>(layout.Index(group, row, k)),
                static_cast<size_t>(group * layout.rows + row));
        }
      }
    }
  }
  template <class Visit>
  static void ForEachIn(const WeightSite& site, Visit visit) {
    const MatrixLayout& layout = site.layout;
    const int64_t window = ElementCount({site.shape.begin() + 2, site.shape.end()});
    for (int64_t group = 0; group < layout.groups; ++group) {
      for (int64_t row = 0; row < layout.rows; ++row) {
        for (int64_t k = 0; k < layout.k; ++k) {
          visit(static_cast<size_t>(layout.Index(group, row, k)),
                static_cast<size_t>(group * (layout.k / window) + k / window));
        }
      }
    }
  }

  void Equalize(const Pair& pair) {
    Layer &first = layers_.at(pair.first->node), &second = layers_.at(pair.second->node);
    const size_t channels =
        static_cast<size_t>(pair.first->layout.groups * pair.first->layout.rows);
    std::vector<float> made(channels, 0.0f), read(channels, 0.0f);
    ForEachOut(*pair.first, [&](size_t element, size_t channel) {
      made[channel] = std::max(made[channel], std::fabs(first.weight[element]));
    });
    ForEachIn(*pair.second, [&](size_t element, size_t channel) {
      read[channel] = std::max(read[channel], std::fabs(second.weight[element]));
    });
    std::vector<float> factors;
    for (size_t i = 0; i < channels; ++i) {
      const bool is_used = made[i] > 0 && read[i] > 0;
      factors.push_back(
          is_used ? std::clamp(std::sqrt(made[i] / read[i]), 1 / kFactorMax, kFactorMax) : 1.0f);
    }
    ForEachOut(*pair.first,
               [&](size_t element, size_t channel) { first.weight[element] /= factors[channel]; });
    for (size_t i = 0; i < first.bias.size(); ++i) first.bias[i] /= factors[i];
    ForEachIn(*pair.second,
              [&](size_t element, size_t channel) { second.weight[element] *= factors[channel]; });
  }

  void Write(const Node& original, Layer& layer, Graph& graph) {
    Node& node = graph.nodes[static_cast<size_t>(&original - model_.graph.nodes.data())];
    const auto replace = [&](size_t input, const Shape& shape, std::vector<float> values) {
      const std::string name = names_.Make(original.inputs[input] + "_equalized");
      graph.initializers.set(name, {Tensor::Make<float>(shape, std::move(values)), ""});
      node.inputs[input] = name;
    };
    const Shape channels = {std::ssize(layer.bias)};
    if (!layer.bias.empty()) replace(2, channels, std::move(layer.bias));
    replace(1, choice_.weights.at(&original)->shape, std::move(layer.weight));
  }

  const Int8ChoiceContext& context_;
  const Int8Choice& choice_;
  const Model& model_;
  FreshNames names_;
  std::vector<Pair> pairs_;
  std::map<const Node*, Layer> layers_;
};

}  // namespace

Equalization EqualizeInt8(const Int8ChoiceContext& context, const Int8Choice& choice) {
  return Equalizer(context, choice).Run();
}

}  // namespace pared
