// Quantizes weights and activations to INT8, statically, as QuantizeLinear/DequantizeLinear pairs.
//
// Before:  c = Conv(x, w, b)  y = Relu(c)                 y read by another convolution
// After:   xd = DQ(Q(x))  c = Conv(xd, DQ(w int8), DQ(b int32))  y = Relu(c)  yd = DQ(Q(y))
//
// Activations are uint8 with a zero point; weights int8, symmetric, so that pruned weights stay
// zero; biases int32 at the product of both scales. int8_choice.h says which nodes take part.
// First what is float16 or bfloat16 is made float32, in which the rest computes from then on; the
// model is raised to opset 13, which has scales by channel; convolutions of one dimension lose the
// second one that exporters give them; and BatchNormalization and additions by channel are folded
// into convolutions. Where there is a choice - ranges, smoothing,
// nodes to leave float - candidates are measured on calibration samples and the best is kept.
// Declines node by node, with a report; where no node is left, it is an error: an INT8 model
// without INT8 would pass for a success.

#include <algorithm>
#include <memory>
#include <optional>
#include <unordered_set>

#include "base/error.h"
#include "base/joined.h"
#include "passes/constant_aliases.h"
#include "passes/finite_weights.h"
#include "passes/fold_affine.h"
#include "passes/growth.h"
#include "passes/int8_branches.h"
#include "passes/int8_lost.h"
#include "passes/int8_mixed.h"
#include "passes/opset_raise.h"
#include "passes/qoperator.h"
#include "passes/select_nodes.h"
#include "passes/store_tables.h"
#include "passes/unit_axes.h"
#include "passes/widen_halves.h"

