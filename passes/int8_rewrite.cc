#include "passes/int8_rewrite.h"

#include <tbb/parallel_for_each.h>

#include <algorithm>
#include <cmath>

#include "model/rewrite.h"
#include "passes/int8_params.h"

namespace pared {
namespace {

// Writes the quantized model.
class Rewriter {
 public:
  Rewriter(const Int8ChoiceContext& context, const Int8Choice& choice, const Int8Settings& settings)
      : model_(*context.model),
        context_(context),
        choice_(choice),
        settings_(settings),
        names_(model_) {}

  Model Run(const Calibration& calibration) {
    ranges_ = ActivationRanges(choice_, model_, *context_.index, calibration, settings_.range);
    ChooseParams();
    QuantizeWeights();
    Model out = model_;
    out.graph.nodes.clear();
    Graph rest = model_.graph;
    for (Node& node : rest.nodes) {
      const Node& original = model_.graph.nodes[static_cast<size_t>(&node - rest.nodes.data())];
      RenameInputs(original, node);
    }
    for (const std::string& value : choice_.only_quantized) {
      ReplaceUses(rest, value, dequantized_.at(value));
    }
    for (const ValueInfo& input : model_.graph.inputs) QuantizeValue(input.name, out.graph);
    for (size_t i = 0; i < rest.nodes.size(); ++i) {
      const Node& original = model_.graph.nodes[i];
      Node node = std::move(rest.nodes[i]);
      for (std::string& output : node.outputs) output = ComputedName(output);
      if (choice_.RoleOf(original) == Int8Role::kCompute) {
        QuantizeNode(original, node, calibration, out.graph);
      }
      out.graph.nodes.push_back(std::move(node));
      for (const std::string& output : original.outputs) QuantizeValue(output, out.graph);
    }
    EraseDead(out.graph);
    return out;
  }

  std::map<std::string, WeightScales> ScalesByOutput() const {
    std::map<std::string, WeightScales> scales;
    for (const auto& [node, site] : choice_.weights) {
      scales.emplace(node->outputs[0], weights_.at(KeyOf(*site)).weight);
    }
    return scales;
  }
  const std::unordered_map<std::string, ActivationParams>& params() const { return params_; }

  Json RangesReport() const {
    Json report = Json::object();
    for (const std::string& value : choice_.values) {
      const ValueRange range = ranges_.at(value);
      report[value] = {{"min", range.min}, {"max", range.max}, {"scale", params_.at(value).scale}};
    }
    return report;
  }

 private:
  // Weights that nodes share, seen alike, are stored once.
  using WeightKey = std::pair<ConstantRef, std::pair<std::string, int64_t>>;

  struct StoredWeight {
    QuantizedWeight weight;
    std::vector<double> scales_min;
    const WeightSite* site = nullptr;        // the first that reads it says how
    std::string codes, scales, zero_points;  // initializers; empty until written
  };

  WeightKey KeyOf(const WeightSite& site) const {
    return {site.root, {site.node->inputs[site.input], ChannelAxis(site).value_or(-1)}};
  }

  // What is stored in codes keeps them, and what only moves it shares its scale to the last bit.
  // A quantized output of the graph is what its codes stand for: its maker writes another value.
  void ChooseParams() {
    std::map<std::pair<float, float>, ActivationParams> by_range;
    for (const std::string& value : choice_.values) {
      const auto stored = StoredParams(value, model_, *context_.index);
      const bool is_output =
          context_.index->is_output(value) && choice_.only_quantized.contains(value);
      dequantized_[value] = stored || is_output ? value : names_.Make(value + "_dequantized");
      if (!stored && is_output) computed_[value] = names_.Make(value + "_computed");
      if (!stored) continue;
      params_[value] = *stored;
      const ValueRange range = RangeOf(*stored);
      by_range[{range.min, range.max}] = *stored;
    }
    for (const std::string& value : choice_.values) {
      const ValueRange range = ranges_.at(value);
      const auto stored = by_range.find({range.min, range.max});
      params_.try_emplace(value, stored == by_range.end() ? ParamsOf(range) : stored->second);
    }
  }

  void QuantizeWeights() {
    for (const Node& node : model_.graph.nodes) {
      if (choice_.RoleOf(node) != Int8Role::kCompute) continue;
      const WeightSite& site = *choice_.weights.at(&node);
      CheckFinite(site.stored, site.root.second);
      StoredWeight& stored = weights_[KeyOf(site)];
      if (stored.site == nullptr) stored.site = &site;
      AddBounds(site, stored.scales_min);
    }
    tbb::parallel_for_each(weights_, [&](auto& entry) {
      StoredWeight& stored = entry.second;
      stored.weight = QuantizeWeight(*stored.site, {.is_per_channel = settings_.is_per_channel,
                                                    .code_max = settings_.code_max,
                                                    .scales_min = stored.scales_min});
      const auto fitted = settings_.fitted.find(stored.site->node->outputs[0]);
      if (fitted != settings_.fitted.end()) stored.weight.codes = fitted->second.codes;
    });
  }

