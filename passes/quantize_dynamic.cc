// Computes products in INT8 with scales of activations found while the model runs: needs no data.
//
// Before:  y = MatMul(x, w)
// After:   q, s, z = DynamicQuantizeLinear(x)      once for all products that read x
//          y = Cast(MatMulInteger(q, w_quantized, z)) * (s * w_scale)
//
// The same for Gemm, whose bias is added behind, and for Conv by ConvInteger. Weights are int8,
// symmetric, one scale an output channel, so that pruned weights stay zero; activations uint8.
// Tables are looked up as codes. Weights of subgraphs, or captured by them, are stored once, where
// they were. LSTM becomes DynamicQuantizeLSTM of com.microsoft (dynamic_lstm.h); all else that is
// written are operators of ONNX itself.
// Where there is calibration data, the spread of input channels is moved into the weights first, if
// the SQNR measured on it rises, and the most sensitive nodes return to float (stored_return.h).
// Declines, with a report: weights that are no matrix or kernel, that a node reads which stays
// float, GRU and RNN. Where no weight is left, it is an error.

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <unordered_map>

#include "base/error.h"
#include "passes/code_range.h"
#include "passes/constant_aliases.h"
#include "passes/decided_lengths.h"
#include "passes/dynamic_lstm.h"
#include "passes/dynamic_smooth.h"
#include "passes/finite_weights.h"
#include "passes/float_bounds.h"
#include "passes/int8_params.h"
#include "passes/layer_progress.h"
#include "passes/log_power.h"
#include "passes/node_history.h"
#include "passes/opset_raise.h"
#include "passes/pass.h"
#include "passes/select_nodes.h"
#include "passes/stored_return.h"
#include "passes/stored_weights.h"
#include "passes/weight_codes.h"
#include "passes/widen_halves.h"

namespace pared {
namespace {

constexpr int64_t kOpset = 11;  // DynamicQuantizeLinear

// A smoothed model must gain so much over the plain one to be taken.
constexpr double kGainMinDb = 0.25;

enum class Smooth { kAuto, kOff };

struct Options {
  Smooth smooth = Smooth::kAuto;
  CodeRange code_range;
  FloatBounds bounds;
  std::vector<std::string> op_types = {"Gemm", "MatMul", "Gather", "LSTM"};
  std::vector<std::string> exclude;
  bool freeze_inputs = false;
};

void Fields(FieldVisitor& f, Options& o) {
  f.Choice("smooth", o.smooth, {"auto", "off"},
           "Move the spread of input channels into the weights of matrix products; \"auto\": where "
           "there is calibration data and the SQNR measured on it rises.");
  Fields(f, o.code_range);
  Fields(f, o.bounds);
  f.ChoiceList(
      "op_types", o.op_types, {"MatMul", "Gemm", "Conv", "Gather", "LSTM"},
      "Operators to quantize. Conv some runtimes compute slower so; Gather's tables are "
      "stored in 8 bits; LSTM becomes an operator that ONNX Runtime alone has, so name the "
      "others for another runtime.");
  f.TextList("exclude", o.exclude, TextRule::kNodeRef,
             "Nodes that stay float; an entry that matches nothing is an error.");
  f.Flag("freeze_inputs", o.freeze_inputs,
         "Take weights that are also graph inputs, and so could be overridden by a caller, as "
         "constants, and drop these inputs.");
}

bool IsConv(const WeightSite& site) { return site.node->op_type == "Conv"; }
bool IsLstm(const WeightSite& site) { return site.node->op_type == "LSTM"; }

// Empty: the node has an integer form.
std::string WhyNoInteger(const WeightSite& site) {
  const Node& node = *site.node;
  if (site.stored.dtype() != DType::kFloat32) {
    return std::string("its weight is ") + std::string(DTypeName(site.stored.dtype()));
  }
  if (IsConv(site)) {
    return site.shape.size() <= 4 ? "" : "ConvInteger of three axes is not supported everywhere";
  }
  if (IsLstm(site)) return WhyNoDynamicLstm(site);
  if (node.op_type != "MatMul" && node.op_type != "Gemm") {
    return node.op_type + " has no integer form";
  }
  if (site.input != 1) return "its weight is the left operand: its channels are rows";
  if (site.shape.size() != 2) return "its weight is no matrix";
  if (node.op_type == "Gemm" && node.Int("transA", 0) != 0) return "its input is transposed";
  return "";
}

// The weight as the integer operator takes it: [k, channels], or the kernel of a convolution.
Tensor OperandOf(const WeightSite& site) {
  const std::vector<float> viewed = ViewedElements(site);
  if (IsConv(site)) return Tensor::Make<float>(site.shape, viewed);
  const MatrixLayout& layout = site.layout;
  std::vector<float> values;
  values.reserve(viewed.size());
  for (int64_t k = 0; k < layout.k; ++k) {
    for (int64_t row = 0; row < layout.rows; ++row) {
      values.push_back(viewed[static_cast<size_t>(layout.Index(0, row, k))]);
    }
  }
  return Tensor::Make<float>({layout.k, layout.rows}, std::move(values));
}

// The stored operand of one or more nodes.
struct Operand {
  const WeightSite* first = nullptr;
  std::string codes, scale;
};

class Quantizer {
 public:
  Quantizer(const Model& model, const Options& options, PassContext& context)
      : model_(model),
        options_(options),
        context_(context),
        scan_(FindWeights(model)),
        names_(model) {
    stored_ = FindStoredWeights(model, scan_,
                                {options.op_types, SelectNodes(model, options.exclude, "exclude")});
    lengths_ = NodesThatDecideLengths(model);
    for (auto& [root, stored] : stored_) {
      if (stored.reason.empty()) stored.reason = WhyFloat(stored);
    }
    KeepLstmsWhole(stored_);
  }

