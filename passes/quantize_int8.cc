// Quantizes weights and activations to INT8, statically, as QuantizeLinear/DequantizeLinear pairs.
//
// Before:  c = Conv(x, w, b)  y = Relu(c)                 y read by another convolution
// After:   xd = DQ(Q(x))  c = Conv(xd, DQ(w int8), DQ(b int32))  y = Relu(c)  yd = DQ(Q(y))
//
// Activations are uint8 with a zero point; weights int8, symmetric, so that pruned weights stay
// zero; biases int32 at the product of both scales. int8_choice.h says which nodes take part.
// First the model is raised to opset 13, which has scales by channel, and BatchNormalization and
// additions by channel are folded into convolutions. Where there is a choice - ranges, smoothing,
// nodes to leave float - candidates are measured on calibration samples and the best is kept.
// Declines node by node, with a report; where no node is left, it is an error: an INT8 model
// without INT8 would pass for a success.

#include <algorithm>
#include <memory>

#include "base/error.h"
#include "model/rewrite.h"
#include "passes/calibrate.h"
#include "passes/fold_affine.h"
#include "passes/int8_fidelity.h"
#include "passes/int8_fit.h"
#include "passes/int8_local.h"
#include "passes/int8_rewrite.h"
#include "passes/int8_smooth.h"
#include "passes/layer_progress.h"
#include "passes/opset_raise.h"
#include "passes/pass.h"
#include "passes/qoperator.h"
#include "passes/select_nodes.h"
#include "passes/store_tables.h"

