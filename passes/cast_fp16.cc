// Stores and computes in float16 what float16 can hold.
//
// Before:  y = Conv(x, w)  z = Resize(y, roi, scales)     float x, z, w, scales
// After:   x_fp16 = Cast(x)  y = Conv(x_fp16, w)  z_fp16 = Resize(y, roi, scales)  z = Cast(z_fp16)
//
// The graph's inputs and outputs keep name, order and type; within subgraphs too. A value is cast
// once for each type and graph, before its first reader that needs it. Declines node by node, with
// a report: constants out of range, values that calibration sees above a quarter of the range,
// differences that cancel, operators without float16, integers held as float. Where no node is left
// the model is unchanged.

#include <algorithm>

#include "passes/decided_lengths.h"
#include "passes/finite_weights.h"
#include "passes/growth.h"
#include "passes/half_rewrite.h"
#include "passes/int8_fidelity.h"
#include "passes/pass.h"
#include "passes/select_nodes.h"
#include "passes/store_half.h"
#include "passes/weights.h"

namespace pared {
namespace {

enum class Type { kFloat16, kBFloat16 };
enum class Compute { kAuto, kFloat32 };

struct Options {
  Type type = Type::kFloat16;
  Compute compute = Compute::kAuto;
  bool keep_io = true;
  bool freeze_inputs = false;
  std::vector<std::string> exclude;
};

void Fields(FieldVisitor& f, Options& o) {
  f.Choice("type", o.type, {"float16", "bfloat16"}, "In which weights are stored.");
  f.Choice(
      "compute", o.compute, {"auto", "float32"},
      "\"auto\": float16 in float16; bfloat16, for which ONNX Runtime's CPU has no arithmetic, "
      "in float32.");
  f.Flag("keep_io", o.keep_io, "The graph's inputs and outputs stay float32.");
  f.Flag("freeze_inputs", o.freeze_inputs,
         "Take weights that are also graph inputs, and so could be overridden by a caller, as "
         "constants, and drop these inputs; otherwise they stay float32.");
  f.TextList("exclude", o.exclude, TextRule::kNodeRef,
             "Nodes that stay float32; an entry that matches nothing is an error.");
}

void Report(const Model& model, const HalfChoice& choice, Json& report) {
  report["changed"] = Json::array();
  report["skipped"] = Json::array();
  ForEachNode(model.graph, [&](const Node& node) {
    if (choice.half.contains(&node)) report["changed"].push_back({{"node", NodeLabel(node)}});
    const auto kept = choice.kept.find(&node);
    if (kept == choice.kept.end()) return;
    report["skipped"].push_back({{"node", NodeLabel(node)}, {"reason", kept->second}});
  });
  for (const auto& [name, initializer] : model.graph.initializers) {
    if (initializer.tensor.dtype() != DType::kFloat32) continue;
    if (model.ir_version >= 4 && IsAmong(model.graph.inputs, name)) {
      report["inputs"].push_back(
          {{"name", name}, {"reason", "stays float32: a caller may override it"}});
    }
    const HalfLoss loss = LossOf(initializer.tensor);
    if (loss.overflow + loss.underflow + loss.subnormal == 0) continue;
    report["tensors"].push_back({{"name", name},
                                 {"overflow", loss.overflow},
                                 {"underflow", loss.underflow},
                                 {"subnormal", loss.subnormal}});
  }
}

// A constant that nodes of both types read is stored twice; that, or the Casts, may outweigh what
// halves.
void WarnOfGrowth(const Graph& before, const Graph& after, Json& report) {
  const int64_t growth = BytesOf(after) - BytesOf(before);
  if (growth <= 0) return;
  int64_t casts = 0;
  ForEachNode(after, [&](const Node& node) { casts += node.op_type == "Cast" ? 1 : 0; });
  ForEachNode(before, [&](const Node& node) { casts -= node.op_type == "Cast" ? 1 : 0; });
  std::string why = std::to_string(casts) + " Casts are added";
  const StoredTwice twice = FindStoredTwice(before, after, "_fp16");
  if (twice.count > 0) {
    why = std::to_string(twice.count) +
          " constants are stored in both types, since nodes that stay float32 read them too (\"" +
          twice.example + "\"), and " + why;
  }
  report["warnings"].push_back("the file grows by about " + std::to_string(growth) +
                               " bytes: " + why);
}

// Chooses by what is seen when the model runs with every result rounded to float16.
class Verifier {
 public:
  Verifier(const Model& model, Reasons single, PassContext& context)
      : model_(model),
        single_(std::move(single)),
        context_(context),
        ranges_(MeasureRanges(model, context)) {}

  HalfChoice Run() {
    HalfChoice choice = Finite();
    if (ranges_.empty() || choice.half.empty()) return choice;
    const FidelityJudge judge(model_, context_, kJudgeSamples);
    // What is float16 within the model keeps its name.
    const auto compare = [&](const HalfChoice& of) {
      return judge.Compare(WithHalf(model_, of, context_));
    };
    Nearness nearness = compare(choice);
    const auto take_where_better = [&](HalfChoice other) {
      const Nearness of_other = other.half.empty() ? Nearness() : compare(other);
      if (of_other.sqnr_db < nearness.sqnr_db + kGainDb) return;
      choice = std::move(other);
      nearness = of_other;
    };
    if (nearness.sqnr_db < kEnoughDb) {
      Reasons more = FindCancelling(model_, context_);
      const bool has_more = !more.empty();
      single_.merge(more);
      if (has_more) take_where_better(Finite());
    }
    // What is not measured may be at fault: the rules for no data are stricter.
    if (nearness.sqnr_db < kEnoughDb) take_where_better(ChooseHalfNodes(model_, single_, {}));
    judge.Report(nearness, context_.report, "exclude the nodes that are most sensitive");
    return choice;
  }

 private:
  static constexpr int64_t kJudgeSamples = 16;
  // Below, differences that cancel are looked for; and kept in float where that gains as much.
  static constexpr double kEnoughDb = 45, kGainDb = 3;

  HalfChoice Finite() { return ChooseFiniteHalf(model_, single_, ranges_, context_); }

  const Model& model_;
  Reasons single_;
  PassContext& context_;
  const HalfRanges ranges_;
};

Model CastToHalf(Model model, const Options& options, PassContext& context) {
  if (options.freeze_inputs) DropInitializerInputs(model);
  CheckFiniteWeights(model);
  const auto excluded = SelectNodes(model, options.exclude, "exclude");
  if (options.type == Type::kBFloat16 || options.compute == Compute::kFloat32) {
    const DType dtype = options.type == Type::kBFloat16 ? DType::kBFloat16 : DType::kFloat16;
    return StoreInHalf(std::move(model), dtype, excluded, context);
  }
  Reasons single;
  for (const Node* node : excluded) single.emplace(node, "excluded");
  for (const Node* node : NodesThatDecideLengths(model)) {
    single.emplace(node, kDecidesLength);
  }
  const HalfChoice choice = Verifier(model, std::move(single), context).Run();
  Report(model, choice, context.report);
  if (choice.half.empty()) return model;
  if (model.ir_version < 4)
    DropInitializerInputs(model);  // the nodes stay where they are: the choice still points at them
  Graph graph = RewriteHalf(model, choice, options.keep_io, context);
  WarnOfGrowth(model.graph, graph, context.report);
  model.graph = std::move(graph);
  return model;
}

}  // namespace

extern const PassInfo kCastFp16 = DefinePass<Options, CastToHalf>(
    "cast_fp16", "Stores weights in 16-bit floats, and computes in float16 what float16 can hold.",
    [](const Json&) { return false; }, 15);

}  // namespace pared