  Model Run() {
    context_.report.update(ReportStored(stored_, scan_));
    bool has_any = false;
    for (const auto& [root, stored] : stored_) has_any = has_any || stored.reason.empty();
    if (!has_any) {
      throw Error(ErrorCode::kUnsupported,
                  "no weight of the model can be quantized: " + FirstSkipped(context_.report));
    }
    Model out = model_;
    EditBeside(out, model_.graph, [&](const Graph& original, Graph& graph) {
      Store(original, graph);
      std::vector<Node> nodes = std::move(graph.nodes);
      graph.nodes.clear();
      inputs_.clear();
      for (size_t i = 0; i < nodes.size(); ++i) AddNode(original.nodes[i], nodes[i], graph);
    });
    EditGraphs(out.graph, EraseDead);
    if (!cells_.empty()) ImportDomain(out, "com.microsoft", 1);
    return out;
  }

  std::vector<StoredUnit> Units(const Json& untied) const { return UnitsOf(stored_, untied); }

 private:
  std::string WhyFloat(const StoredWeight& stored) const {
    for (const Node* lookup : stored.lookups) {
      if (lengths_.contains(lookup)) return kDecidesLength;
    }
    for (const WeightSite* site : stored.sites) {
      if (lengths_.contains(site->node)) return kDecidesLength;
      const std::string reason = WhyNoInteger(*site);
      if (!reason.empty()) return reason;
      if (!stored.lookups.empty()) return "its weight is also a table that Gather looks up";
    }
    return "";
  }

  // Nodes that see the weight alike share its operand.
  static std::string ViewOf(const WeightSite& site) {
    const bool is_transposed = site.node->op_type == "Gemm" && site.node->Int("transB", 0) != 0;
    return site.node->inputs[site.input] + (is_transposed ? " transposed" : "");
  }

  // Writes the codes of the constants that `original` holds.
  void Store(const Graph& original, Graph& graph) {
    for (const auto& [root, stored] : stored_) {
      if (root.first != &original || !stored.reason.empty()) continue;
      if (context_.cancelled()) throw Error(ErrorCode::kCancelled, "cancelled while quantizing");
      TellLayer(context_, root.second, ++done_, stored_.size());
      if (stored.sites.empty()) CheckFinite(stored.tensor, root.second);  // a table
      if (stored.sites.empty()) {
        const TableCodes codes = PutTable(root.second, stored, graph, names_);
        for (const Node* lookup : stored.lookups) lookups_[lookup] = codes;
      }
      std::map<std::string, CodeNames> views;
      for (const WeightSite* site : stored.sites) {
        const auto [view, is_new] = views.emplace(ViewOf(*site), CodeNames{});
        if (is_new) view->second = Put(root.second, CodesOf(*site), graph);
        if (IsLstm(*site)) {
          cells_[site->node][site->input - 1] = view->second;
        } else {
          operands_[site->node] = {site, view->second.codes, view->second.scale};
        }
      }
      stored.tensor.DropPages();
    }
  }

  WeightCodes CodesOf(const WeightSite& site) const {
    const auto code_max = static_cast<float>(options_.code_range.code_max());
    if (IsLstm(site)) return CodeLstm(site, code_max);
    WeightCodes made = CodeChannels(OperandOf(site), IsConv(site) ? 0 : 1, code_max);
    if (IsConv(site)) {  // along the channels of the result
      Shape shape(site.shape.size() - 1, 1);
      shape[0] = site.shape[0];
      made.scales = made.scales.Reshaped(shape);
    }
    return made;
  }