namespace pared {
namespace {

constexpr int64_t kOpsetOfChannelScales = 13;

enum class Granularity { kPerChannel, kPerTensor };

// Candidates are compared on so many samples, and on more where the model is small.
constexpr int64_t kJudgeSamples = 16, kJudgeSamplesMax = 32;
constexpr int64_t kJudgeMacs = int64_t{1} << 33;
constexpr int64_t kRankSamples = 4;
// A model with less has suffered visibly: some of its nodes return to float, one in kNodesPerFloat
// at most.
constexpr double kPoorDb = 20;
constexpr size_t kNodesPerFloat = 5;
constexpr RangeMethod kRangeMethods[] = {RangeMethod::kPercentile, RangeMethod::kMinMax,
                                         RangeMethod::kMse, RangeMethod::kEntropy};
// A candidate that differs from what is tried first must gain so much to be taken.
constexpr double kGainMinDb = 0.25;

enum class Method { kAuto, kMinMax, kPercentile, kEntropy, kMse, kOutput };
enum class Smooth { kAuto, kOff };
enum class Format { kQdq, kQOperator };
enum class Target { kOnnxruntime, kOpenvino, kPared };
enum class Rounding { kAuto, kNearest };
enum class KeepFloat { kAuto, kOff };

struct Options {
  Granularity granularity = Granularity::kPerChannel;
  Method method = Method::kAuto;
  double percentile = 99.999;
  Smooth smooth = Smooth::kAuto;
  Rounding rounding = Rounding::kAuto;
  bool bias_correction = true;
  bool reduce_range = false;
  KeepFloat keep_float = KeepFloat::kAuto;
  double min_sqnr_db = 0;
  int64_t max_nodes_float = 1000;
  bool sensitivity = false;
  bool tables = true;
  Format format = Format::kQdq;
  Target target = Target::kOnnxruntime;
  std::vector<std::string> op_types = {"Conv", "ConvTranspose", "Gemm", "MatMul"};
  std::vector<std::string> exclude;
  bool freeze_inputs = false;
};

void Fields(FieldVisitor& f, Options& o) {
  f.Choice("granularity", o.granularity, {"per_channel", "per_tensor"},
           "One weight scale for each output channel, or one for each tensor.");
  f.Choice("method", o.method, {"auto", "minmax", "percentile", "entropy", "mse", "output"},
           "How the range of an activation follows from the calibration data. \"output\": it costs "
           "the products that read it the least squared error. \"auto\" measures each on "
           "calibration samples and keeps the one with the highest SQNR.");
  f.Number("percentile", o.percentile, {50, 100},
           "For method \"percentile\": share of the elements inside the range; the rest saturate.");
  f.Choice("smooth", o.smooth, {"auto", "off"},
           "Move the spread of input channels into the weights of matrix products; \"auto\": where "
           "the measured SQNR rises.");
  f.Choice(
      "rounding", o.rounding, {"auto", "nearest"},
      "Each weight to its nearest code; \"auto\": so that the weights of a channel make up for "
      "each other's rounding and for the layers before, where the measured SQNR rises.");
  f.Flag("bias_correction", o.bias_correction,
         "Correct each bias by what the rounding of the weights shifts the mean of the result.");
  f.Flag("reduce_range", o.reduce_range,
         "Weights of 7 bits, for machines whose INT8 products saturate at 16 bits.");
  f.Choice("keep_float", o.keep_float, {"auto", "off"},
           "The most sensitive nodes return to float, one in five at most, where the worst output "
           "would have less than 20 dB; or none do.");
  f.Number("min_sqnr_db", o.min_sqnr_db, {0, 200},
           "As many of the most sensitive nodes return to float as it takes for the worst output "
           "to have this SQNR on calibration samples; 0: keep_float decides.");
  f.Integer("max_nodes_float", o.max_nodes_float, {0, 1000000},
            "So many nodes at most return to float; where min_sqnr_db needs more, it is an error.");
  f.Flag("sensitivity", o.sensitivity,
         "Report for each node the SQNR of the outputs where it alone is INT8; runs the model "
         "once for each node.");
  f.Flag("tables", o.tables,
         "Tables that Gather looks up, from 16,384 elements, become INT8 with a scale a row.");
  f.Choice("format", o.format, {"qdq", "qoperator"},
           "Float operators between QuantizeLinear and DequantizeLinear, or quantized operators "
           "(QLinearConv) wherever there is one.");
  f.Choice("target", o.target, {"onnxruntime", "openvino", "pared"},
           "What will run the model. Format \"qoperator\" takes operators of com.microsoft too for "
           "onnxruntime, those of ONNX only for pared, and is refused for openvino, which does not "
           "load it by channel.");
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
  const std::unordered_set<std::string>& names() const { return names_; }

 private:
  std::unordered_set<std::string> names_;
};

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
  FoldAlpha(model, keep);
}

// A float model and what of it becomes INT8. Pointers lead into `model`, so it stays where it is.
struct Candidate {
  Model model;
  std::unique_ptr<GraphIndex> index;
  WeightScan scan;
  Int8ChoiceContext context;
  Int8Choice choice;
};

// Outputs of nodes that stay float.
using Values = std::unordered_set<std::string>;

class Search {
 public:
  Search(const Model& model, const Exclusions& exclusions, const Options& options,
         PassContext& context)
      : options_(options), exclusions_(exclusions), context_(context) {
    settings_ = {options.granularity == Granularity::kPerChannel,
                 {RangeMethod::kPercentile, options.percentile, {}},
                 options.bias_correction,
                 options.reduce_range,
                 {}};
    if (options.method != Method::kAuto && options.method != Method::kOutput) {
      settings_.range.method = static_cast<RangeMethod>(static_cast<int>(options.method) - 1);
    }
    float_ = Choose(model, {});
  }

  const Candidate& candidate() const { return *float_; }

  Model Run() {
    calibration_ = Calibrate(float_->model, RequestFor(*float_), context_);
    judge_.emplace(float_->model, context_, JudgeSamples());
    settings_.range.known = KnownRanges();
    Try();
    SmoothProducts();
    ChooseMethod();
    FitWeights();
    ReportSensitivity();
    ReturnToFloat();
    context_.report["ranges"] = std::move(best_.ranges);
    context_.report["calibration_sqnr_db"] = best_db_;
    return std::move(best_.model);
  }

