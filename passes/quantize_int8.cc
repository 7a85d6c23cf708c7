// Quantizes weights and activations to INT8, statically, as QuantizeLinear/DequantizeLinear pairs.
//
// Before:  c = Conv(x, w, b)  y = Relu(c)                 y read by another convolution
// After:   xd = DQ(Q(x))  c = Conv(xd, DQ(w int8), DQ(b int32))  y = Relu(c)  yd = DQ(Q(y))
//
// Activations are uint8 with a zero point; weights int8, symmetric, so that pruned weights stay
// zero; biases int32 at the product of both scales. int8_choice.h says which nodes take part.
// First the model is raised to opset 13, which has scales by channel, and BatchNormalization and
// additions by channel are folded into convolutions. Declines node by node, with a report; where no
// node is left, it is an error: an INT8 model without INT8 would pass for a success.

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "model/rewrite.h"
#include "passes/calibrate.h"
#include "passes/fold_affine.h"
#include "passes/int8_params.h"
#include "passes/opset_raise.h"
#include "passes/pass.h"
#include "passes/select_nodes.h"

namespace pared {
namespace {

constexpr int64_t kOpsetOfChannelScales = 13;

enum class Granularity { kPerChannel, kPerTensor };

// The default method was chosen by measurement: on every real model of the comparison in
// tests/parity it keeps at least as much as min-max.
struct Options {
  Granularity granularity = Granularity::kPerChannel;
  RangeMethod method = RangeMethod::kPercentile;
  double percentile = 99.999;
  bool bias_correction = true;
  bool reduce_range = false;
  std::vector<std::string> op_types = {"Conv", "ConvTranspose", "Gemm", "MatMul"};
  std::vector<std::string> exclude;
  bool freeze_inputs = false;
};

void Fields(FieldVisitor& f, Options& o) {
  f.Choice("granularity", o.granularity, {"per_channel", "per_tensor"},
           "One weight scale for each output channel, or one for each tensor.");
  f.Choice("method", o.method, {"minmax", "percentile", "entropy", "mse"},
           "How the range of an activation follows from the calibration data.");
  f.Number("percentile", o.percentile, {50, 100},
           "For method \"percentile\": share of the elements inside the range; the rest saturate.");
  f.Flag("bias_correction", o.bias_correction,
         "Correct each bias by what the rounding of the weights shifts the mean of the result.");
  f.Flag("reduce_range", o.reduce_range,
         "Weights of 7 bits, for machines whose INT8 products saturate at 16 bits.");
  f.TextList("op_types", o.op_types, TextRule::kAny, "Operators with weights to quantize.");
  f.TextList("exclude", o.exclude, TextRule::kNodeRef,
             "Nodes that stay float; an entry that matches nothing is an error.");
  f.Flag("freeze_inputs", o.freeze_inputs,
         "Take weights that are also graph inputs, and so could be overridden by a caller, as "
         "constants, and drop these inputs.");
}

// The nodes that one of the references selects, by name: names survive the preparation, addresses
// do not. Unnamed nodes that are selected get a name.
class Exclusions {
 public:
  Exclusions(Model& model, const std::vector<std::string>& references) {
    const auto selected = SelectNodes(model, references, "exclude");
    std::unordered_set<const Node*> top;
    FreshNames names(model);
    for (Node& node : model.graph.nodes) {
      if (!selected.contains(&node)) continue;
      if (node.name.empty()) node.name = names.Make("excluded_" + node.op_type);
      names_.insert(node.name);
    }
  }
  bool Contains(const Node& node) const { return names_.contains(node.name); }

 private:
  std::unordered_set<std::string> names_;
};

// Writes the quantized model.
class Rewriter {
 public:
  Rewriter(const Model& model, const Int8ChoiceContext& context, const Int8Choice& choice,
           const Options& options)
      : model_(model), context_(context), choice_(choice), options_(options), names_(model) {}

  Model Run(const Calibration& calibration) {
    ranges_ = ActivationRanges(choice_, model_.graph, *context_.index, calibration,
                               {options_.method, options_.percentile});
    for (const std::string& value : choice_.values) {
      params_[value] = ParamsOf(ranges_.at(value));
      dequantized_[value] = names_.Make(value + "_dequantized");
    }
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
      if (choice_.RoleOf(original) == Int8Role::kCompute) {
        QuantizeNode(original, node, calibration, out.graph);
      }
      out.graph.nodes.push_back(std::move(node));
      for (const std::string& output : original.outputs) QuantizeValue(output, out.graph);
    }
    EraseDead(out.graph);
    return out;
  }

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
    std::string codes, scales, zero_points;  // initializers; empty until written
  };