  CodeNames Put(const std::string& base, WeightCodes made, Graph& graph) {
    CodeNames names;
    const auto put = [&](const char* part, Tensor tensor) {
      const std::string name = names_.Make(base + part);
      graph.initializers.set(name, {std::move(tensor), ""});
      return name;
    };
    if (made.zero_points) names.zero_point = put("_zero_point", std::move(*made.zero_points));
    names.codes = put("_quantized", std::move(made.codes));
    names.scale = put("_scale", std::move(made.scales));
    return names;
  }

  void AddNode(const Node& original, Node& node, Graph& graph) {
    const auto operand = operands_.find(&original);
    if (operand != operands_.end()) {
      AddProduct(node, operand->second, graph);
    } else if (const auto cell = cells_.find(&original); cell != cells_.end()) {
      graph.nodes.push_back(MakeDynamicLstm(node, cell->second));
    } else if (const auto lookup = lookups_.find(&original); lookup != lookups_.end()) {
      AddLookup(node, lookup->second, graph, names_);
    } else {
      graph.nodes.push_back(std::move(node));
    }
  }

  // Adds a node with an output of its own. Returns its name.
  std::string Add(const std::string& op_type, std::vector<std::string> inputs,
                  const std::string& base, Graph& graph) {
    graph.nodes.push_back(MakeNode(op_type, std::move(inputs), names_.Make(base), names_));
    return graph.nodes.back().outputs[0];
  }

  struct Quantized {
    std::string codes, scale, zero_point;
  };

  // Once for each value and graph.
  const Quantized& Quantize(const std::string& value, Graph& graph) {
    Quantized& q = inputs_[value];
    if (!q.codes.empty()) return q;
    q = {names_.Make(value + "_quantized"), names_.Make(value + "_scale"),
         names_.Make(value + "_zero_point")};
    Node node = MakeNode("DynamicQuantizeLinear", {value}, q.codes, names_);
    node.outputs = {q.codes, q.scale, q.zero_point};
    graph.nodes.push_back(std::move(node));
    return q;
  }

  void AddProduct(const Node& node, const Operand& operand, Graph& graph) {
    const WeightSite& site = *operand.first;
    const std::string& output = node.outputs[0];
    const Quantized q = Quantize(node.inputs[0], graph);
    const std::string sums = Add(IsConv(site) ? "ConvInteger" : "MatMulInteger",
                                 {q.codes, operand.codes, q.zero_point}, output + "_sums", graph);
    graph.nodes.back().name = names_.Make(node.name.empty() ? sums : node.name + "_integer");
    if (IsConv(site)) graph.nodes.back().attributes = node.attributes;
    graph.nodes.push_back(MakeCast(sums, names_.Make(output + "_float"), DType::kFloat32, names_));
    const std::string real = graph.nodes.back().outputs[0];
    const std::string scale =
        Add("Mul", {q.scale, ScaleOf(node, operand, graph)}, output + "_scale", graph);
    const std::string bias = BiasOf(node, site, graph);
    if (bias.empty()) {
      graph.nodes.push_back(MakeNode("Mul", {real, scale}, output, names_));
    } else {
      const std::string scaled = Add("Mul", {real, scale}, output + "_scaled", graph);
      graph.nodes.push_back(MakeNode("Add", {scaled, bias}, output, names_));
    }
  }

  // Of the weight, with what a Gemm multiplies its product by.
  std::string ScaleOf(const Node& node, const Operand& operand, Graph& graph) {
    const float alpha = node.op_type == "Gemm" ? node.Float("alpha", 1) : 1;
    return alpha == 1 ? operand.scale : Times(operand.scale, alpha, graph);
  }

  std::string Times(const std::string& value, float factor, Graph& graph) {
    const std::string name = names_.Make(value + "_factor");
    graph.initializers.set(name, {Tensor::Scalar<float>(factor), ""});
    return Add("Mul", {value, name}, value + "_times", graph);
  }

  // The value to add; "": none. The bias of a convolution gets the axes of its result.
  std::string BiasOf(const Node& node, const WeightSite& site, Graph& graph) {
    if (node.op_type == "MatMul" || node.inputs.size() < 3 || node.inputs[2].empty()) return "";
    const std::string& bias = node.inputs[2];
    if (!IsConv(site)) {
      const float beta = node.Float("beta", 1);
      return beta == 1 ? bias : Times(bias, beta, graph);
    }
    Shape shape(site.shape.size() - 1, 1);
    shape[0] = site.shape[0];
    const Tensor* constant = ConstantBias(bias, graph);
    const std::string name = names_.Make(bias + "_by_channel");
    if (constant != nullptr) {
      graph.initializers.set(name, {constant->Reshaped(shape), ""});
      return name;
    }
    const std::string wanted = names_.Make(bias + "_shape");
    graph.initializers.set(
        wanted, {Tensor::Make<int64_t>({std::ssize(shape)}, {shape.begin(), shape.end()}), ""});
    graph.nodes.push_back(MakeNode("Reshape", {bias, wanted}, name, names_));
    return name;
  }