 private:
  std::unique_ptr<Candidate> Choose(Model model, const Values& kept_float) const {
    auto candidate = std::make_unique<Candidate>();
    Candidate& c = *candidate;
    c.model = std::move(model);
    c.index = std::make_unique<GraphIndex>(c.model.graph);
    c.scan = FindWeights(c.model);
    c.context = {&c.model, c.index.get(), &c.scan, InferShapes(c.model), {}};
    const auto& types = options_.op_types;
    for (const Node& node : c.model.graph.nodes) {
      const bool has_weight_type = std::ranges::find(types, node.op_type) != types.end();
      const bool is_weighted = node.op_type == "Conv" || node.op_type == "ConvTranspose" ||
                               node.op_type == "Gemm" || node.op_type == "MatMul";
      const bool is_kept = !node.outputs.empty() && kept_float.contains(node.outputs[0]);
      if (exclusions_.Contains(node) || is_kept || (is_weighted && !has_weight_type)) {
        c.context.excluded.insert(&node);
      }
    }
    c.choice = ChooseInt8(c.context);
    return candidate;
  }

  int64_t JudgeSamples() const {
    int64_t macs = 1;
    for (const auto& [node, site] : float_->choice.weights) {
      const auto type = float_->context.types.find(node->outputs[0]);
      int64_t outputs = 1;
      if (type != float_->context.types.end() && type->second.shape) {
        for (const Dim& dim : *type->second.shape) outputs *= std::max<int64_t>(1, dim.value);
      }
      macs += outputs * site->layout.k;
    }
    return std::clamp(kJudgeMacs / macs, kJudgeSamples, kJudgeSamplesMax);
  }

  // With the outputs of all nodes that take part: with fewer INT8 nodes others are quantized.
  CalibrationRequest RequestFor(const Candidate& candidate) const {
    const Int8Choice& choice = candidate.choice;
    CalibrationRequest request;
    // Another candidate of the search may ask for more than the ends.
    request.with_bins = options_.method != Method::kMinMax || context_.shared != nullptr;
    request.values = choice.values;
    for (const auto& [node, site] : choice.weights) {
      if (site->input == 0) continue;
      const bool is_conv = node->op_type == "Conv" || node->op_type == "ConvTranspose";
      const bool is_transposed = node->op_type == "Gemm" && node->Int("transA", 0) != 0;
      request.channels[node->inputs[0]] = is_conv ? 1 : is_transposed ? 0 : -1;
    }
    return request;
  }

  // Measures the present candidate; keeps it where it gains. True: it does.
  bool Try(double gain_min_db = 0) {
    Int8Rewrite tried = RewriteInt8(float_->context, float_->choice, calibration_, settings_);
    const double sqnr_db = judge_->SqnrDb(tried.model);
    if (!best_.model.graph.nodes.empty() && sqnr_db < best_db_ + gain_min_db) return false;
    best_ = std::move(tried);
    best_db_ = sqnr_db;
    return true;
  }

  // Kept where it raises the SQNR of the outputs.
  void SmoothProducts() {
    Json& report = context_.report["smoothed"] = Json::array();
    if (options_.smooth == Smooth::kOff) return;
    const SmoothingFactors factors =
        ChooseSmoothing(float_->context, float_->choice, calibration_, context_);
    if (factors.empty()) return;
    Smoothing smoothing = SmoothInt8(float_->context, float_->choice, factors);
    std::unique_ptr<Candidate> plain = Choose(std::move(smoothing.model), {});
    std::swap(plain, float_);
    Calibration plain_calibration = Calibrate(float_->model, RequestFor(*float_), context_);
    std::swap(plain_calibration, calibration_);
    ValueRanges plain_ranges = std::move(settings_.range.known);
    settings_.range.known = KnownRanges();
    if (Try(kGainMinDb)) {
      report = smoothing.values;
      return;
    }
    float_ = std::move(plain);
    calibration_ = std::move(plain_calibration);
    settings_.range.known = std::move(plain_ranges);
  }

  ValueRanges KnownRanges() {
    const bool is_chosen = options_.method == Method::kAuto || options_.method == Method::kOutput;
    if (!is_chosen) return {};
    return ChooseRanges(float_->context, float_->choice, calibration_, context_);
  }