  // The bias must fit int32 at the scale that input and weight give it.
  void AddBounds(const WeightSite& site, std::vector<double>& bounds) const {
    const std::vector<float> bias = BiasOf(site);
    if (bias.empty()) return;
    const std::optional<int64_t> axis = ChannelAxis(site);
    const size_t channels = axis ? static_cast<size_t>(site.shape[static_cast<size_t>(*axis)]) : 1;
    bounds.resize(channels, 0);
    const float scale = InputParams(site).scale;
    for (size_t i = 0; i < bias.size(); ++i) {
      double& bound = bounds[i % channels];
      bound = std::max(bound, LeastWeightScale(bias[i], scale));
    }
  }

  const ActivationParams& InputParams(const WeightSite& site) const {
    return params_.at(site.node->inputs[1 - site.input]);
  }

  // One number for each output channel. Empty: the node has no bias, or none that can be int32.
  std::vector<float> BiasOf(const WeightSite& site) const {
    const Node& node = *site.node;
    if (node.op_type == "MatMul" || node.inputs.size() < 3 || node.inputs[2].empty()) return {};
    const Tensor* bias =
        ConstantOf(model_.graph, *context_.index, node.inputs[2], model_.ir_version);
    const bool is_left = site.input == 0;  // the bias of a Gemm runs along columns
    if (bias == nullptr || bias->dtype() != DType::kFloat32 || is_left) return {};
    const int64_t channels = site.layout.groups * site.layout.rows;
    if (bias->count() != 1 && (bias->count() != channels || bias->shape().back() != channels)) {
      return {};
    }
    const std::span<const float> values = bias->data<float>();
    std::vector<float> all(static_cast<size_t>(channels), values[0]);
    if (bias->count() == channels) std::ranges::copy(values, all.begin());
    const float beta = node.op_type == "Gemm" ? node.Float("beta", 1) : 1;
    for (float& value : all) value *= beta;
    return all;
  }

  // Compute, join and pointwise nodes read quantized values; so do all where there is no other.
  void RenameInputs(const Node& original, Node& node) const {
    const Int8Role role = choice_.RoleOf(original);
    if (role == Int8Role::kFloat) return;
    for (std::string& input : node.inputs) {
      const auto renamed = dequantized_.find(input);
      if (renamed != dequantized_.end()) input = renamed->second;
    }
  }

  void AddInitializer(Graph& graph, const std::string& name, Tensor tensor) const {
    graph.initializers.set(name, {std::move(tensor), ""});
  }

  // Of the value before its codes.
  const std::string& ComputedName(const std::string& value) const {
    const auto name = computed_.find(value);
    return name == computed_.end() ? value : name->second;
  }

  void QuantizeValue(const std::string& value, Graph& graph) {
    const auto params = params_.find(value);
    const std::string& computed = ComputedName(value);
    if (params == params_.end() || dequantized_.at(value) == computed) return;
    const std::string scale = names_.Make(value + "_scale");
    const std::string zero_point = names_.Make(value + "_zero_point");
    const std::string codes = names_.Make(value + "_quantized");
    AddInitializer(graph, scale, Tensor::Scalar<float>(params->second.scale));
    AddInitializer(graph, zero_point, Tensor::Scalar<uint8_t>(params->second.zero_point));
    graph.nodes.push_back(MakeNode("QuantizeLinear", {computed, scale, zero_point}, codes, names_));
    graph.nodes.push_back(
        MakeNode("DequantizeLinear", {codes, scale, zero_point}, dequantized_.at(value), names_));
  }

  void QuantizeNode(const Node& original, Node& node, const Calibration& calibration,
                    Graph& graph) {
    const WeightSite& site = *choice_.weights.at(&original);
    StoredWeight& stored = weights_.at(KeyOf(site));
    WriteWeight(site, stored, graph);
    const std::string name = names_.Make(original.inputs[site.input] + "_dequantized");
    std::vector<std::string> parts = {stored.codes, stored.scales};
    if (!stored.zero_points.empty()) parts.push_back(stored.zero_points);
    Node dequantize = MakeNode("DequantizeLinear", std::move(parts), name, names_);
    if (stored.weight.axis) dequantize.attributes.set("axis", {2, *stored.weight.axis, "", ""});
    graph.nodes.push_back(std::move(dequantize));
    node.inputs[site.input] = name;
    if (node.op_type != "MatMul") QuantizeBias(site, stored.weight, calibration, node, graph);
  }

  void WriteWeight(const WeightSite& site, StoredWeight& stored, Graph& graph) {
    if (!stored.codes.empty()) return;
    const std::string& base = site.node->inputs[site.input];
    stored.codes = names_.Make(base + "_quantized");
    stored.scales = names_.Make(base + "_scale");
    const Shape shape = stored.weight.axis ? Shape{std::ssize(stored.weight.scales)} : Shape{};
    AddInitializer(graph, stored.codes, Tensor::Make<int8_t>(site.shape, stored.weight.codes));
    AddInitializer(graph, stored.scales, Tensor::Make<float>(shape, stored.weight.scales));
    // ONNX Runtime fuses products of stacked matrices too, but refuses their zero points by
    // channel; left out they are zero.
    if (site.node->op_type == "MatMul" && site.shape.size() > 2 && stored.weight.axis) return;
    stored.zero_points = names_.Make(base + "_zero_point");
    AddInitializer(
        graph, stored.zero_points,
        Tensor::Make<int8_t>(shape, std::vector<int8_t>(stored.weight.scales.size(), 0)));
  }