  static const Tensor* ConstantBias(const std::string& bias, const Graph& graph) {
    const Initializer* stored = graph.initializers.find(bias);
    if (stored == nullptr) return nullptr;
    for (const ValueInfo& input : graph.inputs) {
      if (input.name == bias) return nullptr;  // a default, which a caller may override
    }
    return &stored->tensor;
  }

  const Model& model_;
  const Options& options_;
  PassContext& context_;
  WeightScan scan_;
  FreshNames names_;
  StoredWeights stored_;
  std::unordered_set<const Node*> lengths_;  // nodes that decide some
  std::unordered_map<const Node*, Operand> operands_;
  std::unordered_map<const Node*, std::array<CodeNames, 2>> cells_;  // W and R
  std::unordered_map<const Node*, TableCodes> lookups_;
  std::unordered_map<std::string, Quantized> inputs_;  // of the graph that is being written
  size_t done_ = 0;
};

// Puts what is made of the smoothed model in the place of `made` where it is nearer.
void Smoothed(const Options& options, const FidelityJudge& judge, StoredResult& made,
              PassContext& context) {
  auto excluded = SelectNodes(made.source, options.exclude, "exclude");
  for (const Node& node : made.source.graph.nodes) {
    if (!std::ranges::count(options.op_types, node.op_type)) excluded.insert(&node);
  }
  Smoothing smoothing = SmoothProducts(made.source, excluded, context);
  made.nearness = judge.Compare(made.model);
  if (!smoothing.values.empty()) {
    Model smoothed = Quantizer(smoothing.model, options, context).Run();
    const Nearness nearness = judge.Compare(smoothed);
    if (nearness.sqnr_db < made.nearness->sqnr_db + kGainMinDb) {
      smoothing.values.clear();
    } else {
      made.model = std::move(smoothed);
      made.source = std::move(smoothing.model);
      made.nearness = nearness;
    }
  }
  context.report["smoothed"] = smoothing.values;
}

StoredResult Make(Model model, const Options& options, const FidelityJudge* judge,
                  PassContext& context) {
  const Json untied = UntieTables(
      model, {options.op_types, SelectNodes(model, options.exclude, "exclude")},
      [](const StoredWeight& stored) {
        return std::ranges::all_of(
            stored.sites, [](const WeightSite* site) { return WhyNoInteger(*site).empty(); });
      });
  if (!untied.empty()) context.report["untied"] = untied;
  Quantizer quantizer(model, options, context);
  StoredResult made;
  made.model = quantizer.Run();
  made.units = quantizer.Units(untied);
  made.source = model;
  if (judge != nullptr && options.smooth == Smooth::kAuto) {
    Smoothed(options, *judge, made, context);
  }
  return made;
}

Model Run(Model model, const Options& given, PassContext& context) {
  Options options = given;
  SelectNodes(model, options.exclude, "exclude");
  if (options.freeze_inputs || model.ir_version < 4) DropInitializerInputs(model);
  CheckFiniteWeights(model);
  NodeHistory history(model);
  const HalfStorage halves(model, SpillFolder(model, context.scratch));
  RemoveConstantAliases(model, [](const Node&) { return false; });
  history.Advance(model, "widening");
  Json notes;
  options.exclude = history.Follow({{"exclude", given.exclude}}, notes).at("exclude");
  Json raised = RaiseOpset(model, kOpset);
  const StoredPass pass = {[&](const std::vector<std::string>& names, const FidelityJudge* judge) {
                             return Make(model, Excluding(names, options), judge, context);
                           },
                           [&](const Model& source, const std::vector<std::string>& names) {
                             return Quantizer(source, Excluding(names, options), context).Run();
                           }};
  const bool is_smoothed = options.smooth == Smooth::kAuto;
  Model out = MakeWithinBounds(model, options.bounds, is_smoothed, pass, context);
  if (is_smoothed && context.calibration != nullptr && !IsSmallEnoughToRun(model)) {
    context.report["smooth"] =
        "off: models of more than " + std::to_string(kRunBytesMax) + " bytes are not run";
  }
  context.report["raised"] = std::move(raised);
  WarnOfSaturation(options.code_range, context.report);
  WarnOfLogPower(model, context.report);
  halves.Restore(out, context.report);
  return out;
}

}  // namespace

extern const PassInfo kQuantizeDynamic;
const PassInfo kQuantizeDynamic = DefinePass<Options, Run>(
    "quantize_dynamic",
    "Computes products in INT8 with scales of activations found at run time; needs no data.",
    [](const Json& options) { return !BoundIn(options).empty(); }, 14);

}  // namespace pared