  void ChooseMethod() {
    if (options_.method != Method::kAuto) return;
    constexpr const char* kNames[] = {"minmax", "percentile", "entropy", "mse"};
    context_.report["method"] = "output";
    Int8Settings best = settings_;
    settings_.range.known.clear();
    for (const RangeMethod method : kRangeMethods) {
      settings_.range.method = method;
      if (!Try(kGainMinDb)) continue;
      best = settings_;
      context_.report["method"] = kNames[static_cast<int>(method)];
    }
    settings_ = std::move(best);
  }

  void FitWeights() {
    if (options_.rounding == Rounding::kNearest) return;
    settings_.fitted = FitInt8Weights(float_->context, float_->choice, best_, context_);
    const double before = best_db_;
    const bool gains = Try();
    context_.report["rounding"] = {{"nearest_sqnr_db", before}, {"second_order", gains}};
    if (!gains) settings_.fitted.clear();
  }

  // The compute nodes by the SQNR of their outputs, the worst first.
  std::vector<std::pair<double, const Node*>> BySensitivity() const {
    const std::map<std::string, double> sqnr =
        NodeSqnrDb(float_->model, float_->choice, best_.model, context_);
    std::vector<std::pair<double, const Node*>> order;
    for (const Node& node : float_->model.graph.nodes) {
      const auto found = sqnr.find(node.outputs.empty() ? "" : node.outputs[0]);
      if (found != sqnr.end()) order.emplace_back(found->second, &node);
    }
    std::ranges::stable_sort(order, {}, [](const auto& entry) { return entry.first; });
    return order;
  }

  void ReportSensitivity() {
    order_ = BySensitivity();
    Json& report = context_.report["sensitivity"] = Json::array();
    size_t index = 0;
    for (const auto& [sqnr_db, node] : order_) {
      Json entry = {{"node", NodeLabel(*node)}, {"sqnr_db", sqnr_db}};
      TellLayer(context_, NodeLabel(*node), ++index, order_.size());
      if (options_.sensitivity) entry["output_sqnr_db"] = AloneSqnrDb(*node, *judge_);
      report.push_back(std::move(entry));
    }
  }

  double AloneSqnrDb(const Node& alone, const FidelityJudge& judge) const {
    Values others;
    for (const auto& [sqnr_db, node] : order_) {
      if (node != &alone) others.insert(node->outputs[0]);
    }
    return judge.SqnrDb(WithFloat(others).model);
  }

  Int8Rewrite WithFloat(const Values& kept_float) const {
    const auto candidate = Choose(float_->model, kept_float);
    Calibration calibration = calibration_;
    const auto unseen = [&](const std::string& value) {
      return !calibration.sketches.contains(value);
    };
    if (std::ranges::any_of(candidate->choice.values, unseen)) {
      calibration = Calibrate(candidate->model, RequestFor(*candidate), context_);
    }
    return RewriteInt8(candidate->context, candidate->choice, calibration, settings_);
  }

  // The nodes whose INT8 form alone costs the outputs most, the worst first.
  std::vector<const Node*> ByOutputSqnr() {
    const FidelityJudge judge(float_->model, context_, kRankSamples);
    std::vector<std::pair<double, const Node*>> ranked;
    for (const auto& [sqnr_db, node] : order_) ranked.emplace_back(AloneSqnrDb(*node, judge), node);
    std::ranges::stable_sort(ranked, {}, &std::pair<double, const Node*>::first);
    std::vector<const Node*> nodes;
    for (const auto& [sqnr_db, node] : ranked) nodes.push_back(node);
    return nodes;
  }

  // The least number of the most sensitive nodes that suffices, by bisection.
  void ReturnToFloat() {
    if (options_.min_sqnr_db > 0 && best_db_ < options_.min_sqnr_db) {
      const double reached =
          ReturnToFloat(options_.min_sqnr_db, static_cast<size_t>(options_.max_nodes_float));
      if (reached >= options_.min_sqnr_db) return;
      throw Error(ErrorCode::kUnsupported,
                  "min_sqnr_db is not reached: " + std::to_string(reached) + " dB with " +
                      std::to_string(options_.max_nodes_float) + " nodes in float at most");
    }
    if (options_.min_sqnr_db > 0 || options_.keep_float == KeepFloat::kOff) return;
    const size_t most =
        std::min(order_.size() / kNodesPerFloat, static_cast<size_t>(options_.max_nodes_float));
    if (best_db_ < kPoorDb) ReturnToFloat(kPoorDb, most);
  }