  void QuantizeBias(const WeightSite& site, const QuantizedWeight& weight,
                    const Calibration& calibration, Node& node, Graph& graph) {
    std::vector<float> bias = BiasOf(site);
    const std::vector<double> loss = LossOfMean(site, weight, calibration);
    const bool has_other = node.inputs.size() > 2 && !node.inputs[2].empty();
    if (bias.empty()) {
      // Without a bias to correct, one is made; a bias that is no constant by channel stays.
      if (loss.empty() || has_other) return;
      bias.assign(loss.size(), 0);
    }
    for (size_t i = 0; i < loss.size(); ++i) bias[i] += static_cast<float>(loss[i]);
    const float scale = InputParams(site).scale;
    std::vector<float> scales;
    std::vector<int32_t> codes;
    for (size_t i = 0; i < bias.size(); ++i) {
      const float weight_scale = weight.scales[i % weight.scales.size()];
      scales.push_back(scale * weight_scale);
      const double code = std::nearbyint(static_cast<double>(bias[i]) / scales.back());
      codes.push_back(static_cast<int32_t>(std::clamp(code, -2147483647.0, 2147483647.0)));
    }
    if (node.inputs.size() < 3) node.inputs.resize(3);
    if (node.op_type == "Gemm")
      node.attributes.erase_if([](const std::string& name, auto&) { return name == "beta"; });
    const std::string base = has_other ? node.inputs[2] : node.outputs[0] + "_bias";
    node.inputs[2] = WriteBias(base, std::move(codes), std::move(scales), weight, graph);
  }

  std::string WriteBias(const std::string& base, std::vector<int32_t> codes,
                        std::vector<float> scales, const QuantizedWeight& weight, Graph& graph) {
    const std::string codes_name = names_.Make(base + "_quantized");
    const std::string scale_name = names_.Make(base + "_scale");
    const std::string zero_name = names_.Make(base + "_zero_point");
    const std::string name = names_.Make(base + "_dequantized");
    const Shape shape = {std::ssize(codes)};
    if (!weight.axis) scales.resize(1);
    const Shape scale_shape = weight.axis ? shape : Shape{};
    AddInitializer(graph, zero_name,
                   Tensor::Make<int32_t>(scale_shape, std::vector<int32_t>(scales.size(), 0)));
    AddInitializer(graph, codes_name, Tensor::Make<int32_t>(shape, std::move(codes)));
    AddInitializer(graph, scale_name, Tensor::Make<float>(scale_shape, std::move(scales)));
    Node dequantize =
        MakeNode("DequantizeLinear", {codes_name, scale_name, zero_name}, name, names_);
    if (weight.axis) dequantize.attributes.set("axis", {2, int64_t{0}, "", ""});
    graph.nodes.push_back(std::move(dequantize));
    return name;
  }

  // Empty: no correction is asked for, or none is known.
  std::vector<double> LossOfMean(const WeightSite& site, const QuantizedWeight& weight,
                                 const Calibration& calibration) const {
    if (!settings_.bias_correction || site.input == 0) return {};
    const auto fitted = settings_.fitted.find(site.node->outputs[0]);
    if (fitted != settings_.fitted.end() && !fitted->second.mean_loss.empty()) {
      return fitted->second.mean_loss;
    }
    const auto channels = calibration.channels.find(site.node->inputs[1 - site.input]);
    if (channels == calibration.channels.end() || channels->second.count == 0) return {};
    std::vector<double> loss = MeanLoss(site, weight, channels->second);
    const double alpha = site.node->op_type == "Gemm" ? site.node->Float("alpha", 1) : 1;
    for (double& value : loss) value *= alpha;
    return loss;
  }

  const Model& model_;
  const Int8ChoiceContext& context_;
  const Int8Choice& choice_;
  const Int8Settings& settings_;
  FreshNames names_;
  std::unordered_map<std::string, ValueRange> ranges_;
  std::unordered_map<std::string, ActivationParams> params_;
  std::unordered_map<std::string, std::string> dequantized_;
  std::unordered_map<std::string, std::string> computed_;  // of quantized outputs: see ComputedName
  std::map<WeightKey, StoredWeight> weights_;
};

}  // namespace

Int8Rewrite RewriteInt8(const Int8ChoiceContext& context, const Int8Choice& choice,
                        const Calibration& calibration, const Int8Settings& settings) {
  Rewriter rewriter(context, choice, settings);
  Model model = rewriter.Run(calibration);
  return {std::move(model), settings.code_max, rewriter.RangesReport(), rewriter.ScalesByOutput(),
          rewriter.params()};
}

}  // namespace pared