  WeightKey KeyOf(const WeightSite& site) const {
    return {site.root, {site.node->inputs[site.input], ChannelAxis(site).value_or(-1)}};
  }

  void QuantizeWeights() {
    for (const Node& node : model_.graph.nodes) {
      if (choice_.RoleOf(node) != Int8Role::kCompute) continue;
      const WeightSite& site = *choice_.weights.at(&node);
      CheckFinite(site.stored, site.root.second);
      AddBounds(site, weights_[KeyOf(site)].scales_min);
    }
    for (const Node& node : model_.graph.nodes) {
      if (choice_.RoleOf(node) != Int8Role::kCompute) continue;
      const WeightSite& site = *choice_.weights.at(&node);
      StoredWeight& stored = weights_.at(KeyOf(site));
      if (!stored.weight.scales.empty()) continue;
      stored.weight =
          QuantizeWeight(site, {.is_per_channel = options_.granularity == Granularity::kPerChannel,
                                .code_max = options_.reduce_range ? 63 : 127,
                                .scales_min = stored.scales_min});
    }
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

  Node MakeNode(const std::string& op_type, std::vector<std::string> inputs, std::string output) {
    Node node;
    node.op_type = op_type;
    node.name = names_.Make(output + "_" + op_type);
    node.inputs = std::move(inputs);
    node.outputs = {std::move(output)};
    return node;
  }

  void QuantizeValue(const std::string& value, Graph& graph) {
    const auto params = params_.find(value);
    if (params == params_.end()) return;
    const std::string scale = names_.Make(value + "_scale");
    const std::string zero_point = names_.Make(value + "_zero_point");
    const std::string codes = names_.Make(value + "_quantized");
    AddInitializer(graph, scale, Tensor::Scalar<float>(params->second.scale));
    AddInitializer(graph, zero_point, Tensor::Scalar<uint8_t>(params->second.zero_point));
    graph.nodes.push_back(MakeNode("QuantizeLinear", {value, scale, zero_point}, codes));
    graph.nodes.push_back(
        MakeNode("DequantizeLinear", {codes, scale, zero_point}, dequantized_.at(value)));
  }

  void QuantizeNode(const Node& original, Node& node, const Calibration& calibration,
                    Graph& graph) {
    const WeightSite& site = *choice_.weights.at(&original);
    StoredWeight& stored = weights_.at(KeyOf(site));
    WriteWeight(site, stored, graph);
    const std::string name = names_.Make(original.inputs[site.input] + "_dequantized");
    Node dequantize =
        MakeNode("DequantizeLinear", {stored.codes, stored.scales, stored.zero_points}, name);
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
    stored.zero_points = names_.Make(base + "_zero_point");
    const Shape shape = stored.weight.axis ? Shape{std::ssize(stored.weight.scales)} : Shape{};
    AddInitializer(graph, stored.codes, Tensor::Make<int8_t>(site.shape, stored.weight.codes));
    AddInitializer(
        graph, stored.zero_points,
        Tensor::Make<int8_t>(shape, std::vector<int8_t>(stored.weight.scales.size(), 0)));
    AddInitializer(graph, stored.scales, Tensor::Make<float>(shape, stored.weight.scales));
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
    Node dequantize = MakeNode("DequantizeLinear", {codes_name, scale_name, zero_name}, name);
    if (weight.axis) dequantize.attributes.set("axis", {2, int64_t{0}, "", ""});
    graph.nodes.push_back(std::move(dequantize));
    return name;
  }

  // Empty: no correction is asked for, or none is known.
  std::vector<double> LossOfMean(const WeightSite& site, const QuantizedWeight& weight,
                                 const Calibration& calibration) const {
    const auto channels = calibration.channels.find(site.node->inputs[1 - site.input]);
    if (!options_.bias_correction || site.input == 0) return {};
    if (channels == calibration.channels.end() || channels->second.count == 0) return {};
    std::vector<double> loss = MeanLoss(site, weight, channels->second);
    const double alpha = site.node->op_type == "Gemm" ? site.node->Float("alpha", 1) : 1;
    for (double& value : loss) value *= alpha;
    return loss;
  }

  const Model& model_;
  const Int8ChoiceContext& context_;
  const Int8Choice& choice_;
  const Options& options_;
  FreshNames names_;
  std::unordered_map<std::string, ValueRange> ranges_;
  std::unordered_map<std::string, ActivationParams> params_;
  std::unordered_map<std::string, std::string> dequantized_;
  std::map<WeightKey, StoredWeight> weights_;
};

// alpha moves into the weight's scale: y = (alpha A) B.
void FoldAlpha(Model& model) {
  const GraphIndex index(model.graph);
  FreshNames names(model);
  for (Node& node : model.graph.nodes) {
    if (node.op_type != "Gemm" || node.Float("alpha", 1) == 1) continue;
    const Tensor* weight = ConstantOf(model.graph, index, node.inputs[1], model.ir_version);
    if (weight == nullptr || weight->dtype() != DType::kFloat32) continue;
    std::vector<float> scaled = ToFloat(*weight);
    for (float& value : scaled) value *= node.Float("alpha", 1);
    const Shape shape = weight->shape();
    node.inputs[1] = names.Make(node.inputs[1] + "_scaled");
    model.graph.initializers.set(node.inputs[1],
                                 {Tensor::Make<float>(shape, std::move(scaled)), ""});
    node.attributes.erase_if([](const std::string& name, auto&) { return name == "alpha"; });
  }
}

CalibrationRequest RequestFor(const Int8Choice& choice, const Options& options) {
  CalibrationRequest request;
  request.with_bins = options.method != RangeMethod::kMinMax;
  request.values = choice.values;
  if (!options.bias_correction) return request;
  for (const auto& [node, site] : choice.weights) {
    if (site->input == 0) continue;
    const bool is_conv = node->op_type == "Conv" || node->op_type == "ConvTranspose";
    const bool is_transposed = node->op_type == "Gemm" && node->Int("transA", 0) != 0;
    request.channels[node->inputs[0]] = is_conv ? 1 : is_transposed ? 0 : -1;
  }
  return request;
}

void Report(const Int8Choice& choice, const Model& model, const WeightScan& scan, Json& report) {
  report["changed"] = Json::array();
  report["skipped"] = Json::array();
  int64_t all = 0, quantized = 0;
  for (const WeightSite& site : scan.sites) all += site.stored.count();
  for (const Node& node : model.graph.nodes) {
    if (choice.RoleOf(node) != Int8Role::kCompute) continue;
    report["changed"].push_back({{"node", NodeLabel(node)}});
    quantized += choice.weights.at(&node)->stored.count();
  }
  for (const SkippedNode& skipped : choice.skipped) {
    report["skipped"].push_back({{"node", NodeLabel(*skipped.node)}, {"reason", skipped.reason}});
  }
  report["int8_weight_share"] =
      all == 0 ? 0.0 : static_cast<double>(quantized) / static_cast<double>(all);
}

// Everything that leaves the result as it is and lets more of the model be INT8.
void Prepare(Model& model, const Exclusions& exclusions, Json& report) {
  report["raised"] = RaiseOpset(model, kOpsetOfChannelScales);
  const auto keep = [&](const Node& node) { return exclusions.Contains(node); };
  report["folded"] = Json::array();
  for (const auto& notes : {FoldBatchNorm(model, keep), FoldBias(model, keep)}) {
    for (const FoldNote& note : notes) {
      if (note.reason.empty()) report["folded"].push_back(note.node);
    }
  }
  FoldAlpha(model);
}

Model Quantize(Model model, const Options& options, PassContext& context) {
  const Exclusions exclusions(model, options.exclude);
  if (options.freeze_inputs || model.ir_version < 4) DropInitializerInputs(model);
  Prepare(model, exclusions, context.report);
  const GraphIndex index(model.graph);
  const WeightScan scan = FindWeights(model);
  Int8ChoiceContext choice_context{&model, &index, &scan, InferShapes(model), {}};
  for (const Node& node : model.graph.nodes) {
    const bool has_weight_type =
        std::ranges::find(options.op_types, node.op_type) != options.op_types.end();
    const bool is_weighted = node.op_type == "Conv" || node.op_type == "ConvTranspose" ||
                             node.op_type == "Gemm" || node.op_type == "MatMul";
    if (exclusions.Contains(node) || (is_weighted && !has_weight_type)) {
      choice_context.excluded.insert(&node);
    }
  }
  const Int8Choice choice = ChooseInt8(choice_context);
  Report(choice, model, scan, context.report);
  if (choice.weights.empty()) {
    throw Error(ErrorCode::kUnsupported,
                "no node of the model can be quantized: " +
                    (choice.skipped.empty()
                         ? "it has no weighted operator"
                         : NodeLabel(*choice.skipped[0].node) + ": " + choice.skipped[0].reason));
  }
  const Calibration calibration = Calibrate(model, RequestFor(choice, options), context);
  Rewriter rewriter(model, choice_context, choice, options);
  Model quantized = rewriter.Run(calibration);
  context.report["ranges"] = rewriter.RangesReport();
  context.progress(1);
  return quantized;
}

}  // namespace

extern const PassInfo kQuantizeInt8 = DefinePass<Options, Quantize>(
    "quantize_int8", "Quantizes weights and activations to INT8, statically.",
    [](const Json&) { return true; });

}  // namespace pared