  double ReturnToFloat(double wanted_db, size_t most) {
    const std::vector<const Node*> nodes = ByOutputSqnr();
    // With none left the model would be no INT8 model.
    size_t low = 0, high = std::min(nodes.size() - 1, most), kept = 0;
    const auto attempt = [&](size_t count) {
      Values outputs;
      for (size_t i = 0; i < count; ++i) outputs.insert(nodes[i]->outputs[0]);
      Int8Rewrite tried = WithFloat(outputs);
      const double sqnr_db = judge_->SqnrDb(tried.model);
      const bool holds = sqnr_db >= wanted_db;
      if (holds || sqnr_db > best_db_) {
        best_ = std::move(tried);
        best_db_ = sqnr_db;
        kept = count;
      }
      return holds;
    };
    if (high > 0 && attempt(high)) {
      while (high - low > 1) {
        const size_t middle = low + (high - low) / 2;
        (attempt(middle) ? high : low) = middle;
      }
    }
    ReportFloat({nodes.begin(), nodes.begin() + static_cast<int64_t>(kept)});
    return best_db_;
  }

  void ReportFloat(const std::vector<const Node*>& nodes) {
    Json& report = context_.report["returned_to_float"] = Json::array();
    std::unordered_set<std::string> returned;
    for (const Node* node : nodes) {
      report.push_back(NodeLabel(*node));
      returned.insert(NodeLabel(*node));
    }
    std::erase_if(context_.report["changed"].get_ref<Json::array_t&>(), [&](const Json& entry) {
      return returned.contains(entry.at("node").get<std::string>());
    });
  }

  const Options& options_;
  const Exclusions& exclusions_;
  PassContext& context_;
  Int8Settings settings_;
  std::unique_ptr<Candidate> float_;  // smoothed where that was kept
  Calibration calibration_;
  std::optional<FidelityJudge> judge_;
  Int8Rewrite best_;
  double best_db_ = 0;
  std::vector<std::pair<double, const Node*>> order_;
};

Model Quantize(Model model, const Options& options, PassContext& context) {
  if (options.format == Format::kQOperator && options.target == Target::kOpenvino) {
    throw Error(ErrorCode::kInvalidArgument,
                "openvino refuses QLinearConv with scales by channel and runs MatMulInteger in "
                "float; format \"qdq\" it runs in INT8",
                "format");
  }
  const Exclusions exclusions(model, options.exclude);
  if (options.freeze_inputs || model.ir_version < 4) DropInitializerInputs(model);
  Prepare(model, exclusions, context.report);
  Search search(model, exclusions, options, context);
  const Candidate& candidate = search.candidate();
  Report(candidate.choice, candidate.model, candidate.scan, context.report);
  if (candidate.choice.weights.empty()) {
    const std::vector<SkippedNode>& skipped = candidate.choice.skipped;
    throw Error(ErrorCode::kUnsupported,
                "no node of the model can be quantized: " +
                    (skipped.empty() ? "it has no weighted operator"
                                     : NodeLabel(*skipped[0].node) + ": " + skipped[0].reason));
  }
  Model quantized = search.Run();
  if (options.tables) StoreTables(quantized, exclusions.names(), context.report);
  if (options.format == Format::kQOperator) {
    context.report["qoperator"] = ToQOperators(quantized, options.target == Target::kOnnxruntime);
  }
  context.progress(1);
  return quantized;
}

}  // namespace

extern const PassInfo kQuantizeInt8 = DefinePass<Options, Quantize>(
    "quantize_int8", "Quantizes weights and activations to INT8, statically.",
    [](const Json&) { return true; }, 5);

}  // namespace pared