namespace pared {

void Fields(FieldVisitor& f, Int8Options& o) {
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
  f.Choice("equalize", o.equalize, {"auto", "off"},
           "Scale the channels between two convolutions so that their weights use one scale alike; "
           "\"auto\": under granularity per_tensor, where the measured SQNR rises.");
  f.Choice(
      "rounding", o.rounding, {"auto", "nearest"},
      "Each weight to its nearest code; \"auto\": so that the weights of a channel make up for "
      "each other's rounding and for the layers before, where the measured SQNR rises.");
  f.Flag("bias_correction", o.bias_correction,
         "Correct each bias by what the rounding of the weights shifts the mean of the result.");
  Fields(f, o.code_range);
  Fields(f, o.bounds);
  f.Choice("keep_as", o.keep_as, {"float32", "float16"},
           "How weighted nodes are stored and computed that return to float or are excluded; those "
           "that float16 does not hold stay float32.");
  f.Flag("sensitivity", o.sensitivity,
         "Report for each node the SQNR of the outputs where it alone is INT8; runs the model "
         "once for each node.");
  f.Flag("tables", o.tables,
         "Tables that Gather looks up, from 16,384 elements, become INT8 with a scale for each "
         "row, or each place of the one axis that is looked up.");
  f.Choice("format", o.format, {"qdq", "qoperator"},
           "Float operators between QuantizeLinear and DequantizeLinear, or quantized operators "
           "(QLinearConv) wherever there is one.");
  f.Choice(
      "target", o.target, {"onnxruntime", "openvino", "pared", "tflite"},
      "What will run the model. For tflite the results of all products get codes, without which "
      "its kernels compute in float. Format \"qoperator\" takes operators of com.microsoft too for "
      "onnxruntime, those of ONNX only for pared, and is refused for openvino, which does not "
      "load it by channel.");
  f.ChoiceList("op_types", o.op_types, {"Conv", "ConvTranspose", "Gemm", "MatMul"},
               "Operators with weights to quantize.");
  f.TextList("exclude", o.exclude, TextRule::kNodeRef,
             "Nodes that stay float; an entry that matches nothing is an error.");
  f.Flag("freeze_inputs", o.freeze_inputs,
         "Take weights that are also graph inputs, and so could be overridden by a caller, as "
         "constants, and drop these inputs.");
}

void Int8Options::Check(const std::string& pointer) const {
  if (format != Format::kQOperator) return;
  if (target == Target::kTflite) {
    throw Error(ErrorCode::kInvalidArgument,
                "format \"qoperator\" has no form in TensorFlow Lite files: \"qdq\" has",
                JoinPointer(pointer, "format"));
  }
  if (target != Target::kOpenvino) return;
  throw Error(ErrorCode::kInvalidArgument,
              "openvino refuses QLinearConv with scales by channel and runs MatMulInteger in "
              "float; format \"qdq\" it runs in INT8",
              JoinPointer(pointer, "format"));
}

namespace {

constexpr int64_t kOpsetOfChannelScales = 13;

// What is INT8 and what is not; the branches, of which `branches` tells, are so by now.
void Report(const Int8Candidate& candidate, const Json& branches, Json& report) {
  report["changed"] = Json::array();
  report["skipped"] = Json::array();
  for (const Node& node : candidate.model.graph.nodes) {
    if (candidate.choice.RoleOf(node) != Int8Role::kCompute) continue;
    report["changed"].push_back({{"node", NodeLabel(node)}});
  }
  std::unordered_set<std::string> told;
  for (const Json& branch : branches) {
    for (const char* key : {"changed", "skipped"}) {
      for (const Json& entry : branch.at("report").at(key)) {
        told.insert(entry.at("node").get<std::string>());
        report[key].push_back(entry);
      }
    }
    for (const Json& warning : branch.at("report").value("warnings", Json::array())) {
      report["warnings"].push_back(branch.at("branch").get<std::string>() + ": " +
                                   warning.get<std::string>());
    }
  }
  for (const SkippedNode& skipped : candidate.choice.skipped) {
    const std::string label = NodeLabel(*skipped.node);
    if (!told.contains(label)) {
      report["skipped"].push_back({{"node", label}, {"reason", skipped.reason}});
    }
  }
}

void SetWeights(int64_t all, int64_t quantized, Json& report) {
  report["weight_count"] = all;
  report["int8_weight_count"] = quantized;
  report["int8_weight_share"] =
      all == 0 ? 0.0 : static_cast<double>(quantized) / static_cast<double>(all);
}

// How many of the weights are INT8 in the end: those that have `scales`, and the branches'.
void ReportWeights(const Int8Candidate& candidate,
                   const std::map<std::string, WeightScales>& scales, const Json& branches,
                   Json& report) {
  int64_t all = 0, quantized = 0;
  for (const WeightSite& site : candidate.scan.sites) all += site.stored.count();
  for (const auto& [node, site] : candidate.choice.weights) {
    if (scales.contains(node->outputs[0])) quantized += site->stored.count();
  }
  for (const Json& branch : branches) {
    const int64_t weights = branch.at("report").at("int8_weight_count");
    all += weights;  // the others are still among the sites
    quantized += weights;
  }
  SetWeights(all, quantized, report);
}

// Tables are weights too; those that the report names are INT8.
void CountTables(const std::vector<std::pair<std::string, int64_t>>& tables, Json& report) {
  int64_t all = report.at("weight_count"), quantized = report.at("int8_weight_count");
  const Json stored = report.value("tables", Json::array());
  for (const auto& [name, count] : tables) {
    all += count;
    if (std::ranges::count(stored, Json(name)) > 0) quantized += count;
  }
  SetWeights(all, quantized, report);
}

// Everything that leaves the result as it is and lets more of the model be INT8.
void Prepare(Model& model, const Int8Exclusions& exclusions, Json& report) {
  report["raised"] = RaiseOpset(model, kOpsetOfChannelScales);
  const auto keep = [&](const Node& node) { return exclusions.Contains(node); };
  RemoveConstantAliases(model, keep);
  report["unit_axes"] = DropUnitAxes(model, keep);
  report["folded"] = Json::array();
  for (const FoldNote& note : FoldAffine(model, keep)) {
    if (note.reason.empty()) report["folded"].push_back(note.node);
  }
  FoldAlpha(model, keep);
}

// Of the branches that have a figure.
void ReportWorst(const Json& branches, Json& report) {
  for (const Json& branch : branches) {
    const auto sqnr_db = branch.at("report").find("calibration_sqnr_db");
    if (sqnr_db == branch.at("report").end()) continue;
    Json& worst = report["calibration_sqnr_db"];
    if (worst.is_null() || *sqnr_db < worst) worst = *sqnr_db;
  }
}

bool IsStored(const Json& tables, const Node& lookup) {
  return !lookup.inputs.empty() && std::ranges::count(tables, Json(lookup.inputs[0])) > 0;
}

// What was found with its tables in INT8, where the bounds hold with them.
Model WithTables(Int8Found& found, const Int8Request& request, PassContext& context) {
  Model stored = found.best.model;
  StoreTables(stored, request.exclusions->names(), context.report);
  if (context.report["tables"].empty()) return std::move(found.best.model);
  const Nearness nearness = found.judge->Compare(stored);
  if (HoldsBounds(stored, nearness, found, request, context)) {
    found.best_near = nearness;
    return stored;
  }
  ForEachNode(found.best.model.graph, [&](const Node& node) {
    if (node.op_type != "Gather" || !IsStored(context.report["tables"], node)) return;
    context.report["skipped"].push_back(
        {{"node", NodeLabel(node)},
         {"reason", "its table in INT8 would leave the bound that is asked for"}});
  });
  context.report["tables"] = Json::array();
  context.report["warnings"].push_back(
      "tables stay float: in INT8 they would leave the bound that is asked for");
  return std::move(found.best.model);
}

// A float copy beside the codes is no surprise where a reader was excluded; it is one in the size.
void WarnOfCopies(const Graph& before, int64_t bytes_before, const Graph& after, Json& report) {
  const StoredTwice twice = FindStoredTwice(before, after, "_quantized");
  if (twice.count > 0) {
    report["warnings"].push_back(
        std::to_string(twice.count) + " weights (\"" + twice.example +
        "\") are stored in INT8 and in float, since nodes that stay float read them too: " +
        std::to_string(twice.bytes) + " bytes");
  }
  const int64_t growth = BytesOf(after) - bytes_before;
  if (growth <= 0) return;
  report["warnings"].push_back("the file grows by about " + std::to_string(growth) +
                               " bytes: codes, scales and nodes that quantize and dequantize "
                               "outweigh what the weights lose");
}

// The model and the branches within it, with the report; nullopt: nothing of it can be INT8.
std::optional<Model> QuantizeGraph(Model model, const Int8Request& request, PassContext& context) {
  Int8Options within = *request.options;
  // The job's labels are not of a branch's outputs.
  within.bounds.max_accuracy_drop = FloatBounds::kAnyDrop;
  within.tables = false;  // those of branches are stored with the others
  const auto quantize = [&](Model branch, PassContext& inner) {
    return QuantizeGraph(std::move(branch), {&within, request.exclusions}, inner);
  };
  const auto is_excluded = [&](const Node& node) { return request.exclusions->Contains(node); };
  const Json branches = QuantizeBranches(model, quantize, is_excluded, context);
  auto candidate = MakeInt8Candidate(std::move(model), request);
  Report(*candidate, branches, context.report);
  if (!branches.empty()) context.report["branches"] = branches;
  ReportWeights(*candidate, {}, branches, context.report);
  if (context.report["changed"].empty()) return std::nullopt;
  if (candidate->choice.weights.empty()) {
    ReportWorst(branches, context.report);
    if (request.options->tables) {
      StoreTables(candidate->model, request.exclusions->names(), context.report);
    }
    return std::move(candidate->model);
  }
  Int8Found found = SearchInt8(std::move(candidate), request, context);
  ReturnToFloat(found, request, context);
  ReportWeights(*found.candidate, found.best.scales, branches, context.report);
  WarnOfLostChannels(found, context.report);
  context.report["weight_code_max"] = found.best.code_max;
  context.report["ranges"] = std::move(found.best.ranges);
  Model quantized =
      request.options->tables ? WithTables(found, request, context) : std::move(found.best.model);
  found.judge->Report(found.best_near, context.report);
  return quantized;
}

Model Quantize(Model model, const Int8Options& given, PassContext& context) {
  Int8Options options = given;
  if (options.target == Int8Options::Target::kPared ||
      options.target == Int8Options::Target::kTflite) {
    options.code_range.target_isa = TargetIsa::kVnni;  // their kernels do not saturate anywhere
  } else {
    WarnOfSaturation(options.code_range, context.report);
  }
  const Int8Exclusions exclusions(model, options.exclude);
  if (options.freeze_inputs || model.ir_version < 4) DropInitializerInputs(model);
  const int64_t bytes_before = BytesOf(model.graph);
  const HalfStorage halves(model, SpillFolder(model, context.scratch));
  CheckFiniteWeights(model);
  Prepare(model, exclusions, context.report);
  const bool has_any = HasNode(model.graph, [&](const Node& node) {
    return std::ranges::count(options.op_types, node.op_type) > 0;
  });
  const Graph before = model.graph;
  const auto tables = FloatTables(model);
  std::optional<Model> quantized =
      QuantizeGraph(std::move(model), {&options, &exclusions}, context);
  if (!quantized) {
    const Json& skipped = context.report["skipped"];
    std::string why = "it has none of the operators " + Joined(options.op_types);
    if (has_any && !skipped.empty()) {
      why = skipped[0].at("node").get<std::string>() + ": " +
            skipped[0].at("reason").get<std::string>();
    }
    throw Error(ErrorCode::kUnsupported, "no node of the model can be quantized: " + why);
  }
  CountTables(tables, context.report);
  if (options.format == Int8Options::Format::kQOperator) {
    context.report["qoperator"] =
        ToQOperators(*quantized, options.target == Int8Options::Target::kOnnxruntime);
  }
  MergeNewConstants(before, quantized->graph);
  halves.Restore(*quantized, context.report);
  WarnOfCopies(before, bytes_before, quantized->graph, context.report);
  context.progress(1);
  return std::move(*quantized);
}

}  // namespace

extern const PassInfo kQuantizeInt8 = DefinePass<Int8Options, Quantize>(
    "quantize_int8", "Quantizes weights and activations to INT8, statically.",
    [](const Json&) { return true; }, 26);

}  // namespace pared
